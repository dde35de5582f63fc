"""The U-Net: a noisy image, its log SNR and perhaps its class in; an image of the same size out.

DDPM's shape (arXiv:2006.11239, app. B), with the noise level as a scale and a shift of the second norm of every block (Dhariwal & Nichol,
arXiv:2105.05233) and a transposed convolution on the way up, which costs less than half of resizing and convolving. Any height and width: an
odd size is rounded up on the way down and cut on the way up. Knows neither noise schedules nor objectives.
"""

import math
from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from textdiff.counter import dropout, hashed
from textdiff.layers import NoiseLevel, attention

Image = Float[Tensor, "b _ h w"]
L = TypeVar("L", nn.Linear, nn.Conv2d)


class UNet(nn.Module):
    """(x_t, log SNR, class) -> image.

    Args:
        multipliers: channels at each resolution, in multiples of `width`.
        attention: resolutions with attention; the lowest always has it in its middle.
        classes: how many there are; class number `classes` stands for an unknown one.
    """

    def __init__(
        self, channels: int, width: int, multipliers: Sequence[int], blocks: int, attention: Sequence[int], classes: int = 0, dropout: float = 0.0
    ) -> None:
        super().__init__()
        steering, size = 2 * width, width * multipliers[0]
        self.noise_level = NoiseLevel(steering)
        self.label = nn.Embedding(classes + 1, steering) if classes else None
        self.first = nn.Conv2d(channels, size, 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        kept = [size]
        for level, multiplier in enumerate(multipliers):
            for _ in range(blocks):
                self.down.append(Block(size, width * multiplier, steering, level in attention, dropout))
                size = width * multiplier
                kept.append(size)
            if level < len(multipliers) - 1:
                self.down.append(Down(size))
                kept.append(size)
        self.middle = nn.ModuleList(Block(size, size, steering, attend, dropout) for attend in (True, False))
        for level, multiplier in reversed([*enumerate(multipliers)]):
            for _ in range(blocks + 1):
                self.up.append(Block(size + kept.pop(), width * multiplier, steering, level in attention, dropout))
                size = width * multiplier
            if level:
                self.up.append(Up(size))
        self.norm, self.last = group_norm(size), zeroed(nn.Conv2d(size, channels, 3, padding=1))

    def forward(
        self, x_t: Image, logsnr: Float[Tensor, " b"], label: Int[Tensor, " b"] | None = None, index: Int[Tensor, " b"] | None = None
    ) -> Image:
        """`index` is what dropout is a function of; without, there is none."""
        level = self.noise_level(logsnr)
        if self.label is not None:
            level = level + self.label(torch.full_like(logsnr, self.label.num_embeddings - 1, dtype=torch.long) if label is None else label)

        def dice(number: int) -> Tensor | None:
            return None if index is None else hashed(index, stream=number)

        h = self.first(x_t)
        kept = [h]
        for number, layer in enumerate(self.down):
            h = layer(h) if isinstance(layer, Down) else layer(h, level, dice(number))
            kept.append(h)
        for number, layer in enumerate(self.middle, 100):
            h = layer(h, level, dice(number))
        for number, layer in enumerate(self.up, 200):
            h = layer(h, kept[-1]) if isinstance(layer, Up) else layer(torch.cat([h, kept.pop()], 1), level, dice(number))
        return self.last(F.silu(self.norm(h)))


class Block(nn.Module):
    """Two convolutions, each after its norm, added to the input; then perhaps attention."""

    def __init__(self, size_in: int, size: int, steering: int, attend: bool, dropout: float) -> None:
        super().__init__()
        self.rate = dropout
        self.norm1, self.conv1 = group_norm(size_in), nn.Conv2d(size_in, size, 3, padding=1)
        self.norm2, self.conv2 = SteeredNorm(size, steering), zeroed(nn.Conv2d(size, size, 3, padding=1))
        self.skip = nn.Conv2d(size_in, size, 1) if size_in != size else nn.Identity()
        self.attention = Attention(size) if attend else nn.Identity()

    def forward(self, h: Image, level: Float[Tensor, "b s"], index: Int[Tensor, " b"] | None) -> Image:
        out = F.silu(self.norm2(self.conv1(F.silu(self.norm1(h))), level))
        if index is not None and self.rate:
            out = dropout(out, index, self.rate, stream=0)
        return self.attention(self.skip(h) + self.conv2(out))


class SteeredNorm(nn.Module):
    """Group norm whose gain and shift depend on the noise level and the class. As one sample with b c channels, so that torch's own kernel
    applies them: it is as fast as without."""

    def __init__(self, size: int, steering: int) -> None:
        super().__init__()
        self.groups = groups(size)
        self.modulation = zeroed(nn.Linear(steering, 2 * size))

    def forward(self, h: Image, level: Float[Tensor, "b s"]) -> Image:
        gain, shift = self.modulation(level).chunk(2, -1)
        as_one = h.reshape(1, -1, *h.shape[2:])
        return F.group_norm(as_one, len(h) * self.groups, 1 + gain.flatten(), shift.flatten()).view_as(h)


class Attention(nn.Module):
    """Every place looks at every other; heads of up to 64 channels; added to the input."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.heads = max(1, size // 64) if size % max(1, size // 64) == 0 else 1
        self.norm = group_norm(size)
        self.qkv, self.out = nn.Linear(size, 3 * size), zeroed(nn.Linear(size, size))

    def forward(self, h: Image) -> Image:
        places = self.norm(h).flatten(2).transpose(1, 2)  # b hw c
        q, k, v = self.qkv(places).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each b n hw k
        mixed = self.out(attention(q, k, v).transpose(1, 2).flatten(2))  # b hw c
        return h + mixed.transpose(1, 2).view_as(h)


class Down(nn.Conv2d):
    """To half the size, rounded up."""

    def __init__(self, size: int) -> None:
        super().__init__(size, size, 3, stride=2, padding=1)


class Up(nn.ConvTranspose2d):
    """To twice the size, or one less, so that it fits what is to be joined to it."""

    def __init__(self, size: int) -> None:
        super().__init__(size, size, 4, stride=2, padding=1)

    def forward(self, h: Float[Tensor, "b _ _ _"], like: Image) -> Image:  # type: ignore[override]
        return super().forward(h)[..., : like.shape[-2], : like.shape[-1]]


def group_norm(size: int) -> nn.GroupNorm:
    return nn.GroupNorm(groups(size), size)


def groups(size: int) -> int:
    """DDPM's 32 for its 128 channels or more, else of four channels each: in groups of one the bias of the layer before would be lost."""
    return math.gcd(size, max(1, min(32, size // 4)))


def zeroed(layer: L) -> L:
    """The same layer, which puts out zero at first."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
