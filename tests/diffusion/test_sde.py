"""Continuous time: an SDE's mean and variance solve its own equations, and its paths, either way, have its marginals."""

import math

import pytest
import torch
from torch.testing import assert_close

from textdiff.diffusion import schedule
from textdiff.diffusion.chain import Chain
from textdiff.diffusion.oracle import GaussianMixture, gaussian
from textdiff.diffusion.sde import (
    SDES,
    euler_maruyama,
    ornstein_uhlenbeck,
    predictor_corrector,
    probability_flow,
    reverse_sde,
    score_of,
    sub_vp,
    ve,
    vp,
)

every_sde = pytest.mark.parametrize("name", SDES)
MEAN, VAR = 0.5, 0.04
N = 4000


def double(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


DATA = gaussian(double(MEAN), VAR)


def late(sde, steps: int, first: float = 1e-3) -> torch.Tensor:
    """Falling times, dense near the data, where the score is steep; NCSN's ladder is dense there by itself."""
    power = 1 if sde.rate(double(0.5)) == 0 else 2
    return torch.linspace(sde.end ** (1 / power), first ** (1 / power), steps + 1, dtype=torch.float64) ** power


def marginal(sde, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance of x_t for data N(MEAN, VAR)."""
    return sde.scale(t) * MEAN, sde.scale(t) ** 2 * VAR + sde.std(t) ** 2


def looks_drawn_from(x: torch.Tensor, mean: float, var: float, slack: float) -> None:
    assert x.mean().item() == pytest.approx(mean, abs=5 * math.sqrt(var / x.numel()) + slack * math.sqrt(var))
    assert x.var().item() == pytest.approx(var, rel=5 * math.sqrt(2 / x.numel()) + slack)


@every_sde
def test_scale_and_variance_solve_the_equations_of_their_moments(name):
    """d scale / dt = f scale, d std^2 / dt = 2 f std^2 + g^2."""
    sde = SDES[name]()
    t = (sde.end * double(0.1, 0.4, 0.9)).requires_grad_()
    (scale_slope,) = torch.autograd.grad((sde.scale(t) + 0 * t).sum(), t)
    (variance_slope,) = torch.autograd.grad((sde.std(t) ** 2).sum(), t)
    assert_close(scale_slope, sde.rate(t) * sde.scale(t))
    assert_close(variance_slope, 2 * sde.rate(t) * sde.std(t) ** 2 + sde.diffusion(t) ** 2)


def test_the_known_figures_of_the_vp_and_sub_vp_sde():
    one = double(1.0)
    assert_close(vp().scale(one), double(6.571586e-3), rtol=1e-6, atol=0)
    assert_close(vp().std(one), double(0.999978407), rtol=1e-9, atol=0)
    assert_close(sub_vp().std(one), double(0.999956814), rtol=1e-9, atol=0)


def test_the_vp_sde_is_the_linear_schedule():
    t = torch.linspace(0.01, 1, 50, dtype=torch.float64)
    assert_close(vp().logsnr(t), schedule.linear(t), rtol=1e-9, atol=1e-9)


def test_the_ornstein_uhlenbeck_process_is_the_chain_of_constant_alpha_at_every_step():
    """theta dt = -log alpha exactly; and so with the schedule of that name."""
    alpha, steps = 0.9, 30
    chain = Chain.from_betas(torch.full((steps,), 1 - alpha**2, dtype=torch.float64))
    t = -math.log(alpha) * torch.arange(1, steps + 1, dtype=torch.float64)
    assert_close(ornstein_uhlenbeck().scale(t) ** 2, chain.alpha_bar[1:], rtol=1e-12, atol=0)
    assert_close(ornstein_uhlenbeck(end=5.0).logsnr(5 * t / t[-1]), schedule.constant_alpha(t / t[-1]), rtol=1e-9, atol=1e-9)


def test_the_ve_sde_grows_from_nothing_along_ncsns_ladder():
    sde, t = ve(0.01, 50.0), double(0.0, 0.5, 1.0)
    assert_close(sde.std(t) ** 2, (0.01 * 5000**t) ** 2 - 0.01**2, rtol=1e-12, atol=1e-12)


def test_a_small_step_of_the_ornstein_uhlenbeck_process_is_the_quizs_equation():
    """Delta w = -w Delta t + sqrt(Delta t) delta, delta ~ N(0, 2 I): problem 1 e."""
    w, step = draws(N, 1), 0.01
    (after,) = euler_maruyama(ornstein_uhlenbeck(), w, double(0.0, step), generator=lambda x: draws(*x.shape, seed=1))
    assert_close(after, w - w * step + math.sqrt(step) * math.sqrt(2) * draws(N, 1, seed=1))


@every_sde
def test_forward_paths_have_the_marginals(name):
    sde = SDES[name]()
    times = late(sde, 400, 1e-12).flip(0)
    *_, x = euler_maruyama(sde, DATA.sample(N, torch.Generator().manual_seed(0)).unsqueeze(1), times, generator=torch.Generator().manual_seed(1))
    mean, var = marginal(sde, times[-1])
    looks_drawn_from(x, mean.item(), var.item(), slack=0.03)


@every_sde
def test_eulers_mean_converges_with_order_one(name):
    sde = SDES[name]()
    errors = []
    for steps in (200, 400):
        *_, x = euler_maruyama(sde, double([1.0]), torch.linspace(0, sde.end / 4, steps + 1, dtype=torch.float64), generator=torch.zeros_like)
        errors.append((x - sde.scale(double(sde.end / 4))).abs().item())
    assert errors[1] == 0 or errors[0] / errors[1] == pytest.approx(2, abs=0.1)


@every_sde
def test_one_denoiser_is_the_score_of_every_sde(name):
    sde = SDES[name]()
    x, t = draws(20, 1), double(0.3 * sde.end)
    mean, var = marginal(sde, t)
    assert_close(score_of(DATA.denoise, sde)(x, t), -(x - mean) / var)


@every_sde
@pytest.mark.parametrize("sampler", [reverse_sde, predictor_corrector])
def test_backward_paths_lead_to_the_data(name, sampler):
    sde = SDES[name]()
    times, data = late(sde, 300), gaussian(double(*[MEAN] * 32), VAR)
    x = sde.std(times[0]) * draws(N // 32, 32) + sde.scale(times[0]) * MEAN
    *_, x = sampler(sde, score_of(data.denoise, sde), x, times, generator=torch.Generator().manual_seed(1))
    mean, var = marginal(sde, times[-1])
    looks_drawn_from(x, mean.item(), var.item(), slack=0.12 if sampler is predictor_corrector else 0.06)


@every_sde
def test_the_flow_keeps_every_quantile_in_place(name):
    """For Gaussian data x moves with its marginal's mean and standard deviation; Heun's error falls by four when the step is halved."""
    sde, x = SDES[name](), double([-1.0], [0.0], [2.0])
    errors = []
    for steps in (150, 300):
        times = late(sde, steps, 0.01)
        (mean, var), (end_mean, end_var) = marginal(sde, times[0]), marginal(sde, times[-1])
        *_, moved = probability_flow(sde, score_of(DATA.denoise, sde), mean + var.sqrt() * x, times)
        errors.append((moved - (end_mean + end_var.sqrt() * x)).abs().max().item())
    assert errors[1] < 3e-3
    assert errors[0] / errors[1] == pytest.approx(4, abs=0.5)


@pytest.mark.parametrize("walk", [probability_flow, lambda *given: predictor_corrector(*given, generator=torch.zeros_like)])
def test_a_walk_to_time_0_where_there_is_no_score_is_refused(walk):
    with pytest.raises(ValueError, match="time 0"):
        next(walk(vp(), score_of(DATA.denoise, vp()), draws(2, 1), torch.linspace(1, 0, 5, dtype=torch.float64)))


def test_the_flow_there_and_back_is_where_it_began():
    sde = vp()
    mixture = GaussianMixture(double(0.5, 0.5), double([-1.0], [1.0]), double(0.1, 0.1))
    x, times = draws(10, 1), late(sde, 400, 0.01)
    score = score_of(mixture.denoise, sde)
    *_, there = probability_flow(sde, score, x, times)
    *_, back = probability_flow(sde, score, there, times.flip(0))
    assert_close(back, x, atol=1e-3, rtol=0)


def test_a_corrected_sample_does_not_depend_on_its_companions():
    """As it would with norms averaged over the batch."""
    sde, times = vp(), late(vp(), 5)
    x = draws(3, 2)
    dice = [torch.Generator().manual_seed(i) for i in range(3)]
    score = score_of(gaussian(double(0.0, 0.0), 1.0).denoise, sde)
    *_, together = predictor_corrector(sde, score, x, times, generator=dice)
    *_, alone = predictor_corrector(sde, score, x[1:2], times, generator=[torch.Generator().manual_seed(1)])
    assert torch.equal(together[1:2], alone)


def test_a_path_in_the_wrong_direction_is_refused():
    rising = double(0.01, 0.5, 1.0)
    with pytest.raises(ValueError, match="fall"):
        next(reverse_sde(vp(), score_of(DATA.denoise, vp()), draws(2, 1), rising, generator=torch.Generator()))
    with pytest.raises(ValueError, match="rise"):
        next(euler_maruyama(vp(), draws(2, 1), rising.flip(0), generator=torch.Generator()))
