"""Laws of the adaptive schedule, and of the bounds of all schedules of the model."""

import math

import pytest
import torch
from torch.testing import assert_close

from textdiff.config import UserError
from textdiff.diffusion.schedules import SCHEDULES


def test_adaptive_schedule_moves_to_where_loss_falls(new_model):
    """The loss has the limit 3 nats and falls around -log SNR = 2 with scale 1.5."""
    adaptive = new_model(schedule="adaptive").adaptive
    logsnr = torch.linspace(-9, 6, 64)
    loss = 3 * torch.exp(-torch.exp((logsnr + 2) / 1.5))
    fitted = [adaptive.center, adaptive.log_scale, adaptive.limit]
    optimizer = torch.optim.Adam(fitted, lr=0.05)
    for _ in range(500):
        optimizer.zero_grad()
        adaptive.misfit(loss, logsnr).mean().backward()
        optimizer.step()
    assert_close(torch.stack(fitted), torch.tensor([2.0, math.log(1.5), 3.0]), atol=0.02, rtol=0)


def test_misfit_gradient_reaches_only_the_schedule(new_model, batch):
    model = new_model(schedule="adaptive")
    model(**batch)["schedule"].backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    moved = {name for name, grad in gradients.items() if grad is not None and grad.any()}
    assert moved == {"adaptive.center", "adaptive.log_scale", "adaptive.limit"}


def test_loss_gradient_does_not_reach_the_schedule(new_model, batch):
    model = new_model(schedule="adaptive")
    model(**batch)["ce"].backward()
    adaptive = model.adaptive
    for parameter in (adaptive.center, adaptive.log_scale, adaptive.limit):
        assert parameter.grad is None


@pytest.mark.parametrize("schedule", ["adaptive", *SCHEDULES])
def test_every_schedule_falls_between_its_bounds(new_model, schedule):
    """It starts at the clean bound and ends at the noisy one."""
    model = new_model(schedule=schedule, logsnr_min=-7.0, logsnr_max=4.0)
    logsnr = model.schedule()(torch.linspace(0, 1, 50, dtype=torch.float64))
    bounds = torch.tensor([4.0, -7.0], dtype=torch.float64)
    assert_close(logsnr[[0, -1]], bounds, atol=1e-3, rtol=0)
    assert (logsnr.diff() < 0).all()


def test_schedule_outside_the_bounds_is_refused(new_model, batch):
    with pytest.raises(UserError, match=r"model.schedule sqrt does not fit .* from 4.595"):
        new_model(schedule="sqrt", logsnr_min=5.0, logsnr_max=6.0)(**batch)
