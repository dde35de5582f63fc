"""Sampling of images: `generate` runs the reverse process for a `Request`, batch by batch.

Requests to sample, edit, inpaint and interpolate differ only in which pixels are known and in how
much noise sampling starts from.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from image.config import SAMPLING_STEPS
from image.model import ImageDiffusion, quantized, scaled
from textdiff.config import SamplingConfig, UserError, check
from textdiff.diffusion.wrappers import infilled
from textdiff.distributed import SINGLE_PROCESS, ProcessInfo
from textdiff.hub import load_pretrained
from textdiff.prng import noise_generator, sample_keys
from textdiff.sampling import SampleBatch, resample, resample_grid, sampling_precision

Image = UInt8[Tensor, "c h w"]
Labels = Int[Tensor, " n"]
DEFAULT = SamplingConfig(steps=SAMPLING_STEPS)


@dataclass(frozen=True)
class Request:
    """n images to be sampled.

    Args:
        start: Images in [-1, 1] to start from. Pure noise does not depend on them.
        keys: Key of each image, from which its noise is derived.
        strength: Time of the noise schedule at which sampling starts. 1 is pure noise.
        known: True where the pixels of `start` are kept.
        label: Class of each image.
        guidance_scale: Scale of classifier-free guidance. 1 is no guidance.
    """

    start: Float[Tensor, "n c h w"]
    keys: Int[Tensor, " n"]
    strength: float = 1.0
    known: Bool[Tensor, "n 1 h w"] | None = None
    label: Labels | None = None
    guidance_scale: float = 1.0


def load_model(name: str) -> ImageDiffusion:
    """Loads a model to this process's device.

    Args:
        name: A run folder, its model/ folder, or a model on the Hugging Face hub.
    """
    model, _ = load_pretrained(name, (ImageDiffusion,), ("config.json",))
    return model


def sample_request(
    model: ImageDiffusion,
    n: int,
    seed: int,
    label: Labels | None = None,
    guidance_scale: float = 1.0,
) -> Request:
    """n images from pure noise. Without a label, all classes of the model in turn."""
    classes = len(model.config.classes)
    if label is None and classes:
        label = torch.arange(n) % classes
    start = torch.zeros(n, *model.config.shape)
    return Request(start, sample_keys(seed, n), label=label, guidance_scale=guidance_scale)


def edit_request(
    model: ImageDiffusion,
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
    check(0 <= strength <= 1, "--strength", "between 0 (the image) and 1 (nothing of it)", strength)
    start, keys = _repeated(model, image, n), sample_keys(seed, n)
    return Request(start, keys, strength, label=label, guidance_scale=guidance_scale)


def inpaint_request(
    model: ImageDiffusion,
    image: Image,
    unknown: Bool[Tensor, "h w"],
    n: int,
    seed: int,
    label: Labels | None = None,
    guidance_scale: float = 1.0,
) -> Request:
    """n ways to fill an image where `unknown` is true; its other pixels are kept.

    Raises:
        UserError: If `unknown` is false everywhere or the shape of the image is wrong.
    """
    if not unknown.any():
        raise UserError("--mask is black everywhere: paint the pixels to be filled white")
    start, known = _repeated(model, image, n), ~unknown.expand(n, 1, -1, -1)
    keys = sample_keys(seed, n)
    return Request(start, keys, known=known, label=label, guidance_scale=guidance_scale)


def interpolate_request(
    model: ImageDiffusion,
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
    rule = "between 0 (the images) and 1 (nothing of them)"
    check(0 <= strength <= 1, "--strength", rule, strength)
    weight = torch.linspace(0, 1, n)[:, None, None, None]
    start = _repeated(model, first, n).lerp(_repeated(model, second, n), weight)
    keys = sample_keys(seed, 1).expand(n)
    return Request(start, keys, strength, label=label, guidance_scale=guidance_scale)


@torch.no_grad()
def generate(
    model: ImageDiffusion,
    request: Request,
    config: SamplingConfig = DEFAULT,
    process: ProcessInfo = SINGLE_PROCESS,
) -> Iterator[SampleBatch[Image]]:
    """Runs the reverse process and yields the images after every step of every batch.

    Image i depends only on its key and on its part of the request.

    Args:
        process: This process. Several processes divide the batches.
    """
    precision = sampling_precision(model, config.precision)
    logsnrs = resample_grid(model.schedule(), config.steps, request.strength)
    batches = torch.arange(len(request.start)).split(config.batch_size)
    for rows in batches[process.rank :: process.world]:
        x0 = request.start[rows].to(model.device)
        noise = noise_generator(request.keys[rows].to(model.device))
        label = None if request.label is None else request.label[rows].to(model.device)
        denoise = model.denoiser(label, request.guidance_scale, precision)
        if request.known is not None:
            denoise = infilled(denoise, x0, request.known[rows].to(model.device))
        strength, sampler = request.strength, config.sampler
        for step in resample(denoise, x0, noise, logsnrs, strength=strength, sampler=sampler):
            pixels = list(quantized(step.x0).cpu())
            yield SampleBatch(rows.tolist(), step.index, len(logsnrs) - 1, pixels)


def _repeated(model: ImageDiffusion, image: Image, n: int) -> Float[Tensor, "n c h w"]:
    """The image n times, in [-1, 1]. Raises UserError if it has another shape than the model's."""
    if image.shape != model.config.shape:
        found, expected = ("x".join(map(str, s)) for s in (image.shape, model.config.shape))
        rule = f"the model's images are {expected}: resize it"
        raise UserError(f"the image is {found} (channels, height, width), {rule}")
    return scaled(image.expand(n, -1, -1, -1))
