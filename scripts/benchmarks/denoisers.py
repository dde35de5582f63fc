"""The networks that are compared: textdiff's, and the usual alternative of the same size."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import BertConfig
from transformers.models.bert.modeling_bert import BertEncoder

from image.unet import UNet
from textdiff.text.transformer import NoisyText, TextDenoiser

EMBED_DIM, LENGTH = 16, 64


class BertDenoiser(nn.Module):
    """Diffusion-LM's network (arXiv:2205.14217): a BERT encoder between input and output layers.

    Two layers map x_t to the width of BERT, and two map the result back. Learned position
    embeddings and an embedding of the log SNR are added to the input.
    """

    def __init__(self, width: int, depth: int, dropout: float) -> None:
        super().__init__()
        config = BertConfig(
            hidden_size=width,
            num_hidden_layers=depth,
            num_attention_heads=width // 64,
            intermediate_size=4 * width,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
        )
        self.input = nn.Sequential(nn.Linear(EMBED_DIM, width), nn.Tanh(), nn.Linear(width, width))
        self.time = nn.Sequential(nn.Linear(1, 4 * 128), nn.SiLU(), nn.Linear(4 * 128, width))
        self.position = nn.Parameter(torch.randn(LENGTH, width) * 0.02)
        self.norm, self.dropout = nn.LayerNorm(width), nn.Dropout(dropout)
        self.encoder = BertEncoder(config)
        self.output = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, EMBED_DIM))

    def forward(self, x_t: Tensor, logsnr: Tensor) -> Tensor:
        time = self.time(logsnr.unsqueeze(1)).unsqueeze(1)
        h = self.dropout(self.norm(self.input(x_t) + time + self.position))
        return self.output(self.encoder(h).last_hidden_state)


class TransformerDenoiser(nn.Module):
    """textdiff's transformer and an output layer."""

    def __init__(self, width: int, depth: int, dropout: float) -> None:
        super().__init__()
        sizes = EMBED_DIM, width, depth, width // 64, LENGTH
        self.denoiser = TextDenoiser(*sizes, logsnr_range=(-9.0, 6.0), dropout=dropout)
        self.output = nn.Linear(width, EMBED_DIM)

    def forward(self, x_t: Tensor, logsnr: Tensor) -> Tensor:
        mask = torch.ones(x_t.shape[:2], dtype=torch.bool, device=x_t.device)
        index = torch.arange(len(x_t), device=x_t.device) if self.training else None
        return self.output(self.denoiser(NoisyText(x_t, logsnr, mask), index))


class DiffusersUNet(nn.Module):
    """UNet2DModel of diffusers, with attention at half resolution."""

    def __init__(self, width: int, res_blocks: int) -> None:
        super().__init__()
        from diffusers import UNet2DModel

        self.unet = UNet2DModel(
            sample_size=32,
            in_channels=1,
            out_channels=1,
            layers_per_block=res_blocks,
            block_out_channels=(width, 2 * width, 2 * width),
            down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=64,
        )

    def forward(self, x_t: Tensor, logsnr: Tensor) -> Tensor:
        return self.unet(x_t, logsnr).sample


def textdiff_unet(width: int, res_blocks: int) -> UNet:
    """textdiff's U-Net of the same shape."""
    return UNet(1, width, (1, 2, 2), res_blocks, (1,))


class Domain(NamedTuple):
    """Networks for one kind of data.

    Args:
        networks: Constructors by name, textdiff's first.
        shape: Shape of one example.
        units: Number of tokens or images that an example counts for.
    """

    networks: dict[str, Callable[..., nn.Module]]
    shape: tuple[int, ...]
    units: int


TEXT_NETWORKS = {"textdiff": TransformerDenoiser, "BERT encoder": BertDenoiser}
IMAGE_NETWORKS = {"textdiff": textdiff_unet, "diffusers": DiffusersUNet}
DOMAINS = {
    "text": Domain(TEXT_NETWORKS, (LENGTH, EMBED_DIM), LENGTH),
    "image": Domain(IMAGE_NETWORKS, (1, 32, 32), 1),
}
