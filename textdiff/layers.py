"""What the transformer and the U-Net are both made of."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from textdiff.device import has_fused_attention


class NoiseLevel(nn.Module):
    """Log SNR as sines and cosines, then an MLP: the vector that steers every norm."""

    frequency: Tensor

    def __init__(self, width: int, features: int = 64) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(2 * features, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.register_buffer("frequency", torch.logspace(-2, 1, features))

    def forward(self, logsnr: Float[Tensor, " b"]) -> Float[Tensor, "b w"]:
        angle = logsnr.unsqueeze(-1) * self.frequency
        return self.mlp(torch.cat([angle.sin(), angle.cos()], -1))


def exact(x: Float[Tensor, "*d"]) -> Float[Tensor, "*d"]:
    """What autocast made bfloat16, in float32; float64 stays."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def attention(
    q: Float[Tensor, "b n l k"], k: Float[Tensor, "b n l k"], v: Float[Tensor, "b n l k"], attend: Bool[Tensor, "b 1 1 l"] | None = None
) -> Float[Tensor, "b n l k"]:
    """softmax(q k^T / sqrt(k)) v: torch's fused kernel where the device has a good one, else written out."""
    if has_fused_attention(q.device):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=attend)
    scores = q * q.shape[-1] ** -0.5 @ k.mT
    if attend is not None:
        scores = scores.masked_fill(~attend, -torch.inf)
    return scores.softmax(-1).to(v.dtype) @ v
