"""Two decoders of the notes: one that collapses to the mean, and one that takes large steps with a latent."""

import math
import statistics
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from matplotlib import pyplot as plt
from notes.network import Perceptron, energy_distance, fit
from notes.section import Section
from torch import Tensor

from textdiff.diffusion.gaussian import Denoiser, Gaussian, Prediction, alpha_sigma, diffuse, from_x0, posterior
from textdiff.diffusion.loss import x0_loss
from textdiff.diffusion.oracle import GaussianMixture
from textdiff.diffusion.samplers import ddim, feed_back
from textdiff.diffusion.schedule import bounded, constant_alpha, cosine, grid
from textdiff.diffusion.vae import vae_loss, vae_step

MIXTURE = GaussianMixture(torch.tensor([0.5, 0.3, 0.2]), torch.tensor([[-1.5], [0.5], [2.0]]), torch.tensor([0.01, 0.02, 0.01]))
LEVELS = bounded(partial(constant_alpha, horizon=8.0), -16.0, 5.0)  # its noisiest level knows next to nothing of the data


def collapse() -> Section:
    section = Section(
        "collapse", "The mean image", "What does a decoder draw that is trained to predict the data and feeds its guess back, without noise?"
    )
    denoise = _trained_decoder()
    noise, levels = torch.randn(1000, 1, generator=torch.Generator().manual_seed(0)), grid(LEVELS, 20)
    data = MIXTURE.sample(1000, torch.Generator().manual_seed(1))
    rows = {"data": {"mean": float(data.mean()), "std": float(data.std())}}
    figure, axes = plt.subplots(1, 3, figsize=(10, 2.8), layout="constrained", sharey=True)
    with torch.no_grad():
        for place, (name, steps) in zip(
            axes,
            {
                "fed back, exact": list(feed_back(MIXTURE.denoise, noise, levels)),
                "fed back, network": list(feed_back(denoise, noise, levels)),
                "DDIM, network": list(ddim(denoise, noise, levels, generator=torch.Generator())),
            }.items(),
            strict=True,
        ):
            track = torch.stack([noise[:60], *(step.x[:60] for step in steps)]).squeeze(-1)
            place.plot(track, color="C0", alpha=0.3)
            place.set(title=name, xlabel="step")
            first, last = steps[0].x0, steps[-1].x0
            rows[name] = {"mean_after_one": float(first.mean()), "std_after_one": float(first.std())}
            rows[name] |= {"mean": float(last.mean()), "std": float(last.std())}
    axes[0].set_ylabel("x")
    section.draw("Sixty starts from noise. Fed back, they become one; DDIM, as deterministic, keeps them apart.", figure)
    section.numbers = rows
    exact, network_row, kept = (rows[name] for name in ("fed back, exact", "fed back, network", "DDIM, network"))
    section.answer = (
        f"After one step all 1,000 starts are one point, {exact['mean_after_one']:.2f} with a standard deviation of {exact['std_after_one']:.3f}, "
        f"where the data's mean is {rows['data']['mean']:.2f}; fed back on, that one point moves to {exact['mean']:.2f} "
        f"({network_row['mean']:.2f} with a network). DDIM's standard deviation is {kept['std']:.2f}, the data's {rows['data']['std']:.2f}."
    )
    return section


def _trained_decoder() -> Denoiser:
    """A network that predicts the data from any noise level."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Perceptron(1, 1)
    denoise = partial(_read, network)

    def loss(dice: torch.Generator) -> Tensor:
        x0 = MIXTURE.sample(256, dice)
        return x0_loss(denoise, x0, LEVELS(torch.rand(256, generator=dice)), torch.randn(x0.shape, generator=dice)).mean()

    fit([network], loss, 1500, "decoder")
    return denoise


def vae() -> Section:
    section = Section("vae", "A VAE for large steps", "Does a latent variable make few, large reverse steps work where a Gaussian cannot?")
    rows: dict[str, dict[str, list[float]]] = {}
    for steps in (2, 4, 8):
        levels = grid(bounded(cosine, -8.0, 8.0), steps)
        writers = {
            "Gaussian step": partial(_gaussian_samples, levels, False),
            "best Gaussian step": partial(_gaussian_samples, levels, True),
            "VAE step": _vae_sampler(levels),
        }
        rows[str(steps)] = {name: [_distance(draw, seed) for seed in range(5)] for name, draw in writers.items()}
    figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
    for name in rows["2"]:
        means = [statistics.mean(rows[steps][name]) for steps in rows]
        errors = [2 * statistics.stdev(rows[steps][name]) for steps in rows]
        axes.errorbar([int(steps) for steps in rows], means, errors, fmt="o-", capsize=3, label=name)
    axes.set(yscale="log", xlabel="steps", ylabel="energy distance to the data", xticks=[2, 4, 8], xticklabels=["2", "4", "8"])
    axes.legend()
    section.draw(
        "Exact Gaussian steps, of the posterior's variance (as in DDPM) and of the variance that x_0 given x_t still has added (the best there is), "
        "against a learned VAE step. Bars: two standard deviations over five draws of one trained network; below 0.001 is chance.",
        figure,
    )
    section.numbers = {
        steps: {name: {"mean": statistics.mean(values), "std": statistics.stdev(values)} for name, values in row.items()}
        for steps, row in rows.items()
    }
    section.answer = (
        "Yes, where steps are so large that no Gaussian fits, and with 8 there is nothing left to win. Energy distance of 2,000 samples to the data, "
        "DDPM's Gaussian, the best Gaussian and the VAE: "
        + "; ".join(f"{steps} steps " + ", ".join(f"{statistics.mean(values):.4f}" for values in row.values()) for steps, row in rows.items())
        + "."
    )
    return section


def _distance(draw: Callable[[torch.Generator, int], Tensor], seed: int, n: int = 2000) -> float:
    with torch.no_grad():
        return energy_distance(draw(torch.Generator().manual_seed(seed), n), MIXTURE.sample(n, torch.Generator().manual_seed(100 + seed)))


def _gaussian_samples(levels: Tensor, widest: bool, dice: torch.Generator, n: int) -> Tensor:
    """Ancestral steps with the exact E[x_0 | z_t]; at the widest the step has the mean and the variance of q(z_s | z_t), which no Gaussian beats."""
    z = torch.randn(n, 1, generator=dice)
    for t, s in pairwise(level.expand(n) for level in levels):
        with torch.enable_grad():
            z = z.requires_grad_()
            x0 = MIXTURE.denoise(z, t).x0
            (slope,) = torch.autograd.grad(x0.sum(), z)
        z, (alpha, sigma) = z.detach(), alpha_sigma(t, z)
        step = posterior(x0.detach(), z, s, t)
        weight = posterior(torch.ones_like(z), torch.zeros_like(z), s, t).mean  # of x_0 in the step's mean
        var = step.var + (weight**2 * slope * sigma**2 / alpha if widest else 0)  # Var[x_0 | z] = sigma^2 / alpha dE[x_0 | z]/dz
        z = step.mean + var.sqrt() * torch.randn(n, 1, generator=dice)
    return z / math.sqrt(levels[-1].sigmoid())


def _vae_sampler(levels: Tensor, latent: int = 2) -> Callable[[torch.Generator, int], Tensor]:
    """Encoder and decoder for every step of the grid, trained together."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder, decoder = Perceptron(2, 2 * latent), Perceptron(latent + 1, 2)

    def encode(z_s: Tensor, z_t: Tensor, logsnr: Tensor) -> Gaussian:
        mean, spread = encoder(torch.cat([z_s, z_t], 1), logsnr).chunk(2, 1)
        return Gaussian(mean, (2 * spread).exp())

    def decode(e: Tensor, z_t: Tensor, logsnr: Tensor) -> Gaussian:
        mean, spread = decoder(torch.cat([e, z_t], 1), logsnr).chunk(2, 1)
        return Gaussian(mean, (2 * spread.clamp(min=-5)).exp())

    def loss(dice: torch.Generator) -> Tensor:
        x0 = MIXTURE.sample(256, dice)
        step = torch.randint(len(levels) - 1, (256,), generator=dice)
        noise = torch.randn(x0.shape, generator=dice)
        z_s = diffuse(x0, levels[step + 1], noise)
        ratio = (levels[step].sigmoid() / levels[step + 1].sigmoid()).sqrt().unsqueeze(1)
        z_t = ratio * z_s + (1 - ratio**2).sqrt() * torch.randn(x0.shape, generator=dice)
        return vae_loss(encode, decode, z_s, z_t, levels[step], dice).mean()

    fit([encoder, decoder], loss, 2000, f"VAE, {len(levels) - 1} steps", lr=3e-3)

    def draw(dice: torch.Generator, n: int) -> Tensor:
        z = torch.randn(n, 1, generator=dice)
        for level in levels[:-1]:
            z = vae_step(decode, torch.randn(n, latent, generator=dice), z, level.expand(n), generator=dice)
        return z / math.sqrt(levels[-1].sigmoid())

    return draw


def _read(network: Perceptron, x_t: Tensor, logsnr: Tensor) -> Prediction:
    return from_x0(x_t, logsnr, network(x_t, logsnr))
