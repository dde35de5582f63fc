"""The error of each sampler against its number of steps."""

from functools import partial
from pathlib import Path

import torch
from matplotlib import pyplot as plt
from report_sections.bound import MIXTURE
from report_sections.network import energy_distance, generator
from report_sections.section import WIDTH, Formula, Section, TryNext
from torch import Tensor

from textdiff.diffusion.samplers import EVALUATIONS, SAMPLERS
from textdiff.diffusion.schedules import bounded, cosine, grid

TEXT = partial(
    Section,
    name="samplers",
    title="The reverse step, and how many of them",
    problem=(
        r"[HW7] 2.2, [CMSC] 4, 5 and 7, [DDD] eq. 9 and 10. Show that the reverse step "
        r"$q(x_{t-1}\mid x_t,x_0)$ is Gaussian, and find its mean and variance. We add a question: "
        r"how many such steps does a sampler need?"
    ),
    derivation=[
        Formula(
            r"By Bayes' rule, the reverse step is a product of two Gaussians in $x_{t-1}$. "
            r"Completing the square gives one Gaussian.",
            r"q(x_{t-1}\mid x_t,x_0)\propto q(x_t\mid x_{t-1})\,q(x_{t-1}\mid x_0)",
        ),
        Formula(
            r"Its mean lies between the data and the present state. ([DDD] eq. 10 prints "
            r"$\sqrt{\bar{\alpha}_t}$ before $x_t$, which is a misprint.)",
            r"\tilde{\mu}_t=\frac{\sqrt{\bar{\alpha}_{t-1}}\,\beta_t}{1-\bar{\alpha}_t}\,x_0"
            r"+\frac{\sqrt{\alpha_t}\,(1-\bar{\alpha}_{t-1})}{1-\bar{\alpha}_t}\,x_t",
        ),
        Formula(
            "Its variance is smaller than that of the forward step.",
            r"\tilde{\beta}_t=\frac{1-\bar{\alpha}_{t-1}}{1-\bar{\alpha}_t}\,\beta_t",
        ),
    ],
    idea=(
        r"A sampler does not know $x_0$. The network estimates it from $x_t$, and the sampler "
        r"takes a step as if the estimate were true. DDPM draws from the Gaussian above. DDIM "
        r"adds the estimated noise instead of new noise, so that only the start is random. "
        r"DPM-Solver and Heun's method also look at how the estimate changes from step to step, "
        r"and so they can take longer steps."
    ),
    try_next=TryNext(
        "textdiff sample report/text --n 8 --steps 2",
        "Run it again with `--steps 32`. Count the sentences that are not grammatical, with few "
        "steps and with many.",
    ),
)
STEPS = (1, 2, 5, 10, 20, 50, 100, 200)
N = 2000
LABELS = {"ddpm": "DDPM", "ddim": "DDIM", "dpm_solver": "DPM-Solver", "heun": "Heun"}
STYLES = ("o-", "s--", "^-", "v--")


def experiment(_: Path) -> Section:
    """Measures the energy distance to the data with the exact denoiser."""
    section = TEXT()
    data = MIXTURE.sample(N, generator(5))
    floor = max(
        abs(energy_distance(MIXTURE.sample(N, generator(seed)), data)) for seed in range(6, 14)
    )
    distances = {name: [_distance(name, n, data) for n in STEPS] for name in SAMPLERS}
    _draw(section, distances, floor)
    enough = {
        name: next(_evaluations(name, n) for n, d in zip(STEPS, row, strict=True) if d < 0.01)
        for name, row in distances.items()
    }
    section.numbers = {
        **{name: dict(zip(map(str, STEPS), row, strict=True)) for name, row in distances.items()},
        "two_sets_of_data": floor,
        "evaluations_to_come_within_0.01": enough,
    }
    counts = ", ".join(f"{LABELS[name]} {number}" for name, number in enough.items())
    section.finding = (
        "The denoiser here is exact, so that all errors are those of the samplers. The error is "
        "the energy distance, a number that is 0 if two sets of points have the same "
        f"distribution. To come below 0.01, the samplers need this many calls of the network: "
        f"{counts}. Two sets of true data have a distance of up to {floor:.4f} by chance, and "
        "below that nothing can be compared."
    )
    return section


def _distance(name: str, steps: int, data: Tensor) -> float:
    """Energy distance of samples to the data."""
    rng, logsnrs = generator(1), grid(bounded(cosine, -9.0, 9.0), steps)
    noise = torch.randn(N, 2, generator=rng)
    *_, last = SAMPLERS[name](MIXTURE.denoise, noise, logsnrs, generator=rng)
    return energy_distance(last.x, data)


def _evaluations(sampler: str, steps: int) -> int:
    return steps * EVALUATIONS[sampler]


def _draw(section: Section, distances: dict[str, list[float]], floor: float) -> None:
    figure, axes = plt.subplots(figsize=(WIDTH, 3.6), layout="constrained")
    for (name, row), style in zip(distances.items(), STYLES, strict=True):
        evaluations = [_evaluations(name, n) for n in STEPS]
        axes.plot(evaluations, [max(d, floor) for d in row], style, label=LABELS[name])
    axes.axhline(floor, color="grey", linestyle=":", label="chance")
    axes.set(xscale="log", yscale="log", xlabel="calls of the network")
    axes.set(ylabel="energy distance to the data", title="Error of samples by effort")
    axes.set_xticks([1, 10, 100], ["1", "10", "100"])
    axes.legend()
    section.add_figure(
        "Lower is better, and further left is cheaper. Two accurate methods differ most when steps "
        "are few: DPM-Solver is then the best, and Heun's method the worst. The dotted line is "
        "what chance allows; smaller distances are drawn on it.",
        figure,
    )
