"""The collapse to the mean: a decoder that takes its estimate of the data as its next state."""

from functools import partial
from pathlib import Path

import torch
from matplotlib import pyplot as plt
from report_sections.network import Perceptron, fit, generator, perceptron
from report_sections.section import WIDTH, Formula, Section, TryNext
from torch import Tensor

from textdiff.diffusion.gaussian import Denoiser, Prediction, from_x0
from textdiff.diffusion.gaussian_mixture import GaussianMixture
from textdiff.diffusion.losses import x0_loss
from textdiff.diffusion.samplers import Step, ddim, feed_back

TEXT = partial(
    Section,
    name="collapse",
    title="The mean image",
    problem=(
        r"[TTIC] 2 a, b and c. A network is trained to predict the data $y$ from noisy data "
        r"$z_\ell$, by the squared error. To generate, its prediction is taken as the next state, "
        r"and no noise is added. What does it produce from pure noise $z_L$? Are the results "
        r"diverse?"
    ),
    derivation=[
        Formula(
            "The best prediction by squared error is the conditional mean.",
            r"\hat{y}^{*}(z_\ell,\ell)=\mathbb{E}[y\mid z_\ell]",
        ),
        Formula(
            "Pure noise says nothing about the data. The best prediction is then the mean of all "
            "data, the same one for every noise.",
            r"\hat{y}^{*}(z_L,L)=\mathbb{E}[y\mid z_L]=\mathbb{E}[y]",
        ),
        Formula(
            r"DDIM also adds no noise, but it keeps the noise that is in the state: "
            r"$\hat{\epsilon}$ is what remains of $z_t$ after the prediction is removed.",
            r"z_s=\alpha_s\hat{y}+\sigma_s\hat{\epsilon},\qquad"
            r"\hat{\epsilon}=\frac{z_t-\alpha_t\hat{y}}{\sigma_t}",
        ),
    ],
    idea=(
        r"A decoder that feeds its prediction back loses all randomness in the first step. "
        r"Everything that follows is deterministic, so that every sample is the same. In practice "
        r"the results may still differ a little, because no network is perfect and because $z_L$ "
        r"keeps a trace of the data. The failure does not come from being deterministic. DDIM is "
        r"deterministic too, and its samples differ because their starting points do."
    ),
    try_next=TryNext(
        "python scripts/sample_image.py report/dots --n 16 --steps 1 --sampler ddim --out mean.png",
        "One step from pure noise gives the mean of the images of section 10. Each has one white "
        "pixel among 256, so the mean is almost black. Run it again with `--steps 20`.",
    ),
)
MIXTURE = GaussianMixture(
    torch.tensor([0.5, 0.3, 0.2]),
    torch.tensor([[-1.5], [0.5], [2.0]]),
    torch.tensor([0.01, 0.02, 0.01]),
)
NOISY, CLEAN = -16.0, 5.0  # log SNR; at the noisy end x_t is almost independent of the data
TRAINING_STEPS, STEPS, SHOWN = 1000, 40, 60


@torch.no_grad()
def experiment(_: Path) -> Section:
    """Decodes 1,000 points by feedback and by DDIM."""
    section = TEXT()
    denoise = _trained_denoiser()
    noise, logsnrs = (
        torch.randn(1000, 1, generator=generator(0)),
        torch.linspace(NOISY, CLEAN, STEPS + 1),
    )
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
    section.finding = (
        "The data lie around three points. After one step of feedback with the best prediction, "
        f"all 1,000 starting points are at {exact['mean_after_one']:.2f}, with a standard "
        f"deviation of {exact['std_after_one']:.3f}. The mean of the data is {truth['mean']:.2f}. "
        f"Further feedback moves this one point to {exact['mean']:.2f} ({network['mean']:.2f} with "
        f"a trained network). After {STEPS} steps, the standard deviation of DDIM's samples is "
        f"{ddim_row['std']:.2f}, and that of the data is {truth['std']:.2f}."
    )
    return section


@torch.enable_grad()
def _trained_denoiser() -> Denoiser:
    """A network that predicts the data from x_t at any log SNR."""
    network = perceptron(1, 1)
    denoise = partial(_predict, network)

    def loss(rng: torch.Generator) -> Tensor:
        x0 = MIXTURE.sample(256, rng)
        logsnr = NOISY + (CLEAN - NOISY) * torch.rand(256, generator=rng)
        return x0_loss(denoise, x0, torch.randn(x0.shape, generator=rng), logsnr).mean()

    fit([network], loss, TRAINING_STEPS, "decoder")
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
    options = {"figsize": (WIDTH, 5.2), "layout": "constrained", "sharex": True, "sharey": True}
    figure, panels = plt.subplots(len(steps), 1, **options)
    for axes, (name, sequence) in zip(panels, steps.items(), strict=True):
        states = torch.stack([noise[:SHOWN], *(step.x[:SHOWN] for step in sequence)])
        axes.axhspan(-1.6, -1.4, color="lightgrey", label="data")
        axes.axhspan(0.36, 0.64, color="lightgrey")
        axes.axhspan(1.9, 2.1, color="lightgrey")
        axes.plot(states.squeeze(-1), color="C0", alpha=0.3)
        axes.set(title=name, ylabel="state")
    panels[0].legend(loc="upper right")
    panels[-1].set_xlabel("step (left is noise)")
    section.add_figure(
        f"Each line is one of {SHOWN} points on its way from noise. Grey bands are the three "
        "places where the data are. Feedback moves all points to one place. DDIM keeps them apart, "
        "and they end in all three bands.",
        figure,
    )
