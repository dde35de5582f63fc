"""The score in the plane, learned by four objectives, and what it is good for."""

import math
from collections.abc import Iterator

import torch
from matplotlib import pyplot as plt
from notes.network import Perceptron, fit
from notes.section import Section, frame
from torch import Tensor

from textdiff.diffusion.oracle import GaussianMixture
from textdiff.diffusion.schedule import bounded, cosine, grid
from textdiff.diffusion.score import Score, annealed_langevin, denoising, explicit, implicit, rademacher, sliced
from textdiff.diffusion.sde import reverse_sde, score_of, vp

MIXTURE = GaussianMixture(torch.tensor([0.35, 0.65]), torch.tensor([[-1.0, 0.6], [1.0, -0.4]]), torch.tensor([0.15, 0.25]))
APART = GaussianMixture(torch.tensor([0.2, 0.8]), torch.tensor([[-2.0, 0.6], [2.0, -0.4]]), torch.tensor([0.05, 0.05]))
SIGMA = 0.1


def truth(x: Tensor) -> Tensor:
    return MIXTURE.score(x, torch.full((len(x),), math.inf))


def score() -> Section:
    section = Section("score", "Four ways to learn a score", "Do explicit, implicit, sliced and denoising score matching find the same vector field?")
    field, x = _lattice(), MIXTURE.sample(4000, torch.Generator().manual_seed(9))
    figure, axes = plt.subplots(1, 5, figsize=(13, 2.9), layout="constrained", sharex=True, sharey=True)
    _arrows(axes[0], field, truth(field), "truth")
    for place, name in zip(axes[1:], ("explicit", "implicit", "sliced", "denoising"), strict=True):
        learned = _learned(name)
        with torch.no_grad():
            error = float((learned(x) - truth(x)).square().sum(1).mean() / truth(x).square().sum(1).mean())
            _arrows(place, field, learned(field), f"{name}, error {error:.1%}")
        section.numbers[name] = error
    section.draw("The score of a mixture of two Gaussians and what four objectives make of it, after 1,000 steps each.", figure)
    section.answer = (
        "Yes, up to what each may see: relative squared error on the data "
        + ", ".join(f"{name} {error:.1%}" for name, error in section.numbers.items())
        + f". Explicit matching needs the answer; implicit pays with a backward pass a dimension; denoising learns the density blurred by {SIGMA}."
    )
    return section


def paths() -> Section:
    section = Section(
        "paths", "From noise to data by the score alone", "Why does Langevin dynamics need a ladder of noise levels, and the reverse SDE none?"
    )
    dice, n = torch.Generator().manual_seed(0), 400
    start, data = torch.randn(n, 2, generator=dice), APART.sample(n, dice)
    levels = grid(bounded(cosine, -8.0, 6.0), 60)
    times, sde = torch.linspace(1, 0.05, 62) ** 2, vp()
    ways = {
        "plain Langevin": list(_langevin(start, 61, dice)),
        "annealed Langevin": [step.x for step in annealed_langevin(APART.denoise, start, levels, generator=dice)],
        "reverse SDE": list(reverse_sde(sde, score_of(APART.denoise, sde), start, times, generator=dice)),
    }
    frames = []
    for i in range(0, 61, 3):
        figure, axes = plt.subplots(1, 3, figsize=(8, 2.9), layout="constrained")
        for place, (name, states) in zip(axes, ways.items(), strict=True):
            place.scatter(*data.T, s=4, color="lightgrey")
            place.scatter(*states[min(i, len(states) - 1)].T, s=4)
            place.set(xlim=(-4, 4), ylim=(-3, 3), title=f"{name}, step {i + 1}", xticks=[], yticks=[])
        frames.append(frame(figure))
    section.film("400 points on their way, by the exact score; in grey the data.", [*frames, *[frames[-1]] * 6])
    section.numbers = {name: {"share_right": float((states[-1][:, 0] > 0).float().mean())} for name, states in ways.items()}
    section.numbers["data"] = {"share_right": float((APART.sample(100_000, dice)[:, 0] > 0).float().mean())}
    plain, annealed, reverse, right = (row["share_right"] for row in section.numbers.values())
    section.answer = (
        f"{right:.0%} of the data are on the right. With the data's own score alone points climb the nearer mode and stay ({plain:.0%}); from level "
        f"to level, or by the reverse SDE, they are shared out while noise still joins the modes ({annealed:.0%} and {reverse:.0%})."
    )
    return section


def _langevin(x: Tensor, steps: int, dice: torch.Generator, size: float = 0.02) -> Iterator[Tensor]:
    """Unadjusted, with the score of the data themselves."""
    for _ in range(steps):
        score = APART.score(x, torch.full((len(x),), math.inf))
        x = x + size * score + math.sqrt(2 * size) * torch.randn(x.shape, generator=dice)
        yield x


def _learned(name: str) -> Score:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Perceptron(2, 2)
    score: Score = lambda x: network(x, torch.zeros(len(x)))  # noqa: E731

    def loss(dice: torch.Generator) -> Tensor:
        x = MIXTURE.sample(256, dice)
        if name == "denoising":
            return SIGMA**2 * denoising(score, x, torch.full((256,), SIGMA), torch.randn(x.shape, generator=dice)).mean()
        if name == "sliced":
            return sliced(score, x, rademacher(x, dice)).mean()
        return (explicit(score, x, truth) if name == "explicit" else implicit(score, x)).mean()

    fit([network], loss, 1000, name)
    return score


def _lattice() -> Tensor:
    line = torch.linspace(-2, 2, 13)
    return torch.cartesian_prod(line, line)


def _arrows(axes: plt.Axes, at: Tensor, field: Tensor, title: str) -> None:
    axes.quiver(*at.T, *field.T, angles="xy", scale=120, width=0.006)
    axes.set(title=title, xticks=[], yticks=[], aspect="equal")
