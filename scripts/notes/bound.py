"""The variational bound: its terms, how tight it is, the mean-loss against the eps-loss, and samplers against their number of steps."""

import math
import statistics
import time
from functools import partial
from itertools import pairwise

import torch
from matplotlib import pyplot as plt
from notes.network import Perceptron, energy_distance, fit
from notes.section import Section
from torch import Tensor
from torch.distributions import Normal

from textdiff.diffusion.chain import Chain, linear_betas
from textdiff.diffusion.gaussian import Denoiser, Prediction, diffuse, from_eps
from textdiff.diffusion.likelihood import prior_kl, step_kl
from textdiff.diffusion.loss import eps_loss, mean_loss
from textdiff.diffusion.oracle import GaussianMixture
from textdiff.diffusion.samplers import SAMPLERS
from textdiff.diffusion.schedule import bounded, cosine, grid

MIXTURE = GaussianMixture(torch.tensor([0.3, 0.7]), torch.tensor([[-1.0, 0.5], [1.0, -0.5]]), torch.tensor([0.05, 0.1]))
T, ENDS = 100, (9.0, -12.0)
CHAIN = Chain.from_betas(linear_betas(T, 1e-4, 0.2))


def bound() -> Section:
    section = Section(
        "bound",
        "The variational bound, term by term",
        "How do L_T, the L_{t-1} and L_0 add up, and how far above the true negative log-likelihood is their sum?",
    )
    x0 = MIXTURE.sample(4000, torch.Generator().manual_seed(0)).double()
    exact = GaussianMixture(MIXTURE.weight.double(), MIXTURE.mean.double(), MIXTURE.var.double())
    truth = -float(exact.log_prob(x0, torch.full((4000,), math.inf, dtype=torch.float64)).mean())
    totals = {steps: sum(_terms(exact, x0, steps)) for steps in (10, 20, 50, 100, 200)}
    terms = _terms(exact, x0, T)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    left.plot(torch.linspace(*ENDS, T + 1)[1:], terms[1:-1], ".-")
    left.set(xlabel="log SNR of the step's noisy side", ylabel="nats", title=f"The steps' terms with the exact denoiser, T = {T}")
    right.plot(list(totals), [total - truth for total in totals.values()], "o-")
    right.set(xlabel="T", ylabel="nats above the truth", xscale="log", yscale="log", title="Gap of the bound")
    section.draw("Left: each term. Right: with the exact denoiser the gap falls in proportion to 1 / T. Steps are even in log SNR.", figure)
    section.numbers = {"truth": truth, "bound": {str(steps): total for steps, total in totals.items()}, "L_0": terms[0], "L_T": terms[-1]}
    section.answer = (
        f"The truth is {truth:.3f} nats; the bound is {totals[10]:.3f} with 10 steps, {totals[50]:.3f} with 50 and {totals[200]:.3f} with 200: "
        f"always above it, and closer as 1 / T. Details, at high log SNR, cost the most; L_T is only {terms[-1]:.1e}, and L_0, of a density, is "
        f"{terms[0]:.2f}."
    )
    return section


def losses() -> Section:
    section = Section(
        "losses", "Mean or noise?", "Is training the posterior's mean the same as training the noise, and which works better under one budget?"
    )
    x0 = MIXTURE.sample(512, torch.Generator().manual_seed(0))
    data = MIXTURE.sample(2000, torch.Generator().manual_seed(5))
    rows = {}
    for name in ("eps-loss", "mean-loss"):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = Perceptron(2, 2)
        denoise = partial(_read, network)
        began = time.perf_counter()
        curve = fit([network], partial(_loss, name, denoise), 1500, name)
        seconds = time.perf_counter() - began
        with torch.no_grad():
            dice = torch.Generator().manual_seed(1)
            *_, last = SAMPLERS["ddpm"](denoise, torch.randn(2000, 2, generator=dice), CHAIN.logsnr.flip(0).float(), generator=dice)
            levels = CHAIN.logsnr[1 + torch.arange(512) % T].float()
            error = float(eps_loss(denoise, x0, levels, torch.randn(512, 2, generator=dice)).mean())
        rows[name] = {"seconds": seconds, "last_loss": statistics.mean(curve[-100:]), "eps_error": error, "distance": energy_distance(last.x, data)}
    section.numbers = rows
    eps, mean = rows["eps-loss"], rows["mean-loss"]
    apart = abs(eps["distance"] - mean["distance"])
    better = "no difference to be seen" if apart < 0.002 else f"the {min(rows, key=lambda name: rows[name]['distance'])} is ahead"
    section.answer = (
        f"They are one loss with other weights, equal to rounding (THEORY.md, 3), and cost the same: {eps['seconds']:.1f} and "
        f"{mean['seconds']:.1f} s. After as many steps the squared error of the noise is {eps['eps_error']:.3f} and {mean['eps_error']:.3f}, and "
        f"the energy distance of samples to the data {eps['distance']:.4f} and {mean['distance']:.4f}: {better}."
    )
    return section


def samplers() -> Section:
    section = Section(
        "samplers", "Samplers against steps", "How many steps does each sampler need? With the exact denoiser, only its own error is seen."
    )
    data = MIXTURE.sample(4000, torch.Generator().manual_seed(5))
    levels, steps = bounded(cosine, -9.0, 9.0), (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
    floor = max(abs(energy_distance(MIXTURE.sample(4000, torch.Generator().manual_seed(seed)), data)) for seed in range(6, 14))
    figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    for name, sampler in SAMPLERS.items():
        distances = []
        for number in steps:
            dice = torch.Generator().manual_seed(1)
            *_, last = sampler(MIXTURE.denoise, torch.randn(4000, 2, generator=dice), grid(levels, number), generator=dice)
            distances.append(energy_distance(last.x, data))
        section.numbers[name] = dict(zip(map(str, steps), distances, strict=True))
        axes.plot(steps, [max(distance, floor) for distance in distances], "o-", label=name)
    axes.axhline(floor, color="grey", linestyle=":", label="two sets of data, at most")
    axes.set(xscale="log", yscale="log", xlabel="steps", ylabel="energy distance to the data", title="Samplers with the exact denoiser")
    axes.legend()
    section.draw("Distance of 4,000 samples to 4,000 draws of the mixture; below the dotted line it is chance, and drawn there.", figure)
    section.numbers["two_sets_of_data"] = floor
    near = {name: next((n for n in steps if section.numbers[name][str(n)] < 0.01), None) for name in SAMPLERS}
    section.answer = "Steps to come within 0.01: " + ", ".join(f"{name} {number}" for name, number in near.items()) + ". Second order pays."
    return section


def _terms(exact: GaussianMixture, x0: Tensor, steps: int) -> list[float]:
    """L_0, ..., L_{T-1}, L_T in nats, of steps even in log SNR; L_0 is that of a Gaussian decoder around the estimate."""
    dice = torch.Generator().manual_seed(2)

    def noise() -> Tensor:
        return torch.randn(x0.shape, generator=dice, dtype=x0.dtype)

    levels = [level.expand(len(x0)) for level in torch.linspace(*ENDS, steps + 1, dtype=torch.float64)]
    guess = exact.denoise(diffuse(x0, levels[0], noise()), levels[0]).x0
    first = -Normal(guess, (-levels[0] / 2).exp().unsqueeze(1)).log_prob(x0)
    kls = [step_kl(exact.denoise, x0, noise(), s, t) for s, t in pairwise(levels)]
    return [float(term.sum(1).mean()) for term in (first, *kls, prior_kl(x0, levels[-1]))]


def _read(network: Perceptron, x_t: Tensor, logsnr: Tensor) -> Prediction:
    return from_eps(x_t, logsnr, network(x_t, logsnr))


def _loss(name: str, denoise: Denoiser, dice: torch.Generator) -> Tensor:
    x0 = MIXTURE.sample(256, dice)
    eps, t = torch.randn(x0.shape, generator=dice), torch.randint(2, T + 1, (256,), generator=dice)
    before, now = CHAIN.logsnr[t - 1].float(), CHAIN.logsnr[t].float()
    if name == "eps-loss":
        return eps_loss(denoise, x0, now, eps).mean()
    return 100 * mean_loss(denoise, x0, eps, before, now).mean()  # about as large as the other; Adam does not care
