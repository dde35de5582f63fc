"""Samplers on Gaussian data: equalities, known errors and orders of convergence."""

import math
from itertools import pairwise

import pytest
import torch
from chains import LINEAR
from sampler_cases import ORDER, TO_DATA, every_deterministic, last, network, run, sigmoid
from tensors import close, double, draws, linspace, seeded

from textdiff.diffusion.gaussian import alpha_sigma, diffuse, from_eps, from_x0, posterior
from textdiff.diffusion.gaussian_mixture import gaussian
from textdiff.diffusion.samplers import SAMPLERS, ddim, ddpm
from textdiff.diffusion.schedules import linear

GRIDS = {"uneven": TO_DATA, "every 50th step of the chain": LINEAR.logsnr.flip(0)[::50]}


@pytest.mark.parametrize("logsnrs", GRIDS.values(), ids=GRIDS)
def test_ddim_with_eta_one_is_ddpm(logsnrs):
    steps = run("ddim", network, draws(4, 3), logsnrs, eta=1.0)
    expected = run("ddpm", network, draws(4, 3), logsnrs)
    for ddim_step, ddpm_step in zip(steps, expected, strict=True):
        close(ddim_step.x, ddpm_step.x)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_ddim_has_forward_marginals_for_every_eta(eta):
    """With the true x0 the state is alpha x0 + sigma noise, within five standard errors."""
    n, x0 = 20_000, 2.0
    x = diffuse(torch.full((n, 1), x0, dtype=torch.float64), draws(n, 1), double(-1).expand(n))

    def denoise(x_t, logsnr):
        return from_x0(x_t, torch.full_like(x_t, x0), logsnr)

    step = next(ddim(denoise, x, double(-1, 1), generator=seeded(1), eta=eta))
    alpha, sigma = (part.item() for part in alpha_sigma(double(1), double(1)))
    assert step.x.mean().item() == pytest.approx(alpha * x0, abs=5 * sigma / math.sqrt(n))
    assert step.x.var().item() == pytest.approx(sigma**2, abs=5 * sigma**2 * math.sqrt(2 / n))


def test_ddpm_step_samples_the_posterior():
    x = draws(2, 3)
    x0 = network(x, double(-1, -1)).x0
    mean, var = posterior(x0, x, double(2, 2), double(-1, -1))
    step = run("ddpm", network, x, double(-1, 2), seed=5)[0]
    close(step.x, mean + var.sqrt() * draws(2, 3, seed=5))


@pytest.mark.parametrize(
    ("std", "large_variance", "error"),
    [(0.5, False, -0.0155), (0.5, True, 0.0030), (1.0, False, -0.0089), (1.0, True, -0.0001)],
)
def test_ddpm_variance_error_on_gaussian_data(std, large_variance, error):
    """The sample is linear in its noises.

    With one dimension per noise, the squared norm of the sample is its exact variance.
    """
    first, *rest = torch.eye(1001, dtype=torch.float64).split(1)
    denoise = gaussian(torch.zeros(1001, dtype=torch.float64), std**2).denoise
    steps = ddpm(
        denoise,
        first,
        LINEAR.logsnr.flip(0),
        generator=lambda x: rest.pop(),
        large_variance=large_variance,
    )
    assert (last(steps) ** 2).sum().item() / std**2 - 1 == pytest.approx(error, abs=5e-5)


@pytest.mark.parametrize(
    ("timesteps", "shrinkage"),
    [
        (range(900, -1, -100), 0.74826),
        (range(999, 0, -100), 0.73991),
        (range(999, -1, -111), 0.72322),
    ],
    ids=["leading", "trailing", "linspace"],
)
def test_ten_ddim_steps_shrink_gaussian_data(timesteps, shrinkage):
    """With DDPM's table, whose timestep i counts from 0 and is our t = i + 1.

    Each step goes to the next entry of the list, the last one to the data.
    """
    logsnrs = torch.cat([LINEAR.logsnr[[i + 1 for i in timesteps]], LINEAR.logsnr[:1]])
    denoise = gaussian(torch.zeros(1, dtype=torch.float64), 0.25).denoise
    x = last(ddim(denoise, double([1]), logsnrs, generator=seeded()))
    assert x.item() / 0.5 == pytest.approx(shrinkage, abs=5e-6)


def flow_error(name: str, steps: int) -> float:
    """Error on N(0, 1/4) between the VP-SDE's times 1 and 0.01.

    The exact flow scales x by the ratio of standard deviations.
    """
    start, end = (linear(double(t)).item() for t in (1.0, 0.01))
    denoise = gaussian(torch.zeros(1, dtype=torch.float64), 0.25).denoise
    logsnrs = linspace(start, end, steps + 1)
    x = last(SAMPLERS[name](denoise, double([1]), logsnrs, generator=seeded()))
    before, after = (0.25 * sigmoid(logsnr) + sigmoid(-logsnr) for logsnr in (start, end))
    return abs(x.item() - math.sqrt(after / before))


@every_deterministic
@pytest.mark.parametrize("steps", [80, 160])
def test_flow_error_has_the_order_of_sampler(name, steps):
    order = math.log2(flow_error(name, steps) / flow_error(name, 2 * steps))
    assert order == pytest.approx(ORDER[name], abs=0.1)


def test_ddim_error_has_known_slopes():
    errors = [flow_error("ddim", steps) for steps in (20, 40, 80, 160, 320)]
    slopes = [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]
    assert slopes == pytest.approx([0.964, 0.982, 0.991, 0.995], abs=1e-3)


def test_first_dpm_solver_step_is_ddim():
    close(run("dpm_solver", network, draws(2, 3))[0].x, run("ddim", network, draws(2, 3))[0].x)


@pytest.mark.parametrize("name", ["ddim", "heun"])
def test_flow_is_exact_for_constant_noise_prediction(name):
    """d(x / alpha) = eps d(sigma / alpha), in any number of steps."""
    x, eps = draws(2, 3), draws(2, 3, seed=1)
    grids = (torch.linspace(-2, 3, n + 1).double() for n in (1, 8))
    one, many = (
        run(name, lambda x_t, t: from_eps(x_t, eps, t), x, logsnrs)[-1].x for logsnrs in grids
    )
    close(one, many, 1e-10)
