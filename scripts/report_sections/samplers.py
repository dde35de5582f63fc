"""The error of each sampler against its number of steps."""

import torch
from matplotlib import pyplot as plt
from report_sections.bound import MIXTURE
from report_sections.network import energy_distance, generator
from report_sections.section import Section
from torch import Tensor

from textdiff.diffusion.samplers import EVALUATIONS, SAMPLERS
from textdiff.diffusion.schedules import bounded, cosine, grid

STEPS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
N = 2000


def samplers() -> Section:
    """Measures the energy distance to the data with the exact denoiser."""
    section = Section(
        "samplers",
        "Samplers against steps",
        "How many network evaluations does each sampler need? The exact denoiser shows the error "
        "of the sampler alone.",
    )
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
    counts = ", ".join(f"{name} {number}" for name, number in enough.items())
    section.answer = (
        f"Evaluations for a distance below 0.01: {counts}. A step of heun needs two evaluations."
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
    figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    for name, row in distances.items():
        evaluations = [_evaluations(name, n) for n in STEPS]
        axes.plot(evaluations, [max(d, floor) for d in row], "o-", label=name)
    axes.axhline(floor, color="grey", linestyle=":", label="largest between sets of data")
    axes.set(xscale="log", yscale="log", xlabel="network evaluations")
    axes.set(ylabel="energy distance to the data", title="Samplers with the exact denoiser")
    axes.legend()
    section.add_figure(
        "Distance of 2,000 samples to 2,000 draws from the mixture. The dotted line is the largest "
        "distance between two sets of draws; smaller values are drawn on it.",
        figure,
    )
