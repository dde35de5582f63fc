"""The denoisers that are compared: ours, and what the field would use in their place, at the same size."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import BertConfig
from transformers.models.bert.modeling_bert import BertEncoder

from image.unet import UNet
from textdiff.transformer import TextDenoiser

EMBED, LENGTH = 16, 64


class BertDenoiser(nn.Module):
    """x_t and the noise level through BERT's encoder: two layers up, learned positions, a time embedding, two layers down."""

    def __init__(self, width: int, depth: int, dropout: float) -> None:
        super().__init__()
        shape = BertConfig(
            hidden_size=width,
            num_hidden_layers=depth,
            num_attention_heads=width // 64,
            intermediate_size=4 * width,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
        )
        self.up = nn.Sequential(nn.Linear(EMBED, width), nn.Tanh(), nn.Linear(width, width))
        self.level = nn.Sequential(nn.Linear(1, 4 * 128), nn.SiLU(), nn.Linear(4 * 128, width))
        self.place = nn.Parameter(torch.randn(LENGTH, width) * 0.02)
        self.norm, self.dropout = nn.LayerNorm(width), nn.Dropout(dropout)
        self.encoder = BertEncoder(shape)
        self.down = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, EMBED))

    def forward(self, x_t: Tensor, logsnr: Tensor) -> Tensor:
        h = self.up(x_t) + self.level(logsnr.unsqueeze(1)).unsqueeze(1) + self.place
        return self.down(self.encoder(self.dropout(self.norm(h))).last_hidden_state)


class OurDenoiser(nn.Module):
    """textdiff's transformer and one layer down."""

    def __init__(self, width: int, depth: int, dropout: float) -> None:
        super().__init__()
        self.denoiser = TextDenoiser(EMBED, width, depth, width // 64, LENGTH, dropout)
        self.down = nn.Linear(width, EMBED)

    def forward(self, x_t: Tensor, logsnr: Tensor) -> Tensor:
        real = torch.ones(x_t.shape[:2], dtype=torch.bool, device=x_t.device)
        index = torch.arange(len(x_t), device=x_t.device) if self.training else None
        return self.down(self.denoiser(x_t, logsnr, torch.zeros_like(x_t), ~real, real, index))


class TheirUNet(nn.Module):
    """UNet2DModel of diffusers, with attention at half resolution."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        from diffusers import UNet2DModel

        self.unet = UNet2DModel(
            sample_size=32,
            in_channels=1,
            out_channels=1,
            layers_per_block=blocks,
            block_out_channels=(width, 2 * width, 2 * width),
            down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=64,
        )

    def forward(self, x_t: Tensor, logsnr: Tensor) -> Tensor:
        return self.unet(x_t, logsnr).sample


def our_unet(width: int, blocks: int) -> UNet:
    return UNet(1, width, (1, 2, 2), blocks, (1,))


class Subject(NamedTuple):
    """What is compared: builders by name, ours first; what one example of their input is; how many tokens or images it counts for."""

    builders: dict[str, Callable[..., nn.Module]]
    example: tuple[int, ...]
    count: int


SUBJECTS = {
    "text": Subject({"textdiff": OurDenoiser, "BERT encoder": BertDenoiser}, (LENGTH, EMBED), LENGTH),
    "image": Subject({"textdiff": our_unet, "diffusers": TheirUNet}, (1, 32, 32), 1),
}
