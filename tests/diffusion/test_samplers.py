"""What every sampler does: its steps, its cost, its limits and its randomness."""

import math

import pytest
import torch
from sampler_cases import (
    INF,
    ORDER,
    TO_DATA,
    every_deterministic,
    every_sampler,
    last,
    network,
    run,
)
from tensors import close, double, draws, seeded
from torch.testing import assert_close

from textdiff.diffusion.discrete import Chain
from textdiff.diffusion.gaussian import from_x0
from textdiff.diffusion.gaussian_mixture import gaussian
from textdiff.diffusion.samplers import EVALUATIONS, SAMPLERS, ddpm


@every_sampler
def test_sampler_yields_steps_in_order(name):
    """Each with the log SNR after the step."""
    steps = run(name, network, draws(2, 3))
    assert [step.index for step in steps] == [1, 2, 3, 4, 5, 6]
    assert torch.stack([step.logsnr for step in steps]).equal(TO_DATA[1:])


@every_sampler
def test_sampler_ends_on_its_last_prediction(name):
    """If the grid ends at the data."""
    end = run(name, network, draws(2, 3))[-1]
    close(end.x, end.x0, 1e-10)


@every_sampler
def test_one_step_to_data_is_the_prediction(name):
    x, logsnrs = draws(2, 3), double(-1, INF)
    close(run(name, network, x, logsnrs)[0].x, network(x, double(-1, -1)).x0)


@every_sampler
def test_sampler_with_the_true_x0_ends_there(name):
    x0 = draws(4, 3)
    steps = run(name, lambda x_t, logsnr: from_x0(x_t, x0, logsnr), draws(4, 3, seed=1))
    for step in steps:
        close(step.x0, x0)
    close(steps[-1].x, x0, 1e-10)


@every_sampler
def test_number_of_network_evaluations_is_known(name):
    calls, finite = [], TO_DATA[:-1]
    run(name, lambda x_t, logsnr: calls.append(logsnr) or network(x_t, logsnr), draws(2, 3), finite)
    assert len(calls) == 5 * EVALUATIONS[name]


def test_every_sampler_has_order_and_cost():
    """The tests of accuracy run over the orders, so a sampler without one would not be tested."""
    assert ORDER.keys() | {"ddpm"} == SAMPLERS.keys() == EVALUATIONS.keys()


@every_sampler
def test_sampler_is_lazy(name):
    calls = []

    def denoise(x_t, logsnr):
        calls.append(logsnr)
        return network(x_t, logsnr)

    steps = SAMPLERS[name](denoise, draws(2, 3), TO_DATA, generator=seeded())
    assert not calls
    next(steps)
    assert len(calls) == EVALUATIONS[name]


@every_sampler
@pytest.mark.parametrize("logsnrs", [[3.0, 0.0, -3.0], [-3.0, math.nan, 3.0]], ids=["falls", "nan"])
def test_log_snrs_that_do_not_rise_are_refused(name, logsnrs):
    with pytest.raises(ValueError, match="must rise"):
        run(name, network, draws(2, 3), double(*logsnrs))


@every_sampler
def test_steps_with_beta_0_are_skipped(name):
    betas = torch.linspace(0.05, 0.3, 6, dtype=torch.float64)
    padded = torch.cat([double(0.0), betas[:3], double(0.0, 0.0), betas[3:]])
    grids = (Chain.from_betas(b).logsnr.flip(0) for b in (betas, padded))
    expected, actual = (run(name, network, draws(2, 3), logsnrs) for logsnrs in grids)
    assert len(actual) == len(expected)
    assert_close(actual[-1].x, expected[-1].x, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "heun"])
def test_chain_with_beta_1_can_be_sampled(name):
    """Its last step is pure noise, so that the first prediction is the mean of the data."""
    mean, logsnrs = double(2.0, 1.0, 0.0), Chain.from_betas(double(0.1, 0.3, 1.0)).logsnr.flip(0)
    steps = run(name, gaussian(mean, 0.25).denoise, draws(2, 3), logsnrs)
    assert_close(steps[0].x0, mean.expand(2, 3), atol=1e-12, rtol=0)
    assert steps[-1].x.isfinite().all()


def test_heun_refuses_a_start_without_signal():
    logsnrs = Chain.from_betas(double(0.1, 1.0)).logsnr.flip(0)
    with pytest.raises(ValueError, match="log SNR = -inf"):
        run("heun", network, draws(2, 3), logsnrs)


@every_sampler
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_sampler_keeps_the_dtype_of_its_noise(name, dtype):
    steps = run(name, network, draws(2, 3, dtype=dtype))
    assert all(step.x.dtype == step.x0.dtype == dtype for step in steps)


@every_deterministic
def test_float32_samples_match_float64(name):
    fine, coarse = (
        run(name, network, draws(2, 3, dtype=dtype))[-1].x
        for dtype in (torch.float64, torch.float32)
    )
    close(coarse.double(), fine, 1e-4)


@pytest.mark.parametrize("name", ["ddpm", "ddim", "dpm_solver"])
def test_sampler_may_start_without_signal(name):
    """With a prediction of x0. The first step then draws from the marginal for any x."""
    logsnrs = torch.cat([double(-INF), TO_DATA])
    steps = run(name, lambda x_t, t: from_x0(x_t, x_t.tanh(), t), draws(2, 3), logsnrs)
    assert all(step.x.isfinite().all() for step in steps)


@every_sampler
def test_trajectory_of_image_and_text_is_bit_identical(name):
    x = draws(2, 3, 4, 4)
    image, text = run(name, network, x), run(name, network, x.view(2, 16, 3))
    for image_step, text_step in zip(image, text, strict=True):
        assert text_step.x.equal(image_step.x.view(2, 16, 3))
        assert text_step.x0.equal(image_step.x0.view(2, 16, 3))


# randomness


@every_sampler
def test_same_seed_gives_the_same_samples(name):
    assert run(name, network, draws(2, 3))[-1].x.equal(run(name, network, draws(2, 3))[-1].x)


@every_deterministic
def test_deterministic_sampler_draws_no_noise(name):
    generator = seeded()
    last(SAMPLERS[name](network, draws(2, 3), TO_DATA, generator=generator))
    assert generator.get_state().equal(seeded().get_state())


@pytest.mark.parametrize(("name", "options"), [("ddpm", {}), ("ddim", {"eta": 1.0})])
def test_per_sample_generators_make_samples_independent(name, options):
    """A sample then does not depend on the rest of its batch."""
    x, sampler = draws(4, 3), SAMPLERS[name]
    generators = [seeded(i) for i in range(4)]
    batch = last(sampler(network, x, TO_DATA, generator=generators, **options))
    single = last(sampler(network, x[2:3], TO_DATA, generator=[seeded(2)], **options))
    close(batch[2:3], single)


def test_too_few_generators_are_refused():
    with pytest.raises(ValueError, match="4 samples, got 3 generators"):
        last(ddpm(network, draws(4, 3), TO_DATA, generator=[seeded(i) for i in range(3)]))


def test_noise_may_be_a_function_of_state():
    x, generator = draws(2, 3), seeded(1)

    def noise(state):
        return torch.randn(state.shape, generator=generator, dtype=state.dtype)

    close(last(ddpm(network, x, TO_DATA, generator=noise)), run("ddpm", network, x)[-1].x)


@pytest.mark.parametrize("large_variance", [False, True])
def test_ddpm_step_to_data_adds_no_noise(large_variance):
    x, logsnrs = draws(2, 3), double(3, INF)
    first, second = (
        run("ddpm", network, x, logsnrs, seed, large_variance=large_variance)[0].x
        for seed in (1, 2)
    )
    assert first.equal(second)
