"""The denoising transformer: noisy vectors, their log SNR and an earlier estimate in; one hidden vector a position out.

Pre-norm blocks with rotary positions, and log SNR entering every norm as a scale and a shift (adaLN, DiT, arXiv:2212.09748). A position also
learns its distance to the sentence's end, for the length is known beforehand. Knows no vocabulary and no objective.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from textdiff.counter import dropout, hashed
from textdiff.device import wants_static_shapes
from textdiff.layers import NoiseLevel, attention


class TextDenoiser(nn.Module):
    """(x_t, log SNR, earlier x0, known, mask) -> hidden states of size `width`.

    Args:
        embed_dim: size of the noisy vectors.
        length: longest sequence.
    """

    rotation: Tensor

    def __init__(self, embed_dim: int, width: int, depth: int, heads: int, length: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.noisy = nn.Linear(embed_dim, width)
        self.earlier = nn.Linear(embed_dim, width, bias=False)
        self.known = nn.Parameter(torch.zeros(width))
        self.to_end = nn.Embedding(length + 1, width)
        self.noise_level = NoiseLevel(width)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(depth))
        self.norm = ModulatedNorm(width)
        nn.init.zeros_(self.earlier.weight)
        nn.init.normal_(self.to_end.weight, std=0.02)
        self.register_buffer("rotation", rotation(length, width // heads))

    def forward(
        self,
        x_t: Float[Tensor, "b l d"],
        logsnr: Float[Tensor, " b"],
        earlier: Float[Tensor, "b l d"],
        known: Bool[Tensor, "b l"],
        mask: Bool[Tensor, "b l"],
        index: Int[Tensor, " b"] | None = None,
    ) -> Float[Tensor, "b l w"]:
        """`known` positions hold clean vectors, `mask` is true on real ones. Sequences of any length up to `length`.

        Args:
            index: what dropout is a function of; without, there is none.
        """
        level = self.noise_level(logsnr)
        to_end = mask.flip(1).cumsum(1).flip(1)  # 1 at the last real position
        h = self.noisy(x_t) + self.earlier(earlier) + self.to_end(to_end) + known.unsqueeze(-1) * self.known
        attend = None if not wants_static_shapes(x_t.device) and mask.all() else mask[:, None, None]
        for number, block in enumerate(self.blocks):
            h = block(h, level, self.rotation[: x_t.shape[1]], attend, None if index is None else hashed(index, stream=number))
        return self.norm(h, level)


class ModulatedNorm(nn.Module):
    """Layer norm whose gain and shift depend on the noise level; the identity gain at first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(width, 2 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, h: Float[Tensor, "b l w"], level: Float[Tensor, "b w"]) -> Float[Tensor, "b l w"]:
        gain, shift = self.modulation(level).unsqueeze(1).chunk(2, -1)
        return torch.addcmul(shift, F.layer_norm(h, h.shape[-1:]).to(gain.dtype), 1 + gain)


class Block(nn.Module):
    """Attention and MLP, each after its norm, each added to the stream through a projection that starts small."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.rate = heads, dropout
        self.norm1, self.norm2 = ModulatedNorm(width), ModulatedNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        for layer, gain in ((self.qkv, 1.0), (self.up, 1.0), (self.out, 0.2), (self.down, 0.2)):
            nn.init.normal_(layer.weight, std=gain / math.sqrt(layer.in_features))

    def forward(
        self,
        h: Float[Tensor, "b l w"],
        level: Float[Tensor, "b w"],
        rotation: Tensor,
        attend: Bool[Tensor, "b 1 1 l"] | None,
        index: Int[Tensor, " b"] | None,
    ) -> Float[Tensor, "b l w"]:
        qkv = self.qkv(self.norm1(h, level)).unflatten(-1, (3 * self.heads, -1)).transpose(1, 2)  # b 3n l k
        qk, v = qkv.split((2 * self.heads, self.heads), 1)
        q, k = rotate(qk, rotation).chunk(2, 1)
        mixed = attention(q, k, v, attend)
        h = h + self._dropped(self.out(mixed.transpose(1, 2).flatten(2)), index, stream=0)
        return h + self._dropped(self.down(F.gelu(self.up(self.norm2(h, level)))), index, stream=1)

    def _dropped(self, h: Float[Tensor, "b l w"], index: Int[Tensor, " b"] | None, stream: int) -> Float[Tensor, "b l w"]:
        return h if index is None or self.rate == 0 else dropout(h, index, self.rate, stream)


def rotation(length: int, head_width: int) -> Float[Tensor, "l 2 k"]:
    """Cosines and sines of the rotary position encoding (RoFormer, arXiv:2104.09864)."""
    frequency = 10_000 ** (-torch.arange(0, head_width, 2) / head_width)
    angle = torch.arange(length).unsqueeze(-1) * torch.cat([frequency, frequency])
    return torch.stack([angle.cos(), angle.sin()], 1)


def rotate(x: Float[Tensor, "b n l k"], rotation: Float[Tensor, "l 2 k"]) -> Float[Tensor, "b n l k"]:
    """Turns the halves of each head against each other by the position's angles."""
    cos, sin = rotation.to(x.dtype).unbind(1)
    left, right = x.chunk(2, -1)
    return x * cos + torch.cat([-right, left], -1) * sin
