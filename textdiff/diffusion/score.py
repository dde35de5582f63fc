"""Score matching: four objectives with one minimum, the score grad log p, and Langevin dynamics, which draws from p by its score alone.

A `Score` is a function of x. Objectives are nats a sample: half the squared error summed over dimensions, up to a constant (explicit and
denoising) or including it (implicit and sliced). A denoiser is a score at every noise level: s = -eps / sigma (`gaussian.to_score`).
"""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from textdiff.diffusion.gaussian import Denoiser, alpha_sigma, expand
from textdiff.diffusion.samplers import Generators, Step, randn_like

Score = Callable[[Float[Tensor, "b *d"]], Float[Tensor, "b *d"]]

# --- objectives


def explicit(score: Score, x: Float[Tensor, "b *d"], truth: Score) -> Float[Tensor, " b"]:
    """1/2 |s(x) - grad log p(x)|^2: what one wants, and knows in closed form only for examples."""
    return _half_square(score(x) - truth(x))


def implicit(score: Score, x: Float[Tensor, "b *d"]) -> Float[Tensor, " b"]:
    """1/2 |s(x)|^2 + tr ds/dx, on average the explicit objective less 1/2 E|grad log p|^2 (Hyvarinen, 2005, theorem 1). d backward passes."""
    s, trace = value_and_trace(score, x)
    return _half_square(s) + trace


def sliced(score: Score, x: Float[Tensor, "b *d"], v: Float[Tensor, "b *d"], *, reduced: bool = True) -> Float[Tensor, " b"]:
    """The same with the trace along one random direction v, of mean 0 and covariance I (Song et al., arXiv:1905.07088, eq. 8); `reduced`: with
    |s|^2 exact, less noisy, instead of (v s)^2. One backward pass."""
    s, slope = value_and_slope(score, x, v)
    return (_half_square(s) if reduced else 0.5 * _sum(v * s) ** 2) + _sum(v * slope)


def denoising(score: Score, x: Float[Tensor, "b *d"], sigma: Float[Tensor, " b"], eps: Float[Tensor, "b *d"]) -> Float[Tensor, " b"]:
    """1/2 |s(x + sigma eps) + eps / sigma|^2: on average the explicit objective for the noisy density, plus a constant (Vincent, 2011)."""
    scale = expand(sigma, x)
    return _half_square(score(x + scale * eps) + eps / scale)


def ncsn(score: Score, x: Float[Tensor, "b *d"], sigma: Float[Tensor, " b"], eps: Float[Tensor, "b *d"]) -> Float[Tensor, " b"]:
    """sigma^2 times the denoising objective, so that all levels count alike (NCSN, arXiv:1907.05600, eq. 5-6): half DDPM's eps-loss."""
    return sigma**2 * denoising(score, x, sigma, eps)


# --- the trace of the score's derivative


def value_and_slope(score: Score, x: Float[Tensor, "b *d"], v: Float[Tensor, "b *d"]) -> tuple[Float[Tensor, "b *d"], Float[Tensor, "b *d"]]:
    """s(x) and (ds/dx)^T v. Both can be differentiated again."""
    with torch.enable_grad():
        x = x if x.requires_grad else x.detach().requires_grad_()
        s = score(x)
        (slope,) = torch.autograd.grad((s * v).sum(), x, create_graph=True)
    return s, slope


def value_and_trace(score: Score, x: Float[Tensor, "b *d"]) -> tuple[Float[Tensor, "b *d"], Float[Tensor, " b"]]:
    """s(x) and its exact trace, one direction after the other."""
    size = x[0].numel()
    units = torch.eye(size, dtype=x.dtype, device=x.device).view(size, *x.shape[1:])
    found = [value_and_slope(score, x, unit.expand_as(x)) for unit in units]
    return found[0][0], sum((_sum(unit * slope) for unit, (_, slope) in zip(units, found, strict=True)), x.new_zeros(len(x)))


def rademacher(x: Float[Tensor, "b *d"], generator: Generators) -> Float[Tensor, "b *d"]:
    """Signs. The trace's estimate v J v has variance 2 sum_{i != j} J_ij^2 for symmetric J; with Gaussian v it is 2 sum_{i, j} J_ij^2."""
    return randn_like(x, generator).sign()


# --- Langevin dynamics


def langevin(score: Score, x: Float[Tensor, "b *d"], h: float, steps: int, *, generator: Generators) -> Iterator[Float[Tensor, "b *d"]]:
    """x + h/2 s(x) + sqrt(h) z, again and again: draws from p for h -> 0; on N(0, 1) its variance is 1 / (1 - h/4)."""
    for _ in range(steps):
        x = x + h / 2 * score(x) + h**0.5 * randn_like(x, generator)
        yield x


def annealed_langevin(
    denoise: Denoiser, x: Float[Tensor, "b *d"], logsnrs: Float[Tensor, " n"], *, generator: Generators, repeat: int = 10, pace: float = 0.2
) -> Iterator[Step]:
    """NCSN's sampler (arXiv:1907.05600, algorithm 1), with a denoiser as the score and its noise levels, from noise to data, as the ladder.

    In NCSN's coordinates y = x / alpha has noise of size sigma / alpha; each level takes `repeat` Langevin steps of `pace` times that size squared.
    """
    y = x / alpha_sigma(logsnrs[:1].to(x).expand(len(x)), x).alpha
    for index, logsnr in enumerate(logsnrs, 1):
        level = logsnr.to(x).expand(len(x))
        alpha, sigma = alpha_sigma(level, x)
        for _ in range(repeat):
            x0, eps = denoise(alpha * y, level)
            y = y - pace / 2 * sigma / alpha * eps + pace**0.5 * sigma / alpha * randn_like(y, generator)
        yield Step(index, alpha * y, x0, logsnr)


def _half_square(s: Float[Tensor, "b *d"]) -> Float[Tensor, " b"]:
    return 0.5 * _sum(s**2)


def _sum(each: Float[Tensor, "b *d"]) -> Float[Tensor, " b"]:
    return each.flatten(1).sum(1)
