"""Sampling of images: `generate` runs the reverse process for a `Request`, batch by batch.

Requests to sample, edit, inpaint and interpolate differ only in the images and in the time of the
noise schedule at which each pixel starts.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from image.config import ImageSamplingConfig, check_strength, check_window
from image.model import ImageDiffusionModel, quantized, scaled
from image.orders import order_path
from textdiff.config import SamplingConfig, UserError, check
from textdiff.diffusion.samplers import LogSNRs
from textdiff.diffusion.schedules import Schedule
from textdiff.distributed import SINGLE_PROCESS, ProcessInfo
from textdiff.hub import load_pretrained
from textdiff.prng import noise_generator, sample_keys
from textdiff.sampling import SampleBatch, resample, resample_grid, sampling_precision

Image = UInt8[Tensor, "c h w"]
Labels = Int[Tensor, " n"]
DEFAULT = ImageSamplingConfig()


@dataclass(frozen=True)
class Request:
    """n images to be sampled.

    Args:
        x0: Images in [-1, 1]. They have no meaning where `start` is 1.
        keys: Key of each image, from which its noise is derived.
        start: Time of the noise schedule at which each pixel starts: 1 is pure noise, 0 keeps the
            pixel.
        label: Class of each image.
        guidance_scale: Scale of classifier-free guidance. 1 is no guidance.
        order: Order in which pixels lose their noise; see `in_order`.
        window: Number of pixels that lose their noise at the same time, if not parallel.
    """

    x0: Float[Tensor, "n c h w"]
    keys: Int[Tensor, " n"]
    start: Float[Tensor, "n 1 h w"]
    label: Labels | None = None
    guidance_scale: float = 1.0
    order: str = "parallel"
    window: int = 1

    def log_snrs(self, schedule: Schedule, steps: int, rows: Int[Tensor, " b"]) -> LogSNRs:
        """Log SNRs of the sampler for some images: one per step, or one per pixel."""
        start, strength = self.start[rows], round(float(self.start.max()), 6)  # from float32
        if self.order == "parallel" and (start == self.start.max()).all():
            return resample_grid(schedule, steps, strength)
        path = order_path(schedule, start, self.keys[rows], self.order, self.window)
        return path.grid(math.ceil(steps * strength)).unique_consecutive(dim=0)


def load_model(
    name: str, revision: str | None = None, token: str | None = None
) -> ImageDiffusionModel:
    """Loads a model to this process's device.

    Args:
        name: A run folder, its model/ folder, or a model on the Hugging Face hub.
        revision: Branch, tag or commit of a model on the hub. If None, the main branch.
        token: Access token of the hub. If None, that of `hf auth login` or HF_TOKEN.
    """
    kinds = (ImageDiffusionModel,)
    model, _ = load_pretrained(name, kinds, ("config.json",), revision, token)
    return model


def check_shape(model: ImageDiffusionModel, image: Tensor, name: str = "the image") -> None:
    """Raises UserError unless an image has the shape of the model's images."""
    if image.shape != model.config.shape:
        found, expected = ("x".join(map(str, s)) for s in (image.shape, model.config.shape))
        rule = f"the model's images are {expected}: resize it"
        raise UserError(f"{name} is {found} (channels, height, width), {rule}")


def sample_request(
    model: ImageDiffusionModel,
    n: int,
    seed: int,
    label: Labels | None = None,
    guidance_scale: float = 1.0,
) -> Request:
    """n images from pure noise. Without a label, all classes of the model in turn."""
    classes = len(model.config.classes)
    if label is None and classes:
        label = torch.arange(n) % classes
    x0 = torch.zeros(n, *model.config.shape)
    return Request(x0, sample_keys(seed, n), _times(x0, 1.0), label, guidance_scale)


def edit_request(
    model: ImageDiffusionModel,
    image: Image,
    n: int,
    seed: int,
    strength: float,
    label: Labels | None = None,
    guidance_scale: float = 1.0,
) -> Request:
    """n variations of an image: noise is added, then resampled.

    Args:
        strength: Amount of noise, from 0 (the image itself) to 1 (nothing of it is left).

    Raises:
        UserError: If the strength or the shape of the image is wrong.
    """
    check_strength(strength)
    x0, keys = _repeated(model, image, n), sample_keys(seed, n)
    return Request(x0, keys, _times(x0, strength), label, guidance_scale)


def inpaint_request(
    model: ImageDiffusionModel,
    image: Image,
    unknown: Bool[Tensor, "h w"],
    n: int,
    seed: int,
    label: Labels | None = None,
    guidance_scale: float = 1.0,
) -> Request:
    """n ways to fill an image where `unknown` is true; its other pixels are kept.

    Raises:
        UserError: If the model was not trained for it, if `unknown` is false everywhere, or if the
            shape of the image is wrong.
    """
    if not model.config.infill_prob:
        raise UserError("--inpaint needs a model trained for it (model.infill_prob above 0)")
    if not unknown.any():
        raise UserError("--mask is black everywhere: paint the pixels to be filled white")
    x0, start = _repeated(model, image, n), unknown.float().expand(n, 1, -1, -1)
    return Request(x0, sample_keys(seed, n), start, label, guidance_scale)


def interpolate_request(
    model: ImageDiffusionModel,
    first: Image,
    second: Image,
    n: int,
    seed: int,
    strength: float,
    label: Labels | None = None,
    guidance_scale: float = 1.0,
) -> Request:
    """n images from the first to the second: mixtures with the same noise (DDPM, sec. 4.3).

    Args:
        strength: Amount of noise, from 0 (the mixtures themselves) to 1 (nothing of them is left).

    Raises:
        UserError: If `n` is below 2, or if the strength or the shape of an image is wrong.
    """
    check(n >= 2, "--n of --interpolate", "at least 2", n)
    check_strength(strength)
    weight = torch.linspace(0, 1, n)[:, None, None, None]
    x0 = _repeated(model, first, n).lerp(_repeated(model, second, n), weight)
    keys = sample_keys(seed, 1).expand(n)
    return Request(x0, keys, _times(x0, strength), label, guidance_scale)


def in_order(
    model: ImageDiffusionModel, request: Request, order: str, window: int | None
) -> Request:
    """The request with pixels that lose their noise one after another.

    Args:
        order: parallel (all together), raster (line by line), coarse-to-fine or random.
        window: Number of pixels that lose their noise at the same time. If None, 1.

    Raises:
        UserError: If the model was not trained for other orders, or if the window is impossible.
    """
    if order != "parallel" and not model.config.stagger_prob:
        rule = "a model trained for it (model.stagger_prob above 0)"
        raise UserError(f"--order {order} needs {rule}")
    check_window(order, window)
    if window is not None:
        pixels = request.start[0].numel()
        check(window <= pixels, "--window", f"between 1 and {pixels}, the pixels", window)
    return replace(request, order=order, window=window or 1)


@torch.no_grad()
def generate(
    model: ImageDiffusionModel,
    request: Request,
    config: SamplingConfig = DEFAULT,
    process: ProcessInfo = SINGLE_PROCESS,
) -> Iterator[SampleBatch[Image]]:
    """Runs the reverse process and yields the images after every step of every batch.

    Image i depends only on its key and on its part of the request. A pixel is the estimate of x0 in
    the last step in which its noise was reduced; before that it is the pixel of the request.

    Args:
        process: This process. Several processes divide the batches.
    """
    precision = sampling_precision(model, config.precision)
    batches = torch.arange(len(request.x0)).split(config.batch_size)
    for rows in batches[process.rank :: process.world]:
        x0, start = request.x0[rows], request.start[rows]
        logsnrs = request.log_snrs(model.schedule(), config.steps, rows)
        noise = noise_generator(request.keys[rows].to(model.device))
        label = None if request.label is None else request.label[rows].to(model.device)
        denoise = model.denoiser(label, request.guidance_scale, precision)
        steps = resample(
            denoise, x0.to(model.device), noise, logsnrs, strength=start, sampler=config.sampler
        )
        for step in steps:
            if step.index:
                before, after = logsnrs[step.index - 1 : step.index + 1]
                x0 = torch.where(after > before, step.x0.cpu(), x0)
            yield SampleBatch(rows.tolist(), step.index, len(logsnrs) - 1, list(quantized(x0)))


def _times(x0: Float[Tensor, "n c h w"], time: float) -> Float[Tensor, "n 1 h w"]:
    """The same time for all pixels."""
    return torch.full_like(x0[:, :1], time)


def _repeated(model: ImageDiffusionModel, image: Image, n: int) -> Float[Tensor, "n c h w"]:
    """The image n times, in [-1, 1]. Raises UserError if it has another shape than the model's."""
    check_shape(model, image)
    return scaled(image.expand(n, -1, -1, -1))
