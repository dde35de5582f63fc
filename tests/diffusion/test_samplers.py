"""Samplers end at the data's distribution, at the order and the cost they promise. Exact denoisers stand in for networks."""

import math
from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from torch.distributions import Normal
from torch.testing import assert_close

from textdiff.diffusion.chain import Chain, linear_betas
from textdiff.diffusion.gaussian import PREDICTIONS, Denoiser, alpha_sigma, diffuse, from_eps, from_x0, posterior
from textdiff.diffusion.oracle import GaussianMixture, gaussian
from textdiff.diffusion.samplers import SAMPLERS, Step, ddim, ddpm, feed_back
from textdiff.diffusion.schedule import bounded, cosine, grid, linear

INF = math.inf
LINEAR = Chain.from_betas(linear_betas(1000))
TO_DATA = torch.tensor([-8.0, -4.0, -1.0, 0.5, 3.0, 7.0, INF], dtype=torch.float64)
EVALUATIONS = {"ddpm": 6, "ddim": 6, "dpm_solver": 6, "heun": 11}  # on TO_DATA
ORDER = {"ddim": 1, "dpm_solver": 2, "heun": 2}  # of the deterministic ones
every_sampler = pytest.mark.parametrize("name", SAMPLERS)
every_deterministic = pytest.mark.parametrize("name", ORDER)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64).to(dtype)


def run(name: str, denoise: Denoiser, x: torch.Tensor, logsnrs: torch.Tensor = TO_DATA, seed: int = 1, **options) -> list[Step]:
    return list(SAMPLERS[name](denoise, x, logsnrs, generator=seeded(seed), **options))


def last(steps: Iterator[Step]) -> torch.Tensor:
    *_, step = steps
    return step.x


def double(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def close(actual, expected, tolerance=1e-12):
    assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def network(x_t, logsnr):
    """No ground truth, only a smooth function of both its inputs."""
    level = (0.1 * logsnr).view(-1, *[1] * (x_t.ndim - 1))
    return PREDICTIONS["v"](x_t, logsnr, (x_t + level).tanh())


# what every sampler does


@every_sampler
def test_a_sampler_yields_its_steps_in_order_with_the_log_snr_they_arrive_at(name):
    steps = run(name, network, noise(2, 3))
    assert [step.index for step in steps] == [1, 2, 3, 4, 5, 6]
    assert torch.stack([step.logsnr for step in steps]).equal(TO_DATA[1:])


@every_sampler
def test_a_sampler_that_ends_at_the_data_ends_on_its_last_prediction(name):
    end = run(name, network, noise(2, 3))[-1]
    close(end.x, end.x0, 1e-10)


@every_sampler
def test_one_step_to_the_data_is_the_prediction(name):
    x, logsnrs = noise(2, 3), double(-1, INF)
    close(run(name, network, x, logsnrs)[0].x, network(x, double(-1, -1)).x0)


@every_sampler
def test_a_sampler_told_the_truth_keeps_to_it(name):
    truth = noise(4, 3)
    steps = run(name, lambda x_t, logsnr: from_x0(x_t, logsnr, truth), noise(4, 3, seed=1))
    for step in steps:
        close(step.x0, truth)
    close(steps[-1].x, truth, 1e-10)


@every_sampler
def test_the_number_of_network_evaluations_is_known(name):
    calls = []
    run(name, lambda x_t, logsnr: calls.append(logsnr) or network(x_t, logsnr), noise(2, 3))
    assert len(calls) == EVALUATIONS[name]


@every_sampler
def test_a_sampler_evaluates_nothing_until_it_is_asked(name):
    calls = []
    steps = SAMPLERS[name](lambda x_t, logsnr: calls.append(logsnr) or network(x_t, logsnr), noise(2, 3), TO_DATA, generator=seeded())
    assert not calls
    next(steps)
    assert len(calls) == (2 if name == "heun" else 1)


@every_sampler
@pytest.mark.parametrize("logsnrs", [[3.0, 0.0, -3.0], [-3.0, math.nan, 3.0]], ids=["falling", "nan"])
def test_log_snrs_that_do_not_rise_are_refused(name, logsnrs):
    with pytest.raises(ValueError, match="must rise"):
        run(name, network, noise(2, 3), double(*logsnrs))


@every_sampler
def test_a_step_of_a_chain_with_beta_0_is_no_step(name):
    betas = torch.linspace(0.05, 0.3, 6, dtype=torch.float64)
    still = torch.cat([double(0.0), betas[:3], double(0.0, 0.0), betas[3:]])
    plain, padded = (run(name, network, noise(2, 3), Chain.from_betas(b).logsnr.flip(0)) for b in (betas, still))
    assert len(padded) == len(plain)
    assert_close(padded[-1].x, plain[-1].x, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "heun"])
def test_a_chain_with_beta_1_can_be_sampled(name):
    """Its last step destroys everything, so that its first estimate is the mean of the data."""
    mean = double(2.0, 1.0, 0.0)
    steps = run(name, gaussian(mean, 0.25).denoise, noise(2, 3), Chain.from_betas(double(0.1, 0.3, 1.0)).logsnr.flip(0))
    assert_close(steps[0].x0, mean.expand(2, 3), atol=1e-12, rtol=0)
    assert steps[-1].x.isfinite().all()


def test_heun_refuses_to_start_where_there_is_no_signal():
    with pytest.raises(ValueError, match="log SNR = -inf"):
        run("heun", network, noise(2, 3), Chain.from_betas(double(0.1, 1.0)).logsnr.flip(0))


@every_sampler
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_sampler_works_in_the_type_of_its_noise(name, dtype):
    assert all(step.x.dtype == step.x0.dtype == dtype for step in run(name, network, noise(2, 3, dtype=dtype)))


@every_deterministic
def test_samples_in_float32_are_those_in_float64_rounded(name):
    fine, coarse = (run(name, network, noise(2, 3, dtype=dtype))[-1].x for dtype in (torch.float64, torch.float32))
    close(coarse.double(), fine, 1e-4)


@every_sampler
def test_a_sampler_repeats_itself_under_the_same_seed(name):
    assert run(name, network, noise(2, 3))[-1].x.equal(run(name, network, noise(2, 3))[-1].x)


@every_deterministic
def test_a_deterministic_sampler_draws_nothing(name):
    generator = seeded()
    last(SAMPLERS[name](network, noise(2, 3), TO_DATA, generator=generator))
    assert generator.get_state().equal(seeded().get_state())


@pytest.mark.parametrize("name", ["ddpm", "ddim", "dpm_solver"])
def test_a_sampler_may_start_where_no_signal_is_left(name):
    """With a network that predicts x0; the first step from there is a draw of the marginal, whatever x is."""
    logsnrs = torch.cat([double(-INF), TO_DATA])
    assert all(step.x.isfinite().all() for step in run(name, lambda x_t, t: from_x0(x_t, t, x_t.tanh()), noise(2, 3), logsnrs))


@every_sampler
def test_a_trajectory_is_bit_identical_on_an_image_and_on_its_pixels_as_a_text(name):
    x = noise(2, 3, 4, 4)
    image, text = run(name, network, x), run(name, network, x.view(2, 16, 3))
    for one, other in zip(image, text, strict=True):
        assert other.x.equal(one.x.view(2, 16, 3))
        assert other.x0.equal(one.x0.view(2, 16, 3))


# randomness


@pytest.mark.parametrize(("name", "options"), [("ddpm", {}), ("ddim", {"eta": 1.0})])
def test_with_a_generator_a_sample_it_does_not_depend_on_its_companions(name, options):
    x = noise(4, 3)
    together = last(SAMPLERS[name](network, x, TO_DATA, generator=[seeded(i) for i in range(4)], **options))
    alone = last(SAMPLERS[name](network, x[2:3], TO_DATA, generator=[seeded(2)], **options))
    close(together[2:3], alone)


def test_too_few_generators_are_refused():
    with pytest.raises(ValueError, match="4 samples, got 3 generators"):
        last(ddpm(network, noise(4, 3), TO_DATA, generator=[seeded(i) for i in range(3)]))


def test_noise_may_come_from_any_function_of_the_state():
    x, generator = noise(2, 3), seeded(1)
    own = last(ddpm(network, x, TO_DATA, generator=lambda state: torch.randn(state.shape, generator=generator, dtype=state.dtype)))
    close(own, run("ddpm", network, x)[-1].x)


@pytest.mark.parametrize("large_variance", [False, True])
def test_a_ddpm_step_to_the_data_adds_no_noise(large_variance):
    x, logsnrs = noise(2, 3), double(3, INF)
    one, other = (run("ddpm", network, x, logsnrs, seed, large_variance=large_variance)[0].x for seed in (1, 2))
    assert one.equal(other)


@pytest.mark.parametrize("logsnrs", [TO_DATA, LINEAR.logsnr.flip(0)[::50]], ids=["uneven", "every 50th step of the chain"])
def test_ddim_with_eta_one_is_ddpm(logsnrs):
    for one, other in zip(run("ddim", network, noise(4, 3), logsnrs, eta=1.0), run("ddpm", network, noise(4, 3), logsnrs), strict=True):
        close(one.x, other.x)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_ddim_at_every_eta_has_the_marginals_of_the_forward_process(eta):
    """Told the truth, a state is alpha x0 + sigma times a unit of noise, old and new together."""
    n, x0 = 20_000, 2.0
    x = diffuse(torch.full((n, 1), x0, dtype=torch.float64), double(-1).expand(n), noise(n, 1))
    step = next(ddim(lambda x_t, t: from_x0(x_t, t, torch.full_like(x_t, x0)), x, double(-1, 1), generator=seeded(1), eta=eta))
    alpha, sigma = (part.item() for part in alpha_sigma(double(1), double(1)))
    assert step.x.mean().item() == pytest.approx(alpha * x0, abs=5 * sigma / math.sqrt(n))  # five standard errors
    assert step.x.var().item() == pytest.approx(sigma**2, abs=5 * sigma**2 * math.sqrt(2 / n))


def test_a_ddpm_step_is_a_draw_of_the_posterior():
    x = noise(2, 3)
    x0 = network(x, double(-1, -1)).x0
    mean, var = posterior(x0, x, double(2, 2), double(-1, -1))
    close(run("ddpm", network, x, double(-1, 2), seed=5)[0].x, mean + var.sqrt() * noise(2, 3, seed=5))


# known outcomes on Gaussian data


@pytest.mark.parametrize(
    ("std", "large_variance", "error"),
    [(0.5, False, -0.0155), (0.5, True, 0.0030), (1.0, False, -0.0089), (1.0, True, -0.0001)],
)
def test_ancestral_sampling_misses_the_variance_of_gaussian_data_by_the_known_figures(std, large_variance, error):
    """The sample is linear in its noises: given a dimension each, the squared length of the outcome is its exact variance."""
    noises = torch.eye(1001, dtype=torch.float64).split(1)
    first, *left = noises
    denoise = gaussian(torch.zeros(1001, dtype=torch.float64), std**2).denoise
    x = last(ddpm(denoise, first, LINEAR.logsnr.flip(0), generator=lambda x: left.pop(), large_variance=large_variance))
    assert (x**2).sum().item() / std**2 - 1 == pytest.approx(error, abs=5e-5)


@pytest.mark.parametrize(
    ("timesteps", "shrinkage"),
    [(range(900, -1, -100), 0.74826), (range(999, 0, -100), 0.73991), (range(999, -1, -111), 0.72322)],
    ids=["leading", "trailing", "linspace"],
)
def test_ddim_in_ten_steps_shrinks_gaussian_data_by_the_known_figures(timesteps, shrinkage):
    """DDPM's table, whose timestep i counts from 0 and is our t = i + 1. Each step goes to the next entry of the list, the last to the data."""
    logsnrs = torch.cat([LINEAR.logsnr[[i + 1 for i in timesteps]], LINEAR.logsnr[:1]])
    x = last(ddim(gaussian(torch.zeros(1, dtype=torch.float64), 0.25).denoise, double([1]), logsnrs, generator=seeded()))
    assert x.item() / 0.5 == pytest.approx(shrinkage, abs=5e-6)


def flow_error(name: str, steps: int) -> float:
    """On N(0, 1/4) over VP-SDE times 1 to 0.01: the exact flow scales x by the ratio of standard deviations."""
    start, end = (linear(double(t)).item() for t in (1.0, 0.01))
    denoise = gaussian(torch.zeros(1, dtype=torch.float64), 0.25).denoise
    x = last(SAMPLERS[name](denoise, double([1]), torch.linspace(start, end, steps + 1, dtype=torch.float64), generator=seeded()))
    before, after = (0.25 * logistic(level) + logistic(-level) for level in (start, end))
    return abs(x.item() - math.sqrt(after / before))


def logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@every_deterministic
@pytest.mark.parametrize("steps", [80, 160])
def test_halving_the_step_divides_the_error_by_two_to_the_order(name, steps):
    assert math.log2(flow_error(name, steps) / flow_error(name, 2 * steps)) == pytest.approx(ORDER[name], abs=0.1)


def test_ddims_convergence_has_the_known_slopes():
    errors = [flow_error("ddim", steps) for steps in (20, 40, 80, 160, 320)]
    slopes = [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]
    assert slopes == pytest.approx([0.964, 0.982, 0.991, 0.995], abs=1e-3)


def test_the_first_step_of_dpm_solver_is_ddims():
    close(run("dpm_solver", network, noise(2, 3))[0].x, run("ddim", network, noise(2, 3))[0].x)


@pytest.mark.parametrize("name", ["ddim", "heun"])
def test_a_flow_is_exact_in_any_number_of_steps_where_the_predicted_noise_is_constant(name):
    """d(x / alpha) = eps d(sigma / alpha)."""
    x, eps = noise(2, 3), noise(2, 3, seed=1)
    one, many = (run(name, lambda x_t, t: from_eps(x_t, t, eps), x, torch.linspace(-2, 3, n + 1).double())[-1].x for n in (1, 8))
    close(one, many, 1e-10)


# the data's distribution

MIXTURE = GaussianMixture(double(0.3, 0.7), double([-1.5], [1.0]), double(0.05, 0.1))
PLANE = GaussianMixture(double(0.25, 0.75), double([-2, 1], [1, -1]), double(0.2, 0.05))
FINE = torch.cat([grid(bounded(cosine, -10.0, 8.0), 100).double(), double(INF)])
N = 4000


def cdf(x: torch.Tensor, logsnr: float) -> torch.Tensor:
    """Of the diffused MIXTURE."""
    alpha, sigma = (math.sqrt(logistic(sign * logsnr)) for sign in (1, -1))
    parts = zip(MIXTURE.weight, MIXTURE.mean, MIXTURE.var, strict=True)
    return sum(weight * Normal(alpha * mean, (alpha**2 * var + sigma**2).sqrt()).cdf(x) for weight, mean, var in parts)


@every_deterministic
def test_a_flow_on_the_line_keeps_quantiles_in_place_up_to_the_order_of_its_step(name):
    """Points cannot overtake each other: the share of the data below a point is that of the noise below its start. No Gaussian, no linear flow."""
    x = torch.linspace(-2, 2, 9, dtype=torch.float64).unsqueeze(1)

    def error(steps):
        end = run(name, MIXTURE.denoise, x, torch.linspace(-6, 4, steps + 1, dtype=torch.float64))[-1].x
        return (cdf(end, 4) - cdf(x, -6)).abs().mean().item()

    assert error(320) < 1e-3
    assert math.log2(error(160) / error(320)) == pytest.approx(ORDER[name], abs=0.1)


@every_sampler
def test_samples_of_a_mixture_on_the_line_are_close_to_it_in_wasserstein_distance(name):
    """Its standard deviation is 1.18: a true sample of this size is 0.02 away."""
    samples = run(name, MIXTURE.denoise, noise(N, 1), FINE)[-1].x.flatten().sort().values
    x, middles = torch.linspace(-5, 5, 100_001, dtype=torch.float64), (torch.arange(N, dtype=torch.float64) + 0.5) / N
    quantiles = x[torch.searchsorted(cdf(x, INF), middles)]
    assert (samples - quantiles).abs().mean() < 0.05


@pytest.fixture(scope="module", params=SAMPLERS)
def in_the_plane(request) -> torch.Tensor:
    return run(request.param, PLANE.denoise, noise(N, 2), FINE)[-1].x


def test_samples_of_a_mixture_in_the_plane_have_its_mean(in_the_plane):
    error = 5 * 1.35 / math.sqrt(N)  # five standard errors
    assert_close(in_the_plane.mean(0), PLANE.weight @ PLANE.mean, rtol=0, atol=error)


def test_samples_of_a_mixture_in_the_plane_have_its_covariance(in_the_plane):
    away = PLANE.mean - PLANE.weight @ PLANE.mean
    cov = (PLANE.weight * away.T) @ away + PLANE.weight @ PLANE.var * torch.eye(2, dtype=torch.float64)
    assert_close(in_the_plane.T.cov(), cov, rtol=0.1, atol=0)


def test_samples_of_a_mixture_in_the_plane_fall_to_its_components_by_their_weights(in_the_plane):
    share = (in_the_plane[:, 0] < -0.5).double().mean().item()  # halfway between the two
    assert share == pytest.approx(0.25, abs=5 * math.sqrt(0.25 * 0.75 / N))  # five standard errors


# feeding the guess back


FACES = GaussianMixture(double(0.3, 0.7), double([-2.0, 0.0], [1.0, 1.0]), double(0.1, 0.2))


def test_a_decoder_that_feeds_its_guess_back_draws_one_image_whatever_the_noise():
    """From pure noise the best guess is the mean of the data (TTIC 31230, quiz 3, problem 2 a), and what follows is a function of it."""
    steps = list(feed_back(FACES.denoise, noise(50, 2), double(-INF, -2.0, 0.0, 2.0, INF)))
    close(steps[0].x, double(0.1, 0.7).expand(50, 2))
    close(steps[-1].x, steps[-1].x[:1].expand(50, 2))


def test_ddim_from_the_same_noise_does_not_collapse():
    *_, step = ddim(FACES.denoise, noise(500, 2), grid(bounded(cosine, -9.0, 9.0), 50).double(), generator=seeded())
    assert (step.x0.std(0) / FACES.sample(5000, seeded()).std(0)).min() > 0.8
