"""Chains of schedules, and published figures of the usual beta tables."""

import math
from functools import partial

import pytest
import torch
from chains import LINEAR, every_schedule
from tensors import close, linspace
from torch.testing import assert_close

from textdiff.diffusion.discrete import Chain, linear_betas
from textdiff.diffusion.schedules import SCHEDULES, cosine, linear, sqrt


@pytest.mark.parametrize("T", [1, 7, 1000])
@every_schedule
def test_chain_has_the_alpha_bar_of_its_schedule(schedule, T):
    alpha_bar = schedule(torch.arange(1, T + 1, dtype=torch.float64) / T).sigmoid()
    close(Chain.from_schedule(schedule, T).alpha_bar[1:], alpha_bar)


def test_terminal_alpha_bar_matches_published_tables():
    first, last = 1e-4, 0.02
    tables = {
        4.035830e-5: linear_betas(1000),
        # scaled linear betas of Stable Diffusion
        4.660099e-3: linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2,
        # sigmoid betas of GeoDiff
        3.968e-5: linspace(-6, 6, 1000).sigmoid() * (last - first) + first,
    }
    for alpha_bar, betas in tables.items():
        assert Chain.from_betas(betas).alpha_bar[-1].item() == pytest.approx(alpha_bar, rel=2e-4)
    for name, alpha_bar in {"cosine": 2.428767e-9, "sigmoid": 3.0028e-7}.items():
        chain = Chain.from_schedule(SCHEDULES[name], 1000, max_beta=0.999)
        assert chain.alpha_bar[-1].item() == pytest.approx(alpha_bar, rel=1e-5)


def test_prior_kl_of_ddpm_table():
    """KL(q(x_T | x_0) || N(0, 1)) in bits per dimension for x_0^2 = 1."""
    mean, var = LINEAR.marginal(torch.ones(1, 1, dtype=torch.float64), 1000)
    bits = 0.5 * (mean**2 + var - 1 - var.log()) / math.log(2)
    assert bits.item() == pytest.approx(2.911e-5, abs=5e-9)


def test_sqrt_chain_starts_at_clean_data():
    """Diffusion-LM's alpha_bar starts at 0.99, ours at 1.

    Relative to 0.99, beta_1 is 2.34e-2 and alpha_bar_T is 4.5465e-7.
    """
    chain = Chain.from_schedule(sqrt, 1000, max_beta=0.999)
    assert 1 - chain.alpha[1].item() / 0.99 == pytest.approx(2.34e-2, rel=1e-3)
    assert chain.alpha_bar[-1].item() / 0.99 == pytest.approx(4.5465e-7, rel=1e-5)


def test_beta_cap_changes_last_cosine_step_only():
    """Without it the chain ends in pure noise."""
    free = Chain.from_schedule(cosine, 1000)
    capped = Chain.from_schedule(cosine, 1000, max_beta=0.999)
    assert (free.beta[-1], free.alpha_bar[-1]) == (1, 0)
    assert capped.beta[-1] == 0.999
    close(capped.beta[:-1], free.beta[:-1])


def test_chain_without_signal_has_beta_one():
    """After the schedule has lost its signal, every step is pure noise."""
    chain = Chain.from_schedule(partial(sqrt, s=0.5), 10)
    assert (chain.alpha_bar[5:] == 0).all()
    assert (chain.beta[5:] == 1).all()


def test_ddpm_table_converges_to_the_vp_sde():
    """With beta(t) / T at step t T the error is of order 1 / T."""

    def error(T):
        t = torch.arange(1, T + 1, dtype=torch.float64) / T
        chain = Chain.from_betas((0.1 + t * 19.9) / T)
        return (chain.alpha_bar[1:] - linear(t).sigmoid()).abs().max()

    assert error(4000) < 1e-3
    ratio = error(2000) / error(4000)
    assert_close(ratio, torch.tensor(2.0, dtype=torch.float64), rtol=0, atol=0.05)


@pytest.mark.parametrize("T", [10, 1000, 4000])
def test_linear_betas_have_the_same_ends(T):
    close(linear_betas(T)[[0, -1]], [1e-4, 0.02])
