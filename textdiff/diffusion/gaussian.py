"""Gaussian diffusion in log-SNR form: the forward process, its posterior, and the pair (x0, eps) every network is turned into.

With lambda = log SNR the variance-preserving process is `x_t = alpha x0 + sigma eps`, `alpha^2 = sigmoid(lambda)`,
`sigma^2 = sigmoid(-lambda)`. Nothing here knows of steps or schedules, nor what the data are.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Prediction(NamedTuple):
    """What a network says of x_t, in both forms: `x_t = alpha x0 + sigma eps` holds for the pair."""

    x0: Float[Tensor, "b *d"]
    eps: Float[Tensor, "b *d"]


class Gaussian(NamedTuple):
    """A diagonal Gaussian; `var` is the variance, not the standard deviation."""

    mean: Float[Tensor, "b *d"]
    var: Float[Tensor, "b *#d"]


Denoiser = Callable[[Float[Tensor, "b *d"], Float[Tensor, " b"]], Prediction]  # (x_t, log SNR) -> Prediction


class AlphaSigma(NamedTuple):
    alpha: Float[Tensor, "b *#d"]
    sigma: Float[Tensor, "b *#d"]


def expand(per_sample: Float[Tensor, " b"], like: Float[Tensor, "b *d"]) -> Float[Tensor, "b *#d"]:
    """Views one number a sample so that it multiplies `like`; the core broadcasts nowhere else."""
    return per_sample.view(-1, *[1] * (like.ndim - 1))


def alpha_sigma(logsnr: Float[Tensor, " b"], like: Float[Tensor, "b *d"]) -> AlphaSigma:
    """Signal and noise scale of the variance-preserving process (VDM, arXiv:2107.00630, sec. 3.1). Infinite log SNR is exact."""
    logsnr = expand(logsnr, like)
    return AlphaSigma(logsnr.sigmoid().sqrt(), (-logsnr).sigmoid().sqrt())


def diffuse(x0: Float[Tensor, "b *d"], logsnr: Float[Tensor, " b"], eps: Float[Tensor, "b *d"]) -> Float[Tensor, "b *d"]:
    """A draw of q(x_t | x_0), given its standard normal eps: DDPM (arXiv:2006.11239) eq. 4."""
    alpha, sigma = alpha_sigma(logsnr, x0)
    return alpha * x0 + sigma * eps


def transition(x_s: Float[Tensor, "b *d"], logsnr_s: Float[Tensor, " b"], logsnr_t: Float[Tensor, " b"]) -> Gaussian:
    """q(x_t | x_s) for s before t (log SNR falls): the k-step jump of the chain in log-SNR form."""
    alpha_s, _ = alpha_sigma(logsnr_s, x_s)
    alpha_t, sigma_t = alpha_sigma(logsnr_t, x_s)
    return Gaussian(alpha_t / alpha_s * x_s, -(sigma_t**2) * expand(logsnr_t - logsnr_s, x_s).expm1())


def posterior(x0: Float[Tensor, "b *d"], x_t: Float[Tensor, "b *d"], logsnr_s: Float[Tensor, " b"], logsnr_t: Float[Tensor, " b"]) -> Gaussian:
    """q(x_s | x_t, x_0) for s before t: DDPM eq. 6-7 in log-SNR form. `logsnr_s = inf` gives x0 with variance 0."""
    alpha_s, sigma_s = alpha_sigma(logsnr_s, x_t)
    alpha_t, sigma_t = alpha_sigma(logsnr_t, x_t)
    new_noise = -expand(logsnr_t - logsnr_s, x_t).expm1()  # 1 - SNR_t / SNR_s
    mean = alpha_s * new_noise * x0 + (alpha_t / alpha_s) * (sigma_s / sigma_t) ** 2 * x_t
    return Gaussian(mean, sigma_s**2 * new_noise)


def from_eps(x_t: Float[Tensor, "b *d"], logsnr: Float[Tensor, " b"], eps: Float[Tensor, "b *d"]) -> Prediction:
    """Reads a network's output as the noise. At log SNR = -inf (alpha = 0) the noise does not determine x0: the result is not finite."""
    alpha, sigma = alpha_sigma(logsnr, x_t)
    return Prediction((x_t - sigma * eps) / alpha, eps)


def from_x0(x_t: Float[Tensor, "b *d"], logsnr: Float[Tensor, " b"], x0: Float[Tensor, "b *d"]) -> Prediction:
    """Reads a network's output as the clean data."""
    alpha, sigma = alpha_sigma(logsnr, x_t)
    return Prediction(x0, (x_t - alpha * x0) / sigma)


def from_v(x_t: Float[Tensor, "b *d"], logsnr: Float[Tensor, " b"], v: Float[Tensor, "b *d"]) -> Prediction:
    """Reads a network's output as `v = alpha eps - sigma x0` (progressive distillation, arXiv:2202.00512, app. D)."""
    alpha, sigma = alpha_sigma(logsnr, x_t)
    return Prediction(alpha * x_t - sigma * v, sigma * x_t + alpha * v)


def from_score(x_t: Float[Tensor, "b *d"], logsnr: Float[Tensor, " b"], score: Float[Tensor, "b *d"]) -> Prediction:
    """Reads a network's output as the score grad log q(x_t) = -eps / sigma (note the sign)."""
    _, sigma = alpha_sigma(logsnr, x_t)
    return from_eps(x_t, logsnr, -sigma * score)


def from_mean(x_t: Float[Tensor, "b *d"], logsnr_s: Float[Tensor, " b"], logsnr_t: Float[Tensor, " b"], mean: Float[Tensor, "b *d"]) -> Prediction:
    """Reads a network's output as the posterior mean of q(x_s | x_t, x_0), the notes' mu-parameterization."""
    zero = torch.zeros_like(x_t)
    per_x_t = posterior(zero, torch.ones_like(x_t), logsnr_s, logsnr_t).mean
    per_x0 = posterior(torch.ones_like(x_t), zero, logsnr_s, logsnr_t).mean
    return from_x0(x_t, logsnr_t, (mean - per_x_t * x_t) / per_x0)


def to_v(prediction: Prediction, logsnr: Float[Tensor, " b"]) -> Float[Tensor, "b *d"]:
    """v of a prediction: the inverse of `from_v`."""
    alpha, sigma = alpha_sigma(logsnr, prediction.eps)
    return alpha * prediction.eps - sigma * prediction.x0


def to_score(prediction: Prediction, logsnr: Float[Tensor, " b"]) -> Float[Tensor, "b *d"]:
    """Score of a prediction, -eps / sigma: the inverse of `from_score`."""
    _, sigma = alpha_sigma(logsnr, prediction.eps)
    return -prediction.eps / sigma


PREDICTIONS: dict[str, Callable[..., Prediction]] = {"eps": from_eps, "x0": from_x0, "v": from_v, "score": from_score}
