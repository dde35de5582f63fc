"""Wrappers change what is said of the data and nothing else: x_t is still alpha x0 + sigma eps."""

import math

import pytest
import torch
from torch.testing import assert_close

from textdiff.diffusion.gaussian import PREDICTIONS, diffuse, from_eps, from_x0, posterior
from textdiff.diffusion.oracle import GaussianMixture, gaussian
from textdiff.diffusion.samplers import SAMPLERS, ddpm
from textdiff.diffusion.schedule import bounded, cosine, grid
from textdiff.diffusion.wrappers import clamped, guided, infilled, self_conditioned

LOGSNRS = torch.tensor([-6.0, 0.0, 2.0, 6.0], dtype=torch.float64)
X = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
KNOWN = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
MASK = torch.tensor([True, False]).view(1, 2, 1).expand(4, 2, 1)  # the first of two positions is known
FINE = torch.cat([grid(bounded(cosine, -10.0, 8.0), 100).double(), torch.tensor([math.inf], dtype=torch.float64)])


def double(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def close(actual, expected, tolerance=1e-12):
    assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def network(x_t, logsnr):
    return PREDICTIONS["v"](x_t, logsnr, x_t.tanh())


def other(x_t, logsnr):
    return PREDICTIONS["v"](x_t, logsnr, x_t.sin())


WRAPPED = {
    "guided": guided(network, other, 3.0),
    "clamped": clamped(network, lambda x0: x0.clamp(-1, 1)),
    "infilled": infilled(network, KNOWN, MASK),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_a_wrapped_prediction_still_splits_x_t_into_signal_and_noise(name):
    x0, eps = WRAPPED[name](X, LOGSNRS)
    close(diffuse(x0, LOGSNRS, eps), X)


# guidance


@pytest.mark.parametrize(("scale", "expected"), [(1.0, network), (0.0, other)])
def test_guidance_at_one_is_the_conditional_and_at_zero_the_unconditional_model(scale, expected):
    for actual, wanted in zip(guided(network, other, scale)(X, LOGSNRS), expected(X, LOGSNRS), strict=True):
        close(actual, wanted)


def test_guidance_moves_the_score_of_gaussian_data_along_the_line_through_both():
    """(1 - w) score + w score of the condition, the score of p(x)^(1-w) p(x | c)^w."""
    anything, wanted = gaussian(torch.zeros(2, 3, dtype=torch.float64), 1.0), gaussian(torch.ones(2, 3, dtype=torch.float64), 0.5)
    eps = guided(wanted.denoise, anything.denoise, 2.5)(X, LOGSNRS).eps
    sigma = (-LOGSNRS).sigmoid().sqrt().view(4, 1, 1)
    close(-eps / sigma, -1.5 * anything.score(X, LOGSNRS) + 2.5 * wanted.score(X, LOGSNRS), 1e-9)


# clamping


def test_clamping_projects_x0():
    close(WRAPPED["clamped"](X, LOGSNRS).x0, network(X, LOGSNRS).x0.clamp(-1, 1))


def test_clamping_onto_everything_changes_nothing():
    for actual, expected in zip(clamped(network, lambda x0: x0)(X, LOGSNRS), network(X, LOGSNRS), strict=True):
        close(actual, expected, 1e-10)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_of_a_clamped_model_ends_inside(name):
    *_, step = SAMPLERS[name](clamped(network, lambda x0: x0.clamp(-0.1, 0.1)), X, FINE, generator=torch.Generator().manual_seed(0))
    assert step.x.abs().max() <= 0.1 + 1e-9


# infilling


def test_infilling_keeps_the_known_and_asks_the_model_for_the_rest():
    x0 = WRAPPED["infilled"](X, LOGSNRS).x0
    close(x0[:, 0], KNOWN[:, 0])
    close(x0[:, 1], network(X, LOGSNRS).x0[:, 1])


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_ends_exactly_on_what_is_known(name):
    *_, step = SAMPLERS[name](WRAPPED["infilled"], X, FINE, generator=torch.Generator().manual_seed(0))
    close(step.x[:, 0], KNOWN[:, 0], 1e-9)


def test_ancestral_sampling_draws_the_known_part_from_its_posterior():
    s, t = double(1, 1, 1, 1), double(-1, -1, -1, -1)
    step = next(ddpm(WRAPPED["infilled"], X, double(-1, 1), generator=torch.Generator().manual_seed(0)))
    noise = torch.randn(X.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean, var = posterior(KNOWN, X, s, t)
    close(step.x[:, 0], (mean + var.sqrt() * noise)[:, 0])


def test_ancestral_sampling_keeps_the_known_part_on_its_marginal():
    """At every step the known coordinate is N(alpha known, sigma^2)."""
    n, known = 20_000, 1.5
    denoise = infilled(
        gaussian(double(0, 0), 1.0).denoise, torch.full((n, 2), known, dtype=torch.float64), torch.tensor([[True, False]]).expand(n, 2)
    )
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    for step in ddpm(denoise, x, double(-12, -3, 0, 2, 5), generator=generator):
        alpha, sigma = step.logsnr.sigmoid().sqrt().item(), (-step.logsnr).sigmoid().sqrt().item()
        assert step.x[:, 0].mean().item() == pytest.approx(alpha * known, abs=5 * sigma / math.sqrt(n))  # five standard errors
        assert step.x[:, 0].var().item() == pytest.approx(sigma**2, abs=5 * sigma**2 * math.sqrt(2 / n))


@pytest.mark.parametrize("known", [-1.5, 1.5])
def test_infilling_one_coordinate_of_a_mixture_picks_its_component_in_the_other(known):
    n, mixture = 500, GaussianMixture(double(0.5, 0.5), double([-1.5, 1.5], [1.5, -1.5]), double(0.05, 0.05))
    denoise = infilled(mixture.denoise, torch.full((n, 2), known, dtype=torch.float64), torch.tensor([[True, False]]).expand(n, 2))
    generator = torch.Generator().manual_seed(0)
    *_, step = ddpm(denoise, torch.randn(n, 2, generator=generator, dtype=torch.float64), FINE, generator=generator)
    assert (step.x[:, 1].sign() == -math.copysign(1, known)).double().mean() > 0.95


# self-conditioning


def test_self_conditioning_feeds_the_last_x0_and_zero_at_first():
    fed = []

    def network(x_t, logsnr, last):
        fed.append(last)
        return from_x0(x_t, logsnr, last + 1)

    denoise = self_conditioned(network)
    for _ in range(3):
        denoise(X, LOGSNRS)
    close(torch.stack(fed), torch.stack([torch.full_like(X, value) for value in (0, 1, 2)]))


def test_two_self_conditioned_models_of_one_network_do_not_share_their_memory():
    one, another = (self_conditioned(lambda x_t, logsnr, last: from_eps(x_t, logsnr, last)) for _ in range(2))
    one(X, LOGSNRS)
    close(another(X, LOGSNRS).eps, torch.zeros_like(X))


def test_a_self_conditioned_model_that_ignores_its_memory_is_the_model():
    denoise = self_conditioned(lambda x_t, logsnr, last: network(x_t, logsnr))
    for _ in range(2):
        close(denoise(X, LOGSNRS).x0, network(X, LOGSNRS).x0)
