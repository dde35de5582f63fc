"""A noise schedule that is fitted to the loss during training."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from textdiff.diffusion.schedules import Schedule, gumbel


class AdaptiveSchedule(nn.Module):
    """Fits `limit exp(-exp(-(g - center) / scale))` to the loss at noise level g = -log SNR.

    The schedule spends equal time on equal parts of that loss (after CDCD, arXiv:2211.15089, sec.
    3.3, with the Gumbel form of LangFlow).

    Args:
        embed_dim: Dimension of the noisy vectors, which decides the initial center.
        vocab_size: Number of words, which decides the initial limit.
    """

    def __init__(
        self, embed_dim: int, vocab_size: int, logsnr_min: float, logsnr_max: float
    ) -> None:
        super().__init__()
        self.logsnr_range = (logsnr_min, logsnr_max)
        self.center = nn.Parameter(torch.full((), 4.7 + math.log(embed_dim / 768)))
        self.log_scale = nn.Parameter(torch.full((), math.log(0.85)))
        self.limit = nn.Parameter(torch.full((), math.log(vocab_size)))

    def schedule(self) -> Schedule:
        """Noise schedule t -> log SNR, as fitted so far."""
        center, scale = self.center.detach(), self.log_scale.detach().exp()

        def logsnr(t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
            # moved first and converted second, because MPS has no float64
            fitted = center.to(t.device).to(t), scale.to(t.device).to(t)
            return gumbel(t, *fitted, *self.logsnr_range)

        return logsnr

    def loss(self, logsnr: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """The fitted loss at each log SNR, in nats per word."""
        noise = torch.exp((logsnr + self.center) / self.log_scale.exp())
        return self.limit * torch.exp(-noise)

    def misfit(self, loss: Float[Tensor, " b"], logsnr: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Squared error of the fit, with a small weight next to the loss."""
        return 0.01 * (loss - self.loss(logsnr)).square()
