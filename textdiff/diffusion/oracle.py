"""Ground truth: Gaussian mixtures, whose denoiser, score and likelihood are known at every noise level.

A diffused mixture is a mixture again: component k of q(x_t) has mean alpha m_k and variance alpha^2 v_k + sigma^2. Tests and figures share it.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from textdiff.diffusion.gaussian import Prediction, alpha_sigma, expand, from_x0


@dataclass(frozen=True)
class GaussianMixture:
    """sum_k weight_k N(mean_k, var_k I) over data of any shape `d`. One component is the Gaussian, variance 0 a point mass."""

    weight: Float[Tensor, " k"]
    mean: Float[Tensor, "k *d"]
    var: Float[Tensor, " k"]

    def sample(self, n: int, generator: torch.Generator) -> Float[Tensor, "n *d"]:
        component = torch.multinomial(self.weight, n, replacement=True, generator=generator)
        mean = self.mean[component]
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype)
        return mean + expand(self.var[component].sqrt(), mean) * noise

    def denoise(self, x_t: Float[Tensor, "b *d"], logsnr: Float[Tensor, " b"]) -> Prediction:
        """The exact E[x0 | x_t]: no network has a smaller eps-loss."""
        alpha, sigma = (part.view(-1, 1) for part in alpha_sigma(logsnr, x_t))
        gain = alpha * self.var / (alpha**2 * self.var + sigma**2)  # b k
        residual = self._residual(x_t, alpha)
        per_component = self.mean.flatten(1) + gain.unsqueeze(-1) * residual  # b k d
        x0 = (self._log_joint(x_t, logsnr).softmax(-1).unsqueeze(-1) * per_component).sum(1)
        return from_x0(x_t, logsnr, x0.view_as(x_t))

    def score(self, x_t: Float[Tensor, "b *d"], logsnr: Float[Tensor, " b"]) -> Float[Tensor, "b *d"]:
        """grad log q(x_t), by the mixture's own formula rather than through `denoise`."""
        alpha, sigma = (part.view(-1, 1) for part in alpha_sigma(logsnr, x_t))
        pull = -self._residual(x_t, alpha) / (alpha**2 * self.var + sigma**2).unsqueeze(-1)
        return (self._log_joint(x_t, logsnr).softmax(-1).unsqueeze(-1) * pull).sum(1).view_as(x_t)

    def log_prob(self, x_t: Float[Tensor, "b *d"], logsnr: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """log q(x_t) in nats; at log SNR = inf that of the data."""
        return self._log_joint(x_t, logsnr).logsumexp(-1)

    def _residual(self, x_t: Tensor, alpha: Tensor) -> Float[Tensor, "b k d"]:
        return x_t.flatten(1).unsqueeze(1) - alpha.unsqueeze(-1) * self.mean.flatten(1)

    def _log_joint(self, x_t: Tensor, logsnr: Tensor) -> Float[Tensor, "b k"]:
        alpha, sigma = (part.view(-1, 1) for part in alpha_sigma(logsnr, x_t))
        var = alpha**2 * self.var + sigma**2
        distance = (self._residual(x_t, alpha) ** 2).sum(-1)
        return self.weight.log() - 0.5 * (distance / var + x_t[0].numel() * (2 * math.pi * var).log())


def gaussian(mean: Float[Tensor, " *d"], var: float) -> GaussianMixture:
    """N(mean, var I)."""
    return GaussianMixture(mean.new_ones(1), mean.unsqueeze(0), mean.new_full((1,), var))
