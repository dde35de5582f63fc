"""The variational bound: its terms, how tight it is, the mean-loss against the eps-loss, and samplers against their number of steps."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
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
    nats = -exact.log_prob(x0, torch.full((4000,), math.inf, dtype=torch.float64))
    truth = float(nats.mean())
    above = {steps: sum(_terms(exact, x0, steps)) - nats for steps in (10, 20, 50, 100, 200)}  # of each sample
    totals = {steps: truth + float(gap.mean()) for steps, gap in above.items()}
    errors = {steps: float(gap.std()) / math.sqrt(len(x0)) for steps, gap in above.items()}
    terms = [float(term.mean()) for term in _terms(exact, x0, T)]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    left.plot(torch.linspace(*ENDS, T + 1)[1:], terms[1:-1], ".-")
    left.set(xlabel="log SNR of the step's noisy side", ylabel="nats", title=f"The steps' terms with the exact denoiser, T = {T}")
    right.errorbar(list(totals), [total - truth for total in totals.values()], [2 * error for error in errors.values()], fmt="o-", capsize=3)
    right.set(xlabel="T", ylabel="nats above the truth", xscale="log", yscale="log", title="Gap of the bound")
    section.draw("Left: each term. Right: the gap with the exact denoiser; bars, two standard errors. Steps are even in log SNR.", figure)
    section.numbers = {
        "truth": truth,
        "bound": {str(steps): total for steps, total in totals.items()},
        "error": {str(steps): error for steps, error in errors.items()},
        "L_0": terms[0],
        "L_T": terms[-1],
    }
    section.answer = (
        f"The truth is {truth:.3f} nats; the bound is {totals[10]:.3f} with 10 steps, {totals[50]:.3f} with 50 and {totals[200]:.3f} with 200 "
        f"(± {2 * errors[200]:.3f}): always above it, and about half as far with twice the steps. Details, "
        f"at high log SNR, cost the most; L_T is only {terms[-1]:.1e}, and L_0, of a density, is "
        f"{terms[0]:.2f}."
    )
    return section


def losses() -> Section:
    section = Section(
        "losses", "Mean or noise?", "Is training the posterior's mean the same as training the noise, and which works better under one budget?"
    )
    x0, data = MIXTURE.sample(512, torch.Generator().manual_seed(0)), MIXTURE.sample(2000, torch.Generator().manual_seed(5))
    eps, t = torch.randn(512, 2, generator=torch.Generator().manual_seed(1)), 2 + torch.arange(512) % (T - 1)  # t = 1 is up to L_0
    figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
    rows: dict[str, dict[str, float]] = {name: {} for name in ("eps-loss", "mean-loss")}
    for name, row in rows.items():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = Perceptron(2, 2)
        denoise = partial(_read, network)
        curve = torch.tensor(fit([network], partial(_loss, name, denoise), 1500, name))
        axes.plot(curve.unfold(0, 50, 10).mean(1) / curve[:50].mean(), label=name)
        with torch.no_grad():
            dice = torch.Generator().manual_seed(1)
            *_, last = SAMPLERS["ddpm"](denoise, torch.randn(2000, 2, generator=dice), CHAIN.logsnr.flip(0).float(), generator=dice)
            row["eps_error"] = float(eps_loss(denoise, x0, CHAIN.logsnr[t].float(), eps).mean())
            row["distance"] = energy_distance(last.x, data)
    axes.set(xlabel="tens of steps", ylabel="loss over its start", title="Two losses, smoothed over 50 steps")
    axes.legend()
    section.draw("Training by either loss, from the same start on the same noise.", figure)
    apart, seconds = _compared(network, x0, eps, t)
    for row, taken in zip(rows.values(), seconds, strict=True):
        row["milliseconds"] = 1000 * taken
    section.numbers = {**rows, "largest_relative_difference": apart}
    one, other = rows["eps-loss"], rows["mean-loss"]
    section.answer = (
        f"They are one loss with other weights: over 512 examples the mean-loss is the eps-loss times beta_t^2 / (alpha_t (1 - alpha_bar_t)) up to "
        f"{apart:.0e}, and they take {one['milliseconds']:.2f} and {other['milliseconds']:.2f} ms. "
        "After as many steps the squared error of the noise is "
        f"{one['eps_error']:.3f} and {other['eps_error']:.3f}, the energy distance of samples to the data {one['distance']:.4f} and "
        f"{other['distance']:.4f}."
    )
    return section


def samplers() -> Section:
    section = Section(
        "samplers", "Samplers against steps", "How often must each sampler ask the network? With the exact denoiser, only its own error is seen."
    )
    data = MIXTURE.sample(2000, torch.Generator().manual_seed(5))
    levels, steps = bounded(cosine, -9.0, 9.0), (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
    floor = max(abs(energy_distance(MIXTURE.sample(2000, torch.Generator().manual_seed(seed)), data)) for seed in range(6, 14))
    figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    for name, sampler in SAMPLERS.items():
        distances = []
        for number in steps:
            dice = torch.Generator().manual_seed(1)
            *_, last = sampler(MIXTURE.denoise, torch.randn(2000, 2, generator=dice), grid(levels, number), generator=dice)
            distances.append(energy_distance(last.x, data))
        section.numbers[name] = dict(zip(map(str, steps), distances, strict=True))
        axes.plot([_evaluations(name, n) for n in steps], [max(distance, floor) for distance in distances], "o-", label=name)
    axes.axhline(floor, color="grey", linestyle=":", label="two sets of data, at most")
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="evaluations of the network",
        ylabel="energy distance to the data",
        title="Samplers with the exact denoiser",
    )
    axes.legend()
    section.draw("Distance of 2,000 samples to 2,000 draws of the mixture; below the dotted line it is chance, and drawn there.", figure)
    section.numbers["two_sets_of_data"] = floor
    near = {name: next(_evaluations(name, n) for n in steps if section.numbers[name][str(n)] < 0.01) for name in SAMPLERS}
    section.numbers["evaluations_to_come_within_0.01"] = near
    section.answer = "Evaluations to come within 0.01: " + ", ".join(f"{name} {number}" for name, number in near.items()) + ". Heun's steps take two."
    return section


def _compared(network: Perceptron, x0: Tensor, eps: Tensor, t: Tensor) -> tuple[float, list[float]]:
    """How far the mean-loss is from the weighted eps-loss, in float64, and the seconds that the eps-loss and the mean-loss take."""
    denoise, x0, eps = partial(_read, network.double()), x0.double(), eps.double()
    before, now, weight = CHAIN.logsnr[t - 1], CHAIN.logsnr[t], CHAIN.beta[t] ** 2 / (CHAIN.alpha[t] * CHAIN.noise_bar[t])
    work = partial(eps_loss, denoise, x0, now, eps), partial(mean_loss, denoise, x0, eps, before, now)
    with torch.no_grad():
        of_eps, of_mean = (loss() for loss in work)
        return float((of_mean / (weight.unsqueeze(1) * of_eps) - 1).abs().max()), _taking_turns(work)


def _taking_turns(work: Sequence[Callable[[], object]], rounds: int = 101) -> list[float]:
    """Median seconds of each."""
    taken = [[_timed(run) for run in work] for _ in range(rounds)]
    return [statistics.median(column) for column in zip(*taken, strict=True)]


def _timed(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def _evaluations(sampler: str, steps: int) -> int:
    return 2 * steps if sampler == "heun" else steps


def _terms(exact: GaussianMixture, x0: Tensor, steps: int) -> list[Tensor]:
    """L_0, ..., L_{T-1}, L_T in nats, of each sample, of steps even in log SNR; L_0 is that of a Gaussian decoder around the estimate."""
    dice = torch.Generator().manual_seed(2)

    def noise() -> Tensor:
        return torch.randn(x0.shape, generator=dice, dtype=x0.dtype)

    levels = [level.expand(len(x0)) for level in torch.linspace(*ENDS, steps + 1, dtype=torch.float64)]
    guess = exact.denoise(diffuse(x0, levels[0], noise()), levels[0]).x0
    first = -Normal(guess, (-levels[0] / 2).exp().unsqueeze(1)).log_prob(x0)
    kls = [step_kl(exact.denoise, x0, noise(), s, t) for s, t in pairwise(levels)]
    return [term.sum(1) for term in (first, *kls, prior_kl(x0, levels[-1]))]


def _read(network: Perceptron, x_t: Tensor, logsnr: Tensor) -> Prediction:
    return from_eps(x_t, logsnr, network(x_t, logsnr))


def _loss(name: str, denoise: Denoiser, dice: torch.Generator) -> Tensor:
    x0 = MIXTURE.sample(256, dice)
    eps, t = torch.randn(x0.shape, generator=dice), torch.randint(2, T + 1, (256,), generator=dice)
    before, now = CHAIN.logsnr[t - 1].float(), CHAIN.logsnr[t].float()
    if name == "eps-loss":
        return eps_loss(denoise, x0, now, eps).mean()
    return 100 * mean_loss(denoise, x0, eps, before, now).mean()  # about as large as the other; Adam does not care
