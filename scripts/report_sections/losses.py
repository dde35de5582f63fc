"""The loss on the posterior mean beside the loss on the noise."""

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib import pyplot as plt
from report_sections.bound import MIXTURE, T
from report_sections.network import Perceptron, energy_distance, fit, generator, perceptron
from report_sections.section import WIDTH, Formula, Section, TryNext
from torch import Tensor

from textdiff.diffusion.discrete import Chain, linear_betas
from textdiff.diffusion.gaussian import Denoiser, Prediction, from_eps
from textdiff.diffusion.losses import eps_loss, mean_loss
from textdiff.diffusion.samplers import SAMPLERS

TEXT = partial(
    Section,
    name="losses",
    title="Predict the mean or the noise?",
    problem=(
        r"[HW7] 2.4, [DDD] 3.1, 3.2 and 4, [CMSC] 6 to 8. The bound compares the mean "
        r"$\tilde{\mu}_t$ of the true reverse step with the mean $\mu_\theta$ of the model. "
        r"Rewrite this loss as a loss on the noise. Which of the two is faster to compute, and "
        r"which one trains better?"
    ),
    derivation=[
        Formula(
            r"The true mean is a known combination of $x_t$ and the noise. The model uses the same "
            r"combination, with its own estimate $\epsilon_\theta$ of the noise.",
            r"\tilde{\mu}_t=\frac{1}{\sqrt{\alpha_t}}\left(x_t-\frac{\beta_t}"
            r"{\sqrt{1-\bar{\alpha}_t}}\,\epsilon\right)",
        ),
        Formula(
            r"In the difference of the two means, $x_t$ cancels.",
            r"\|\tilde{\mu}_t-\mu_\theta\|^2=\frac{\beta_t^2}{\alpha_t(1-\bar{\alpha}_t)}\,"
            r"\|\epsilon-\epsilon_\theta\|^2",
        ),
        Formula(
            r"If the reverse step has variance $\sigma_t^2$, its term of the bound is therefore a "
            r"weighted error of the noise, plus a constant.",
            r"L_{t-1}=\mathbb{E}\left[\frac{\beta_t^2}{2\sigma_t^2\alpha_t(1-\bar{\alpha}_t)}\,"
            r"\|\epsilon-\epsilon_\theta(x_t,t)\|^2\right]+C",
        ),
    ],
    idea=(
        r"The two losses are the same loss with different weights. A network that predicts the "
        r"noise also predicts the mean, and the other way round. The weight decides which steps "
        r"matter most in training. DDPM leaves the weight out. This gives the noisy steps more "
        r"attention than the bound would."
    ),
    try_next=TryNext(
        "textdiff train --config configs/text_demo.yaml --run runs/eps --model.objective eps",
        "Here the network is trained by the error of the noise, instead of the error of the data. "
        "Compare `textdiff sample runs/eps --n 8` with `textdiff sample report/text --n 8`, and "
        "look for sentences that are not grammatical.",
    ),
)
CHAIN = Chain.from_betas(linear_betas(T, 1e-4, 0.2))
LABELS = {"eps-loss": "loss on the noise", "mean-loss": "loss on the mean"}
CHANCE = 0.002  # energy distance of two sets of data
STEPS = 1000


class Comparison(NamedTuple):
    """Both losses of the same examples, in float64.

    Args:
        ratio: Ratio of the losses of each example.
        difference: Largest relative difference of an element from the formula.
        seconds: Median time of each loss.
    """

    ratio: Tensor
    difference: float
    seconds: list[float]


def experiment(_: Path) -> Section:
    """Trains a network by each loss and compares the two losses."""
    section = TEXT()
    # t = 1 belongs to L_0
    x0, t = MIXTURE.sample(512, generator(0)), 2 + torch.arange(512) % (T - 1)
    eps = torch.randn(x0.shape, generator=generator(1))
    rows: dict[str, dict[str, float]] = {}
    curves = {}
    for name in LABELS:
        network = perceptron(2, 2)
        denoise = partial(_predict, network)
        curves[name] = torch.tensor(fit([network], partial(_loss, name, denoise), STEPS, name))
        with torch.no_grad():
            error = eps_loss(denoise, x0, eps, CHAIN.logsnr[t].float()).mean()
        rows[name] = {"eps_error": float(error), "distance": _distance(denoise)}
    found = _compare(network, x0, eps, t)
    for name, seconds in zip(LABELS, found.seconds, strict=True):
        rows[name]["milliseconds"] = 1000 * seconds
    _draw(section, t, found.ratio, curves)
    section.numbers = {**rows, "largest_relative_difference": found.difference}
    section.finding = _finding(found.difference, *rows.values())
    return section


def _finding(difference: float, eps: dict[str, float], mean: dict[str, float]) -> str:
    equal = abs(mean["distance"] - eps["distance"]) <= CHANCE
    verdict = "Neither trains better here" if equal else "One of them trains better here"
    return (
        "Over 512 examples, the two losses differ from the formula by a share of at most "
        f"{difference:.0e}, which is rounding. Computing the loss on the mean takes "
        f"{mean['milliseconds']:.2f} ms, and the loss on the noise {eps['milliseconds']:.2f} ms. "
        f"After {STEPS:,} training steps, the mean squared error of the noise is "
        f"{mean['eps_error']:.3f} with the loss on the mean and {eps['eps_error']:.3f} with the "
        f"loss on the noise. The distance of their samples from the data is {mean['distance']:.4f} "
        f"and {eps['distance']:.4f}; up to {CHANCE} is chance. {verdict}. The heights of "
        "the two curves cannot be compared, because the losses weigh the times differently."
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
def _compare(network: Perceptron, x0: Tensor, eps: Tensor, t: Tensor) -> Comparison:
    """Compares the two losses of a network."""
    denoise, x0, eps = partial(_predict, network.double()), x0.double(), eps.double()
    logsnr_s, logsnr_t = CHAIN.logsnr[t - 1], CHAIN.logsnr[t]
    functions = (
        partial(eps_loss, denoise, x0, eps, logsnr_t),
        partial(mean_loss, denoise, x0, eps, logsnr_s, logsnr_t),
    )
    of_eps, of_mean = (loss() for loss in functions)
    difference = float((of_mean / (_weight()[t].unsqueeze(1) * of_eps) - 1).abs().max())
    return Comparison(of_mean.sum(1) / of_eps.sum(1), difference, _median_seconds(functions))


def _weight() -> Tensor:
    """The loss on the mean over the loss on the noise, at each step."""
    return CHAIN.beta**2 / (CHAIN.alpha * CHAIN.noise_bar)


def _draw(section: Section, t: Tensor, ratio: Tensor, curves: dict[str, Tensor]) -> None:
    figure, (above, below) = plt.subplots(2, 1, figsize=(WIDTH, 5), layout="constrained")
    above.plot(range(2, T + 1), _weight()[2:], label="formula")
    above.plot(t[: T - 1 : 3], ratio[: T - 1 : 3], ".", label="measured")
    above.set(xlabel="step t (right is noise)", ylabel="ratio of the losses")
    above.set_title("Loss on the mean over loss on the noise")
    above.legend()
    for (name, curve), style in zip(curves.items(), ("-", "--"), strict=True):
        below.plot(curve.unfold(0, 50, 1).mean(1) / curve[:50].mean(), style, label=LABELS[name])
    below.set(xlabel="training step", ylabel="loss over its start", ylim=(0, None))
    below.set_title("Training, smoothed over 50 steps")
    below.legend()
    section.add_figure(
        "Above: the dots lie on the line, so the two losses differ only by a weight. Below: "
        "training by each loss, from the same start and with the same noise.",
        figure,
    )


def _median_seconds(functions: Sequence[Callable[[], object]], rounds: int = 101) -> list[float]:
    """Median time of each function. The functions are interleaved."""
    seconds = [[_seconds(function) for function in functions] for _ in range(rounds)]
    return [statistics.median(column) for column in zip(*seconds, strict=True)]


def _seconds(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began
