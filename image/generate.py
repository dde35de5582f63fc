"""Images from a trained model: a `Task` says what is given and what is wanted, `generate` runs the reverse process and yields drafts.

Sampling, editing, inpainting and interpolating differ only in the task, as in text: what is known, and from which noise level one starts.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from tqdm import tqdm

from image.config import Sampling
from image.model import ImageDiffusion, quantized, scaled
from textdiff.config import InputError, Precision, check
from textdiff.counter import sample_keys, sample_noise
from textdiff.device import choose_precision
from textdiff.diffusion.gaussian import diffuse
from textdiff.diffusion.samplers import SAMPLERS
from textdiff.diffusion.wrappers import infilled
from textdiff.pretrained import load_pretrained
from textdiff.processes import ALONE, Place


@dataclass(frozen=True)
class Task:
    """Images to be generated: from `start`, noised to `strength` of the schedule's time (1: pure noise, whatever the start). Where `known` is
    true they stay as in `start`. `keys` are what each one's noise is a function of; `label` its class."""

    start: Float[Tensor, "n c h w"]
    keys: Int[Tensor, " n"]
    strength: float = 1.0
    known: Bool[Tensor, "n 1 h w"] | None = None
    label: Int[Tensor, " n"] | None = None


@dataclass(frozen=True)
class Draft:
    """The task's images `rows` as of `step` out of `steps`; the last step's are the result."""

    rows: Tensor
    step: int
    steps: int
    pixels: UInt8[Tensor, "b c h w"]


def load(name: str) -> ImageDiffusion:
    """A model from a run folder, its model/ folder, or the hub; on this process's device."""
    model, _ = load_pretrained(name, (ImageDiffusion,), ("config.json",))
    return model


def from_noise(model: ImageDiffusion, n: int, seed: int, label: Tensor | None = None) -> Task:
    """n images out of nothing; where the model knows classes and none is asked for, of all classes in turn."""
    classes = len(model.config.classes)
    if label is None and classes:
        label = torch.arange(n) % classes
    return Task(torch.zeros(n, *model.config.shape), sample_keys(seed, n), label=label)


def editing(model: ImageDiffusion, image: UInt8[Tensor, "c h w"], n: int, seed: int, strength: float, label: Tensor | None = None) -> Task:
    """n variations on an image: noised to `strength`, then resampled."""
    check(0 <= strength <= 1, "--strength", "between 0 (the image itself) and 1 (nothing of it)", strength)
    return Task(_start(model, image, n), sample_keys(seed, n), strength, label=label)


def inpainting(
    model: ImageDiffusion, image: UInt8[Tensor, "c h w"], wanted: Bool[Tensor, "h w"], n: int, seed: int, label: Tensor | None = None
) -> Task:
    """n ways to paint an image where `wanted` is true; the rest stays as it is."""
    if not wanted.any():
        raise InputError("--mask is black all over: paint white what is to be filled in")
    return Task(_start(model, image, n), sample_keys(seed, n), known=~wanted.expand(n, 1, -1, -1), label=label)


def interpolating(
    model: ImageDiffusion,
    first: UInt8[Tensor, "c h w"],
    second: UInt8[Tensor, "c h w"],
    n: int,
    seed: int,
    strength: float,
    label: Tensor | None = None,
) -> Task:
    """n images from the first to the second: noised by the same noise, mixed, then denoised (after DDPM, sec. 4.3)."""
    check(n >= 2, "--n of --interpolate", "at least 2", n)
    check(0 <= strength <= 1, "--strength", "between 0 (the images themselves) and 1 (nothing of them)", strength)
    share = torch.linspace(0, 1, n)[:, None, None, None]
    return Task(_start(model, first, n).lerp(_start(model, second, n), share), sample_keys(seed, 1).expand(n), strength, label=label)


@torch.no_grad()
def generate(model: ImageDiffusion, task: Task, options: Sampling, where: Place = ALONE) -> Iterator[Draft]:
    """Drafts of all images, or of this process's share, a batch after the other, a step after the other. Image i depends on its key and its
    task alone."""
    device = model.device
    precision = precision_for(model, options.precision)
    times = torch.linspace(task.strength, 0, max(1, math.ceil(options.steps * task.strength)) + 1, dtype=torch.float64)
    logsnrs = model.schedule()(times).float().unique_consecutive()
    steps = len(logsnrs) - 1
    for rows in torch.arange(len(task.start)).split(options.batch_size)[where.rank :: where.world]:
        clean = task.start[rows].to(device)
        if steps == 0:  # no noise, no steps
            yield Draft(rows, 0, 0, quantized(clean).cpu())
            continue
        noise = sample_noise(task.keys[rows].to(device))
        start = logsnrs[:1].to(device).expand(len(rows))
        x = noise(clean) if task.strength == 1 else diffuse(clean, start, noise(clean))
        denoise = model.denoiser(None if task.label is None else task.label[rows].to(device), options.guidance, precision)
        if task.known is not None:
            denoise = infilled(denoise, clean, task.known[rows].to(device))
        for step in SAMPLERS[options.sampler](denoise, x, logsnrs, generator=noise):
            yield Draft(rows, step.index, steps, quantized(step.x0).cpu())


def precision_for(model: ImageDiffusion, asked: Precision) -> Literal["bf16", "no"]:
    """The precision to sample in, on the model's device; a 3x3 convolution sums over 9 places."""
    return choose_precision(asked, model.device, 9 * model.config.width)


def finished(drafts: Iterable[Draft]) -> UInt8[Tensor, "n c h w"]:
    """All results, in the task's order."""
    last = sorted((draft for draft in drafts if draft.step == draft.steps), key=lambda draft: int(draft.rows[0]))
    return torch.cat([draft.pixels for draft in last])


def watched(drafts: Iterable[Draft], n: int, options: Sampling, label: str | None = None) -> Iterator[Draft]:
    """The same drafts, with a progress bar."""
    with tqdm(desc=label, total=0, unit="step", disable=None, leave=False) as bar:
        for draft in drafts:
            bar.total = draft.steps * math.ceil(n / options.batch_size)
            bar.update()
            yield draft


def _start(model: ImageDiffusion, image: UInt8[Tensor, "c h w"], n: int) -> Float[Tensor, "n c h w"]:
    if image.shape != model.config.shape:
        found, wanted = ("x".join(map(str, shape)) for shape in (image.shape, model.config.shape))
        raise InputError(f"the image is {found} (channels, height, width), the model's are {wanted}")
    return scaled(image.expand(n, -1, -1, -1))
