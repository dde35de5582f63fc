"""Samplers on Gaussian mixtures: samples have the distribution of the data."""

import math

import pytest
import torch
from sampler_cases import FINE, INF, ORDER, every_deterministic, every_sampler, run, sigmoid
from tensors import close, double, draws, linspace, seeded
from torch.distributions import Normal
from torch.testing import assert_close

from textdiff.diffusion.gaussian_mixture import GaussianMixture
from textdiff.diffusion.samplers import SAMPLERS, ddim, feed_back
from textdiff.diffusion.schedules import bounded, cosine, grid

LINE = GaussianMixture(double(0.3, 0.7), double([-1.5], [1.0]), double(0.05, 0.1))
PLANE = GaussianMixture(double(0.25, 0.75), double([-2, 1], [1, -1]), double(0.2, 0.05))
PLANE_MEAN = PLANE.weight @ PLANE.mean
FACES = GaussianMixture(double(0.3, 0.7), double([-2.0, 0.0], [1.0, 1.0]), double(0.1, 0.2))
N = 4000


def cdf(x: torch.Tensor, logsnr: float) -> torch.Tensor:
    """Distribution function of LINE after diffusion."""
    alpha, sigma = (math.sqrt(sigmoid(sign * logsnr)) for sign in (1, -1))
    components = zip(LINE.weight, LINE.mean, LINE.var, strict=True)
    return sum(
        weight * Normal(alpha * mean, (alpha**2 * var + sigma**2).sqrt()).cdf(x)
        for weight, mean, var in components
    )


@every_deterministic
def test_flow_on_the_line_preserves_quantiles(name):
    """Points keep their order, so that the share of samples below a point is constant.

    The error has the order of the sampler. The flow of a mixture is not linear.
    """
    x = linspace(-2, 2, 9).unsqueeze(1)

    def error(steps):
        end = run(name, LINE.denoise, x, linspace(-6, 4, steps + 1))[-1].x
        return (cdf(end, 4) - cdf(x, -6)).abs().mean().item()

    assert error(320) < 1e-3
    assert math.log2(error(160) / error(320)) == pytest.approx(ORDER[name], abs=0.1)


@every_sampler
def test_samples_are_close_in_wasserstein_distance(name):
    """The data's standard deviation is 1.18; exact samples of this size have distance 0.02."""
    samples = run(name, LINE.denoise, draws(N, 1), FINE)[-1].x.flatten().sort().values
    x, probabilities = linspace(-5, 5, 100_001), (torch.arange(N, dtype=torch.float64) + 0.5) / N
    quantiles = x[torch.searchsorted(cdf(x, INF), probabilities)]
    assert (samples - quantiles).abs().mean() < 0.05


@pytest.fixture(scope="module", params=SAMPLERS)
def plane_samples(request) -> torch.Tensor:
    return run(request.param, PLANE.denoise, draws(N, 2), FINE)[-1].x


def test_samples_have_the_mean_of_the_data(plane_samples):
    error = 5 * 1.35 / math.sqrt(N)  # five standard errors
    assert_close(plane_samples.mean(0), PLANE_MEAN, rtol=0, atol=error)


def test_samples_have_the_covariance_of_the_data(plane_samples):
    centered = PLANE.mean - PLANE_MEAN
    within = PLANE.weight @ PLANE.var * torch.eye(2, dtype=torch.float64)
    covariance = (PLANE.weight * centered.T) @ centered + within
    assert_close(plane_samples.T.cov(), covariance, rtol=0.1, atol=0)


def test_samples_have_the_weights_of_the_components(plane_samples):
    """The components are separated halfway between their means."""
    share = (plane_samples[:, 0] < -0.5).double().mean().item()
    assert share == pytest.approx(0.25, abs=5 * math.sqrt(0.25 * 0.75 / N))  # five standard errors


# the decoder that feeds its prediction back


def test_feedback_decoder_collapses_to_one_sample():
    """From pure noise the best prediction is the mean of the data (TTIC 31230, quiz 3, 2 a).

    All later states are functions of it.
    """
    steps = list(feed_back(FACES.denoise, draws(50, 2), double(-INF, -2.0, 0.0, 2.0, INF)))
    close(steps[0].x, double(0.1, 0.7).expand(50, 2))
    close(steps[-1].x, steps[-1].x[:1].expand(50, 2))


def test_ddim_from_the_same_noise_is_diverse():
    logsnrs = grid(bounded(cosine, -9.0, 9.0), 50).double()
    *_, step = ddim(FACES.denoise, draws(500, 2), logsnrs, generator=seeded())
    assert (step.x0.std(0) / FACES.sample(5000, seeded()).std(0)).min() > 0.8
