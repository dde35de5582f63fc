"""The VAE step where all is known: a linear decoder, whose marginal and whose posterior are Gaussian."""

import math

import pytest
import torch
from torch.distributions import Normal
from torch.testing import assert_close

from textdiff.diffusion.gaussian import Gaussian
from textdiff.diffusion.vae import vae_loss, vae_step

GAIN, VAR = 1.5, 0.4  # z_s = GAIN e + z_t + noise of variance VAR
N = 50_000


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def decode(e, z_t, logsnr):
    return Gaussian(GAIN * e + z_t, torch.full_like(e, VAR))


def posterior(z_s, z_t, logsnr, shift: float = 0.0, stretch: float = 1.0):
    """p(e | z_s, z_t) by Bayes' rule, or one that is off."""
    total = GAIN**2 + VAR
    return Gaussian(GAIN / total * (z_s - z_t) + shift, torch.full_like(z_s, stretch * VAR / total))


def loss(encode, z_s, z_t) -> torch.Tensor:
    """Averaged over the latent's noise exactly: the loss is quadratic in it, and +-1 have the moments of N(0, 1)."""
    level = torch.zeros(len(z_s), dtype=torch.float64)
    return (vae_loss(encode, decode, z_s, z_t, level, torch.ones_like) + vae_loss(encode, decode, z_s, z_t, level, lambda x: -torch.ones_like(x))) / 2


def truth(z_s, z_t) -> torch.Tensor:
    return -Normal(z_t, math.sqrt(GAIN**2 + VAR)).log_prob(z_s).sum(1)


def test_with_the_exact_posterior_the_loss_is_the_negative_log_likelihood():
    z_s, z_t = 2 * draws(7, 1), draws(7, 1, seed=1)
    assert_close(loss(posterior, z_s, z_t), truth(z_s, z_t))


@pytest.mark.parametrize(("shift", "stretch"), [(0.5, 1.0), (0.0, 2.0), (0.0, 0.3), (-1.0, 1.5)])
def test_with_another_encoder_the_loss_is_larger_by_its_divergence_from_the_posterior(shift, stretch):
    z_s, z_t = 2 * draws(7, 1), draws(7, 1, seed=1)
    gap = loss(lambda *given: posterior(*given, shift, stretch), z_s, z_t) - truth(z_s, z_t)
    variance = VAR / (GAIN**2 + VAR)
    assert_close(gap, torch.full_like(gap, 0.5 * (stretch - 1 - math.log(stretch) + shift**2 / variance)))


def test_a_sum_over_dimensions_is_the_sum_of_each():
    z_s, z_t = 2 * draws(7, 3), draws(7, 3, seed=1)
    each = sum(loss(posterior, z_s[:, i : i + 1], z_t[:, i : i + 1]) for i in range(3))
    assert_close(loss(posterior, z_s, z_t), each)


def test_a_step_is_a_draw_of_the_marginal():
    z_t = draws(1, 1, seed=3).expand(N, 1)
    z_s = vae_step(decode, draws(N, 1), z_t, torch.zeros(N, dtype=torch.float64), generator=torch.Generator().manual_seed(1))
    assert z_s.mean().item() == pytest.approx(z_t[0].item(), abs=5 * math.sqrt((GAIN**2 + VAR) / N))
    assert z_s.var().item() == pytest.approx(GAIN**2 + VAR, rel=5 * math.sqrt(2 / N))
