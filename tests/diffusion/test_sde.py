"""SDEs: moments solve their equations, and paths in both directions have the marginals."""

import math

import pytest
import torch
from tensors import double, draws, linspace, seeded
from torch.testing import assert_close

from textdiff.diffusion import schedules
from textdiff.diffusion.discrete import Chain
from textdiff.diffusion.gaussian_mixture import GaussianMixture, gaussian
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
MEAN, VAR, N = 0.5, 0.04, 4000
DATA = gaussian(double(MEAN), VAR)


def falling_times(sde, steps: int, first: float = 1e-3) -> torch.Tensor:
    """Falling times, dense near the data, where the score is steep.

    The noise levels of NCSN are dense there for equally spaced times.
    """
    power = 1 if sde.drift(double(0.5)) == 0 else 2
    return linspace(sde.end ** (1 / power), first ** (1 / power), steps + 1) ** power


def marginal(sde, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance of x_t for data N(MEAN, VAR)."""
    return sde.scale(t) * MEAN, sde.scale(t) ** 2 * VAR + sde.std(t) ** 2


def check_marginal(x: torch.Tensor, sde, t: torch.Tensor, slack: float) -> None:
    """Compares the mean and variance of samples, within five standard errors and `slack`."""
    mean, var = (part.item() for part in marginal(sde, t))
    error = 5 * math.sqrt(var / x.numel()) + slack * math.sqrt(var)
    assert x.mean().item() == pytest.approx(mean, abs=error)
    assert x.var().item() == pytest.approx(var, rel=5 * math.sqrt(2 / x.numel()) + slack)


@every_sde
def test_scale_and_variance_solve_the_moment_equations(name):
    """d scale / dt = f scale, d std^2 / dt = 2 f std^2 + g^2."""
    sde = SDES[name]()
    t = (sde.end * double(0.1, 0.4, 0.9)).requires_grad_()
    (scale_slope,) = torch.autograd.grad((sde.scale(t) + 0 * t).sum(), t)
    (variance_slope,) = torch.autograd.grad((sde.std(t) ** 2).sum(), t)
    assert_close(scale_slope, sde.drift(t) * sde.scale(t))
    assert_close(variance_slope, 2 * sde.drift(t) * sde.std(t) ** 2 + sde.diffusion(t) ** 2)


def test_vp_and_sub_vp_match_known_figures():
    one = double(1.0)
    assert_close(vp().scale(one), double(6.571586e-3), rtol=1e-6, atol=0)
    assert_close(vp().std(one), double(0.999978407), rtol=1e-9, atol=0)
    assert_close(sub_vp().std(one), double(0.999956814), rtol=1e-9, atol=0)


def test_vp_sde_is_the_linear_schedule():
    t = linspace(0.01, 1, 50)
    assert_close(vp().logsnr(t), schedules.linear(t), rtol=1e-9, atol=1e-9)


def test_ornstein_uhlenbeck_is_the_constant_alpha_chain():
    """theta dt = -log alpha exactly at every step, and so with the schedule of that name."""
    alpha, steps = 0.9, 30
    chain = Chain.from_betas(torch.full((steps,), 1 - alpha**2, dtype=torch.float64))
    t = -math.log(alpha) * torch.arange(1, steps + 1, dtype=torch.float64)
    assert_close(ornstein_uhlenbeck().scale(t) ** 2, chain.alpha_bar[1:], rtol=1e-12, atol=0)
    unit, logsnr = t / t[-1], ornstein_uhlenbeck(end=5.0).logsnr(5 * t / t[-1])
    assert_close(logsnr, schedules.constant_alpha(unit), rtol=1e-9, atol=1e-9)


def test_ve_sde_has_the_noise_levels_of_ncsn():
    """Starting from clean data."""
    sde, t = ve(0.01, 50.0), double(0.0, 0.5, 1.0)
    assert_close(sde.std(t) ** 2, (0.01 * 5000**t) ** 2 - 0.01**2, rtol=1e-12, atol=1e-12)


def test_small_ornstein_uhlenbeck_step_matches_the_quiz():
    """Delta w = -w Delta t + sqrt(Delta t) delta, delta ~ N(0, 2 I): problem 1 e."""
    w, z, step = draws(N, 1), draws(N, 1, seed=1), 0.01
    (after,) = euler_maruyama(
        ornstein_uhlenbeck(), w, double(0.0, step), generator=lambda x: z.view_as(x)
    )
    assert_close(after, w - w * step + math.sqrt(step) * math.sqrt(2) * z)


@every_sde
def test_forward_paths_have_the_marginals(name):
    sde = SDES[name]()
    times, x0 = falling_times(sde, 400, 1e-12).flip(0), DATA.sample(N, seeded()).unsqueeze(1)
    *_, x = euler_maruyama(sde, x0, times, generator=seeded(1))
    check_marginal(x, sde, times[-1], slack=0.03)


@every_sde
def test_euler_mean_has_first_order(name):
    sde = SDES[name]()
    errors = []
    for steps in (200, 400):
        times = linspace(0, sde.end / 4, steps + 1)
        *_, x = euler_maruyama(sde, double([1.0]), times, generator=torch.zeros_like)
        errors.append((x - sde.scale(double(sde.end / 4))).abs().item())
    assert errors[1] == 0 or errors[0] / errors[1] == pytest.approx(2, abs=0.1)


@every_sde
def test_one_denoiser_is_the_score_of_every_sde(name):
    sde = SDES[name]()
    x, t = draws(20, 1), double(0.3 * sde.end)
    mean, var = marginal(sde, t)
    assert_close(score_of(DATA.denoise, sde)(x, t), -(x - mean) / var)


@every_sde
@pytest.mark.parametrize(("sampler", "slack"), [(reverse_sde, 0.06), (predictor_corrector, 0.12)])
def test_reverse_paths_sample_the_data(name, sampler, slack):
    sde = SDES[name]()
    times, data = falling_times(sde, 300), gaussian(double(*[MEAN] * 32), VAR)
    x = sde.std(times[0]) * draws(N // 32, 32) + sde.scale(times[0]) * MEAN
    *_, x = sampler(sde, score_of(data.denoise, sde), x, times, generator=seeded(1))
    check_marginal(x, sde, times[-1], slack)


@every_sde
def test_probability_flow_preserves_quantiles(name):
    """For Gaussian data x follows its marginal's mean and standard deviation.

    Heun's error is divided by four when the step is halved.
    """
    sde, x = SDES[name](), double([-1.0], [0.0], [2.0])
    errors = []
    for steps in (150, 300):
        times = falling_times(sde, steps, 0.01)
        (mean, var), (end_mean, end_var) = marginal(sde, times[0]), marginal(sde, times[-1])
        *_, end = probability_flow(sde, score_of(DATA.denoise, sde), mean + var.sqrt() * x, times)
        errors.append((end - (end_mean + end_var.sqrt() * x)).abs().max().item())
    assert errors[1] < 3e-3
    assert errors[0] / errors[1] == pytest.approx(4, abs=0.5)


@pytest.mark.parametrize(
    "sampler",
    [probability_flow, lambda *args: predictor_corrector(*args, generator=torch.zeros_like)],
)
def test_path_to_time_0_is_refused(sampler):
    """Clean data have no score."""
    with pytest.raises(ValueError, match="time 0"):
        next(sampler(vp(), score_of(DATA.denoise, vp()), draws(2, 1), linspace(1, 0, 5)))


def test_probability_flow_is_invertible():
    sde = vp()
    mixture = GaussianMixture(double(0.5, 0.5), double([-1.0], [1.0]), double(0.1, 0.1))
    x, times, score = draws(10, 1), falling_times(sde, 400, 0.01), score_of(mixture.denoise, sde)
    *_, end = probability_flow(sde, score, x, times)
    *_, start = probability_flow(sde, score, end, times.flip(0))
    assert_close(start, x, atol=1e-3, rtol=0)


def test_corrected_sample_ignores_its_batch():
    """With norms averaged over the batch it would not."""
    sde, times, x = vp(), falling_times(vp(), 5), draws(3, 2)
    score = score_of(gaussian(double(0.0, 0.0), 1.0).denoise, sde)
    generators = [seeded(i) for i in range(3)]
    *_, batch = predictor_corrector(sde, score, x, times, generator=generators)
    *_, single = predictor_corrector(sde, score, x[1:2], times, generator=[seeded(1)])
    assert torch.equal(batch[1:2], single)


def test_path_in_the_wrong_direction_is_refused():
    rising, score = double(0.01, 0.5, 1.0), score_of(DATA.denoise, vp())
    with pytest.raises(ValueError, match="fall"):
        next(reverse_sde(vp(), score, draws(2, 1), rising, generator=torch.Generator()))
    with pytest.raises(ValueError, match="rise"):
        next(euler_maruyama(vp(), draws(2, 1), rising.flip(0), generator=torch.Generator()))
