"""The score of a mixture in the plane: four objectives that learn it, and its use in sampling."""

import math
from collections.abc import Iterator

import torch
from matplotlib import pyplot as plt
from PIL.Image import Image
from report_sections.network import fit, generator, perceptron
from report_sections.section import Section, frame
from torch import Tensor

from textdiff.diffusion.gaussian_mixture import GaussianMixture
from textdiff.diffusion.schedules import bounded, cosine, grid
from textdiff.diffusion.score_matching import (
    Score,
    annealed_langevin,
    denoising,
    explicit,
    implicit,
    rademacher,
    sliced,
)
from textdiff.diffusion.sde import reverse_sde, score_of, vp

MIXTURE = GaussianMixture(
    torch.tensor([0.35, 0.65]), torch.tensor([[-1.0, 0.6], [1.0, -0.4]]), torch.tensor([0.15, 0.25])
)
SEPARATED = GaussianMixture(
    torch.tensor([0.2, 0.8]), torch.tensor([[-2.0, 0.6], [2.0, -0.4]]), torch.tensor([0.05, 0.05])
)
SIGMA = 0.1
OBJECTIVES = ("explicit", "implicit", "sliced", "denoising")


def score() -> Section:
    """Learns the score by four objectives."""
    section = Section(
        "score",
        "Four ways to learn a score",
        "Do explicit, implicit, sliced and denoising score matching find the same vector field?",
    )
    line = torch.linspace(-2, 2, 13)
    points, x = torch.cartesian_prod(line, line), MIXTURE.sample(4000, generator(9))
    options = {"figsize": (13, 2.9), "layout": "constrained", "sharex": True, "sharey": True}
    figure, panels = plt.subplots(1, 5, **options)
    _draw_arrows(panels[0], points, _true_score(points), "truth")
    for axes, name in zip(panels[1:], OBJECTIVES, strict=True):
        learned, truth = _learned_score(name), _true_score(x)
        with torch.no_grad():
            squared_error = (learned(x) - truth).square().sum(1).mean()
            error = float(squared_error / truth.square().sum(1).mean())
            _draw_arrows(axes, points, learned(points), f"{name}, error {error:.1%}")
        section.numbers[name] = error
    section.add_figure(
        "The score of a mixture of two Gaussians, and the scores learned by four objectives in "
        "1,000 steps each.",
        figure,
    )
    errors = ", ".join(f"{name} {error:.1%}" for name, error in section.numbers.items())
    section.answer = (
        f"Yes, within the limits of each. The relative squared error on the data is: {errors}. "
        "Explicit matching needs the true score. Implicit matching costs one backward pass per "
        f"dimension. Denoising matching learns the score of the density with noise of std {SIGMA}."
    )
    return section


def paths() -> Section:
    """Moves points from noise to data by the exact score in three ways."""
    section = Section(
        "paths",
        "From noise to data by the score alone",
        "Why does Langevin dynamics need a sequence of noise levels, and the reverse SDE none?",
    )
    rng, n = generator(0), 400
    start, data = torch.randn(n, 2, generator=rng), SEPARATED.sample(n, rng)
    logsnrs = grid(bounded(cosine, -8.0, 6.0), 60)
    times, sde = torch.linspace(1, 0.05, 62) ** 2, vp()
    plain = list(_langevin(start, 61, rng))
    annealed = annealed_langevin(SEPARATED.denoise, start, logsnrs, generator=rng)
    states = {"plain Langevin": plain, "annealed Langevin": [step.x for step in annealed]}
    score = score_of(SEPARATED.denoise, sde)
    states["reverse SDE"] = list(reverse_sde(sde, score, start, times, generator=rng))
    frames = [_draw_points(data, states, i) for i in range(0, 61, 3)]
    section.add_animation(
        "400 points moved by the exact score. The data are grey.", [*frames, *[frames[-1]] * 6]
    )
    final = {name: sequence[-1] for name, sequence in states.items()}
    final["data"] = SEPARATED.sample(100_000, rng)
    shares = {name: float((x[:, 0] > 0).float().mean()) for name, x in final.items()}
    section.numbers = {name: {"share_right": share} for name, share in shares.items()}
    section.answer = (
        f"{shares['data']:.0%} of the data are on the right. By the score of the data alone, "
        "points move to the nearer mode and stay there "
        f"({shares['plain Langevin']:.0%} on the right). Annealed Langevin dynamics and the "
        "reverse SDE divide the points between the modes while noise still connects them "
        f"({shares['annealed Langevin']:.0%} and {shares['reverse SDE']:.0%})."
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

    fit([network], loss, 1000, name)
    return score


def _langevin(x: Tensor, steps: int, rng: torch.Generator, size: float = 0.02) -> Iterator[Tensor]:
    """Unadjusted Langevin dynamics with the score of the data without noise."""
    for _ in range(steps):
        score = SEPARATED.score(x, torch.full((len(x),), math.inf))
        x = x + size * score + math.sqrt(2 * size) * torch.randn(x.shape, generator=rng)
        yield x


def _draw_points(data: Tensor, states: dict[str, list[Tensor]], i: int) -> Image:
    """One frame of the animation."""
    figure, panels = plt.subplots(1, 3, figsize=(8, 2.9), layout="constrained")
    for axes, (name, sequence) in zip(panels, states.items(), strict=True):
        axes.scatter(*data.T, s=4, color="lightgrey")
        axes.scatter(*sequence[min(i, len(sequence) - 1)].T, s=4)
        axes.set(xlim=(-4, 4), ylim=(-3, 3), xticks=[], yticks=[], title=f"{name}, step {i + 1}")
    return frame(figure)


def _draw_arrows(axes: plt.Axes, points: Tensor, field: Tensor, title: str) -> None:
    axes.quiver(*points.T, *field.T, angles="xy", scale=120, width=0.006)
    axes.set(title=title, xticks=[], yticks=[], aspect="equal")
