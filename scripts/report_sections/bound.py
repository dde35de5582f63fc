"""The variational bound: its terms, and its gap to the negative log-likelihood."""

import math
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from matplotlib import pyplot as plt
from report_sections.network import generator
from report_sections.section import WIDTH, Formula, Section, TryNext
from torch import Tensor
from torch.distributions import Normal

from textdiff.diffusion.gaussian import diffuse
from textdiff.diffusion.gaussian_mixture import GaussianMixture
from textdiff.diffusion.likelihood import prior_kl, step_kl

TEXT = partial(
    Section,
    name="bound",
    title="The variational bound, term by term",
    problem=(
        r"[HW7] 2.3, [DDD] 2.1 and 2.2, [CMSC] 2, [L15]. The probability $p_\theta(x_0)$ that a "
        r"model gives to the data is an integral that nobody can compute. Find an upper bound on "
        r"$-\log p_\theta(x_0)$ and write it as a sum of terms, one for each step."
    ),
    derivation=[
        Formula(
            "The difference between the two sides is a KL divergence, a distance between "
            "distributions that is never negative.",
            r"-\log p_\theta(x_0)\le\mathbb{E}_q\left[\log\frac{q(x_{1:T}\mid x_0)}"
            r"{p_\theta(x_{0:T})}\right]=L",
        ),
        Formula(
            "Bayes' rule turns a forward step into a reverse step. In the product over $t$, the "
            "other factors cancel, except for the first and the last.",
            r"q(x_t\mid x_{t-1})=\frac{q(x_{t-1}\mid x_t,x_0)\,q(x_t\mid x_0)}"
            r"{q(x_{t-1}\mid x_0)}\qquad(t>1)",
        ),
        Formula(
            "What remains are three kinds of terms.",
            r"L=\mathbb{E}_q\Big[L_T+\sum_{t=2}^{T}L_{t-1}+L_0\Big]",
        ),
        Formula(
            "The end of the noise, each step, and the last step to the data.",
            r"\begin{matrix}L_T=\mathrm{KL}\left(q(x_T\mid x_0)\,\|\,p(x_T)\right)\\"
            r"L_{t-1}=\mathrm{KL}\left(q(x_{t-1}\mid x_t,x_0)\,\|\,p_\theta(x_{t-1}\mid x_t)"
            r"\right)\\L_0=-\log p_\theta(x_0\mid x_1)\end{matrix}",
        ),
    ],
    idea=(
        r"The bound is useful because each term looks at one step only. So one random step gives "
        r"an unbiased estimate of the whole sum, and training needs no more than that. Even the "
        r"best network leaves a gap. A reverse step of the model is a Gaussian of fixed variance, "
        r"and the true reverse step is not. The two become equal when the steps become small."
    ),
    try_next=TryNext(
        "textdiff sample report/text --n 8 --rank 4 --format table",
        "The column `score` is an estimate of this bound for each sentence, in nats per token (a "
        "nat is 1.44 bits). Lower is more probable. Compare the best sentence with the worst one. "
        "The model gives its own sentences a better score than the held-out text of section 12.",
    ),
)
MIXTURE = GaussianMixture(
    torch.tensor([0.3, 0.7]), torch.tensor([[-1.0, 0.5], [1.0, -0.5]]), torch.tensor([0.05, 0.1])
)
T, LOGSNR_RANGE = 100, (9.0, -12.0)


def experiment(_: Path) -> Section:
    """Computes the bound with the exact denoiser for several numbers of steps."""
    section = TEXT()
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
    section.finding = (
        "The data are a mixture of two Gaussians, for which the best denoiser and the truth are "
        f"known. The truth is {truth:.3f} nats. The bound is {totals[10]:.2f} nats with 10 steps, "
        f"{totals[50]:.2f} with 50, and {totals[200]:.3f} with 200 (± {2 * errors[200]:.3f}, two "
        "standard errors). It is never below the truth. From 50 steps on, twice as many about "
        f"halve the gap. $L_T$ is only {last:.1e} nats. $L_0$ is {first:.2f} nats: it is negative, "
        "because $p$ is a density here, and a density can be larger than 1."
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
    figure, (above, below) = plt.subplots(2, 1, figsize=(WIDTH, 5), layout="constrained")
    above.plot(torch.linspace(*LOGSNR_RANGE, T + 1)[1:], terms, ".-")
    above.set(xlabel="log SNR before the reverse step (left is noise)", ylabel="nats per step")
    above.set_title(f"The terms $L_{{t-1}}$ of {T} steps")
    bars = [2 * error for error in errors.values()]
    below.errorbar(list(gaps), list(gaps.values()), bars, fmt="o-", capsize=3)
    for steps, gap in gaps.items():
        below.annotate(f"{gap:.2g}", (steps, gap), xytext=(5, 5), textcoords="offset points")
    below.set(xlabel="number of steps T", ylabel="nats above the truth", xscale="log", yscale="log")
    below.set_xticks(list(gaps), list(map(str, gaps)))
    below.minorticks_off()
    below.set_title("The gap between the bound and the truth")
    section.add_figure(
        "Above: steps near the data cost most, because they decide the details. Below: with more "
        "steps the bound comes closer to the truth. Bars are two standard errors.",
        figure,
    )
