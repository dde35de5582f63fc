"""The denoising transformer.

Pre-norm blocks with rotary positions. Log SNR modulates every norm (adaLN, DiT, arXiv:2212.09748).
A position also has an embedding of its distance to the end of the sentence, because the length is
known beforehand.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from textdiff.device import wants_static_shapes
from textdiff.diffusion.gaussian import LogSNR
from textdiff.nn import LogSNREmbedding, attention
from textdiff.prng import dropout, fold_in

Hidden = Float[Tensor, "b l w"]
Vectors = Float[Tensor, "b l d"]
Positions = Bool[Tensor, "b l"]
Keys = Int[Tensor, " b"]


KNOTS = 33  # of the embedding of a word's own log SNR


class NoisyText(NamedTuple):
    """Noisy sentences, as networks take them.

    Args:
        logsnr: Log SNR of each sentence, or of each word.
        mask: True at real positions.
        self_cond: An earlier estimate of x0. If None, zeros.
    """

    x_t: Vectors
    logsnr: LogSNR
    mask: Positions
    self_cond: Vectors | None = None

    def without(self, words: Positions | None, logsnr: float) -> "NoisyText":
        """The sentences without some words: zero vectors take their places, at a log SNR."""
        if words is None:
            return self
        hidden, estimate = words.unsqueeze(-1), self.self_cond
        estimate = None if estimate is None else estimate.masked_fill(hidden, 0)
        levels = torch.where(words, logsnr, self.levels)
        return NoisyText(self.x_t.masked_fill(hidden, 0), levels, self.mask, estimate)

    @property
    def levels(self) -> Float[Tensor, "b l"]:
        """Log SNR of each word."""
        return (
            self.logsnr if self.logsnr.ndim == 2 else self.logsnr[:, None].expand(self.mask.shape)
        )

    @property
    def noisiest(self) -> Float[Tensor, " b"]:
        """Lowest log SNR of each sentence."""
        if self.logsnr.ndim == 1:
            return self.logsnr
        return self.logsnr.masked_fill(~self.mask, torch.inf).amin(1)


class TextDenoiser(nn.Module):
    """Maps noisy embeddings and their log SNR to hidden states.

    Args:
        embed_dim: Dimension of the embeddings.
        width: Dimension of the hidden states.
        length: Longest sequence.
        logsnr_range: Lowest and highest log SNR.
        own_levels: Whether words may have any log SNR of their own. Otherwise a word has that of
            its sentence or is clean.
        prior_estimate: Whether a prior's estimate of x0 is another input.
    """

    rotation: Tensor

    def __init__(
        self,
        embed_dim: int,
        width: int,
        depth: int,
        heads: int,
        length: int,
        logsnr_range: tuple[float, float],
        dropout: float = 0.0,
        own_levels: bool = False,
        prior_estimate: bool = False,
    ) -> None:
        super().__init__()
        self.noisy = nn.Linear(embed_dim, width)
        self.self_cond = nn.Linear(embed_dim, width, bias=False)
        if prior_estimate:
            self.prior_estimate = nn.Linear(embed_dim, width, bias=False)
        self.logsnr_range = logsnr_range
        self.known = nn.Parameter(torch.zeros(width))
        self.own_level = nn.Parameter(torch.zeros(KNOTS, width)) if own_levels else None
        self.to_end = nn.Embedding(length + 1, width)
        self.logsnr_embedding = LogSNREmbedding(width)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(depth))
        self.norm = AdaLayerNorm(width)
        nn.init.zeros_(self.self_cond.weight)
        nn.init.normal_(self.to_end.weight, std=0.02)
        self.register_buffer("rotation", rotation_table(length, width // heads))

    def forward(
        self, text: NoisyText, index: Keys | None = None, prior_estimate: Vectors | None = None
    ) -> Hidden:
        """Hidden states of sequences of any length up to `length`.

        The noisiest word of a sentence decides its modulation of the norms.

        Args:
            index: Keys from which dropout is derived. If None, there is no dropout.
            prior_estimate: The prior's estimate of x0, for a network that takes it.
        """
        x_t, mask = text.x_t, text.mask
        self_cond = torch.zeros_like(x_t) if text.self_cond is None else text.self_cond
        cond = self.logsnr_embedding(text.noisiest)
        to_end = self.to_end(mask.flip(1).cumsum(1).flip(1))  # 1 at the last real position
        h = self.noisy(x_t) + self.self_cond(self_cond) + to_end + self._own_level(text)
        if prior_estimate is not None:
            h = h + self.prior_estimate(prior_estimate)
        attend = None if not wants_static_shapes(x_t.device) and mask.all() else mask[:, None, None]
        rotation = self.rotation[: x_t.shape[1]]
        for number, block in enumerate(self.blocks):
            key = None if index is None else fold_in(index, number)
            h = block(h, cond, rotation, attend, key)
        return self.norm(h, cond)

    def _own_level(self, text: NoisyText) -> Hidden:
        """Embedding of the log SNR of words that are less noisy than their sentence."""
        levels, (low, high) = text.levels, self.logsnr_range
        cleaner = levels > text.noisiest.unsqueeze(1)
        clean = cleaner & (levels > high - 0.01)
        h = clean.unsqueeze(-1) * self.known
        if self.own_level is None:
            return h
        knot = ((levels - low) / (high - low) * (KNOTS - 1)).clamp(0.0, KNOTS - 1 - 1e-3)
        below = knot.long()
        own = torch.lerp(
            F.embedding(below, self.own_level),
            F.embedding(below + 1, self.own_level),
            (knot - below).unsqueeze(-1).to(self.own_level.dtype),
        )
        return h + cleaner.unsqueeze(-1) * own


class AdaLayerNorm(nn.Module):
    """Layer norm with a gain and a shift that depend on log SNR; plain layer norm at first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(width, 2 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, h: Hidden, cond: Float[Tensor, "b w"]) -> Hidden:
        """Normalizes h.

        Args:
            cond: Embedding of log SNR.
        """
        gain, shift = self.modulation(cond).unsqueeze(1).chunk(2, -1)
        return torch.addcmul(shift, F.layer_norm(h, h.shape[-1:]).to(gain.dtype), 1 + gain)


class Block(nn.Module):
    """Attention and MLP with pre-norms; their last layers have a small initial scale."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.rate = heads, dropout
        self.norm1, self.norm2 = AdaLayerNorm(width), AdaLayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        for layer, gain in ((self.qkv, 1.0), (self.up, 1.0), (self.out, 0.2), (self.down, 0.2)):
            nn.init.normal_(layer.weight, std=gain / math.sqrt(layer.in_features))

    def forward(
        self,
        h: Hidden,
        cond: Float[Tensor, "b w"],
        rotation: Float[Tensor, "l 2 k"],
        attend: Bool[Tensor, "b 1 1 l"] | None,
        key: Keys | None,
    ) -> Hidden:
        """Adds attention and MLP to h.

        Args:
            cond: Embedding of log SNR.
            rotation: Rotary position embeddings.
            attend: True at the positions that are attended to; None for all.
            key: Keys from which dropout is derived. If None, there is no dropout.
        """
        qkv = self.qkv(self.norm1(h, cond))
        qkv = qkv.unflatten(-1, (3 * self.heads, -1)).transpose(1, 2)  # b 3n l k
        qk, v = qkv.split((2 * self.heads, self.heads), 1)
        q, k = rotate(qk, rotation).chunk(2, 1)
        mixed = attention(q, k, v, attend).transpose(1, 2).flatten(2)
        h = h + self._dropout(self.out(mixed), key, stream=0)
        mlp = self.down(F.gelu(self.up(self.norm2(h, cond))))
        return h + self._dropout(mlp, key, stream=1)

    def _dropout(self, h: Hidden, key: Keys | None, stream: int) -> Hidden:
        return h if key is None or self.rate == 0 else dropout(h, key, self.rate, stream)


def rotation_table(length: int, head_width: int) -> Float[Tensor, "l 2 k"]:
    """Cosines and sines of rotary position embeddings (RoFormer, arXiv:2104.09864)."""
    frequency = 10_000 ** (-torch.arange(0, head_width, 2) / head_width)
    angle = torch.arange(length).unsqueeze(-1) * torch.cat([frequency, frequency])
    return torch.stack([angle.cos(), angle.sin()], 1)


def rotate(
    x: Float[Tensor, "b n l k"], rotation: Float[Tensor, "l 2 k"]
) -> Float[Tensor, "b n l k"]:
    """Applies rotary position embeddings.

    Args:
        rotation: Part of a `rotation_table`.
    """
    cos, sin = rotation.to(x.dtype).unbind(1)
    left, right = x.chunk(2, -1)
    return x * cos + torch.cat([-right, left], -1) * sin
