"""VAE step with a linear decoder, whose marginal and posterior are Gaussian."""

import math

import pytest
import torch
from tensors import draws, seeded
from torch.distributions import Normal
from torch.testing import assert_close

from textdiff.diffusion.gaussian import Gaussian
from textdiff.diffusion.vae import vae_loss, vae_step

GAIN, VAR = 1.5, 0.4  # z_s = GAIN e + z_t + noise of variance VAR
N = 50_000


def decode(e, z_t, logsnr):
    return Gaussian(GAIN * e + z_t, torch.full_like(e, VAR))


def posterior(z_s, z_t, logsnr, shift: float = 0.0, stretch: float = 1.0):
    """p(e | z_s, z_t) by Bayes' rule, with an error in the mean and in the variance."""
    total = GAIN**2 + VAR
    return Gaussian(GAIN / total * (z_s - z_t) + shift, torch.full_like(z_s, stretch * VAR / total))


def mean_loss(encode, z_s, z_t) -> torch.Tensor:
    """The exact mean of the loss over the latent's noise.

    The loss is quadratic in the noise, and +-1 have the moments of N(0, 1).
    """
    logsnr = torch.zeros(len(z_s), dtype=torch.float64)
    noises = torch.ones_like, lambda x: -torch.ones_like(x)
    return sum(vae_loss(encode, decode, z_s, z_t, logsnr, noise) for noise in noises) / 2


def negative_log_likelihood(z_s, z_t) -> torch.Tensor:
    return -Normal(z_t, math.sqrt(GAIN**2 + VAR)).log_prob(z_s).sum(1)


def test_exact_posterior_gives_the_negative_log_likelihood():
    z_s, z_t = 2 * draws(7, 1), draws(7, 1, seed=1)
    assert_close(mean_loss(posterior, z_s, z_t), negative_log_likelihood(z_s, z_t))


@pytest.mark.parametrize(("shift", "stretch"), [(0.5, 1.0), (0.0, 2.0), (0.0, 0.3), (-1.0, 1.5)])
def test_other_encoder_adds_its_kl_to_posterior(shift, stretch):
    z_s, z_t = 2 * draws(7, 1), draws(7, 1, seed=1)
    loss = mean_loss(lambda *inputs: posterior(*inputs, shift, stretch), z_s, z_t)
    variance = VAR / (GAIN**2 + VAR)
    kl = 0.5 * (stretch - 1 - math.log(stretch) + shift**2 / variance)
    gap = loss - negative_log_likelihood(z_s, z_t)
    assert_close(gap, torch.full_like(gap, kl))


def test_loss_is_a_sum_over_dimensions():
    z_s, z_t = 2 * draws(7, 3), draws(7, 3, seed=1)
    parts = zip(z_s.split(1, 1), z_t.split(1, 1), strict=True)
    expected = sum(mean_loss(posterior, *part) for part in parts)
    assert_close(mean_loss(posterior, z_s, z_t), expected)


def test_step_samples_the_marginal():
    """Within five standard errors."""
    z_t, logsnr = draws(1, 1, seed=3).expand(N, 1), torch.zeros(N, dtype=torch.float64)
    z_s = vae_step(decode, draws(N, 1), z_t, logsnr, generator=seeded(1))
    error = 5 * math.sqrt((GAIN**2 + VAR) / N)
    assert z_s.mean().item() == pytest.approx(z_t[0].item(), abs=error)
    assert z_s.var().item() == pytest.approx(GAIN**2 + VAR, rel=5 * math.sqrt(2 / N))
