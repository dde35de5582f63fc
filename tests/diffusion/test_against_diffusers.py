"""The core against Hugging Face diffusers, whose timestep i counts from 0 and is our t = i + 1.

Its tables are float32. The tests recompute them in float64 from its betas, so that they compare the
mathematics.
"""

import math

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr
from tensors import close, draws, seeded

from textdiff.diffusion.discrete import Chain, linear_betas
from textdiff.diffusion.gaussian import Prediction, diffuse, from_eps, from_v, from_x0, to_v
from textdiff.diffusion.samplers import Sampler, ddim, ddpm, dpm_solver
from textdiff.diffusion.schedules import cosine

# a warning of diffusers
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
FROM_OUTPUT = {"epsilon": from_eps, "sample": from_x0, "v_prediction": from_v}
every_table = pytest.mark.parametrize("table", ["linear", "squaredcos_cap_v2"])
every_prediction = pytest.mark.parametrize("prediction", FROM_OUTPUT)


def double_precision(scheduler):
    scheduler.alphas_cumprod = (1 - scheduler.betas.double()).cumprod(0)
    scheduler.one = scheduler.final_alpha_cumprod = torch.ones((), dtype=torch.float64)
    return scheduler


def chain_of(scheduler) -> Chain:
    return Chain.from_betas(scheduler.betas)


def network(x_t: torch.Tensor) -> torch.Tensor:
    return 0.1 * (3 * x_t).tanh() + 0.2 * x_t


def diffusers_sample(scheduler, steps: int, x: torch.Tensor, **options) -> torch.Tensor:
    scheduler.set_timesteps(steps)
    generator = seeded()
    for t in scheduler.timesteps:
        x = scheduler.step(network(x), t, x, generator=generator, **options).prev_sample
    return x


def our_sample(sampler: Sampler, scheduler, x: torch.Tensor, **options) -> torch.Tensor:
    """Samples at the scheduler's timesteps; the last step goes to the data."""
    chain, from_output = chain_of(scheduler), FROM_OUTPUT[scheduler.config.prediction_type]
    logsnrs = torch.cat([chain.logsnr[scheduler.timesteps + 1], chain.logsnr[:1]])

    def denoise(x_t, logsnr):
        return from_output(x_t, network(x_t), logsnr)

    *_, step = sampler(denoise, x, logsnrs, generator=seeded(), **options)
    return step.x


# tables


def test_linear_betas_match_diffusers():
    close(linear_betas(1000), DDPMScheduler(1000).betas.double(), 1e-8)


def test_capped_cosine_chain_matches_diffusers():
    betas = DDPMScheduler(1000, beta_schedule="squaredcos_cap_v2").betas.double()
    close(Chain.from_schedule(cosine, 1000, max_beta=0.999).beta[1:], betas, 1e-7)


def test_zero_terminal_snr_table_ends_in_beta_one():
    """Its first step does not change."""
    chain = Chain.from_betas(rescale_zero_terminal_snr(linear_betas(1000)))
    assert (chain.beta[-1], chain.alpha_bar[-1], chain.logsnr[-1]) == (1, 0, -math.inf)
    assert chain.alpha_bar[1].item() == pytest.approx(0.9999, abs=1e-12)


# the forward process


@every_table
def test_diffuse_matches_add_noise(table):
    scheduler = double_precision(DDPMScheduler(1000, beta_schedule=table))
    x0, eps = draws(2, 6, 3, 4)
    t = torch.tensor([0, 1, 10, 500, 998, 999])
    x_t = diffuse(x0, eps, chain_of(scheduler).logsnr[t + 1])
    close(x_t, scheduler.add_noise(x0, eps, t), 1e-10)


def test_v_matches_velocity():
    scheduler = double_precision(DDPMScheduler(1000))
    x0, eps = draws(2, 4, 3, 4)
    t = torch.tensor([0, 10, 500, 999])
    v = to_v(Prediction(x0, eps), chain_of(scheduler).logsnr[t + 1])
    close(v, scheduler.get_velocity(x0, eps, t), 1e-10)


# one step


@every_table
@every_prediction
@pytest.mark.parametrize("i", [0, 1, 500, 998])
def test_posterior_matches_ddpm_step(table, prediction, i):
    """With the same noise."""
    scheduler = double_precision(
        DDPMScheduler(1000, beta_schedule=table, prediction_type=prediction, clip_sample=False)
    )
    x, chain = draws(4, 3), chain_of(scheduler)
    output = network(x)
    x0 = FROM_OUTPUT[prediction](x, output, chain.logsnr[i + 1].expand(4)).x0
    mean, var = chain.posterior(x0, x, i + 1)
    step = scheduler.step(output, i, x, generator=seeded(7))
    close(mean + var.sqrt() * draws(4, 3, seed=7), step.prev_sample, 1e-10)
    close(x0, step.pred_original_sample, 1e-10)


@pytest.mark.parametrize("i", [1, 500, 998])
def test_large_variance_matches_diffusers(i):
    scheduler = double_precision(DDPMScheduler(1000))
    expected = scheduler._get_variance(i, variance_type="fixed_large")
    close(chain_of(scheduler).large_variance[i + 1], expected, 1e-10)


# whole trajectories


@every_table
@every_prediction
def test_ddpm_sampler_matches_diffusers(table, prediction):
    options = {"clip_sample": False, "timestep_spacing": "trailing"}
    scheduler = double_precision(
        DDPMScheduler(1000, beta_schedule=table, prediction_type=prediction, **options)
    )
    x = draws(2, 3, 4)
    close(diffusers_sample(scheduler, 20, x), our_sample(ddpm, scheduler, x), 1e-9)


@every_table
@every_prediction
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_sampler_matches_diffusers(table, prediction, eta):
    options = {"clip_sample": False, "set_alpha_to_one": True, "timestep_spacing": "trailing"}
    scheduler = double_precision(
        DDIMScheduler(1000, beta_schedule=table, prediction_type=prediction, **options)
    )
    x = draws(2, 3, 4)
    expected = diffusers_sample(scheduler, 20, x, eta=eta)
    close(our_sample(ddim, scheduler, x, eta=eta), expected, 1e-9)


@every_table
@every_prediction
@pytest.mark.parametrize("steps", [5, 10, 20])
def test_dpm_solver_sampler_matches_diffusers(table, prediction, steps):
    """The 2M solver in its midpoint form, with a last step of first order to the data.

    diffusers computes its state in float32.
    """
    options = {
        "algorithm_type": "dpmsolver++",
        "solver_order": 2,
        "solver_type": "midpoint",
        "final_sigmas_type": "zero",
        "timestep_spacing": "trailing",
    }
    scheduler = DPMSolverMultistepScheduler(
        1000, beta_schedule=table, prediction_type=prediction, **options
    )
    x = draws(2, 3, 4)
    expected = diffusers_sample(double_precision(scheduler), steps, x)
    close(our_sample(dpm_solver, scheduler, x), expected, 1e-5)
