"""Large reverse steps: Gaussian steps beside a conditional VAE with a latent variable."""

import math
import statistics
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from matplotlib import pyplot as plt
from report_sections.collapse import MIXTURE
from report_sections.network import Perceptron, energy_distance, fit, generator
from report_sections.section import Section
from torch import Tensor

from textdiff.diffusion.gaussian import Gaussian, alpha_sigma, diffuse, posterior
from textdiff.diffusion.schedules import bounded, cosine, grid
from textdiff.diffusion.vae import vae_loss, vae_step

N, LATENT = 2000, 2
Sampler = Callable[[torch.Generator, int], Tensor]


def vae() -> Section:
    """Compares the samples of both kinds of steps with the data."""
    section = Section(
        "vae",
        "A VAE for large steps",
        "Does a latent variable make few, large reverse steps possible where a Gaussian fails?",
    )
    rows: dict[str, dict[str, list[float]]] = {}
    for steps in (2, 4, 8):
        logsnrs = grid(bounded(cosine, -8.0, 8.0), steps)
        samplers: dict[str, Sampler] = {
            "Gaussian step": partial(_gaussian_samples, logsnrs, False),
            "best Gaussian step": partial(_gaussian_samples, logsnrs, True),
            "VAE step": _trained_vae(logsnrs),
        }
        rows[str(steps)] = {
            name: [_distance(sampler, seed) for seed in range(5)]
            for name, sampler in samplers.items()
        }
    section.numbers = {
        steps: {
            name: {"mean": statistics.mean(values), "std": statistics.stdev(values)}
            for name, values in row.items()
        }
        for steps, row in rows.items()
    }
    _draw(section)
    distances = "; ".join(
        f"{steps} steps " + ", ".join(f"{values['mean']:.4f}" for values in row.values())
        for steps, row in section.numbers.items()
    )
    section.answer = (
        "Yes, if steps are so large that no Gaussian fits. With 8 steps nothing is left to gain. "
        f"Energy distance of {N:,} samples to the data for DDPM's Gaussian, the best Gaussian and "
        f"the VAE: {distances}."
    )
    return section


def _distance(sampler: Sampler, seed: int) -> float:
    """Energy distance of samples to the data."""
    with torch.no_grad():
        samples = sampler(generator(seed), N)
        return energy_distance(samples, MIXTURE.sample(N, generator(100 + seed)))


def _gaussian_samples(logsnrs: Tensor, best: bool, rng: torch.Generator, n: int) -> Tensor:
    """Ancestral sampling with the exact E[x_0 | z_t].

    Args:
        best: Use mean and variance of q(z_s | z_t), the best that a Gaussian step can have.
    """
    z = torch.randn(n, 1, generator=rng)
    for t, s in pairwise(logsnr.expand(n) for logsnr in logsnrs):
        with torch.enable_grad():
            z = z.requires_grad_()
            x0 = MIXTURE.denoise(z, t).x0
            (slope,) = torch.autograd.grad(x0.sum(), z)
        z, (alpha, sigma) = z.detach(), alpha_sigma(t, z)
        mean, var = posterior(x0.detach(), z, s, t)
        if best:  # Var[x_0 | z] = sigma^2 / alpha dE[x_0 | z]/dz
            coef_x0 = posterior(torch.ones_like(z), torch.zeros_like(z), s, t).mean
            var = var + coef_x0**2 * slope * sigma**2 / alpha
        z = mean + var.sqrt() * torch.randn(n, 1, generator=rng)
    return z / math.sqrt(logsnrs[-1].sigmoid())


def _trained_vae(logsnrs: Tensor) -> Sampler:
    """Samples of a VAE whose encoder and decoder are trained for all steps of the grid."""
    encoder, decoder = _networks()

    def encode(z_s: Tensor, z_t: Tensor, logsnr: Tensor) -> Gaussian:
        mean, log_std = encoder(torch.cat([z_s, z_t], 1), logsnr).chunk(2, 1)
        return Gaussian(mean, (2 * log_std).exp())

    def decode(latent: Tensor, z_t: Tensor, logsnr: Tensor) -> Gaussian:
        mean, log_std = decoder(torch.cat([latent, z_t], 1), logsnr).chunk(2, 1)
        return Gaussian(mean, (2 * log_std.clamp(min=-5)).exp())

    def loss(rng: torch.Generator) -> Tensor:
        x0 = MIXTURE.sample(256, rng)
        step = torch.randint(len(logsnrs) - 1, (256,), generator=rng)
        z_s = diffuse(x0, torch.randn(x0.shape, generator=rng), logsnrs[step + 1])
        ratio = (logsnrs[step].sigmoid() / logsnrs[step + 1].sigmoid()).sqrt().unsqueeze(1)
        z_t = ratio * z_s + (1 - ratio**2).sqrt() * torch.randn(x0.shape, generator=rng)
        return vae_loss(encode, decode, z_s, z_t, logsnrs[step], rng).mean()

    fit([encoder, decoder], loss, 2000, f"VAE, {len(logsnrs) - 1} steps", lr=3e-3)

    def sample(rng: torch.Generator, n: int) -> Tensor:
        z = torch.randn(n, 1, generator=rng)
        for logsnr in logsnrs[:-1]:
            latent = torch.randn(n, LATENT, generator=rng)
            z = vae_step(decode, latent, z, logsnr.expand(n), generator=rng)
        return z / math.sqrt(logsnrs[-1].sigmoid())

    return sample


def _networks() -> tuple[Perceptron, Perceptron]:
    """Encoder and decoder."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Perceptron(2, 2 * LATENT), Perceptron(LATENT + 1, 2)


def _draw(section: Section) -> None:
    figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
    rows = section.numbers
    steps = [int(number) for number in rows]
    for name in rows["2"]:
        means = [row[name]["mean"] for row in rows.values()]
        bars = [2 * row[name]["std"] for row in rows.values()]
        axes.errorbar(steps, means, bars, fmt="o-", capsize=3, label=name)
    axes.set(yscale="log", xlabel="steps", ylabel="energy distance to the data")
    axes.set_xticks(steps, [*rows])
    axes.legend()
    section.add_figure(
        "Exact Gaussian steps beside a learned VAE step. The Gaussian has the variance of the "
        "posterior (as in DDPM), or that plus the variance of x_0 given x_t (the best possible). "
        "Bars are two standard deviations over five sets of samples of one trained network. Below "
        "0.001 is chance.",
        figure,
    )
