"""The score of a mixture in the plane, learned by four objectives."""

import math
from functools import partial
from pathlib import Path

import torch
from matplotlib import pyplot as plt
from report_sections.network import fit, generator, perceptron
from report_sections.section import WIDTH, Formula, Section, TryNext
from torch import Tensor

from textdiff.diffusion.gaussian_mixture import GaussianMixture
from textdiff.diffusion.score_matching import (
    Score,
    denoising,
    explicit,
    implicit,
    rademacher,
    sliced,
)

TEXT = partial(
    Section,
    name="score",
    title="Four ways to learn a score",
    problem=(
        r"[HW7] 3 and the theorems of [L15]. The score is the gradient of the log density of the "
        r"data: an arrow at each point that shows where the density grows. It is not known. Show "
        r"that a network $s_\theta$ can learn it all the same, from data or from noisy data alone."
    ),
    derivation=[
        Formula(
            "Implicit score matching: integration by parts removes the unknown score, and leaves "
            "the trace of the network's derivative.",
            r"\frac{1}{2}\mathbb{E}\,\|s_\theta-\nabla\log p\|^2"
            r"=\mathbb{E}\left[\frac{1}{2}\|s_\theta\|^2+\mathrm{tr}\,\nabla s_\theta\right]"
            r"+\mathrm{const}",
        ),
        Formula(
            r"Denoising score matching: $\tilde{x}$ is $x$ with noise. Write the gradient of the "
            r"noisy density as an integral over the data.",
            r"q_\sigma(\tilde{x})\,\nabla\log q_\sigma(\tilde{x})=\int p(x)\,"
            r"q_\sigma(\tilde{x}\mid x)\,\nabla\log q_\sigma(\tilde{x}\mid x)\,dx",
        ),
        Formula(
            "So the only term with the unknown score becomes a mean over pairs of clean and noisy "
            "data, where the gradient is known.",
            r"\mathbb{E}_{\tilde{x}}\left[\nabla\log q_\sigma(\tilde{x})^{\top}s_\theta(\tilde{x})"
            r"\right]=\mathbb{E}_{x,\tilde{x}}\left[-\frac{(\tilde{x}-x)^{\top}}{\sigma^2}"
            r"s_\theta(\tilde{x})\right]",
        ),
    ],
    idea=(
        r"All four objectives have the same best network, up to the noise that denoising needs. "
        r"They differ in cost. Explicit matching needs the true score, which only examples have. "
        r"Implicit matching needs one backward pass for each dimension, too many for an image. "
        r"Sliced matching replaces them by one pass along a random direction. Denoising needs no "
        r"derivative of the network at all, and this is why diffusion models use it."
    ),
    try_next=TryNext(
        "pytest -n 0 tests/diffusion/test_score_matching.py",
        "All tests pass. Then change the sign of `eps / scale` in `denoising` "
        "(`textdiff/diffusion/score_matching.py`) and run them again. See which laws fail.",
    ),
)
MIXTURE = GaussianMixture(
    torch.tensor([0.35, 0.65]), torch.tensor([[-1.0, 0.6], [1.0, -0.4]]), torch.tensor([0.15, 0.25])
)
SIGMA = 0.1
STEPS = 600
OBJECTIVES = ("explicit", "implicit", "sliced", "denoising")


def experiment(_: Path) -> Section:
    """Learns the score by four objectives."""
    section = TEXT()
    line = torch.linspace(-2, 2, 11)
    points, x = torch.cartesian_prod(line, line), MIXTURE.sample(4000, generator(9))
    scores: dict[str, Score] = {name: _learned_score(name) for name in OBJECTIVES}
    truth = _true_score(x)
    with torch.no_grad():
        for name, learned in scores.items():
            squared_error = (learned(x) - truth).square().sum(1).mean()
            section.numbers[name] = float(squared_error / truth.square().sum(1).mean())
        _draw(section, points, x[:400], {"truth": _true_score, **scores})
    errors = ", ".join(f"{name} {_percent(error)}" for name, error in section.numbers.items())
    section.finding = (
        f"All four networks find the arrows of the true score after {STEPS} training steps. Their "
        "squared errors on the data, as shares of the squared score, are: "
        f"{errors}. Denoising learns most slowly here. With noise of standard deviation {SIGMA}, "
        "its target is far more random than the score, and needs many examples to average out."
    )
    return section


def _true_score(x: Tensor) -> Tensor:
    return MIXTURE.score(x, torch.full((len(x),), math.inf))


def _learned_score(name: str) -> Score:
    """A network trained by one objective."""
    network = perceptron(2, 2)

    def score(x: Tensor) -> Tensor:
        return network(x, torch.zeros(len(x)))

    def loss(rng: torch.Generator) -> Tensor:
        x = MIXTURE.sample(256, rng)
        if name == "denoising":
            eps, sigma = torch.randn(x.shape, generator=rng), torch.full((len(x),), SIGMA)
            return SIGMA**2 * denoising(score, x, eps, sigma).mean()
        if name == "sliced":
            return sliced(score, x, rademacher(x, rng)).mean()
        if name == "explicit":
            return explicit(score, x, _true_score).mean()
        return implicit(score, x).mean()

    fit([network], loss, STEPS, name)
    return score


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"


def _draw(section: Section, points: Tensor, data: Tensor, scores: dict[str, Score]) -> None:
    options = {"figsize": (WIDTH, 6.8), "layout": "constrained", "sharex": True, "sharey": True}
    figure, panels = plt.subplots(3, 2, **options)
    for axes, (name, score) in zip(panels.flat, scores.items(), strict=False):
        error = f", error {_percent(section.numbers[name])}" if name in section.numbers else ""
        axes.scatter(*data.T, s=3, color="C1", alpha=0.4)
        axes.quiver(*points.T, *score(points).T, angles="xy", scale=90, width=0.008)
        axes.set(title=f"{name}{error}", aspect="equal", xlim=(-2.2, 2.2), ylim=(-2.2, 2.2))
    panels[2, 1].axis("off")
    panels[1, 1].tick_params(labelbottom=True)
    figure.supxlabel("$x_1$")
    figure.supylabel("$x_2$")
    section.add_figure(
        "Orange dots are data, and arrows are scores. Every arrow points to where data are denser, "
        "and long arrows mean steep slopes. The four learned fields should look like the truth.",
        figure,
    )
