"""Images of single dots: the way to noise and back, reconstruction in one step, and samples."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from report_sections.network import generator
from report_sections.runs import dots_run
from report_sections.section import WIDTH, Formula, Section, TryNext
from torch import Tensor

from image.dots import dots, judge
from image.model import ImageDiffusionModel, quantized, scaled
from image.sampling import generate, load_model, sample_request
from textdiff.config import SamplingConfig
from textdiff.diffusion.gaussian import diffuse
from textdiff.diffusion.samplers import ddpm
from textdiff.sampling import collect

TEXT = partial(
    Section,
    name="images",
    title="Train and observe: single dots",
    problem=(
        r"[DDD] 5. Train a network on images of one white dot on black. Compare the states of the "
        r"forward process with those of the reverse process. Can the network reconstruct a noisy "
        r"image in one step? Can it generate one from pure noise?"
    ),
    derivation=[
        Formula(
            "The network is trained to predict a mixture of noise and data, which has the same "
            "size at every noise level.",
            r"v=\alpha\epsilon-\sigma x_0",
        ),
        Formula(
            r"Because $\alpha^2+\sigma^2=1$, its prediction gives the clean image in one step.",
            r"\hat{x}_0=\alpha x_t-\sigma v_\theta(x_t,t)",
        ),
        Formula(
            "To generate, repeat small reverse steps (section 5) from pure noise.",
            r"x_s\sim q\left(x_s\mid x_t,\,\hat{x}_0(x_t,t)\right),\qquad x_T\sim\mathcal{N}(0,I)",
        ),
    ],
    idea=(
        r"A slightly noisy image still shows where its dot is, and one step recovers it. From pure "
        r"noise, one step can only give the mean image (section 8). Many small steps decide little "
        r"by little: at first a region, then a pixel. The dot that appears belongs to the noise, "
        r"not to the image from which the noise was made."
    ),
    try_next=TryNext(
        "python scripts/train_image.py --data.train digits --run runs/digits",
        "The same network learns handwritten digits in a few minutes. Then run "
        "`python scripts/sample_image.py runs/digits --n 64 --out digits.png`, and count the "
        "digits that you can read.",
    ),
)
STEPS, SAMPLES = 50, 300
SHOWN = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
IMAGES = 3


@torch.no_grad()
def experiment(folder: Path) -> Section:
    """Reconstructs and samples images of dots."""
    section, run = TEXT(), dots_run(folder)
    model = load_model(run)
    _draw_states(section, model)
    recovered = _recovered_share(section, model)
    request = sample_request(model, SAMPLES, seed=0)
    samples = torch.stack([*collect(generate(model, request, SamplingConfig(steps=STEPS)))])
    figure = _tiles(samples[:24].unflatten(0, (3, 8)))
    section.add_figure("24 samples from pure noise. Each should have exactly one dot.", figure)
    verdict, seconds = judge(samples), _training_seconds(run)
    section.numbers = {
        "training_seconds": seconds,
        **verdict._asdict(),
        "dots_recovered_in_one_step": recovered,
        "samples": SAMPLES,
    }
    section.finding = (
        f"The network was trained for {seconds:.0f} seconds. From a fifth of the way to noise, one "
        f"step recovers {recovered:.1%} of {SAMPLES} dots. Of {SAMPLES} samples from pure noise, "
        f"{verdict.single:.1%} have exactly one white dot on black. Their positions are spread "
        f"over the image: a test of even spread has p = {verdict.uniform_p:.2f}, and values below "
        "0.01 would be suspicious."
    )
    return section


def _training_seconds(run: str) -> float:
    lines = Path(run, "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return max(json.loads(line).get("seconds", 0) for line in lines)


def _draw_states(section: Section, model: ImageDiffusionModel) -> None:
    """Draws images on their way to noise and back."""
    x0, logsnrs = scaled(dots()[:IMAGES]), _logsnrs(model)
    noise = torch.randn(x0.shape, generator=generator(0))
    forward = [diffuse(x0, noise, _logsnr(model, t).expand(IMAGES)) for t in SHOWN]
    steps = ddpm(model.denoiser(), forward[-1], logsnrs, generator=generator(1))
    states = [forward[-1], *(step.x for step in steps)]
    reverse = [states[round((1 - t) * STEPS)] for t in SHOWN]
    rows = torch.stack([torch.stack(forward, 1), torch.stack(reverse, 1)], 1).flatten(0, 1)
    labels = ["to noise →", "← from noise"] * IMAGES
    figure = _tiles(quantized(rows), [f"t = {t:g}" for t in SHOWN], labels)
    section.add_figure(
        "Two rows for each of three images. The first row goes from the image to noise, left to "
        "right. The second row starts from that noise, and goes from right to left. Its dot is "
        "sharp again, but may be at another place.",
        figure,
    )


def _recovered_share(section: Section, model: ImageDiffusionModel) -> float:
    """Share of dots that one step recovers from a fifth of the schedule."""
    x0, logsnr = scaled(dots()[:SAMPLES]), _logsnr(model, 0.2).expand(SAMPLES)
    x_t = diffuse(x0, torch.randn(x0.shape, generator=generator(2)), logsnr)
    estimate = model.denoiser()(x_t, logsnr).x0
    rows = quantized(torch.stack([each[:6] for each in (x0, x_t, estimate)]))
    figure = _tiles(rows, labels=["image", "noisy", "one step"])
    section.add_figure(
        "Images, the same with noise (a fifth of the way, t = 0.2), and what one step makes of the "
        "noisy ones. The dots of the first and the last row should agree.",
        figure,
    )
    found, true = (pixels.flatten(1).argmax(1) for pixels in (quantized(estimate), x0))
    return float((found == true).float().mean())


def _logsnr(model: ImageDiffusionModel, t: float) -> Tensor:
    """Log SNR at a time, which is on the sampler's grid."""
    return _logsnrs(model)[round((1 - t) * STEPS)]


def _logsnrs(model: ImageDiffusionModel) -> Tensor:
    return model.schedule()(torch.linspace(1, 0, STEPS + 1, dtype=torch.float64)).float()


def _tiles(images: Tensor, titles: Sequence[str] = (), labels: Sequence[str] = ()) -> Figure:
    """A table of gray images: row, column, channel, height, width."""
    rows, columns = images.shape[:2]
    size = (WIDTH, WIDTH * rows / (columns + 1))
    figure, panels = plt.subplots(rows, columns, figsize=size, layout="constrained")
    for axes, image in zip(panels.flat, images.flatten(0, 1), strict=True):
        axes.imshow(image[0], cmap="gray", vmin=0, vmax=255)
        axes.set(xticks=[], yticks=[])
    for axes, title in zip(panels[0], titles, strict=False):
        axes.set_title(title, fontsize=9)
    for axes, label in zip(panels[:, 0], labels, strict=False):
        axes.set_ylabel(label, rotation=0, ha="right", va="center")
    return figure
