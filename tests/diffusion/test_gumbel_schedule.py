"""Gumbel schedule: the quantile function of a truncated Gumbel distribution."""

from functools import partial

import pytest
import torch
from chains import INSIDE, float32_error
from tensors import close, double, linspace
from torch.testing import assert_close

from textdiff.diffusion.losses import continuous_bound_weight
from textdiff.diffusion.schedules import gumbel

CENTER, SCALE, LOGSNR_MIN, LOGSNR_MAX = 1.0, 1.5, -9.0, 7.0
schedule = partial(gumbel, center=CENTER, scale=SCALE, logsnr_min=LOGSNR_MIN, logsnr_max=LOGSNR_MAX)


def gumbel_cdf(logsnr: torch.Tensor) -> torch.Tensor:
    """Distribution function of -log SNR before truncation."""
    return torch.exp(-torch.exp(-(-logsnr - CENTER) / SCALE))


def test_gumbel_log_snr_falls_strictly():
    assert (schedule(linspace(0, 1, 1001)).diff() < 0).all()


def test_gumbel_takes_times_of_any_shape():
    t = INSIDE[:96]
    close(schedule(t.view(4, 6, 4)).flatten(), schedule(t))
    close(schedule(t[0]), schedule(t)[0])


def test_slope_of_the_gumbel_schedule_is_differentiable():
    step = 1e-6
    slope = (schedule(INSIDE + step) - schedule(INSIDE - step)) / (2 * step)
    assert_close(continuous_bound_weight(schedule, INSIDE), -0.5 * slope, rtol=1e-6, atol=0)


def test_gumbel_schedule_meets_its_bounds():
    close(schedule(torch.tensor([0.0, 1.0])), [LOGSNR_MAX, LOGSNR_MIN])


def test_gumbel_schedule_is_a_quantile_function():
    low, high = gumbel_cdf(double(LOGSNR_MAX, LOGSNR_MIN))
    close((gumbel_cdf(schedule(INSIDE)) - low) / (high - low), INSIDE)


def test_equal_times_have_equal_shares_of_loss():
    """The loss at g = -log SNR is loss_inf exp(-exp(-(g - center) / scale))."""
    loss = 0.7 * gumbel_cdf(schedule(linspace(0, 1, 11)))
    close(loss.diff(), (loss[-1] - loss[0]).expand(10) / 10)


def test_gumbel_center_and_scale_receive_gradients():
    center, scale = (
        torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (CENTER, SCALE)
    )
    assert torch.autograd.gradcheck(
        lambda c, s: gumbel(INSIDE[10:90:10], c, s, LOGSNR_MIN, LOGSNR_MAX), (center, scale)
    )


def test_gumbel_schedule_is_finite_for_distant_bounds():
    """Bounds far in the tails of the distribution."""
    logsnr = gumbel(torch.linspace(0, 1, 101), CENTER, 0.5, -40.0, 40.0)
    assert logsnr.isfinite().all()
    close(logsnr[[0, -1]], [40, -40])


@pytest.mark.parametrize("center", [-2.0, 0.0, 1.5, 3.25, 6.0])
@pytest.mark.parametrize("scale", [0.2, 0.5, 0.85, 3.0])
def test_gumbel_schedule_in_float32_matches_float64(center, scale):
    curve = partial(gumbel, center=center, scale=scale, logsnr_min=-9.0, logsnr_max=6.0)
    assert float32_error(curve) < 2e-3
