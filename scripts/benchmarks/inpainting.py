"""Two ways to fill halves of held-out images: exact conditioning and replacement.

Exact conditioning gives each pixel a log SNR of its own: given pixels are at the clean end.
Replacement has one log SNR for all pixels and puts given pixels in the place of their estimates.
"""

import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from image import metrics
from image.config import ImageConfig
from image.model import ImageDiffusionModel, quantized, scaled
from image.sampling import Request, generate, load_model
from image.sources import open_images
from textdiff.config import SamplingConfig
from textdiff.diffusion.gaussian import Denoiser, Prediction, from_x0
from textdiff.prng import noise_generator, sample_keys
from textdiff.sampling import collect, resample, resample_grid
from textdiff.training.run_dir import load_config_of

SETTINGS = (("ddpm", 50), ("dpm_solver", 20))  # samplers and steps
Row = dict[str, Any]


def inpainting(
    exact: str, replacement: str, n: int = 1000, out: str = "benchmark-inpainting.json"
) -> None:
    """Compare two ways to fill the left or the lower half of held-out images.

    Agreement is with the true class, by a classifier. The error is the root mean square over hidden
    pixels in [0, 1]. The seam is the mean difference of neighbors across the boundary, divided by
    that of the images.

    Args:
        exact: Run folder of a model trained with model.infill_prob above 0.
        replacement: Run folder of a model of the same images, with one noise level for all pixels.
        n: Number of images, or all of them if there are fewer.
        out: File for the results as JSON.
    """
    training, held_out = open_images(load_config_of(exact, ImageConfig)[1].data)
    images, classifier = held_out[:n], metrics.train_classifier(training)
    methods = [("replacement", replaced, replacement), ("exact", conditioned, exact)]
    rows: list[Row] = []
    print(f"{len(images)} images. half, method, class, sampler, steps: agreement, error, seam")
    for (method, fill, run), half in product(methods, ("left", "lower")):
        model, hidden = load_model(run), hidden_half(half, images.pixels.shape[2:])
        for labels, (sampler, steps) in product((images.labels, None), SETTINGS):
            config = SamplingConfig(steps, sampler, batch_size=100, precision="no")
            filled = fill(model, images.pixels, hidden, labels, config)
            difference = (filled.float() - images.pixels.float())[..., hidden] / 255
            row = {"half": half, "method": method, "class": labels is not None}
            row |= {"sampler": sampler, "steps": steps}
            row["agreement"] = metrics.accuracy(classifier, replace(images, pixels=filled))
            row["error"] = float(difference.square().mean().sqrt())
            row["seam"] = seam(filled, half) / seam(images.pixels, half)
            print(*(f"{x:.4f}" if isinstance(x, float) else x for x in row.values()))
            rows.append(row)
    Path(out).write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def hidden_half(half: str, size: torch.Size) -> Tensor:
    """True at the left or the lower half of the pixels."""
    hidden = torch.zeros(size, dtype=torch.bool)
    if half == "left":
        hidden[:, : size[1] // 2] = True
    else:
        hidden[size[0] // 2 :] = True
    return hidden


def conditioned(
    model: ImageDiffusionModel,
    pixels: Tensor,
    hidden: Tensor,
    labels: Tensor | None,
    c: SamplingConfig,
) -> Tensor:
    """The images with hidden pixels filled by exact conditioning."""
    n = len(pixels)
    start = hidden.float().expand(n, 1, -1, -1)
    request = Request(scaled(pixels), sample_keys(c.seed, n), start, labels)
    return torch.stack([*collect(generate(model, request, c))])


@torch.no_grad()
def replaced(
    model: ImageDiffusionModel,
    pixels: Tensor,
    hidden: Tensor,
    labels: Tensor | None,
    c: SamplingConfig,
) -> Tensor:
    """The images with hidden pixels filled by replacement."""
    x0, keys = scaled(pixels), sample_keys(c.seed, len(pixels))
    logsnrs, filled = resample_grid(model.schedule(), c.steps, 1.0), []
    for rows in torch.arange(len(pixels)).split(c.batch_size):
        estimate = model.denoiser(None if labels is None else labels[rows])
        denoise, noise = replacing(estimate, x0[rows], ~hidden), noise_generator(keys[rows])
        *_, last = resample(denoise, x0[rows], noise, logsnrs, sampler=c.sampler)
        filled.append(quantized(last.x0))
    return torch.cat(filled)


def replacing(denoise: Denoiser, x0: Tensor, known: Tensor) -> Denoiser:
    """The denoiser with `x0` in the place of its estimate where `known` is true."""

    def replacing_denoise(x_t: Tensor, logsnr: Tensor) -> Prediction:
        return from_x0(x_t, torch.where(known, x0, denoise(x_t, logsnr).x0), logsnr)

    return replacing_denoise


def seam(pixels: Tensor, half: str) -> float:
    """Mean absolute difference of the neighbors on both sides of the boundary of a half."""
    lines = pixels.float().movedim(-1 if half == "left" else -2, 0)
    middle = len(lines) // 2
    return float((lines[middle] - lines[middle - 1]).abs().mean())
