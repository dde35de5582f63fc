"""Schedules: their curves, their ends, their precision, and grids."""

import math
from functools import partial

import pytest
import torch
from chains import INSIDE, every_schedule, float32_error
from tensors import close, double, linspace
from torch.testing import assert_close

from textdiff.diffusion.discrete import Chain
from textdiff.diffusion.losses import continuous_bound_weight
from textdiff.diffusion.schedules import (
    SCHEDULES,
    bounded,
    constant_alpha,
    cosine,
    endpoints,
    grid,
    gumbel,
    linear,
    sigmoid,
    sqrt,
    with_even_share,
)

ALPHA_BAR = {
    "linear": lambda t: math.exp(-0.1 * t - 0.5 * 19.9 * t**2),
    "cosine": lambda t: (
        (math.cos((t + 0.008) / 1.008 * math.pi / 2) / math.cos(0.008 / 1.008 * math.pi / 2)) ** 2
    ),
    "sqrt": lambda t: 1 - math.sqrt(t + 1e-4),
    "sigmoid": lambda t: (logistic(3) - logistic(6 * t - 3)) / (logistic(3) - logistic(-3)),
    "constant_alpha": lambda t: math.exp(-2 * 5 * t),
}
ENDS = double(0.0, 1.0)


def logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_has_its_published_alpha_bar(name):
    close(SCHEDULES[name](INSIDE).sigmoid(), [ALPHA_BAR[name](t) for t in INSIDE.tolist()])


@every_schedule
def test_log_snr_falls_strictly(schedule):
    assert (schedule(linspace(0, 1, 1001)).diff() < 0).all()


@pytest.mark.parametrize("schedule", [linear, cosine, sigmoid, constant_alpha])
def test_schedule_starts_at_clean_data(schedule):
    assert schedule(torch.zeros(1)) == math.inf


def test_sqrt_schedule_starts_at_noise_of_0_1():
    """The standard deviation of the noise at t = 0."""
    close((-sqrt(double(0.0))).sigmoid().sqrt(), [0.1])


@pytest.mark.parametrize("schedule", [cosine, sqrt, sigmoid])
def test_schedule_with_zero_alpha_bar_is_infinite(schedule):
    """Log SNR is -inf at t = 1."""
    assert schedule(torch.ones(1)) == -math.inf


def test_linear_schedule_ends_like_the_vp_sde():
    alpha_bar = linear(double(1.0)).sigmoid()
    close(alpha_bar.sqrt(), [6.571586e-3], 1e-9)
    close((1 - alpha_bar).sqrt(), [0.999978407], 1e-9)


@pytest.mark.parametrize("tau", [0.3, 1.0])
@pytest.mark.parametrize(("start", "end"), [(-3.0, 3.0), (0.0, 3.0)])
def test_sigmoid_schedule_is_a_rescaled_sigmoid(start, end, tau):
    """For every section and temperature."""
    first, last = logistic(start / tau), logistic(end / tau)
    expected = [
        (last - logistic((t * (end - start) + start) / tau)) / (last - first)
        for t in INSIDE.tolist()
    ]
    close(sigmoid(INSIDE, start, end, tau).sigmoid(), expected)


@every_schedule
@pytest.mark.parametrize("t", [2**-20, 1 - 2**-12])
def test_float32_is_precise_near_the_ends(schedule, t):
    """Both times are exact in float32."""
    assert_close(schedule(torch.tensor([t])).double(), schedule(double(t)), rtol=0, atol=2e-6)


@every_schedule
def test_schedule_takes_times_of_any_shape(schedule):
    t = INSIDE[:96]
    close(schedule(t.view(4, 6, 4)).flatten(), schedule(t))
    close(schedule(t[0]), schedule(t)[0])


@every_schedule
def test_slope_of_a_schedule_is_differentiable(schedule):
    step = 1e-6
    slope = (schedule(INSIDE + step) - schedule(INSIDE - step)) / (2 * step)
    assert_close(continuous_bound_weight(schedule, INSIDE), -0.5 * slope, rtol=1e-6, atol=0)


# bounded


@every_schedule
def test_bounded_schedule_meets_its_bounds(schedule):
    close(bounded(schedule, -8.0, 4.0)(ENDS), [4, -8], 1e-10)


@every_schedule
def test_bounded_schedule_meets_its_bounds_in_float32(schedule):
    close(bounded(schedule, -8.0, 4.0)(ENDS.float()), [4, -8], 1e-3)


@every_schedule
def test_bounded_schedule_rescales_time_only(schedule):
    """Its log SNRs are the schedule's own, at equally spaced times."""
    rescaled, own = bounded(schedule, -8.0, 4.0), linspace(0, 1, 100_001)
    logsnr = schedule(own)
    times = [own[(logsnr - value).abs().argmin()] for value in rescaled(linspace(0, 1, 11))]
    spacing = (times[-1] - times[0]).expand(10) / 10
    assert_close(torch.stack(times).diff(), spacing, rtol=0, atol=2e-5)


@every_schedule
def test_bounded_schedule_falls_strictly(schedule):
    assert (bounded(schedule, -8.0, 4.0)(linspace(0, 1, 1001)).diff() < 0).all()


def test_bounds_beyond_the_schedule_have_no_effect():
    close(bounded(sqrt, -8.0, 8.0)(ENDS), [float(sqrt(ENDS)[0]), -8.0])
    close(bounded(linear, -11.0, 8.0)(ENDS), [8.0, float(linear(ENDS)[1])])


@pytest.mark.parametrize(
    ("schedule", "bounds", "message"),
    [(sqrt, (5.0, 8.0), "runs from 4.595 to -inf"), (linear, (-12.0, -11.0), "from inf to -10.05")],
)
def test_schedule_outside_the_bounds_is_refused(schedule, bounds, message):
    with pytest.raises(ValueError, match=message):
        bounded(schedule, *bounds)


@every_schedule
@pytest.mark.parametrize("logsnr_max", [6.0, 10.0])
def test_bounded_schedule_in_float32_matches_float64(schedule, logsnr_max):
    """On the default bounds of text and of images, to 0.0002 in log SNR: 0.02 % of the SNR."""
    assert float32_error(bounded(schedule, -9.0, logsnr_max)) < 2e-4


# grid and endpoints


@every_schedule
def test_grid_is_the_schedule_in_reverse(schedule):
    """At equally spaced times, in float32."""
    logsnrs = grid(schedule, 10)
    assert logsnrs.dtype == torch.float32
    close(logsnrs, schedule(linspace(1, 0, 11)).float(), 1e-6)


@every_schedule
def test_grid_is_the_log_snr_of_chain(schedule):
    """But for the last entry, the data, whose log SNR in the chain is inf."""
    chain = Chain.from_schedule(schedule, 50)
    close(grid(schedule, 50)[:-1], chain.logsnr.flip(0)[:-1].float(), 1e-5)


@every_schedule
def test_endpoints_are_noisy_first_then_clean(schedule):
    assert endpoints(bounded(schedule, -8.0, 4.0)) == pytest.approx((-8.0, 4.0), abs=1e-5)


def test_endpoints_of_a_schedule_may_be_infinite():
    assert endpoints(cosine) == (-math.inf, math.inf)
    assert endpoints(linear) == (pytest.approx(2 * math.log(6.571586e-3 / 0.999978407)), math.inf)


@pytest.mark.parametrize("share", [0.1, 1.0])
def test_share_of_time_is_even(share):
    """The time at a log SNR is a mixture of the schedule's and of that of a straight line."""
    schedule = bounded(cosine, -9.0, 9.0)
    softened = with_even_share(schedule, share, knots=40001)
    for t in (0.0, 0.003, 0.3, 0.8, 1.0):
        logsnr = schedule(double(t))
        time = (1 - share) * t + share * (9.0 - logsnr) / 18.0
        assert_close(softened(time), logsnr, atol=1e-4, rtol=0)


def test_even_share_passes_no_log_snr_at_once():
    """A fitted schedule has passed its high log SNRs after a thousandth of the time."""
    schedule = partial(
        gumbel, center=double(2.0), scale=double(0.85), logsnr_min=-9.0, logsnr_max=6.0
    )
    first = double(1e-3)
    assert schedule(first) < 0
    assert with_even_share(schedule, 0.1)(first) > 5
