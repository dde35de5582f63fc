"""Score matching with four objectives that share one minimum, and Langevin dynamics.

A `Score` is a function x -> grad log p(x). Objectives are in nats per sample: half the squared
error, summed over dimensions, plus a constant for `denoising`, minus a constant for `implicit` and
`sliced`. A denoiser is a score at every log SNR: s = -eps / sigma (`gaussian.to_score`).
"""

from collections.abc import Callable, Iterator

import torch

from textdiff.diffusion.gaussian import Denoiser, PerSample, X, alpha_sigma, expand
from textdiff.diffusion.samplers import Generators, LogSNRs, Step, randn_like

Score = Callable[[X], X]


def explicit(score: Score, x: X, true_score: Score) -> PerSample:
    """Explicit score matching: 1/2 |s(x) - grad log p(x)|^2.

    The true score is known in closed form for examples only.
    """
    return _half_square(score(x) - true_score(x))


def implicit(score: Score, x: X) -> PerSample:
    """Implicit score matching: 1/2 |s(x)|^2 + tr ds/dx, one backward pass per dimension.

    Its mean is that of `explicit` less 1/2 E|grad log p|^2 (Hyvarinen, 2005, theorem 1).
    """
    s, trace = value_and_trace(score, x)
    return _half_square(s) + trace


def sliced(score: Score, x: X, v: X, *, variance_reduction: bool = True) -> PerSample:
    """Sliced score matching: `implicit` with an estimated trace, one backward pass.

    The trace is estimated along one random direction v, which has mean 0 and covariance I.
    Variance reduction uses the exact |s|^2 instead of (v^T s)^2. Source: Song et al.,
    arXiv:1905.07088, eq. 8.
    """
    s, vjp = value_and_vjp(score, x, v)
    square = _half_square(s) if variance_reduction else 0.5 * _sum(v * s) ** 2
    return square + _sum(v * vjp)


def denoising(score: Score, x0: X, eps: X, sigma: PerSample) -> PerSample:
    """Denoising score matching: 1/2 |s(x0 + sigma eps) + eps / sigma|^2.

    Its mean is that of `explicit` for the noisy density plus a constant (Vincent, 2011).
    """
    scale = expand(sigma, x0)
    return _half_square(score(x0 + scale * eps) + eps / scale)


def ncsn(score: Score, x0: X, eps: X, sigma: PerSample) -> PerSample:
    """NCSN objective (arXiv:1907.05600, eq. 5-6): sigma^2 times `denoising`.

    The factor balances the noise levels. It is half of DDPM's eps-loss.
    """
    return sigma**2 * denoising(score, x0, eps, sigma)


def value_and_vjp(score: Score, x: X, v: X) -> tuple[X, X]:
    """s(x) and the vector-Jacobian product (ds/dx)^T v. Both are differentiable."""
    with torch.enable_grad():
        x = x if x.requires_grad else x.detach().requires_grad_()
        s = score(x)
        (vjp,) = torch.autograd.grad((s * v).sum(), x, create_graph=True)
    return s, vjp


def value_and_trace(score: Score, x: X) -> tuple[X, PerSample]:
    """s(x) and the exact trace of ds/dx, with one backward pass per dimension."""
    size = x[0].numel()
    units = torch.eye(size, dtype=x.dtype, device=x.device).view(size, *x.shape[1:])
    results = [value_and_vjp(score, x, unit.expand_as(x)) for unit in units]
    diagonal = (_sum(unit * vjp) for unit, (_, vjp) in zip(units, results, strict=True))
    return results[0][0], sum(diagonal, x.new_zeros(len(x)))


def rademacher(x: X, generator: Generators) -> X:
    """Random signs in the shape of x.

    For symmetric J the estimate v^T J v of the trace has variance 2 sum_{i != j} J_ij^2; with
    Gaussian v it is 2 sum_{i, j} J_ij^2.
    """
    return randn_like(x, generator).sign()


def langevin(score: Score, x: X, h: float, steps: int, *, generator: Generators) -> Iterator[X]:
    """Langevin dynamics: iterates x + h/2 s(x) + sqrt(h) z. It samples p as h -> 0.

    For N(0, 1) its stationary variance is 1 / (1 - h/4).
    """
    for _ in range(steps):
        x = x + h / 2 * score(x) + h**0.5 * randn_like(x, generator)
        yield x


def annealed_langevin(
    denoise: Denoiser,
    x: X,
    logsnrs: LogSNRs,
    *,
    generator: Generators,
    steps_per_level: int = 10,
    step_size: float = 0.2,
) -> Iterator[Step]:
    """Annealed Langevin dynamics (NCSN, arXiv:1907.05600, algorithm 1) with a denoiser as score.

    In NCSN's coordinates y = x / alpha the noise has standard deviation sigma / alpha.

    Args:
        denoise: Denoiser.
        x: Noise at log SNR `logsnrs[0]`.
        logsnrs: Rising log SNRs, the noise levels.
        generator: Source of the noise.
        steps_per_level: Langevin steps per noise level.
        step_size: Step size in units of the squared standard deviation of the noise.
    """
    y = x / alpha_sigma(logsnrs[:1].to(x).expand(len(x)), x).alpha
    for index, logsnr in enumerate(logsnrs, 1):
        batched = logsnr.to(x).expand(len(x))
        alpha, sigma = alpha_sigma(batched, x)
        for _ in range(steps_per_level):
            x0, eps = denoise(alpha * y, batched)
            z = randn_like(y, generator)
            y = y - step_size / 2 * sigma / alpha * eps + step_size**0.5 * sigma / alpha * z
        yield Step(index, alpha * y, x0, logsnr)


def _half_square(s: X) -> PerSample:
    return 0.5 * _sum(s**2)


def _sum(values: X) -> PerSample:
    return values.flatten(1).sum(1)
