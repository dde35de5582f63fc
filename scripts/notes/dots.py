"""Single dots: forward and backward states of a U-Net, reconstruction from one step and from all, and generation."""

import json
from pathlib import Path

import torch
from notes.section import Section
from torch import Tensor

from image.config import Sampling
from image.dots import dots, judge
from image.generate import finished, from_noise, generate, load
from image.model import quantized, scaled
from image.picture import grid
from textdiff.diffusion.gaussian import diffuse
from textdiff.diffusion.samplers import ddpm

N, STEPS, SAMPLES = 6, 50, 500


def images(run: str) -> Section:
    section = Section(
        "images",
        "Single dots",
        "Can a network that removes noise reconstruct a noised image, from one step and from all, and generate one from nothing?",
    )
    again = _there_and_back(section, run)
    model = load(run)
    samples = finished(generate(model, from_noise(model, SAMPLES, seed=0), Sampling(steps=STEPS)))
    section.picture("Forty samples from noise.", grid(samples[:40], columns=10, least=40))
    verdict, log = judge(samples), [json.loads(line) for line in Path(run, "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    seconds = max(line.get("seconds", 0) for line in log)
    section.numbers = {"training_seconds": seconds, **verdict._asdict(), "dots_found_again_in_one_step": again, "samples": SAMPLES}
    section.answer = (
        f"After {seconds:.0f} seconds of training, {verdict.single:.1%} of {SAMPLES} samples have exactly one white dot on black, in places as "
        f"even as chance makes them (p = {verdict.uniform_p:.2f}). From a fifth of the way one step finds {again:.1%} of {SAMPLES} dots; from all of "
        "the noise a dot comes out, elsewhere in the six images shown."
    )
    return section


def _there_and_back(section: Section, run: str) -> float:
    """Six images to noise and back; the share of their dots that one step finds again from a fifth of the way."""
    model, x0 = load(run), scaled(dots()[:N])
    levels = model.schedule()(torch.linspace(1, 0, STEPS + 1, dtype=torch.float64)).float()
    noise, shown = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0)), range(0, STEPS + 1, 5)
    forward = [diffuse(x0, levels[STEPS - i].expand(N), noise) for i in shown]
    with torch.no_grad():
        steps = list(ddpm(model.denoiser(), forward[-1], levels, generator=torch.Generator().manual_seed(1)))
        early = levels[STEPS - STEPS // 5]
        many = scaled(dots()[:SAMPLES])
        noisy = diffuse(many, early.expand(SAMPLES), torch.randn(many.shape, generator=torch.Generator().manual_seed(2)))
        one = model.denoiser()(noisy, early.expand(SAMPLES)).x0
    backward = [forward[-1], *(step.x for step in steps)]
    there, back = _rows(forward), _rows([backward[i] for i in shown])
    both = torch.cat([there, back], 1).flatten(0, 2)
    section.picture("Six images, ever noisier to the right, and from that noise back: each in two lines.", grid(both, columns=len(shown), least=40))
    compared = grid(quantized(torch.cat([many[:N], one[:N]])), columns=N, least=40)
    section.picture("Above the images; below what one step makes of them from a fifth of the way to noise.", compared)
    return float((quantized(one).flatten(1).argmax(1) == many.flatten(1).argmax(1)).float().mean())


def _rows(states: list[Tensor]) -> Tensor:
    """An image's states one after the other: image, 1, state, ..."""
    return quantized(torch.stack(states, 1)).unsqueeze(1)
