"""Parts that the transformer and the U-Net share."""

from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from textdiff.config import UserError
from textdiff.device import has_fused_attention
from textdiff.diffusion.schedules import SCHEDULES, Schedule, bounded


class LogSNREmbedding(nn.Module):
    """Embeds log SNR: sines and cosines, then an MLP. The result modulates every norm."""

    frequency: Tensor

    def __init__(self, width: int, features: int = 64) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(2 * features, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
        )
        self.register_buffer("frequency", torch.logspace(-2, 1, features))

    def forward(self, logsnr: Float[Tensor, " b"]) -> Float[Tensor, "b w"]:
        angle = logsnr.unsqueeze(-1) * self.frequency
        return self.mlp(torch.cat([angle.sin(), angle.cos()], -1))


def upcast(x: Float[Tensor, "*d"]) -> Float[Tensor, "*d"]:
    """Converts bfloat16 to float32 and leaves float32 and float64 unchanged."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def attention(
    q: Float[Tensor, "b n l k"],
    k: Float[Tensor, "b n l k"],
    v: Float[Tensor, "b n l k"],
    attend: Bool[Tensor, "b 1 1 l"] | None = None,
) -> Float[Tensor, "b n l k"]:
    """Attention softmax(q k^T / sqrt(k)) v, by a fused kernel where the device has a fast one.

    Args:
        attend: True at the positions that are attended to.
    """
    if has_fused_attention(q.device):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=attend)
    scores = q * q.shape[-1] ** -0.5 @ k.mT
    if attend is not None:
        scores = scores.masked_fill(~attend, -torch.inf)
    return scores.softmax(-1).to(v.dtype) @ v


@cache
def bounded_schedule(name: str, logsnr_min: float, logsnr_max: float) -> Schedule:
    """A schedule of the core by name, within bounds of log SNR.

    Raises:
        UserError: If the schedule does not overlap the bounds.
    """
    try:
        return bounded(SCHEDULES[name], logsnr_min, logsnr_max)
    except ValueError as error:
        bounds = "model.logsnr_min and model.logsnr_max"
        raise UserError(f"model.schedule {name} does not fit {bounds}: {error}") from error
