"""Images of single dots: forward and reverse states of a U-Net, reconstruction, and samples."""

import json
from pathlib import Path

import torch
from report_sections.network import generator
from report_sections.section import Section
from torch import Tensor

from image.dots import dots, judge
from image.grid import grid
from image.model import ImageDiffusionModel, quantized, scaled
from image.sampling import generate, load_model, sample_request
from textdiff.config import SamplingConfig
from textdiff.diffusion.gaussian import diffuse
from textdiff.diffusion.samplers import ddpm
from textdiff.sampling import collect

N, STEPS, SAMPLES = 6, 50, 500


@torch.no_grad()
def images(run: str) -> Section:
    """Reconstructs and samples images of dots."""
    section = Section(
        "images",
        "Single dots",
        "Can a denoising network reconstruct an image from one step and from all, and generate one "
        "from pure noise?",
    )
    model = load_model(run)
    _draw_states(section, model)
    recovered = _recovered_share(section, model)
    request = sample_request(model, SAMPLES, seed=0)
    samples = torch.stack([*collect(generate(model, request, SamplingConfig(steps=STEPS)))])
    section.add_image("Forty samples from noise.", grid(samples[:40], columns=10, least=40))
    verdict, seconds = judge(samples), _training_seconds(run)
    section.numbers = {
        "training_seconds": seconds,
        **verdict._asdict(),
        "dots_recovered_in_one_step": recovered,
        "samples": SAMPLES,
    }
    section.answer = (
        f"After {seconds:.0f} seconds of training, {verdict.single:.1%} of {SAMPLES} samples have "
        "exactly one white dot on black. The positions of the dots are as uniform as chance makes "
        f"them (p = {verdict.uniform_p:.2f}). From a fifth of the schedule, one step recovers "
        f"{recovered:.1%} of {SAMPLES} dots. From pure noise a dot appears as well, at another "
        "position in the six images shown."
    )
    return section


def _training_seconds(run: str) -> float:
    lines = Path(run, "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return max(json.loads(line).get("seconds", 0) for line in lines)


def _draw_states(section: Section, model: ImageDiffusionModel) -> None:
    """Draws six images on their way to noise and back."""
    x0, logsnrs = scaled(dots()[:N]), _logsnrs(model)
    noise, shown = torch.randn(x0.shape, generator=generator(0)), range(0, STEPS + 1, 5)
    forward = [diffuse(x0, noise, logsnrs[STEPS - i].expand(N)) for i in shown]
    steps = ddpm(model.denoiser(), forward[-1], logsnrs, generator=generator(1))
    states = [forward[-1], *(step.x for step in steps)]
    rows = torch.cat([_rows(forward), _rows([states[i] for i in shown])], 1)
    section.add_image(
        "Six images with more noise from left to right, and the reverse process from that noise: "
        "two rows per image.",
        grid(rows.flatten(0, 2), columns=len(shown), least=40),
    )


def _recovered_share(section: Section, model: ImageDiffusionModel) -> float:
    """Share of dots that one step recovers from a fifth of the schedule."""
    x0, logsnr = scaled(dots()[:SAMPLES]), _logsnrs(model)[STEPS - STEPS // 5].expand(SAMPLES)
    x_t = diffuse(x0, torch.randn(x0.shape, generator=generator(2)), logsnr)
    estimate = model.denoiser()(x_t, logsnr).x0
    section.add_image(
        "Above: the images. Below: their reconstruction in one step from a fifth of the schedule.",
        grid(quantized(torch.cat([x0[:N], estimate[:N]])), columns=N, least=40),
    )
    found, true = (pixels.flatten(1).argmax(1) for pixels in (quantized(estimate), x0))
    return float((found == true).float().mean())


def _logsnrs(model: ImageDiffusionModel) -> Tensor:
    return model.schedule()(torch.linspace(1, 0, STEPS + 1, dtype=torch.float64)).float()


def _rows(states: list[Tensor]) -> Tensor:
    """The states of each image side by side: image, 1, state, channel, height, width."""
    return quantized(torch.stack(states, 1)).unsqueeze(1)
