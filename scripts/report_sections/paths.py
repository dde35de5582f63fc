"""From noise to data by the score alone: Langevin dynamics, annealed, and the reverse SDE."""

import math
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from matplotlib import pyplot as plt
from report_sections.network import generator
from report_sections.section import WIDTH, Formula, Section, TryNext
from torch import Tensor

from textdiff.diffusion.gaussian_mixture import GaussianMixture
from textdiff.diffusion.schedules import bounded, cosine, grid
from textdiff.diffusion.score_matching import annealed_langevin, langevin
from textdiff.diffusion.sde import reverse_sde, score_of, vp

TEXT = partial(
    Section,
    name="paths",
    title="From noise to data by the score alone",
    problem=(
        r"[HW7] 4, [L15], [TTIC] 1 e. A noise-conditional score network (NCSN) learns the score at "
        r"several noise levels and samples with it. Explain how DDPM's network gives the same "
        r"score. We add a question: why does NCSN need many noise levels?"
    ),
    derivation=[
        Formula(
            "The score of noisy data, given the clean data, points back along the noise.",
            r"\nabla\log q(x_t\mid x_0)=-\frac{x_t-\sqrt{\bar{\alpha}_t}\,x_0}{1-\bar{\alpha}_t}"
            r"=-\frac{\epsilon}{\sqrt{1-\bar{\alpha}_t}}",
        ),
        Formula(
            "By denoising score matching (section 6), the best noise predictor therefore gives the "
            "score. ([L15] leaves out the minus sign.)",
            r"s_\theta(x_t,t)=-\frac{\epsilon_\theta(x_t,t)}{\sqrt{1-\bar{\alpha}_t}}",
        ),
        Formula(
            "Langevin dynamics follows the score in small steps of size $h$ and adds noise.",
            r"x\leftarrow x+\frac{h}{2}\,s(x)+\sqrt{h}\,z,\qquad z\sim\mathcal{N}(0,I)",
        ),
        Formula(
            r"The reverse of the noising process $dx=f x\,dt+g\,dw$ is run from noise to data. It "
            r"uses the score of each time once.",
            r"dx=\left(f x-g^2 s(x,t)\right)dt+g\,d\bar{w}",
        ),
    ],
    idea=(
        r"The score of clean data is a local guide. Between two groups of data the density is "
        r"almost 0, and a point hardly ever crosses. So Langevin dynamics on clean data brings "
        r"each point to the nearest group, whatever share of the data that group has. With much "
        r"noise the groups overlap, and points can still choose. Annealed Langevin dynamics lowers "
        r"the noise slowly. The reverse process does this by itself, in one pass."
    ),
    try_next=TryNext(
        "python scripts/sample_image.py report/dots --n 64 --sampler ddim --steps 50 --out ode.png",
        "DDIM follows the score without adding noise, and DDPM adds noise in every step. Run it "
        "again with `--sampler ddpm --out sde.png` and compare the two pictures.",
    ),
)
MIXTURE = GaussianMixture(
    torch.tensor([0.2, 0.8]), torch.tensor([[-2.0, 0.6], [2.0, -0.4]]), torch.tensor([0.05, 0.05])
)
N, STEPS = 400, 60
SHOWN = (0, 20, 40, 60)


def experiment(_: Path) -> Section:
    """Moves points from noise to data by the exact score in three ways."""
    section, rng = TEXT(), generator(0)
    start, data = torch.randn(N, 2, generator=rng), MIXTURE.sample(N, rng)
    states = {name: [start, *moved] for name, moved in _moved(start, rng).items()}
    _draw(section, data, states)
    final = {name: sequence[-1] for name, sequence in states.items()}
    final["data"] = MIXTURE.sample(100_000, rng)
    shares = {name: float((x[:, 0] > 0).float().mean()) for name, x in final.items()}
    section.numbers = {name: {"share_right": share} for name, share in shares.items()}
    section.finding = (
        f"{shares['data']:.0%} of the data are in the right group. After {STEPS} steps of plain "
        f"Langevin dynamics, {shares['plain Langevin']:.0%} of the points are there, about as many "
        "as started on that side. Annealed Langevin dynamics brings "
        f"{shares['annealed Langevin']:.0%} there and the reverse process "
        f"{shares['reverse SDE']:.0%}. By chance, {N} points differ from the truth by up to 4 %."
    )
    return section


def _moved(start: Tensor, rng: torch.Generator) -> dict[str, list[Tensor]]:
    """The states after each step of each method."""
    logsnrs = grid(bounded(cosine, -8.0, 6.0), STEPS - 1)
    times, sde = torch.linspace(1, 0.05, STEPS + 1) ** 2, vp()

    def score(x: Tensor) -> Tensor:
        return MIXTURE.score(x, torch.full((len(x),), math.inf))

    plain = list(langevin(score, start, 0.04, STEPS, generator=rng))
    annealed = annealed_langevin(MIXTURE.denoise, start, logsnrs, generator=rng)
    reverse = reverse_sde(sde, score_of(MIXTURE.denoise, sde), start, times, generator=rng)
    return {
        "plain Langevin": plain,
        "annealed Langevin": [step.x for step in annealed],
        "reverse SDE": list(islice(reverse, STEPS)),
    }


def _draw(section: Section, data: Tensor, states: dict[str, list[Tensor]]) -> None:
    options = {"figsize": (WIDTH, 5.4), "layout": "constrained", "sharex": True, "sharey": True}
    figure, panels = plt.subplots(len(SHOWN), len(states), **options)
    for column, (name, sequence) in zip(panels.T, states.items(), strict=True):
        for axes, i in zip(column, SHOWN, strict=True):
            axes.scatter(*data.T, s=3, color="lightgrey")
            axes.scatter(*sequence[i].T, s=3)
            right = float((sequence[i][:, 0] > 0).float().mean())
            place = {"transform": axes.transAxes, "ha": "right"}
            box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5}
            axes.text(0.97, 0.03, f"{right:.0%} right", bbox=box, **place)
            axes.set(xlim=(-4, 4), ylim=(-3, 3), xticks=[], yticks=[])
        column[0].set_title(name)
    for axes, i in zip(panels[:, 0], SHOWN, strict=True):
        axes.set_ylabel(f"step {i}")
    section.add_figure(
        "Grey dots are data, blue dots are 400 points that move, from top to bottom. See the last "
        "row: only two methods put about 80 % of the points into the right group.",
        figure,
    )
