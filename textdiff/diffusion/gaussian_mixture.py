"""Gaussian mixtures, whose denoiser, score and likelihood are exact at every log SNR.

A diffused mixture is again a mixture: component k of q(x_t) has mean alpha m_k and variance
alpha^2 v_k + sigma^2. Tests and figures use it as ground truth.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from textdiff.diffusion.gaussian import PerSample, Prediction, X, alpha_sigma, expand, from_x0


@dataclass(frozen=True)
class GaussianMixture:
    """sum_k weight_k N(mean_k, var_k I) over data of any shape `d`.

    One component is a Gaussian; variance 0 is a point mass.
    """

    weight: Float[Tensor, " k"]
    mean: Float[Tensor, "k *d"]
    var: Float[Tensor, " k"]

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "n *d"]:
        """Draws n samples of the clean data."""
        component = torch.multinomial(self.weight, n, replacement=True, generator=generator)
        mean = self.mean[component]
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype)
        return mean + expand(self.var[component].sqrt(), mean) * noise

    def denoise(self, x_t: X, logsnr: PerSample) -> Prediction:
        """Computes the exact E[x0 | x_t]. It has the lowest eps-loss of all denoisers."""
        alpha, sigma = (part.view(-1, 1) for part in alpha_sigma(logsnr, x_t))
        gain = alpha * self.var / (alpha**2 * self.var + sigma**2)  # b k
        residual = self._residual(x_t, alpha)
        per_component = self.mean.flatten(1) + gain.unsqueeze(-1) * residual  # b k d
        x0 = (self._log_joint(x_t, logsnr).softmax(-1).unsqueeze(-1) * per_component).sum(1)
        return from_x0(x_t, x0.view_as(x_t), logsnr)

    def score(self, x_t: X, logsnr: PerSample) -> X:
        """Computes grad log q(x_t) from the mixture's own formula, independently of `denoise`."""
        alpha, sigma = (part.view(-1, 1) for part in alpha_sigma(logsnr, x_t))
        var = (alpha**2 * self.var + sigma**2).unsqueeze(-1)
        per_component = -self._residual(x_t, alpha) / var  # b k d
        responsibility = self._log_joint(x_t, logsnr).softmax(-1).unsqueeze(-1)
        return (responsibility * per_component).sum(1).view_as(x_t)

    def log_prob(self, x_t: X, logsnr: PerSample) -> PerSample:
        """Computes log q(x_t) in nats. At log SNR = inf it is the log density of the data."""
        return self._log_joint(x_t, logsnr).logsumexp(-1)

    def _residual(self, x_t: Tensor, alpha: Tensor) -> Float[Tensor, "b k d"]:
        return x_t.flatten(1).unsqueeze(1) - alpha.unsqueeze(-1) * self.mean.flatten(1)

    def _log_joint(self, x_t: Tensor, logsnr: Tensor) -> Float[Tensor, "b k"]:
        alpha, sigma = (part.view(-1, 1) for part in alpha_sigma(logsnr, x_t))
        var = alpha**2 * self.var + sigma**2
        distance = (self._residual(x_t, alpha) ** 2).sum(-1)
        log_normalizer = x_t[0].numel() * (2 * math.pi * var).log()
        return self.weight.log() - 0.5 * (distance / var + log_normalizer)


def gaussian(mean: Float[Tensor, " *d"], var: float) -> GaussianMixture:
    """Returns N(mean, var I) as a mixture of one component."""
    return GaussianMixture(mean.new_ones(1), mean.unsqueeze(0), mean.new_full((1,), var))
