"""Single dots: a U-Net trained in the run, its forward and backward states, reconstruction and generation."""

import time

import torch
from notes.section import Section
from torch import Tensor
from tqdm import tqdm

from image.config import Model, Sampling
from image.dots import dots, judge
from image.generate import finished, from_noise, generate
from image.model import ImageDiffusion, ImageDiffusionConfig, quantized, scaled
from image.picture import grid
from textdiff.diffusion.gaussian import diffuse
from textdiff.diffusion.samplers import ddpm

STEPS, BATCH = 600, 64


def images() -> Section:
    section = Section(
        "images",
        "Single dots",
        "Can a network that removes noise reconstruct a noised image, from one step and from all, and generate one from nothing?",
    )
    model, seconds = _trained()
    model.eval()
    n, column = 6, 10
    x0, levels = scaled(dots()[:n]), model.schedule()(torch.linspace(1, 0, 51, dtype=torch.float64)).float()
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    shown = range(0, 51, 5)
    forward = [diffuse(x0, levels[50 - i].expand(n), noise) for i in shown]
    dice = torch.Generator().manual_seed(1)
    with torch.no_grad():
        backward = list(ddpm(model.denoiser(), forward[-1], levels, generator=dice))
        one = model.denoiser()(diffuse(x0, levels[40].expand(n), noise), levels[40].expand(n)).x0
    states = [forward[-1], *(step.x for step in backward)]
    section.picture("Forward: six images, ever noisier to the right.", grid(_rows(forward), columns=len(forward), least=40))
    section.picture("Backward: the same six from their noise.", grid(_rows([states[i] for i in shown]), columns=len(shown), least=40))
    section.picture(
        "Above the images, below what one step makes of them with a fifth of the noise.", grid(quantized(torch.cat([x0, one])), columns=n, least=40)
    )
    samples = finished(generate(model, from_noise(model, 500, seed=0), Sampling(steps=50)))
    section.picture("Forty samples from noise.", grid(samples[:40], columns=column, least=40))
    verdict = judge(samples)
    again = float((quantized(one).flatten(1).argmax(1) == dots()[:n].flatten(1).argmax(1)).float().mean())
    section.numbers = {
        "training_seconds": seconds,
        "single_dots": verdict.single,
        "uniform_p": verdict.uniform_p,
        "dots_found_again_in_one_step": again,
        "samples": 500,
    }
    section.answer = (
        f"After {seconds:.0f} seconds of training, {verdict.single:.1%} of 500 samples have exactly one dot, in places as even as chance "
        f"makes them "
        f"(p = {verdict.uniform_p:.2f}). From a fifth of the noise one step finds {again:.0%} of the dots; from all of it the dot comes out "
        f"elsewhere."
    )
    return section


def _trained() -> tuple[ImageDiffusion, float]:
    options = Model(objective="v", width=32, multipliers=[1, 2], blocks=1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ImageDiffusion(
            ImageDiffusionConfig(
                1,
                16,
                16,
                objective=options.objective,
                width=options.width,
                multipliers=options.multipliers,
                blocks=options.blocks,
                attention=options.attention,
            )
        )
    pixels, began = dots(), time.perf_counter()
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=STEPS, pct_start=0.15)
    model.train()
    for step in tqdm(range(STEPS), desc="dots", unit="step", leave=False):
        index = step * BATCH + torch.arange(BATCH)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(pixels[index % len(pixels)], index)["v"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        rate.step()
    return model, time.perf_counter() - began


def _rows(states: list[Tensor]) -> Tensor:
    """A row an image, a column a state."""
    return quantized(torch.stack(states, 1).flatten(0, 1))
