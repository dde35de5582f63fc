"""The image model: Gaussian diffusion of pixels, with a U-Net as the denoiser.

`forward` is the loss of a training step and `denoiser` the function that samplers call. Pixels are
bytes outside of the model and numbers in [-1, 1] inside. Log SNR and losses are float32 under
autocast too.
"""

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from transformers import AutoModel, PreTrainedModel

from image.corruption import sample_levels
from image.model_config import ImageDiffusionConfig
from image.unet import UNet
from textdiff.config import check
from textdiff.device import autocast
from textdiff.diffusion.gaussian import PREDICTIONS, Denoiser, LogSNR, Prediction
from textdiff.diffusion.losses import LOSSES
from textdiff.diffusion.schedules import SCHEDULES, Schedule
from textdiff.diffusion.wrappers import clamped, guided
from textdiff.nn import bounded_schedule, upcast
from textdiff.prng import low_discrepancy_times, normal, uniform

X = Float[Tensor, "b c h w"]
Pixels = UInt8[Tensor, "b c h w"]
Index = Int[Tensor, " b"]


class ImageDiffusionModel(PreTrainedModel):
    """A diffusion model of images.

    Raises:
        UserError: If the objective or the schedule is unknown, or if the schedule does not reach
            into the bounds of log SNR.
    """

    config_class = ImageDiffusionConfig
    base_model_prefix = "image_diffusion"
    config: ImageDiffusionConfig

    def __init__(self, config: ImageDiffusionConfig) -> None:
        super().__init__(config)
        c = config
        for name, known in (("objective", LOSSES), ("schedule", SCHEDULES)):
            value = getattr(c, name)
            check(value in known, f"model.{name}", f"one of {', '.join(known)}", value)
        self.fixed_schedule = bounded_schedule(c.schedule, c.logsnr_min, c.logsnr_max)
        self.unet = UNet(
            c.channels,
            c.width,
            c.channel_multipliers,
            c.res_blocks,
            c.attention_levels,
            len(c.classes),
            c.dropout,
            (c.logsnr_min, c.logsnr_max) if c.has_own_levels else None,
        )
        self.post_init()

    def _init_weights(self, module: torch.nn.Module) -> None:
        """Does nothing: every module initializes itself."""

    def schedule(self) -> Schedule:
        """The noise schedule t -> log SNR."""
        return self.fixed_schedule

    def predict(
        self, x_t: X, logsnr: LogSNR, label: Index | None = None, index: Index | None = None
    ) -> Prediction:
        """Calls the network once and converts its output to (x0, eps).

        Args:
            logsnr: Log SNR of each image, or of each pixel.
            index: Index of each example in the run, from which dropout is derived. If None, there
                is no dropout.
        """
        out = self.unet(x_t, logsnr, label, index)
        with torch.autocast(x_t.device.type, enabled=False):
            return PREDICTIONS[self.config.objective](x_t, upcast(out), logsnr)

    def denoiser(
        self, label: Index | None = None, guidance_scale: float = 1.0, precision: str = "no"
    ) -> Denoiser:
        """The denoiser of samplers, whose estimates of x0 are clamped to [-1, 1].

        Args:
            label: Class of each image. If None, the model is unconditional.
            guidance_scale: Scale of classifier-free guidance. 1 is no guidance.
            precision: Precision of the network: bf16 or no (float32).
        """

        def given(label: Tensor | None) -> Denoiser:
            def denoise(x_t: Tensor, logsnr: Tensor) -> Prediction:
                with autocast(x_t.device, precision):
                    return self.predict(x_t, logsnr, label)

            return denoise

        denoise = given(label)
        if label is not None and guidance_scale != 1:
            denoise = guided(denoise, given(None), guidance_scale)
        return clamped(denoise, lambda x0: x0.clamp(-1, 1))

    def forward(
        self, pixels: Pixels, index: Index, label: Index | None = None, progress: object = 1.0
    ) -> dict[str, Float[Tensor, ""]]:
        """Squared error of the objective, per pixel and channel, under the objective's name.

        Pixels without noise have none. There are some in training only.

        Args:
            index: Index of each example in the run, from which its randomness is derived.
            label: Class of each image. In training it is dropped with `class_drop_prob`.
            progress: Not used. The trainer passes it to all models.
        """
        x0, objective = scaled(pixels), self.config.objective
        dropout_index = index if self.training else None
        logsnr, noisy = self._levels(index, x0.shape[2:])
        if label is not None and self.training:
            dropped = uniform(index, stream=2) < self.config.class_drop_prob
            label = torch.where(dropped, len(self.config.classes), label)

        def denoise(x_t: Tensor, logsnr: Tensor) -> Prediction:
            return self.predict(x_t, logsnr, label, dropout_index)

        eps = normal(index, x0.shape, stream=1)
        return {objective: (LOSSES[objective](denoise, x0, eps, logsnr) * noisy).mean()}

    def _levels(self, index: Index, size: torch.Size) -> tuple[LogSNR, Tensor | float]:
        """Log SNR of each image or pixel, and where there is noise."""
        c, schedule = self.config, self.schedule()
        if self.training and c.has_own_levels:
            return sample_levels(index, size, schedule, c.infill_prob, c.stagger_prob)
        return schedule(low_discrepancy_times(index)), 1.0


def scaled(pixels: Pixels) -> X:
    """Maps bytes to [-1, 1]."""
    return pixels / 127.5 - 1


def quantized(x0: X) -> Pixels:
    """Maps [-1, 1] to the nearest bytes. Values outside are clamped."""
    return ((x0.clamp(-1, 1) + 1) * 127.5).round().byte()


AutoModel.register(ImageDiffusionConfig, ImageDiffusionModel)
