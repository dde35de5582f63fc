"""Hugging Face diffusers, where it is right, is one more oracle. Its timestep i counts from 0: it is our t = i + 1.

Its tables are float32; here they are made anew in float64 from its own betas, so that what is compared is the mathematics.
"""

import math

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr
from torch.testing import assert_close

from textdiff.diffusion.chain import Chain, linear_betas
from textdiff.diffusion.gaussian import Prediction, diffuse, from_eps, from_v, from_x0, to_v
from textdiff.diffusion.samplers import Sampler, ddim, ddpm, dpm_solver
from textdiff.diffusion.schedule import cosine

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # in diffusers
TABLES = ["linear", "squaredcos_cap_v2"]
READ = {"epsilon": from_eps, "sample": from_x0, "v_prediction": from_v}
every_table = pytest.mark.parametrize("table", TABLES)
every_prediction = pytest.mark.parametrize("prediction", READ)


def double_precision(scheduler):
    scheduler.alphas_cumprod = (1 - scheduler.betas.double()).cumprod(0)
    scheduler.one = scheduler.final_alpha_cumprod = torch.ones((), dtype=torch.float64)
    return scheduler


def chain_of(scheduler) -> Chain:
    return Chain.from_betas(scheduler.betas)


def draws(*shape: int, count: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn((count, *shape), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network(x_t: torch.Tensor) -> torch.Tensor:
    return 0.1 * (3 * x_t).tanh() + 0.2 * x_t


def close(actual, expected, tolerance=1e-10):
    assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def theirs(scheduler, steps: int, x: torch.Tensor, **options) -> torch.Tensor:
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(0)
    for t in scheduler.timesteps:
        x = scheduler.step(network(x), t, x, generator=generator, **options).prev_sample
    return x


def ours(sampler: Sampler, scheduler, x: torch.Tensor, **options) -> torch.Tensor:
    """At the scheduler's own timesteps, each step going to the next and the last to the data."""
    chain, read = chain_of(scheduler), READ[scheduler.config.prediction_type]
    logsnrs = torch.cat([chain.logsnr[scheduler.timesteps + 1], chain.logsnr[:1]])
    generator = torch.Generator().manual_seed(0)
    *_, step = sampler(lambda x_t, logsnr: read(x_t, logsnr, network(x_t)), x, logsnrs, generator=generator, **options)
    return step.x


# tables


def test_ddpms_betas_are_theirs():
    close(linear_betas(1000), DDPMScheduler(1000).betas.double(), 1e-8)


def test_the_capped_cosine_chain_is_theirs():
    close(Chain.from_schedule(cosine, 1000, max_beta=0.999).beta[1:], DDPMScheduler(1000, beta_schedule="squaredcos_cap_v2").betas.double(), 1e-7)


def test_a_table_rescaled_to_zero_terminal_snr_ends_in_beta_one_and_keeps_its_first_step():
    chain = Chain.from_betas(rescale_zero_terminal_snr(linear_betas(1000)))
    assert (chain.beta[-1], chain.alpha_bar[-1], chain.logsnr[-1]) == (1, 0, -math.inf)
    assert chain.alpha_bar[1].item() == pytest.approx(0.9999, abs=1e-12)


# the forward process


@every_table
def test_their_add_noise_is_diffuse(table):
    scheduler = double_precision(DDPMScheduler(1000, beta_schedule=table))
    x0, eps = draws(6, 3, 4)
    t = torch.tensor([0, 1, 10, 500, 998, 999])
    close(diffuse(x0, chain_of(scheduler).logsnr[t + 1], eps), scheduler.add_noise(x0, eps, t))


def test_their_velocity_is_v():
    scheduler = double_precision(DDPMScheduler(1000))
    x0, eps = draws(4, 3, 4)
    t = torch.tensor([0, 10, 500, 999])
    close(to_v(Prediction(x0, eps), chain_of(scheduler).logsnr[t + 1]), scheduler.get_velocity(x0, eps, t))


# one step


@every_table
@every_prediction
@pytest.mark.parametrize("i", [0, 1, 500, 998])
def test_their_ddpm_step_is_the_posterior_with_known_noise(table, prediction, i):
    scheduler = double_precision(DDPMScheduler(1000, beta_schedule=table, prediction_type=prediction, clip_sample=False))
    (x,), chain = draws(4, 3, count=1), chain_of(scheduler)
    output = network(x)
    x0 = READ[prediction](x, chain.logsnr[i + 1].expand(4), output).x0
    mean, var = chain.posterior(x0, x, i + 1)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    step = scheduler.step(output, i, x, generator=torch.Generator().manual_seed(7))
    close(mean + var.sqrt() * noise, step.prev_sample)
    close(x0, step.pred_original_sample)


@pytest.mark.parametrize("i", [1, 500, 998])
def test_their_large_variance_is_ours(i):
    scheduler = double_precision(DDPMScheduler(1000))
    close(chain_of(scheduler).large_variance[i + 1], scheduler._get_variance(i, variance_type="fixed_large"))


# whole trajectories


@every_table
@every_prediction
def test_their_ddpm_sampler_is_ours(table, prediction):
    scheduler = double_precision(DDPMScheduler(1000, beta_schedule=table, prediction_type=prediction, clip_sample=False, timestep_spacing="trailing"))
    (x,) = draws(2, 3, 4, count=1)
    close(theirs(scheduler, 20, x), ours(ddpm, scheduler, x), 1e-9)


@every_table
@every_prediction
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_their_ddim_sampler_is_ours(table, prediction, eta):
    options = {"clip_sample": False, "set_alpha_to_one": True, "timestep_spacing": "trailing"}
    scheduler = double_precision(DDIMScheduler(1000, beta_schedule=table, prediction_type=prediction, **options))
    (x,) = draws(2, 3, 4, count=1)
    close(theirs(scheduler, 20, x, eta=eta), ours(ddim, scheduler, x, eta=eta), 1e-9)


@every_table
@every_prediction
@pytest.mark.parametrize("steps", [5, 10, 20])
def test_their_dpm_solver_sampler_is_ours(table, prediction, steps):
    """The 2M solver in its midpoint form, whose last step goes to the data at first order. It keeps its state in float32."""
    options = {"algorithm_type": "dpmsolver++", "solver_order": 2, "solver_type": "midpoint", "final_sigmas_type": "zero"}
    scheduler = DPMSolverMultistepScheduler(1000, beta_schedule=table, prediction_type=prediction, timestep_spacing="trailing", **options)
    (x,) = draws(2, 3, 4, count=1)
    close(theirs(double_precision(scheduler), steps, x), ours(dpm_solver, scheduler, x), 1e-5)
