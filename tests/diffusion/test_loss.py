"""Losses are the errors they say, the exact denoiser has the least, and the weights turn them into the variational bound."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence
from torch.testing import assert_close

from textdiff.diffusion.chain import Chain, linear_betas
from textdiff.diffusion.gaussian import PREDICTIONS, Prediction, alpha_sigma, diffuse, from_x0, posterior, to_v
from textdiff.diffusion.loss import (
    LOSSES,
    bound_weight,
    chain_bound_weight,
    continuous_bound_weight,
    eps_loss,
    mean_loss,
    min_snr_weight,
    v_loss,
    x0_loss,
)
from textdiff.diffusion.oracle import GaussianMixture, gaussian
from textdiff.diffusion.schedule import SCHEDULES

LINEAR = Chain.from_betas(linear_betas(1000))
LOGSNRS = torch.tensor([-9.0, -3.0, 0.0, 1.0, 3.0, 9.0], dtype=torch.float64)
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def draws(*shape: int, count: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn((count, *shape), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(actual, expected, tolerance=1e-12):
    assert_close(actual, torch.as_tensor(expected, dtype=actual.dtype), rtol=tolerance, atol=tolerance)


def tanh(x_t, logsnr):
    return PREDICTIONS["v"](x_t, logsnr, (0.3 * x_t).tanh())


# the losses


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_the_squared_error_of_what_it_is_named_after_at_every_element(name):
    x0, eps = draws(6, 3, 2)
    prediction = tanh(diffuse(x0, LOGSNRS, eps), LOGSNRS)
    guess = to_v(prediction, LOGSNRS) if name == "v" else getattr(prediction, name)
    close(LOSSES[name](tanh, x0, LOGSNRS, eps), (guess - {"eps": eps, "x0": x0, "v": to_v(Prediction(x0, eps), LOGSNRS)}[name]) ** 2)


@every_loss
def test_a_denoiser_that_knows_the_answer_has_no_loss(loss):
    x0, eps = draws(6, 3)
    close(loss(lambda x_t, logsnr: from_x0(x_t, logsnr, x0), x0, LOGSNRS, eps), torch.zeros(6, 3), 1e-20)


def test_the_eps_loss_is_snr_times_the_x0_loss():
    x0, eps = draws(6, 3)
    close(eps_loss(tanh, x0, LOGSNRS, eps), LOGSNRS.exp().unsqueeze(-1) * x0_loss(tanh, x0, LOGSNRS, eps), 1e-10)


def test_the_v_loss_is_the_eps_loss_over_alpha_squared():
    x0, eps = draws(6, 3)
    close(v_loss(tanh, x0, LOGSNRS, eps), eps_loss(tanh, x0, LOGSNRS, eps) / LOGSNRS.sigmoid().unsqueeze(-1), 1e-10)


@pytest.mark.parametrize("t", [2, 500, 1000])
def test_the_mean_loss_is_the_eps_loss_with_the_weight_that_the_homework_proves(t):
    """(1 - alpha_t)^2 / (alpha_t (1 - alpha_bar_t)): problem 2.4, without the variance that divides both."""
    x0, eps = draws(6, 3)
    s, now = (LINEAR.logsnr[i].expand(6) for i in (t - 1, t))
    weight = LINEAR.beta[t] ** 2 / (LINEAR.alpha[t] * (1 - LINEAR.alpha_bar[t]))
    close(mean_loss(tanh, x0, eps, s, now), weight * eps_loss(tanh, x0, now, eps), 1e-10)


@every_loss
def test_a_loss_sends_gradients_to_the_network(loss):
    x0, eps = draws(6, 3)
    gain = torch.ones((), dtype=torch.float64, requires_grad=True)
    loss(lambda x_t, logsnr: from_x0(x_t, logsnr, gain * x_t), x0, LOGSNRS, eps).mean().backward()
    assert gain.grad.isfinite()
    assert gain.grad != 0


# the least loss


@pytest.mark.parametrize(("std", "expected"), [(1.0, 0.275513), (0.5, None)])
def test_the_least_eps_loss_on_gaussian_data_is_known(std, expected):
    """alpha_bar s^2 / (alpha_bar s^2 + 1 - alpha_bar) at each t. The error is linear in (x0 / s, eps): its two coefficients squared are the mean."""
    denoise, logsnr = gaussian(torch.zeros(1, dtype=torch.float64), std**2).denoise, LINEAR.logsnr[1:]
    zero, one = torch.zeros(1000, 1, dtype=torch.float64), torch.ones(1000, 1, dtype=torch.float64)
    loss = (eps_loss(denoise, zero, logsnr, one) + eps_loss(denoise, std * one, logsnr, zero)).flatten()
    alpha_bar = LINEAR.alpha_bar[1:]
    close(loss, alpha_bar * std**2 / (alpha_bar * std**2 + 1 - alpha_bar), 1e-10)
    if expected:
        assert loss.mean().item() == pytest.approx(expected, abs=5e-7)


@every_loss
@pytest.mark.parametrize("scale", [0.9, 1.1])
def test_no_denoiser_near_the_exact_one_has_a_smaller_loss(loss, scale):
    mixture = GaussianMixture(torch.tensor([0.3, 0.7]).double(), torch.tensor([[-1.0], [0.8]]).double(), torch.tensor([0.1, 0.2]).double())
    generator, n = torch.Generator().manual_seed(0), 20_000
    x0, eps = mixture.sample(n, generator), torch.randn(n, 1, generator=generator, dtype=torch.float64)
    logsnr = torch.linspace(-4, 4, n, dtype=torch.float64)

    def worse(x_t, logsnr):
        return from_x0(x_t, logsnr, scale * mixture.denoise(x_t, logsnr).x0)

    assert loss(mixture.denoise, x0, logsnr, eps).mean() < loss(worse, x0, logsnr, eps).mean()


# the variational bound


def kl_of_one_step(x0: torch.Tensor, eps: torch.Tensor, prediction: Prediction, logsnr_s, logsnr_t) -> torch.Tensor:
    """KL(q(x_s | x_t, x_0) || p(x_s | x_t)) by torch's own formula, both with the posterior's variance."""
    x_t = diffuse(x0, logsnr_t, eps)
    (mean, var), (guess, _) = (posterior(clean, x_t, logsnr_s, logsnr_t) for clean in (x0, prediction.x0))
    return kl_divergence(Normal(mean, var.sqrt()), Normal(guess, var.sqrt()))


@pytest.mark.parametrize("gap", [0.01, 0.5, 3.0])
def test_the_bound_weight_makes_the_eps_loss_the_kl_of_a_step(gap):
    x0, eps = draws(6, 3)
    expected = kl_of_one_step(x0, eps, tanh(diffuse(x0, LOGSNRS, eps), LOGSNRS), LOGSNRS + gap, LOGSNRS)
    weight = bound_weight(LOGSNRS + gap, LOGSNRS).unsqueeze(-1)
    close(weight * eps_loss(tanh, x0, LOGSNRS, eps), expected, 1e-9)


@pytest.mark.parametrize("gap", [0.01, 0.5, 3.0])
def test_the_bound_is_half_the_fall_of_snr_times_the_x0_loss(gap):
    x0, eps = draws(6, 3)
    expected = kl_of_one_step(x0, eps, tanh(diffuse(x0, LOGSNRS, eps), LOGSNRS), LOGSNRS + gap, LOGSNRS)
    fall = 0.5 * ((LOGSNRS + gap).exp() - LOGSNRS.exp()).unsqueeze(-1)
    close(fall * x0_loss(tanh, x0, LOGSNRS, eps), expected, 1e-9)


def test_the_chains_weight_with_the_small_variance_is_the_bound_weight():
    weight = chain_bound_weight(LINEAR, LINEAR.small_variance)[2:]
    close(weight, bound_weight(LINEAR.logsnr[1:-1], LINEAR.logsnr[2:]), 1e-9)


@pytest.mark.parametrize(
    ("variance", "figures"),
    [(LINEAR.large_variance, [0.27269, 0.0055097, 0.0102045]), (LINEAR.small_variance, [0.59967, 0.0055145, 0.0102045])],
    ids=["large", "small"],
)
def test_the_chains_weights_on_ddpms_table_are_the_known_figures(variance, figures):
    assert chain_bound_weight(LINEAR, variance)[[2, 501, 1000]].tolist() == pytest.approx(figures, rel=2e-5)


def test_the_chains_weight_makes_the_eps_loss_the_kl_between_means_at_any_variance():
    """The KL of two Gaussians of one variance: the squared distance of their means over twice that variance."""
    x_t, eps, t = *draws(1, 3), 700
    guess = torch.zeros_like(eps)
    distance = LINEAR.posterior_from_eps(eps, x_t, t).mean - LINEAR.posterior_from_eps(guess, x_t, t).mean
    weight = chain_bound_weight(LINEAR, LINEAR.large_variance)[t]
    close(weight * (eps - guess) ** 2, distance**2 / (2 * LINEAR.large_variance[t]), 1e-10)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_the_continuous_weight_is_the_limit_of_the_bound_weight_a_unit_of_time(schedule):
    t = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)
    step = 1e-6
    per_time = bound_weight(schedule(t - step / 2), schedule(t + step / 2)) / step
    close(continuous_bound_weight(schedule, t), per_time, 1e-4)


def test_the_continuous_weight_needs_no_gradient_from_its_caller():
    t = torch.tensor([0.5], dtype=torch.float64)
    with torch.no_grad():
        weight = continuous_bound_weight(SCHEDULES["linear"], t)
    assert not t.requires_grad
    assert not weight.requires_grad


def test_the_bound_with_the_exact_denoiser_is_the_entropy_of_gaussian_data():
    """L_T + sum of L_{t-1} + L_0 in nats, with the decoder N(x_1 / alpha_1, sigma_1^2 / alpha_1^2): tight for ever finer steps."""
    std, logsnr = 0.7, torch.linspace(12, -12, 100_001, dtype=torch.float64)
    alpha_bar, noise = logsnr.sigmoid(), (-logsnr).sigmoid()
    least = alpha_bar * std**2 / (alpha_bar * std**2 + noise)  # eps-loss
    prior = 0.5 * (alpha_bar[-1] * std**2 + noise[-1] - 1 - noise[-1].log())
    between = (bound_weight(logsnr[:-1], logsnr[1:]) * least[1:]).sum()
    decoder = 0.5 * (math.log(2 * math.pi * math.e) - logsnr[0])
    close(prior + between + decoder, 0.5 * math.log(2 * math.pi * math.e * std**2), 3e-3)


# min-SNR


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
def test_min_snr_is_the_same_weight_on_the_x0_error_whatever_is_predicted(prediction):
    x0, eps, guess_x0 = draws(6, 3, count=3)
    x_t = diffuse(x0, LOGSNRS, eps)
    guess = from_x0(x_t, LOGSNRS, guess_x0)
    errors = {"eps": eps - guess.eps, "x0": x0 - guess.x0, "v": to_v(Prediction(x0, eps), LOGSNRS) - to_v(guess, LOGSNRS)}
    weighted = min_snr_weight(LOGSNRS, 5.0, prediction).unsqueeze(-1) * errors[prediction] ** 2
    close(weighted, LOGSNRS.exp().clamp(max=5).unsqueeze(-1) * errors["x0"] ** 2, 1e-9)


def test_min_snr_is_the_published_formula_of_each_prediction():
    snr = LOGSNRS.exp()
    close(min_snr_weight(LOGSNRS), snr.clamp(max=5) / snr)
    close(min_snr_weight(LOGSNRS, prediction="x0"), snr.clamp(max=5))
    close(min_snr_weight(LOGSNRS, prediction="v"), snr.clamp(max=5) / (snr + 1))


def test_min_snr_refuses_what_it_cannot_weigh():
    with pytest.raises(ValueError, match="got 'score'"):
        min_snr_weight(LOGSNRS, prediction="score")


# one core for texts and images


@every_loss
def test_a_loss_is_bit_identical_on_an_image_and_on_its_pixels_as_a_text(loss):
    x0, eps = draws(6, 3, 4, 4)
    image = loss(tanh, x0, LOGSNRS, eps)
    text = loss(tanh, x0.view(6, 16, 3), LOGSNRS, eps.view(6, 16, 3))
    assert text.equal(image.view(6, 16, 3))


@pytest.mark.parametrize("law", [diffuse, lambda x0, t, x_t: posterior(x0, x_t, t + 1, t).mean], ids=["diffuse", "posterior"])
def test_the_process_is_bit_identical_on_an_image_and_on_its_pixels_as_a_text(law):
    x0, eps = draws(6, 3, 4, 4)
    assert law(x0.view(6, 16, 3), LOGSNRS, eps.view(6, 16, 3)).equal(law(x0, LOGSNRS, eps).view(6, 16, 3))


def test_alpha_and_sigma_do_not_depend_on_the_shape_they_are_meant_for():
    image, text = alpha_sigma(LOGSNRS, torch.empty(6, 3, 4, 4)), alpha_sigma(LOGSNRS, torch.empty(6, 16, 3))
    assert all(one.flatten().equal(other.flatten()) for one, other in zip(image, text, strict=True))
