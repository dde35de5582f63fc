"""The collapse to the mean: a decoder that takes its estimate of the data as its next state."""

from functools import partial

import torch
from matplotlib import pyplot as plt
from report_sections.network import Perceptron, fit, generator, perceptron
from report_sections.section import Section
from torch import Tensor

from textdiff.diffusion.gaussian import Denoiser, Prediction, from_x0
from textdiff.diffusion.gaussian_mixture import GaussianMixture
from textdiff.diffusion.losses import x0_loss
from textdiff.diffusion.samplers import Step, ddim, feed_back
from textdiff.diffusion.schedules import bounded, constant_alpha, grid

MIXTURE = GaussianMixture(
    torch.tensor([0.5, 0.3, 0.2]),
    torch.tensor([[-1.5], [0.5], [2.0]]),
    torch.tensor([0.01, 0.02, 0.01]),
)
# at its noisy end x_t is almost independent of the data
SCHEDULE = bounded(partial(constant_alpha, horizon=8.0), -16.0, 5.0)


@torch.no_grad()
def collapse() -> Section:
    """Decodes 1,000 points by feedback and by DDIM."""
    section = Section(
        "collapse",
        "The mean image",
        "What does a decoder produce that predicts the data and feeds its estimate back, without "
        "noise?",
    )
    denoise = _trained_denoiser()
    noise, logsnrs = torch.randn(1000, 1, generator=generator(0)), grid(SCHEDULE, 20)
    data = MIXTURE.sample(1000, generator(1))
    steps = {
        "feedback, exact": list(feed_back(MIXTURE.denoise, noise, logsnrs)),
        "feedback, network": list(feed_back(denoise, noise, logsnrs)),
        "DDIM, network": list(ddim(denoise, noise, logsnrs, generator=torch.Generator())),
    }
    _draw(section, noise, steps)
    statistics = {name: _statistics(sequence) for name, sequence in steps.items()}
    truth = {"mean": float(data.mean()), "std": float(data.std())}
    section.numbers = {"data": truth, **statistics}
    exact, network, ddim_row = statistics.values()
    section.answer = (
        "After one step all 1,000 starting points are at one point, "
        f"{exact['mean_after_one']:.2f} with a standard deviation of "
        f"{exact['std_after_one']:.3f}, where the mean of the data is {truth['mean']:.2f}. Further "
        f"feedback moves this point to {exact['mean']:.2f} ({network['mean']:.2f} with a network). "
        f"The standard deviation of DDIM is {ddim_row['std']:.2f}, that of the data "
        f"{truth['std']:.2f}."
    )
    return section


@torch.enable_grad()
def _trained_denoiser() -> Denoiser:
    """A network that predicts the data from x_t at any log SNR."""
    network = perceptron(1, 1)
    denoise = partial(_predict, network)

    def loss(rng: torch.Generator) -> Tensor:
        x0 = MIXTURE.sample(256, rng)
        logsnr = SCHEDULE(torch.rand(256, generator=rng))
        return x0_loss(denoise, x0, torch.randn(x0.shape, generator=rng), logsnr).mean()

    fit([network], loss, 1500, "decoder")
    return denoise


def _predict(network: Perceptron, x_t: Tensor, logsnr: Tensor) -> Prediction:
    return from_x0(x_t, network(x_t, logsnr), logsnr)


def _statistics(steps: list[Step]) -> dict[str, float]:
    first, last = steps[0].x0, steps[-1].x0
    return {
        "mean_after_one": float(first.mean()),
        "std_after_one": float(first.std()),
        "mean": float(last.mean()),
        "std": float(last.std()),
    }


def _draw(section: Section, noise: Tensor, steps: dict[str, list[Step]]) -> None:
    figure, panels = plt.subplots(1, 3, figsize=(10, 2.8), layout="constrained", sharey=True)
    for axes, (name, sequence) in zip(panels, steps.items(), strict=True):
        states = torch.stack([noise[:60], *(step.x[:60] for step in sequence)])
        axes.plot(states.squeeze(-1), color="C0", alpha=0.3)
        axes.set(title=name, xlabel="step")
    panels[0].set_ylabel("x")
    section.add_figure(
        "Sixty starting points. Feedback moves all of them to one point. DDIM, which is "
        "deterministic as well, keeps them apart.",
        figure,
    )
