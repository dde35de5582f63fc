"""Wrappers of denoisers: guidance, clamping and self-conditioning."""

import math

import pytest
import torch
from sampler_cases import FINE
from tensors import close, double, draws, seeded

from textdiff.diffusion.gaussian import PREDICTIONS, diffuse, from_eps, from_x0
from textdiff.diffusion.gaussian_mixture import gaussian
from textdiff.diffusion.samplers import SAMPLERS, ddpm
from textdiff.diffusion.wrappers import clamped, classifier_guided, guided, self_conditioned

LOGSNRS = double(-6.0, 0.0, 2.0, 6.0)
X = draws(4, 2, 3)


def network(x_t, logsnr):
    return PREDICTIONS["v"](x_t, x_t.tanh(), logsnr)


def unconditional(x_t, logsnr):
    return PREDICTIONS["v"](x_t, x_t.sin(), logsnr)


WRAPPED = {
    "guided": guided(network, unconditional, 3.0),
    "classifier_guided": classifier_guided(network, lambda x, _: -x.pow(4).sum((1, 2)), 0.1),
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


# guidance by a classifier: data N(1, 2^2), and a label y = 3 with y | x0 from N(x0, 0.5^2)

DATA, LABEL, LABEL_VAR = gaussian(double(1.0), 4.0), 3.0, 0.25
POSTERIOR_VAR = 1 / (1 / 4 + 1 / LABEL_VAR)
POSTERIOR_MEAN = POSTERIOR_VAR * (1 / 4 + LABEL / LABEL_VAR)


def label_log_prob(x_t, logsnr, x0_var=True):
    """log p(y | x_t); without `x0_var`, log p(y | x0) of clean data at the predicted x0."""
    var = 4 / (1 + 4 * logsnr.exp()).unsqueeze(1) if x0_var else 0
    error = LABEL - DATA.denoise(x_t, logsnr).x0
    return (-error.square() / (2 * (LABEL_VAR + var))).sum(1)


def test_classifier_guidance_gives_the_conditional_denoiser():
    """With the exact p(y | x_t), for Gaussian data and a linear-Gaussian label."""
    conditional = gaussian(double(POSTERIOR_MEAN), POSTERIOR_VAR)
    x_t = draws(4, 1)
    found = classifier_guided(DATA.denoise, label_log_prob)(x_t, LOGSNRS)
    for actual, expected in zip(found, conditional.denoise(x_t, LOGSNRS), strict=True):
        close(actual, expected, 1e-9)


def test_classifier_guidance_samples_the_posterior():
    """Its mean and variance, within five standard errors."""
    n, generator = 20_000, seeded()
    denoise = classifier_guided(DATA.denoise, label_log_prob)
    x = torch.randn(n, 1, generator=generator, dtype=torch.float64)
    *_, step = ddpm(denoise, x, torch.linspace(-9, 9, 200).double(), generator=generator)
    error = 5 * math.sqrt(POSTERIOR_VAR / n)
    assert step.x.mean().item() == pytest.approx(POSTERIOR_MEAN, abs=error)
    assert step.x.var().item() == pytest.approx(POSTERIOR_VAR, rel=5 * math.sqrt(2 / n) + 0.02)


def test_label_of_predicted_x0_is_too_confident():
    """The shift of x0 is too large by (r + v) / r, v and r the variances of x0 | x_t and y | x0."""
    x_t = draws(4, 1)
    free = DATA.denoise(x_t, LOGSNRS).x0
    exact = classifier_guided(DATA.denoise, label_log_prob)(x_t, LOGSNRS).x0 - free
    plain = classifier_guided(DATA.denoise, lambda x, g: label_log_prob(x, g, False))
    factor = 1 + 4 / (1 + 4 * LOGSNRS.exp()).unsqueeze(1) / LABEL_VAR
    close(plain(x_t, LOGSNRS).x0 - free, factor * exact, 1e-9)


def test_classifier_guidance_of_scale_0_is_the_denoiser():
    assert classifier_guided(network, label_log_prob, 0.0) is network


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
