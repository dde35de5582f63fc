"""Schedules fall from data to noise, are the curves they are named after, and lose no precision at the ends."""

import math
from functools import partial

import pytest
import torch
from torch.testing import assert_close

from textdiff.diffusion.chain import Chain
from textdiff.diffusion.loss import continuous_bound_weight
from textdiff.diffusion.schedule import SCHEDULES, bounded, constant_alpha, cosine, grid, gumbel, linear, sigmoid, sqrt

ALPHA_BAR = {
    "linear": lambda t: math.exp(-0.1 * t - 0.5 * 19.9 * t**2),
    "cosine": lambda t: (math.cos((t + 0.008) / 1.008 * math.pi / 2) / math.cos(0.008 / 1.008 * math.pi / 2)) ** 2,
    "sqrt": lambda t: 1 - math.sqrt(t + 1e-4),
    "sigmoid": lambda t: (logistic(3) - logistic(6 * t - 3)) / (logistic(3) - logistic(-3)),
    "constant_alpha": lambda t: math.exp(-2 * 5 * t),
}
CENTER, SCALE, LOGSNR_MIN, LOGSNR_MAX = 1.0, 1.5, -9.0, 7.0
fitted = partial(gumbel, center=CENTER, scale=SCALE, logsnr_min=LOGSNR_MIN, logsnr_max=LOGSNR_MAX)
ENDS = torch.tensor([0.0, 1.0], dtype=torch.float64)
INSIDE = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
every_curve = pytest.mark.parametrize("curve", [*SCHEDULES.values(), fitted], ids=[*SCHEDULES, "gumbel"])


def logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def close(actual, expected, tolerance=1e-12):
    assert_close(actual, torch.as_tensor(expected, dtype=actual.dtype), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_is_the_curve_it_is_named_after(name):
    close(SCHEDULES[name](INSIDE).sigmoid(), [ALPHA_BAR[name](t) for t in INSIDE.tolist()])


@every_curve
def test_log_snr_falls_strictly(curve):
    assert (curve(torch.linspace(0, 1, 1001, dtype=torch.float64)).diff() < 0).all()


@pytest.mark.parametrize("schedule", [linear, cosine, sigmoid, constant_alpha])
def test_a_schedule_starts_at_clean_data(schedule):
    assert schedule(torch.zeros(1)) == math.inf


def test_the_sqrt_schedule_starts_at_noise_of_standard_deviation_a_tenth():
    close((-sqrt(torch.zeros(1, dtype=torch.float64))).sigmoid().sqrt(), [0.1])


@pytest.mark.parametrize("schedule", [cosine, sqrt, sigmoid])
def test_a_schedule_whose_alpha_bar_reaches_zero_ends_at_minus_infinity(schedule):
    assert schedule(torch.ones(1)) == -math.inf


def test_the_linear_schedule_ends_where_the_vp_sde_does():
    alpha_bar = linear(torch.ones(1, dtype=torch.float64)).sigmoid()
    close(alpha_bar.sqrt(), [6.571586e-3], 1e-9)
    close((1 - alpha_bar).sqrt(), [0.999978407], 1e-9)


@pytest.mark.parametrize("tau", [0.3, 1.0])
@pytest.mark.parametrize(("start", "end"), [(-3.0, 3.0), (0.0, 3.0)])
def test_the_sigmoid_schedule_is_the_slice_of_a_sigmoid_at_every_temperature(start, end, tau):
    first, last = logistic(start / tau), logistic(end / tau)
    expected = [(last - logistic((t * (end - start) + start) / tau)) / (last - first) for t in INSIDE.tolist()]
    close(sigmoid(INSIDE, start, end, tau).sigmoid(), expected)


@every_schedule
@pytest.mark.parametrize("t", [2**-20, 1 - 2**-12])
def test_float32_loses_no_precision_near_the_ends(schedule, t):
    """Both times are exact in float32."""
    assert_close(schedule(torch.tensor([t])).double(), schedule(torch.tensor([t], dtype=torch.float64)), rtol=0, atol=2e-6)


@every_curve
def test_a_schedule_takes_times_of_any_shape(curve):
    t = INSIDE[:96]
    close(curve(t.view(4, 6, 4)).flatten(), curve(t))
    close(curve(t[0]), curve(t)[0])


@every_curve
def test_the_slope_of_a_schedule_can_be_differentiated(curve):
    step = 1e-6
    slope = (curve(INSIDE + step) - curve(INSIDE - step)) / (2 * step)
    assert_close(continuous_bound_weight(curve, INSIDE), -0.5 * slope, rtol=1e-6, atol=0)


# bounded


@every_schedule
def test_a_bounded_schedule_meets_its_bounds(schedule):
    close(bounded(schedule, -8.0, 4.0)(torch.tensor([0, 1], dtype=torch.float64)), [4, -8], 1e-10)


@every_schedule
def test_a_bounded_schedule_meets_its_bounds_in_float32(schedule):
    close(bounded(schedule, -8.0, 4.0)(torch.tensor([0.0, 1.0])), [4, -8], 1e-3)


@every_schedule
def test_a_bounded_schedule_is_the_same_curve_at_another_pace(schedule):
    """Its log SNRs are the schedule's own, at times that lie evenly."""
    zoomed, own = bounded(schedule, -8.0, 4.0), torch.linspace(0, 1, 100_001, dtype=torch.float64)
    logsnr = schedule(own)
    times = [own[(logsnr - value).abs().argmin()] for value in zoomed(torch.linspace(0, 1, 11, dtype=torch.float64))]
    assert_close(torch.stack(times).diff(), (times[-1] - times[0]).expand(10) / 10, rtol=0, atol=2e-5)


@every_schedule
def test_a_bounded_schedule_falls_strictly(schedule):
    assert (bounded(schedule, -8.0, 4.0)(torch.linspace(0, 1, 1001, dtype=torch.float64)).diff() < 0).all()


def test_a_schedule_that_ends_inside_the_bounds_ends_there():
    close(bounded(sqrt, -8.0, 8.0)(ENDS), [float(sqrt(ENDS)[0]), -8.0])
    close(bounded(linear, -11.0, 8.0)(ENDS), [8.0, float(linear(ENDS)[1])])


@pytest.mark.parametrize(
    ("schedule", "bounds", "message"), [(sqrt, (5.0, 8.0), "runs from 4.595 to -inf"), (linear, (-12.0, -11.0), "from inf to -10.05")]
)
def test_a_schedule_that_lies_out_of_the_bounds_is_refused(schedule, bounds, message):
    with pytest.raises(ValueError, match=message):
        bounded(schedule, *bounds)


# gumbel


def gumbel_cdf(noise_level: torch.Tensor) -> torch.Tensor:
    return torch.exp(-torch.exp(-(noise_level - CENTER) / SCALE))


def test_the_gumbel_schedule_meets_its_bounds():
    close(fitted(torch.tensor([0.0, 1.0])), [LOGSNR_MAX, LOGSNR_MIN])


def test_the_gumbel_schedule_is_the_quantile_function_of_a_cut_gumbel():
    low, high = gumbel_cdf(torch.tensor([-LOGSNR_MAX, -LOGSNR_MIN], dtype=torch.float64))
    close((gumbel_cdf(-fitted(INSIDE)) - low) / (high - low), INSIDE)


def test_the_gumbel_schedule_spends_equal_time_on_equal_shares_of_the_loss():
    """If the loss at noise level g is loss_inf exp(-exp(-(g - center) / scale)), it rises evenly in t."""
    loss = 0.7 * gumbel_cdf(-fitted(torch.linspace(0, 1, 11, dtype=torch.float64)))
    close(loss.diff(), (loss[-1] - loss[0]).expand(10) / 10)


def test_the_gumbel_schedule_learns_its_center_and_scale():
    center, scale = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (CENTER, SCALE))
    assert torch.autograd.gradcheck(lambda c, s: gumbel(INSIDE[10:90:10], c, s, LOGSNR_MIN, LOGSNR_MAX), (center, scale))


def test_the_gumbel_schedule_stays_finite_with_bounds_far_out_in_its_tails():
    logsnr = gumbel(torch.linspace(0, 1, 101), CENTER, 0.5, -40.0, 40.0)
    assert logsnr.isfinite().all()
    close(logsnr[[0, -1]], [40, -40])


def in_both_precisions(curve):
    """The greatest difference between log SNRs in float32 and in float64, at times that are exact in both, many of them near the ends."""
    near = 10 ** torch.linspace(-7, 0, 10_001)
    t = torch.cat([torch.linspace(0, 1, 100_001), near, 1 - near])
    return float((curve(t).double() - curve(t.double())).abs().max())


@every_schedule
@pytest.mark.parametrize("logsnr_max", [6.0, 10.0])
def test_a_bounded_schedule_in_float32_is_that_in_float64(schedule, logsnr_max):
    """On the default bounds of text and of images, to 0.0002 in log SNR: 0.02 % of the signal-to-noise ratio."""
    assert in_both_precisions(bounded(schedule, -9.0, logsnr_max)) < 2e-4


@pytest.mark.parametrize("center", [-2.0, 0.0, 1.5, 3.25, 6.0])
@pytest.mark.parametrize("scale", [0.2, 0.5, 0.85, 3.0])
def test_the_gumbel_schedule_in_float32_is_that_in_float64(center, scale):
    assert in_both_precisions(partial(gumbel, center=center, scale=scale, logsnr_min=-9.0, logsnr_max=6.0)) < 2e-3


# grid


@every_schedule
def test_a_grid_is_the_schedule_backwards_in_even_steps_of_time(schedule):
    logsnrs = grid(schedule, 10)
    assert logsnrs.dtype == torch.float32
    close(logsnrs, schedule(torch.linspace(1, 0, 11, dtype=torch.float64)).float(), 1e-6)


@every_schedule
def test_a_grid_is_the_log_snr_of_the_schedules_chain_and_of_the_data(schedule):
    """But for the data's own log SNR, which the chain takes to be inf."""
    close(grid(schedule, 50)[:-1], Chain.from_schedule(schedule, 50).logsnr.flip(0)[:-1].float(), 1e-5)
