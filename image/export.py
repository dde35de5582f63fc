"""The U-Net of an image model as a graph for export: one call of the network."""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from image.model import ImageDiffusionModel
from image.unet import AdaGroupNorm
from textdiff.export import Graph, log_snrs


class PlainAdaGroupNorm(AdaGroupNorm):
    """An `AdaGroupNorm` in a form for any number of images, when it is exported."""

    def forward(self, h: Tensor, cond: Tensor) -> Tensor:
        """Computes `AdaGroupNorm`, in plain operations when a graph is exported."""
        if not torch.compiler.is_exporting():
            return super().forward(h, cond)
        gain, shift = self.modulation(cond)[:, :, None, None].chunk(2, 1)
        return F.group_norm(h, self.groups) * (1 + gain) + shift


class Denoiser(nn.Module):
    """Maps noisy images to the network's output: the noise, the image or v, as it was trained."""

    def __init__(self, model: ImageDiffusionModel) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).cpu().float().eval()
        for module in self.model.modules():
            if type(module) is AdaGroupNorm:
                module.__class__ = PlainAdaGroupNorm

    def forward(self, x_t: Tensor, logsnr: Tensor, label: Tensor | None = None) -> tuple[Tensor]:
        return (self.model.unet(x_t, logsnr, label),)


def image_graph(model: ImageDiffusionModel) -> Graph:
    """The U-Net of an image model. The size of the images is fixed, their number is not."""
    denoiser, c = Denoiser(model), model.config
    inputs = ("x_t", "logsnr", "label")[: 3 if c.classes else 2]
    axes: Any = {0: "batch"}

    def examples(size: int) -> tuple[Tensor, ...]:
        rng = torch.Generator().manual_seed(size)
        pixels = (1, c.height, c.image_width) if c.has_own_levels else ()
        share = torch.rand(size, *pixels, generator=rng)
        logsnr = c.logsnr_min + (c.logsnr_max - c.logsnr_min) * share
        label = torch.randint(len(c.classes) + 1, (size,), generator=rng)
        return (torch.randn(size, *c.shape, generator=rng), logsnr, label)[: len(inputs)]

    facts = {"logsnrs": log_snrs(model.schedule()), "classes": ",".join(c.classes)}
    return Graph(denoiser, inputs, (c.objective,), (axes,) * len(inputs), examples, facts)
