"""The loss on the posterior mean beside the loss on the noise."""

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from matplotlib import pyplot as plt
from report_sections.bound import MIXTURE, T
from report_sections.network import Perceptron, energy_distance, fit, generator, perceptron
from report_sections.section import Section
from torch import Tensor

from textdiff.diffusion.discrete import Chain, linear_betas
from textdiff.diffusion.gaussian import Denoiser, Prediction, from_eps
from textdiff.diffusion.losses import eps_loss, mean_loss
from textdiff.diffusion.samplers import SAMPLERS

CHAIN = Chain.from_betas(linear_betas(T, 1e-4, 0.2))
NAMES = ("eps-loss", "mean-loss")


def losses() -> Section:
    """Trains a network by each loss and compares the two losses."""
    section = Section(
        "losses",
        "Mean or noise?",
        "Is training on the posterior mean the same as training on the noise, and which works "
        "better under one budget?",
    )
    # t = 1 belongs to L_0
    x0, t = MIXTURE.sample(512, generator(0)), 2 + torch.arange(512) % (T - 1)
    eps = torch.randn(x0.shape, generator=generator(1))
    figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
    rows: dict[str, dict[str, float]] = {}
    for name in NAMES:
        network = perceptron(2, 2)
        denoise = partial(_predict, network)
        curve = torch.tensor(fit([network], partial(_loss, name, denoise), 1500, name))
        axes.plot(curve.unfold(0, 50, 10).mean(1) / curve[:50].mean(), label=name)
        with torch.no_grad():
            error = eps_loss(denoise, x0, eps, CHAIN.logsnr[t].float()).mean()
        rows[name] = {"eps_error": float(error), "distance": _distance(denoise)}
    axes.set(xlabel="tens of steps", ylabel="loss relative to its start")
    axes.set_title("Two losses, smoothed over 50 steps")
    axes.legend()
    section.add_figure("Training by each loss, with the same initial weights and noise.", figure)
    difference, seconds = _compare(network, x0, eps, t)
    for name, duration in zip(NAMES, seconds, strict=True):
        rows[name]["milliseconds"] = 1000 * duration
    section.numbers = {**rows, "largest_relative_difference": difference}
    section.answer = _answer(difference, *rows.values())
    return section


def _answer(difference: float, eps: dict[str, float], mean: dict[str, float]) -> str:
    return (
        "They are the same loss with other weights: over 512 examples the mean-loss is the "
        "eps-loss times beta_t^2 / (alpha_t (1 - alpha_bar_t)), with a relative difference of at "
        f"most {difference:.0e}. They take {mean['milliseconds']:.2f} ms (mean-loss) and "
        f"{eps['milliseconds']:.2f} ms (eps-loss). After equally many steps the squared error of "
        f"the noise is {mean['eps_error']:.3f} and {eps['eps_error']:.3f}, and the energy distance "
        f"of samples to the data {mean['distance']:.4f} and {eps['distance']:.4f}."
    )


def _predict(network: Perceptron, x_t: Tensor, logsnr: Tensor) -> Prediction:
    return from_eps(x_t, network(x_t, logsnr), logsnr)


def _loss(name: str, denoise: Denoiser, rng: torch.Generator) -> Tensor:
    """Mean loss of a new batch."""
    x0 = MIXTURE.sample(256, rng)
    eps, t = torch.randn(x0.shape, generator=rng), torch.randint(2, T + 1, (256,), generator=rng)
    logsnr_s, logsnr_t = CHAIN.logsnr[t - 1].float(), CHAIN.logsnr[t].float()
    if name == "eps-loss":
        return eps_loss(denoise, x0, eps, logsnr_t).mean()
    # scaled to the size of the eps-loss; Adam does not depend on it
    return 100 * mean_loss(denoise, x0, eps, logsnr_s, logsnr_t).mean()


@torch.no_grad()
def _distance(denoise: Denoiser) -> float:
    """Energy distance between samples and data."""
    rng, logsnrs = generator(1), CHAIN.logsnr.flip(0).float()
    noise = torch.randn(2000, 2, generator=rng)
    *_, last = SAMPLERS["ddpm"](denoise, noise, logsnrs, generator=rng)
    return energy_distance(last.x, MIXTURE.sample(2000, generator(5)))


@torch.no_grad()
def _compare(network: Perceptron, x0: Tensor, eps: Tensor, t: Tensor) -> tuple[float, list[float]]:
    """Largest relative difference of the weighted losses in float64, and the time of each."""
    denoise, x0, eps = partial(_predict, network.double()), x0.double(), eps.double()
    logsnr_s, logsnr_t = CHAIN.logsnr[t - 1], CHAIN.logsnr[t]
    weight = CHAIN.beta[t] ** 2 / (CHAIN.alpha[t] * CHAIN.noise_bar[t])
    functions = (
        partial(eps_loss, denoise, x0, eps, logsnr_t),
        partial(mean_loss, denoise, x0, eps, logsnr_s, logsnr_t),
    )
    of_eps, of_mean = (loss() for loss in functions)
    difference = float((of_mean / (weight.unsqueeze(1) * of_eps) - 1).abs().max())
    return difference, _median_seconds(functions)


def _median_seconds(functions: Sequence[Callable[[], object]], rounds: int = 101) -> list[float]:
    """Median time of each function. The functions are interleaved."""
    seconds = [[_seconds(function) for function in functions] for _ in range(rounds)]
    return [statistics.median(column) for column in zip(*seconds, strict=True)]


def _seconds(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began
