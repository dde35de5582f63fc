"""Mean and covariance of the forward process, simulated and in closed form."""

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from matplotlib import pyplot as plt
from report_sections.network import generator
from report_sections.section import WIDTH, Formula, Section, TryNext
from torch import Tensor

from textdiff.diffusion.discrete import Chain, linear_betas

TEXT = partial(
    Section,
    name="moments",
    title="All steps at once",
    problem=(
        r"[HW7] 2.1, [DDD] 1.2 and 1.4, [CMSC] 1, and [TTIC] 1 a and b. Noise is added step by "
        r"step. Find the distribution of $x_t$ given the data $x_0$ without going through the "
        r"steps: its mean and its covariance."
    ),
    derivation=[
        Formula(
            "Write one step, and put the step before it inside.",
            r"x_t=\sqrt{\alpha_t\alpha_{t-1}}\,x_{t-2}"
            r"+\sqrt{\alpha_t(1-\alpha_{t-1})}\,\epsilon_{t-1}+\sqrt{1-\alpha_t}\,\epsilon_t",
        ),
        Formula(
            "The two noises are independent Gaussians, so that their variances add up.",
            r"\alpha_t(1-\alpha_{t-1})+(1-\alpha_t)=1-\alpha_t\alpha_{t-1}",
        ),
        Formula(
            "Repeat this down to the data.",
            r"q(x_t\mid x_0)=\mathcal{N}\left(x_t;\,\sqrt{\bar{\alpha}_t}\,x_0,\,"
            r"(1-\bar{\alpha}_t)\,I\right)",
        ),
    ],
    idea=(
        "A sum of independent Gaussians is a Gaussian. That is all that the proof needs. It is "
        "also what makes training fast: to train on step 500, nobody simulates 500 steps. One draw "
        "of noise gives the state directly."
    ),
    try_next=TryNext(
        "pytest -n 0 tests/diffusion/test_discrete.py",
        "All tests pass. Then remove the square root of `signal` in `Chain.transition` "
        "(`textdiff/diffusion/discrete.py`) and run them again. The names of the tests that fail "
        "say which laws of this section your change broke.",
    ),
)
T, N = 100, 20_000
X0 = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
CHAIN = Chain.from_betas(linear_betas(T, 1e-4, 0.2))


def experiment(_: Path) -> Section:
    """Compares simulated chains with the closed form of their mean and covariance."""
    section = TEXT()
    means, covariances = (torch.stack(each) for each in zip(*_simulated(), strict=True))
    moments = zip(range(1, T + 1), means, covariances, strict=True)
    deviations = [_deviations(*each) for each in moments]
    mean, covariance = map(max, zip(*deviations, strict=True))
    _draw(section, means, covariances)
    section.numbers = {
        "largest_mean_deviation": mean,
        "largest_covariance_deviation": covariance,
    }
    section.finding = (
        f"The formula is right. We simulated {N:,} chains of {T} steps. Over all steps, the mean "
        f"differs from the formula by at most {mean:.1f} standard errors, and the covariance by at "
        f"most {covariance:.1f}. A standard error is the size of a typical error by chance. In so "
        "many comparisons, chance alone gives about 3 to 4."
    )
    return section


def _simulated() -> Iterator[tuple[Tensor, Tensor]]:
    """Mean and covariance of simulated chains after each step."""
    rng, x = generator(0), X0.expand(N, 3)
    for t in range(1, T + 1):
        noise = torch.randn(x.shape, generator=rng, dtype=torch.float64)
        x = CHAIN.alpha[t].sqrt() * x + CHAIN.beta[t].sqrt() * noise
        yield x.mean(0), x.T.cov()


def _deviations(t: int, mean: Tensor, covariance: Tensor) -> tuple[float, float]:
    """Largest deviations of mean and covariance from the closed form, in standard errors."""
    var = float(1 - CHAIN.alpha_bar[t])
    mean_deviation = (mean - CHAIN.alpha_bar[t].sqrt() * X0).abs().max() / math.sqrt(var / N)
    error = torch.full((3, 3), var / math.sqrt(N), dtype=torch.float64)
    error.fill_diagonal_(var * math.sqrt(2 / N))
    difference = covariance - var * torch.eye(3, dtype=torch.float64)
    return float(mean_deviation), float((difference.abs() / error).max())


def _draw(section: Section, means: Tensor, covariances: Tensor) -> None:
    size, t = (WIDTH, 4.8), torch.arange(1, T + 1)
    figure, (above, below) = plt.subplots(2, 1, figsize=size, layout="constrained", sharex=True)
    expected = CHAIN.alpha_bar[1:].sqrt().unsqueeze(1) * X0
    above.plot(t, expected, color="C0", label=["formula", "", ""])
    above.plot(t[::5], means[::5], ".", color="C1", label=["simulated", "", ""])
    above.set(ylabel="mean", title=r"Mean of three coordinates: $\sqrt{\bar\alpha_t}\,x_0$")
    above.legend()
    below.plot(t, 1 - CHAIN.alpha_bar[1:], color="C0")
    below.axhline(0, color="C0")
    below.plot(t[::5], covariances.diagonal(dim1=1, dim2=2)[::5], ".", color="C1")
    below.plot(t[::5], covariances[::5, [0, 0, 1], [1, 2, 2]], ".", color="C1")
    below.set(xlabel="step t", ylabel="variance, covariance", ylim=(-0.1, 1.1))
    below.set_title(r"Variances $1-\bar\alpha_t$, and covariances 0")
    section.add_figure(
        "Lines are the formula, dots are simulated chains. Every dot should lie on a line. The "
        "means go to 0 and the variances to 1: at the end, nothing of the data is left.",
        figure,
    )
