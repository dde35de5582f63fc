"""The variational bound: its terms, and its gap to the negative log-likelihood."""

import math
from itertools import pairwise

import torch
from matplotlib import pyplot as plt
from report_sections.network import generator
from report_sections.section import Section
from torch import Tensor
from torch.distributions import Normal

from textdiff.diffusion.gaussian import diffuse
from textdiff.diffusion.gaussian_mixture import GaussianMixture
from textdiff.diffusion.likelihood import prior_kl, step_kl

MIXTURE = GaussianMixture(
    torch.tensor([0.3, 0.7]), torch.tensor([[-1.0, 0.5], [1.0, -0.5]]), torch.tensor([0.05, 0.1])
)
T, LOGSNR_RANGE = 100, (9.0, -12.0)


def bound() -> Section:
    """Computes the bound with the exact denoiser for several numbers of steps."""
    section = Section(
        "bound",
        "The variational bound, term by term",
        "How do L_T, the L_{t-1} and L_0 add up, and how far above the true negative "
        "log-likelihood is their sum?",
    )
    x0 = MIXTURE.sample(4000, generator(0)).double()
    exact = GaussianMixture(MIXTURE.weight.double(), MIXTURE.mean.double(), MIXTURE.var.double())
    nats = -exact.log_prob(x0, torch.full((len(x0),), math.inf, dtype=torch.float64))
    truth = float(nats.mean())
    gaps = {steps: sum(_terms(exact, x0, steps)) - nats for steps in (10, 20, 50, 100, 200)}
    totals = {steps: truth + float(gap.mean()) for steps, gap in gaps.items()}
    errors = {steps: float(gap.std()) / math.sqrt(len(x0)) for steps, gap in gaps.items()}
    first, *middle, last = [float(term.mean()) for term in _terms(exact, x0, T)]
    _draw(section, middle, {steps: total - truth for steps, total in totals.items()}, errors)
    section.numbers = {
        "truth": truth,
        "bound": {str(steps): total for steps, total in totals.items()},
        "error": {str(steps): error for steps, error in errors.items()},
        "L_0": first,
        "L_T": last,
    }
    section.answer = (
        f"The truth is {truth:.3f} nats. The bound is {totals[10]:.3f} with 10 steps, "
        f"{totals[50]:.3f} with 50 and {totals[200]:.3f} with 200 (± {2 * errors[200]:.3f}). It is "
        "always above the truth, and doubling the number of steps roughly halves the gap. The "
        "steps at high log SNR, which determine the details, have the largest terms. L_T is only "
        f"{last:.1e}, and L_0, which is that of a density, is {first:.2f}."
    )
    return section


def _terms(exact: GaussianMixture, x0: Tensor, steps: int) -> list[Tensor]:
    """L_0, ..., L_{T-1}, L_T in nats per sample, for equal steps in log SNR.

    L_0 belongs to a Gaussian decoder around the estimate of x0.
    """
    rng = generator(2)

    def noise() -> Tensor:
        return torch.randn(x0.shape, generator=rng, dtype=x0.dtype)

    grid = torch.linspace(*LOGSNR_RANGE, steps + 1, dtype=torch.float64)
    logsnrs = [logsnr.expand(len(x0)) for logsnr in grid]
    estimate = exact.denoise(diffuse(x0, noise(), logsnrs[0]), logsnrs[0]).x0
    first = -Normal(estimate, (-logsnrs[0] / 2).exp().unsqueeze(1)).log_prob(x0)
    kls = [step_kl(exact.denoise, x0, noise(), s, t) for s, t in pairwise(logsnrs)]
    return [term.sum(1) for term in (first, *kls, prior_kl(x0, logsnrs[-1]))]


def _draw(
    section: Section, terms: list[float], gaps: dict[int, float], errors: dict[int, float]
) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    left.plot(torch.linspace(*LOGSNR_RANGE, T + 1)[1:], terms, ".-")
    left.set(xlabel="log SNR at the noisy side of the step", ylabel="nats")
    left.set_title(f"Terms L_{{t-1}} with the exact denoiser, T = {T}")
    bars = [2 * error for error in errors.values()]
    right.errorbar(list(gaps), list(gaps.values()), bars, fmt="o-", capsize=3)
    right.set(xlabel="T", ylabel="nats above the truth", xscale="log", yscale="log")
    right.set_title("Gap of the bound")
    section.add_figure(
        "Left: each term. Right: the gap with the exact denoiser. Bars are two standard errors. "
        "Steps are equal in log SNR.",
        figure,
    )
