"""Wrappers of denoisers: guidance, clamping and self-conditioning."""

import pytest
import torch
from sampler_cases import FINE
from tensors import close, double, draws, seeded

from textdiff.diffusion.gaussian import PREDICTIONS, diffuse, from_eps, from_x0
from textdiff.diffusion.gaussian_mixture import gaussian
from textdiff.diffusion.samplers import SAMPLERS
from textdiff.diffusion.wrappers import clamped, guided, self_conditioned

LOGSNRS = double(-6.0, 0.0, 2.0, 6.0)
X = draws(4, 2, 3)


def network(x_t, logsnr):
    return PREDICTIONS["v"](x_t, x_t.tanh(), logsnr)


def unconditional(x_t, logsnr):
    return PREDICTIONS["v"](x_t, x_t.sin(), logsnr)


WRAPPED = {
    "guided": guided(network, unconditional, 3.0),
    "clamped": clamped(network, lambda x0: x0.clamp(-1, 1)),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_wrapped_prediction_is_consistent_with_x_t(name):
    x0, eps = WRAPPED[name](X, LOGSNRS)
    close(diffuse(x0, eps, LOGSNRS), X)


# guidance


@pytest.mark.parametrize(("scale", "expected"), [(1.0, network), (0.0, unconditional)])
def test_guidance_interpolates_between_both_models(scale, expected):
    """Scale 1 is the conditional model, scale 0 the unconditional one."""
    pairs = zip(
        guided(network, unconditional, scale)(X, LOGSNRS), expected(X, LOGSNRS), strict=True
    )
    for actual, wanted in pairs:
        close(actual, wanted)


def test_guided_score_is_linear_in_both_scores():
    """(1 - w) score + w conditional score, the score of p(x)^(1-w) p(x | c)^w."""
    data = gaussian(torch.zeros(2, 3, dtype=torch.float64), 1.0)
    condition = gaussian(torch.ones(2, 3, dtype=torch.float64), 0.5)
    eps = guided(condition.denoise, data.denoise, 2.5)(X, LOGSNRS).eps
    sigma = (-LOGSNRS).sigmoid().sqrt().view(4, 1, 1)
    close(-eps / sigma, -1.5 * data.score(X, LOGSNRS) + 2.5 * condition.score(X, LOGSNRS), 1e-9)


# clamping


def test_clamping_projects_x0():
    close(WRAPPED["clamped"](X, LOGSNRS).x0, network(X, LOGSNRS).x0.clamp(-1, 1))


def test_clamping_with_the_identity_changes_nothing():
    pairs = zip(clamped(network, lambda x0: x0)(X, LOGSNRS), network(X, LOGSNRS), strict=True)
    for actual, expected in pairs:
        close(actual, expected, 1e-10)


@pytest.mark.parametrize("name", SAMPLERS)
def test_samples_of_clamped_model_are_in_range(name):
    denoise = clamped(network, lambda x0: x0.clamp(-0.1, 0.1))
    *_, step = SAMPLERS[name](denoise, X, FINE, generator=seeded())
    assert step.x.abs().max() <= 0.1 + 1e-9


# self-conditioning


def test_self_conditioning_passes_the_last_estimate():
    """It is zero at first."""
    inputs = []

    def network(x_t, logsnr, last):
        inputs.append(last)
        return from_x0(x_t, last, logsnr), last + 1

    denoise = self_conditioned(network)
    for _ in range(3):
        denoise(X, LOGSNRS)
    close(torch.stack(inputs), torch.stack([torch.full_like(X, value) for value in (0, 1, 2)]))


def test_self_conditioned_models_do_not_share_state():
    first, second = (
        self_conditioned(lambda x_t, logsnr, last: (from_eps(x_t, last, logsnr), x_t))
        for _ in range(2)
    )
    first(X, LOGSNRS)
    close(second(X, LOGSNRS).eps, torch.zeros_like(X))


def test_self_conditioning_without_use_changes_nothing():
    """If the network ignores the previous x0."""
    denoise = self_conditioned(lambda x_t, logsnr, last: (network(x_t, logsnr), last))
    for _ in range(2):
        close(denoise(X, LOGSNRS).x0, network(X, LOGSNRS).x0)
