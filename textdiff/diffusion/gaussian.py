"""Gaussian diffusion in log-SNR form: the forward process, its posterior and predictions.

With lambda = log SNR the variance-preserving process is `x_t = alpha x0 + sigma eps`,
`alpha^2 = sigmoid(lambda)`, `sigma^2 = sigmoid(-lambda)`. Every network output is converted to the
pair (x0, eps) here. The equations hold for any schedule, any steps and any kind of data.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

X = Float[Tensor, "b *d"]
PerSample = Float[Tensor, " b"]
LogSNR = Float[Tensor, "b ..."]  # one per sample, word or other leading coordinate, or element
Broadcast = Float[Tensor, "b *#d"]  # one number per sample, or one per element


class Prediction(NamedTuple):
    """A network's prediction at x_t in both forms: `x_t = alpha x0 + sigma eps` holds for them."""

    x0: X
    eps: X


class Gaussian(NamedTuple):
    """A diagonal Gaussian. `var` is the variance, not the standard deviation."""

    mean: X
    var: Broadcast


Denoiser = Callable[[X, LogSNR], Prediction]  # (x_t, log SNR) -> Prediction


class AlphaSigma(NamedTuple):
    """Signal scale alpha and noise scale sigma."""

    alpha: Broadcast
    sigma: Broadcast


def expand(values: LogSNR, like: X) -> Broadcast:
    """Reshapes one number per sample, or per leading coordinate, to broadcast against `like`."""
    return values.view(*values.shape, *[1] * (like.ndim - values.ndim))


def alpha_sigma(logsnr: LogSNR, like: X) -> AlphaSigma:
    """Signal and noise scale of the variance-preserving process (VDM, arXiv:2107.00630, sec. 3.1).

    They are exact at infinite log SNR.
    """
    logsnr = expand(logsnr, like)
    return AlphaSigma(logsnr.sigmoid().sqrt(), (-logsnr).sigmoid().sqrt())


def diffuse(x0: X, eps: X, logsnr: LogSNR) -> X:
    """Sample of q(x_t | x_0) made from standard normal eps: DDPM (arXiv:2006.11239) eq. 4."""
    alpha, sigma = alpha_sigma(logsnr, x0)
    return alpha * x0 + sigma * eps


def transition(x_s: X, logsnr_s: LogSNR, logsnr_t: LogSNR) -> Gaussian:
    """q(x_t | x_s) for s before t (log SNR falls), over any number of steps at once."""
    alpha_s, _ = alpha_sigma(logsnr_s, x_s)
    alpha_t, sigma_t = alpha_sigma(logsnr_t, x_s)
    var = -(sigma_t**2) * expand(logsnr_t - logsnr_s, x_s).expm1()
    return Gaussian(alpha_t / alpha_s * x_s, var)


def posterior(x0: X, x_t: X, logsnr_s: LogSNR, logsnr_t: LogSNR) -> Gaussian:
    """q(x_s | x_t, x_0) for s before t: DDPM eq. 6-7 in log-SNR form.

    With `logsnr_s = inf` it is x0 with variance 0; where both are equal, it is x_t with variance 0.
    """
    alpha_s, sigma_s = alpha_sigma(logsnr_s, x_t)
    alpha_t, sigma_t = alpha_sigma(logsnr_t, x_t)
    s, t = expand(logsnr_s, x_t), expand(logsnr_t, x_t)
    new_noise = torch.where(s == t, 0, -(t - s).expm1())  # 1 - SNR_t / SNR_s
    coef_xt = torch.where(s == t, 1, (alpha_t / alpha_s) * (sigma_s / sigma_t) ** 2)
    return Gaussian(alpha_s * new_noise * x0 + coef_xt * x_t, sigma_s**2 * new_noise)


def from_eps(x_t: X, eps: X, logsnr: LogSNR) -> Prediction:
    """Converts a predicted eps to the pair (x0, eps).

    At log SNR = -inf (alpha = 0) eps does not determine x0, and the result is not finite.
    """
    alpha, sigma = alpha_sigma(logsnr, x_t)
    return Prediction((x_t - sigma * eps) / alpha, eps)


def from_x0(x_t: X, x0: X, logsnr: LogSNR) -> Prediction:
    """Converts a predicted x0 to the pair (x0, eps)."""
    alpha, sigma = alpha_sigma(logsnr, x_t)
    return Prediction(x0, (x_t - alpha * x0) / sigma)


def from_v(x_t: X, v: X, logsnr: LogSNR) -> Prediction:
    """Converts a predicted `v = alpha eps - sigma x0` to the pair (x0, eps).

    Source: progressive distillation, arXiv:2202.00512, app. D.
    """
    alpha, sigma = alpha_sigma(logsnr, x_t)
    return Prediction(alpha * x_t - sigma * v, sigma * x_t + alpha * v)


def from_score(x_t: X, score: X, logsnr: LogSNR) -> Prediction:
    """Converts a predicted score grad log q(x_t) = -eps / sigma (note the sign) to (x0, eps)."""
    _, sigma = alpha_sigma(logsnr, x_t)
    return from_eps(x_t, -sigma * score, logsnr)


def from_mean(x_t: X, mean: X, logsnr_s: LogSNR, logsnr_t: LogSNR) -> Prediction:
    """Converts a predicted mean mu of q(x_s | x_t, x_0) to the pair (x0, eps)."""
    zeros, ones = torch.zeros_like(x_t), torch.ones_like(x_t)
    coef_xt = posterior(zeros, ones, logsnr_s, logsnr_t).mean
    coef_x0 = posterior(ones, zeros, logsnr_s, logsnr_t).mean
    return from_x0(x_t, (mean - coef_xt * x_t) / coef_x0, logsnr_t)


def to_v(prediction: Prediction, logsnr: LogSNR) -> X:
    """Converts a prediction to v: the inverse of `from_v`."""
    alpha, sigma = alpha_sigma(logsnr, prediction.eps)
    return alpha * prediction.eps - sigma * prediction.x0


def to_score(prediction: Prediction, logsnr: LogSNR) -> X:
    """Converts a prediction to the score -eps / sigma: the inverse of `from_score`."""
    _, sigma = alpha_sigma(logsnr, prediction.eps)
    return -prediction.eps / sigma


PREDICTIONS: dict[str, Callable[..., Prediction]] = {
    "eps": from_eps,
    "x0": from_x0,
    "v": from_v,
    "score": from_score,
}
