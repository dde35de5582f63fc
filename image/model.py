"""ImageDiffusion: noise on pixels and the U-Net that takes it away. `forward` is a training step's loss, `denoiser` what samplers are given.

Pixels are bytes outside and numbers from -1 to 1 inside. Noise levels and losses are float32, whatever autocast does.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel

from image.unet import UNet
from textdiff.config import check
from textdiff.counter import even_times, normal, uniform
from textdiff.device import autocast
from textdiff.diffusion.gaussian import PREDICTIONS, Denoiser, Prediction
from textdiff.diffusion.loss import LOSSES
from textdiff.diffusion.schedule import SCHEDULES, Schedule
from textdiff.diffusion.wrappers import clamped, guided
from textdiff.layers import exact
from textdiff.levels import named_schedule


class ImageDiffusionConfig(PreTrainedConfig):
    """`image.config.Model`, flat, with what the data decide: the images' shape and classes."""

    model_type = "textdiff-image"

    def __init__(
        self,
        channels: int = 1,
        height: int = 8,
        image_width: int = 8,
        classes: Sequence[str] = (),
        objective: str = "eps",
        schedule: str = "cosine",
        logsnr_min: float = -9.0,
        logsnr_max: float = 10.0,
        width: int = 64,
        multipliers: Sequence[int] = (1, 2, 2),
        blocks: int = 2,
        attention: Sequence[int] = (1,),
        dropout: float = 0.0,
        label_dropout: float = 0.1,
        **kwargs: Any,
    ) -> None:
        self.channels, self.height, self.image_width, self.classes = channels, height, image_width, list(classes)
        self.objective, self.schedule, self.logsnr_min, self.logsnr_max = objective, schedule, logsnr_min, logsnr_max
        self.width, self.multipliers, self.blocks, self.attention = width, list(multipliers), blocks, list(attention)
        self.dropout, self.label_dropout = dropout, label_dropout
        super().__init__(**kwargs)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.height, self.image_width


class ImageDiffusion(PreTrainedModel):
    """The image model. Raises InputError for an objective or a schedule that cannot be."""

    config_class = ImageDiffusionConfig
    base_model_prefix = "image_diffusion"
    config: ImageDiffusionConfig

    def __init__(self, config: ImageDiffusionConfig) -> None:
        super().__init__(config)
        c = config
        check(c.objective in PREDICTIONS, "model.objective", f"one of {', '.join(PREDICTIONS)}", c.objective)
        check(c.schedule in SCHEDULES, "model.schedule", f"one of {', '.join(SCHEDULES)}", c.schedule)
        self.fixed_schedule = named_schedule(c.schedule, c.logsnr_min, c.logsnr_max)
        self.unet = UNet(c.channels, c.width, c.multipliers, c.blocks, c.attention, len(c.classes), c.dropout)
        self.post_init()

    def _init_weights(self, module: torch.nn.Module) -> None:
        """Every module initializes itself."""

    def schedule(self) -> Schedule:
        """t -> log SNR."""
        return self.fixed_schedule

    def predict(
        self,
        x_t: Float[Tensor, "b c h w"],
        logsnr: Float[Tensor, " b"],
        label: Int[Tensor, " b"] | None = None,
        index: Int[Tensor, " b"] | None = None,
    ) -> Prediction:
        """One call of the network; dropout only with an `index`."""
        out = self.unet(x_t, logsnr, label, index)
        with torch.autocast(x_t.device.type, enabled=False):
            return PREDICTIONS[self.config.objective](x_t, logsnr, exact(out))

    def denoiser(self, label: Int[Tensor, " b"] | None = None, guidance: float = 1.0, precision: str = "no") -> Denoiser:
        """For samplers: estimates stay within what pixels can be."""

        def of(label: Tensor | None) -> Denoiser:
            def denoise(x_t: Tensor, logsnr: Tensor) -> Prediction:
                with autocast(x_t.device, precision):
                    return self.predict(x_t, logsnr, label)

            return denoise

        return clamped(of(label) if label is None or guidance == 1 else guided(of(label), of(None), guidance), lambda x0: x0.clamp(-1, 1))

    def forward(
        self, pixels: UInt8[Tensor, "b c h w"], index: Int[Tensor, " b"], label: Int[Tensor, " b"] | None = None, progress: object = 1.0
    ) -> dict[str, Float[Tensor, ""]]:
        """The squared error of what the objective names, a pixel. `index` numbers the examples in the run: all randomness is a function of it."""
        x0, training = scaled(pixels), index if self.training else None
        logsnr = self.schedule()(even_times(index))
        if label is not None and self.training:
            label = torch.where(uniform(index, stream=2) < self.config.label_dropout, len(self.config.classes), label)
        error = LOSSES[self.config.objective](
            lambda x_t, level: self.predict(x_t, level, label, training), x0, logsnr, normal(index, x0.shape, stream=1)
        )
        return {self.config.objective: error.mean()}


def scaled(pixels: UInt8[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Bytes to [-1, 1]."""
    return pixels / 127.5 - 1


def quantized(x0: Float[Tensor, "b c h w"]) -> UInt8[Tensor, "b c h w"]:
    """[-1, 1], and what lies beyond, to the nearest bytes."""
    return ((x0.clamp(-1, 1) + 1) * 127.5).round().byte()


AutoConfig.register(ImageDiffusionConfig.model_type, ImageDiffusionConfig)
AutoModel.register(ImageDiffusionConfig, ImageDiffusion)
