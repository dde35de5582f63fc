"""Large reverse steps: Gaussian steps beside a conditional VAE with a latent variable."""

import math
import statistics
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from matplotlib import pyplot as plt
from report_sections.collapse import MIXTURE
from report_sections.network import Perceptron, energy_distance, fit, generator
from report_sections.section import WIDTH, Formula, Section, TryNext
from torch import Tensor

from textdiff.diffusion.gaussian import Gaussian, alpha_sigma, diffuse, posterior
from textdiff.diffusion.schedules import bounded, cosine, grid
from textdiff.diffusion.vae import vae_loss, vae_step

TEXT = partial(
    Section,
    name="vae",
    title="A VAE for large steps",
    problem=(
        r"[TTIC] 3. With few steps, there is much noise between them, and the true reverse step "
        r"$p(z_{\ell-1}\mid z_\ell)$ is no longer Gaussian. Give each step a latent variable, as "
        r"in a variational autoencoder (VAE): write down its decoder, its encoder, and the "
        r"objective that trains both."
    ),
    derivation=[
        Formula(
            r"The decoder first draws a latent variable $\epsilon$, and then a Gaussian that "
            r"depends on it.",
            r"z_{\ell-1}=z_\Phi(\epsilon,z_\ell,\ell)+\sigma_\Phi(\epsilon,z_\ell,\ell)\odot\delta,"
            r"\quad\epsilon,\delta\sim\mathcal{N}(0,I)",
        ),
        Formula(
            r"The encoder sees both ends of the step and guesses the latent variable.",
            r"\epsilon=\epsilon_\Psi(z_{\ell-1},z_\ell,\ell)"
            r"+\sigma_\Psi(z_{\ell-1},z_\ell,\ell)\odot\gamma,\quad\gamma\sim\mathcal{N}(0,I)",
        ),
        Formula(
            "The objective is the bound of a VAE, with every distribution conditioned on the "
            "noisy end.",
            r"\min_{\Phi,\Psi}\;\mathbb{E}\left[\mathrm{KL}\left(p_\Psi(\epsilon\mid z_{\ell-1},"
            r"z_\ell)\,\|\,\mathcal{N}(0,I)\right)"
            r"-\log p_\Phi(z_{\ell-1}\mid\epsilon,z_\ell)\right]",
        ),
    ],
    idea=(
        r"A Gaussian has one peak. If the data have three groups and a step is large, the reverse "
        r"step must choose between groups, and its distribution has several peaks. A latent "
        r"variable can make this choice. Given the choice, one peak is enough. With many small "
        r"steps there is nothing to choose in a single step, and a Gaussian is enough from the "
        r"start."
    ),
    try_next=TryNext(
        "python scripts/sample_image.py report/dots --n 64 --steps 2 --sampler ddpm --out two.png",
        "Two Gaussian steps are too few: look for images without a white pixel, or with grey ones. "
        "Increase `--steps`: fewer images lack their white pixel.",
    ),
)
N, LATENT = 2000, 2
TRAINING_STEPS = 1500
Sampler = Callable[[torch.Generator, int], Tensor]


def experiment(_: Path) -> Section:
    """Compares the samples of both kinds of steps with the data."""
    section, samples = TEXT(), dict[str, Tensor]()
    rows: dict[str, dict[str, list[float]]] = {}
    for steps in (2, 4, 8):
        logsnrs = grid(bounded(cosine, -8.0, 8.0), steps)
        samplers: dict[str, Sampler] = {
            "Gaussian step": partial(_gaussian_samples, logsnrs, False),
            "best Gaussian step": partial(_gaussian_samples, logsnrs, True),
        }
        if steps < 8:  # with 8 steps, the best Gaussian leaves nothing to gain
            samplers["VAE step"] = _trained_vae(logsnrs)
        if steps == 2:
            with torch.no_grad():
                samples = {name: draw(generator(0), N) for name, draw in samplers.items()}
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
    _draw(section, samples)
    distances = "; ".join(
        f"with {steps} steps " + ", ".join(_rounded(values["mean"]) for values in row.values())
        for steps, row in section.numbers.items()
    )
    section.finding = (
        f"The energy distance of {N:,} samples to the data, for DDPM's Gaussian step, the best "
        f"possible Gaussian step and the VAE step, is {distances} (without a VAE). Up to 0.002 is "
        "chance. A "
        "latent variable helps if steps are so large that no Gaussian fits. The exact denoiser "
        "makes the Gaussian steps, so training is not to blame for their error."
    )
    return section


def _rounded(distance: float) -> str:
    return f"{round(distance, 3) + 0.0:.3f}"  # without the sign of -0.0


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

    fit([encoder, decoder], loss, TRAINING_STEPS, f"VAE, {len(logsnrs) - 1} steps", lr=3e-3)

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


def _draw(section: Section, samples: dict[str, Tensor]) -> None:
    figure, (above, below) = plt.subplots(2, 1, figsize=(WIDTH, 5.4), layout="constrained")
    shown = {"data": MIXTURE.sample(N, generator(100)), **samples}
    for (name, x), style in zip(shown.items(), ("-", ":", "--", "-"), strict=True):
        density, edges = torch.histogram(x, 60, range=(-3.0, 3.0), density=True)
        color = "black" if name == "data" else None
        above.plot(edges[1:] - 0.05, density, style, color=color, label=name)
    above.set(xlabel="sample", ylabel="density", title="Samples with 2 large steps")
    above.legend()
    rows = section.numbers
    for name, style in zip(samples, ("o:", "s--", "^-"), strict=True):
        found = {int(steps): row[name] for steps, row in rows.items() if name in row}
        means = [values["mean"] for values in found.values()]
        bars = [2 * values["std"] for values in found.values()]
        below.errorbar([*found], means, bars, fmt=style, capsize=3, label=name)
    below.set(xlabel="number of steps", ylabel="energy distance to the data")
    below.set_xticks([int(steps) for steps in rows])
    below.set_title("Error by the number of steps")
    below.legend()
    section.add_figure(
        "Above: the data have three peaks (black). With two steps, the VAE finds them, and "
        "Gaussian steps blur them. Below: with more steps, Gaussian steps become as good. Bars are "
        "two standard deviations over five sets of samples.",
        figure,
    )
