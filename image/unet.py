"""The U-Net: maps a noisy image, its log SNR and its class to an image of the same size.

The architecture is DDPM's (arXiv:2006.11239, app. B) with two changes. Log SNR and class scale and
shift the second norm of every block (Dhariwal & Nichol, arXiv:2105.05233). A transposed convolution
upsamples, which costs less than half of resizing and convolving. Images may have any height and
width: an odd size is rounded up on the way down and cropped on the way up. This module contains
neither noise schedules nor objectives.
"""

import math
from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from textdiff.diffusion.gaussian import LogSNR
from textdiff.nn import LogSNREmbedding, attention
from textdiff.prng import dropout, fold_in

Image = Float[Tensor, "b _ h w"]
Cond = Float[Tensor, "b e"]
Index = Int[Tensor, " b"]
L = TypeVar("L", nn.Linear, nn.Conv2d)
KNOTS = 33  # of the embedding of a pixel's own log SNR


class UNet(nn.Module):
    """U-Net of residual blocks, whose output has the shape of its input.

    Args:
        channels: Number of channels of the images.
        width: Number of channels of the first layer.
        channel_multipliers: Number of channels at each resolution, in multiples of `width`.
        res_blocks: Residual blocks per resolution on the way down; one more on the way up.
        attention_levels: Resolutions with attention. The middle of the network always has it.
        classes: Number of classes. Class number `classes` stands for an unknown class.
        dropout: Dropout rate of the residual blocks.
        logsnr_range: Lowest and highest log SNR, for a network in which each pixel may have a log
            SNR of its own. If None, all pixels of an image have the same.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        channel_multipliers: Sequence[int],
        res_blocks: int,
        attention_levels: Sequence[int],
        classes: int = 0,
        dropout: float = 0.0,
        logsnr_range: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        self.logsnr_range = logsnr_range
        widths = [width * multiplier for multiplier in channel_multipliers]
        cond_dim, size = 2 * width, widths[0]
        self.logsnr_embedding = LogSNREmbedding(cond_dim)
        self.label = nn.Embedding(classes + 1, cond_dim) if classes else None
        self.first = nn.Conv2d(channels, size, 3, padding=1)
        self.own_level = nn.Parameter(torch.zeros(KNOTS, 2 * size)) if logsnr_range else None
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        skips = [size]
        for level, size_out in enumerate(widths):
            attend = level in attention_levels
            for _ in range(res_blocks):
                self.down.append(Block(size, size_out, cond_dim, attend, dropout))
                size = size_out
                skips.append(size)
            if level < len(widths) - 1:
                self.down.append(Down(size))
                skips.append(size)
        blocks = (Block(size, size, cond_dim, attend, dropout) for attend in (True, False))
        self.middle = nn.ModuleList(blocks)
        for level, size_out in reversed([*enumerate(widths)]):
            attend = level in attention_levels
            for _ in range(res_blocks + 1):
                self.up.append(Block(size + skips.pop(), size_out, cond_dim, attend, dropout))
                size = size_out
            if level:
                self.up.append(Up(size))
        self.norm, self.last = group_norm(size), zero_init(nn.Conv2d(size, channels, 3, padding=1))

    def forward(
        self, x_t: Image, logsnr: LogSNR, label: Index | None = None, index: Index | None = None
    ) -> Image:
        """The network's output for noisy images.

        The noisiest pixel of an image decides its modulation of the norms.

        Args:
            logsnr: Log SNR of each image, `(b,)`, or of each pixel, `(b, 1, h, w)`.
            label: Class of each image. If None, the classes are unknown.
            index: Index of each example in the run, from which dropout is derived. If None, there
                is no dropout.

        Raises:
            ValueError: If pixels have log SNRs of their own and the network takes none.
        """
        noisiest = logsnr if logsnr.ndim == 1 else logsnr.amin((1, 2, 3))
        cond = self.logsnr_embedding(noisiest)
        if self.label is not None:
            unknown = self.label.num_embeddings - 1
            if label is None:
                label = torch.full_like(noisiest, unknown, dtype=torch.long)
            cond = cond + self.label(label)

        def key(number: int) -> Tensor | None:
            return None if index is None else fold_in(index, number)

        h = self._with_own_levels(self.first(x_t), logsnr)
        skips = [h]
        for number, layer in enumerate(self.down):
            h = layer(h) if isinstance(layer, Down) else layer(h, cond, key(number))
            skips.append(h)
        for number, layer in enumerate(self.middle, 100):
            h = layer(h, cond, key(number))
        for number, layer in enumerate(self.up, 200):
            if isinstance(layer, Up):
                h = layer(h, skips[-1])
            else:
                h = layer(torch.cat([h, skips.pop()], 1), cond, key(number))
        return self.last(F.silu(self.norm(h)))

    def _with_own_levels(self, h: Image, logsnr: LogSNR) -> Image:
        """Scales and shifts the features of pixels that are less noisy than their image."""
        if logsnr.ndim == 1:
            return h
        if self.own_level is None or self.logsnr_range is None:
            raise ValueError("pixels have log SNRs of their own: logsnr_range is needed")
        low, high = self.logsnr_range
        levels, last = logsnr[:, 0], KNOTS - 1
        knot = ((levels - low) / (high - low) * last).clamp(0.0, last - 1e-3)
        below, rest = knot.long(), (knot % 1).unsqueeze(-1)
        left, right = (F.embedding(below + end, self.own_level) for end in (0, 1))
        cleaner = levels > levels.amin((1, 2), keepdim=True)
        own = torch.lerp(left, right, rest) * cleaner.unsqueeze(-1)  # b h w 2c
        gain, shift = own.permute(0, 3, 1, 2).to(h).chunk(2, 1)
        return h * (1 + gain) + shift


class Block(nn.Module):
    """Residual block of two convolutions, each after a norm, with optional attention at the end."""

    def __init__(
        self, size_in: int, size: int, cond_dim: int, attend: bool, dropout: float
    ) -> None:
        super().__init__()
        self.rate = dropout
        self.norm1 = group_norm(size_in)
        self.conv1 = nn.Conv2d(size_in, size, 3, padding=1)
        self.norm2 = AdaGroupNorm(size, cond_dim)
        self.conv2 = zero_init(nn.Conv2d(size, size, 3, padding=1))
        self.skip = nn.Conv2d(size_in, size, 1) if size_in != size else nn.Identity()
        self.attention = Attention(size) if attend else nn.Identity()

    def forward(self, h: Image, cond: Cond, key: Index | None) -> Image:
        out = F.silu(self.norm2(self.conv1(F.silu(self.norm1(h))), cond))
        if key is not None and self.rate:
            out = dropout(out, key, self.rate, stream=0)
        return self.attention(self.skip(h) + self.conv2(out))


class AdaGroupNorm(nn.Module):
    """Group norm whose gain and shift are linear functions of the embedding `cond`.

    It normalizes the batch as one sample with b c channels, so that torch's own kernel applies gain
    and shift. That is as fast as a group norm without them.
    """

    def __init__(self, size: int, cond_dim: int) -> None:
        super().__init__()
        self.groups = group_count(size)
        self.modulation = zero_init(nn.Linear(cond_dim, 2 * size))

    def forward(self, h: Image, cond: Cond) -> Image:
        gain, shift = self.modulation(cond).chunk(2, -1)
        one_sample = h.reshape(1, -1, *h.shape[2:])
        groups, gain = len(h) * self.groups, 1 + gain.flatten()
        return F.group_norm(one_sample, groups, gain, shift.flatten()).view_as(h)


class Attention(nn.Module):
    """Self-attention over all positions, in heads of up to 64 channels, added to the input."""

    def __init__(self, size: int) -> None:
        super().__init__()
        heads = max(1, size // 64)
        self.heads = heads if size % heads == 0 else 1
        self.norm = group_norm(size)
        self.qkv, self.out = nn.Linear(size, 3 * size), zero_init(nn.Linear(size, size))

    def forward(self, h: Image) -> Image:
        x = self.norm(h).flatten(2).transpose(1, 2)  # b hw c
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))  # b hw 3 n k
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each b n hw k
        out = self.out(attention(q, k, v).transpose(1, 2).flatten(2))  # b hw c
        return h + out.transpose(1, 2).view_as(h)


class Down(nn.Conv2d):
    """Strided convolution that halves height and width, rounded up."""

    def __init__(self, size: int) -> None:
        super().__init__(size, size, 3, stride=2, padding=1)


class Up(nn.ConvTranspose2d):
    """Transposed convolution that doubles height and width, cropped to the size of `like`."""

    def __init__(self, size: int) -> None:
        super().__init__(size, size, 4, stride=2, padding=1)

    def forward(self, h: Float[Tensor, "b _ _ _"], like: Image) -> Image:  # type: ignore[override]
        return super().forward(h)[..., : like.shape[-2], : like.shape[-1]]


def group_norm(size: int) -> nn.GroupNorm:
    """A group norm over `group_count(size)` groups."""
    return nn.GroupNorm(group_count(size), size)


def group_count(size: int) -> int:
    """Number of groups: 32 for 128 or more channels, as in DDPM, otherwise one per four channels.

    In a group of one channel the norm would cancel the bias of the layer before it.
    """
    return math.gcd(size, max(1, min(32, size // 4)))


def zero_init(layer: L) -> L:
    """Sets weight and bias of a layer to zero and returns the layer."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
