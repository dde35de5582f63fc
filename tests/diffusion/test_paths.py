"""Noise paths, and steps in which every coordinate has its own log SNR."""

import math

import pytest
import torch
from markov_cases import uniforms
from path_cases import every_path, ordered, smooth, straight
from sampler_cases import INF, TO_DATA, every_sampler, network, run
from tensors import close, double, draws, linspace
from torch.distributions import Normal, kl_divergence

from textdiff.diffusion.gaussian import Prediction, diffuse, from_x0, posterior
from textdiff.diffusion.likelihood import prior_kl, step_kl
from textdiff.diffusion.paths import NoisePath, even_in_logsnr, places, stagger_of
from textdiff.diffusion.samplers import SAMPLERS
from textdiff.diffusion.schedules import bounded, cosine, endpoints, grid

COSINE = bounded(cosine, -12.0, 8.0)
every_case = pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in SAMPLERS),
        ("ddpm", {"large_variance": True}),
        ("ddim", {"eta": 0.5}),
    ],
    ids=[*SAMPLERS, "ddpm with large variance", "ddim with noise"],
)
# one column per coordinate
UNEVEN = double(
    [-8.0, -1.0, INF, -8.0, -8.0],
    [-4.0, -1.0, INF, -4.0, -8.0],
    [-1.0, -1.0, INF, -4.0, -8.0],
    [0.5, -1.0, INF, 0.5, 0.5],
    [3.0, -1.0, INF, INF, 3.0],
    [7.0, -1.0, INF, INF, 3.0],
    [INF, -1.0, INF, INF, 7.0],
).unsqueeze(1)  # of each of the two samples
STILL = (UNEVEN[1:] == UNEVEN[:-1]).expand(-1, 2, -1)
NEVER = STILL.all(0)


def random_path(stagger: float = 5.0) -> NoisePath:
    """Different starts and places."""
    start, place = draws(6, 8, seed=1).sigmoid(), draws(6, 8, seed=2).sigmoid()
    start[:, ::3], place[:, 0], place[:, 1] = 0, 0, 1
    return NoisePath(COSINE, start, place, double(stagger).expand(6))


# samplers


@every_case
@pytest.mark.parametrize("logsnrs", [TO_DATA, TO_DATA[:-1]], ids=["data", "finite"])
@pytest.mark.parametrize("shape", [(2,), (2, 3), (2, 3, 4)], ids=["sample", "word", "element"])
def test_equal_log_snrs_sample_as_one(name, options, logsnrs, shape):
    x = draws(2, 3, 4)
    levels = logsnrs.view(-1, *[1] * len(shape)).expand(-1, *shape)
    steps, expected = (run(name, smooth, x, each, **options) for each in (levels, logsnrs))
    for step, each in zip(steps, expected, strict=True):
        assert step.x.equal(each.x)
        assert step.x0.equal(each.x0)
        assert step.logsnr.equal(each.logsnr.expand(shape))


@every_case
def test_still_coordinates_are_copied_and_others_not(name, options):
    x = draws(2, 5)
    steps = run(name, smooth, x, UNEVEN.expand(-1, 2, -1), **options)
    for step, still, logsnr in zip(steps, STILL, UNEVEN[1:], strict=True):
        assert step.logsnr.equal(logsnr.expand(2, -1))
        assert step.x[still].equal(x[still])
        assert (step.x != x)[~still].all()
        x = step.x


@every_case
@pytest.mark.parametrize("value", [math.nan, INF])
def test_output_at_given_coordinates_is_not_used(name, options, value):
    """It is often not finite, as the noise of a clean coordinate is 0 / 0."""

    def blind(x_t, logsnr):
        outputs = smooth(x_t, logsnr)
        return Prediction(*(each.where(~NEVER & logsnr.isfinite(), value) for each in outputs))

    x, levels = draws(2, 5), UNEVEN.expand(-1, 2, -1)
    actual, expected = (run(name, each, x, levels, **options)[-1].x for each in (blind, smooth))
    assert actual.equal(expected)
    assert actual[NEVER].equal(x[NEVER])


@every_case
@pytest.mark.parametrize("column", [0, 4])
def test_coordinates_of_elementwise_network_sample_alone(name, options, column):
    """Those that do not pause between two moves."""
    x, levels = draws(2, 5), UNEVEN.expand(-1, 2, -1)
    options = options | {"generator": torch.ones_like}
    *_, together = SAMPLERS[name](smooth, x, levels, **options)
    alone = [*SAMPLERS[name](smooth, x[:, [column]], UNEVEN[:, 0, column], **options)][-1]
    close(together.x[:, [column]], alone.x)


@every_sampler
def test_one_falling_coordinate_is_refused(name):
    levels = linspace(-3, 3, 3).view(-1, 1, 1).repeat(1, 2, 4)
    levels[2, 1, 3] = -1
    with pytest.raises(ValueError, match="must rise"):
        run(name, network, draws(2, 4), levels)


# terms of one step


@pytest.mark.parametrize("logsnr", [-INF, -7.0, 0.0, 12.0, INF])
def test_posterior_of_no_step_is_its_start(logsnr):
    """Beside coordinates that move."""
    x0, x_t = draws(2, 3), draws(2, 3, seed=1)
    t = torch.tensor([[logsnr, -1.0, logsnr], [0.5, logsnr, logsnr]], dtype=torch.float64)
    s, still = torch.where(t == logsnr, t, 2.0), t == logsnr
    mean, var = posterior(x0, x_t, s, t)
    assert mean[still].equal(x_t[still])
    assert not var[still].any()
    moved = posterior(x0[~still], x_t[~still], s[~still], t[~still])
    close(mean[~still], moved.mean)
    assert var[~still].equal(moved.var)
    assert moved.var.all()


def test_terms_are_kls_at_each_coordinate():
    x0, eps, error = draws(2, 3), draws(2, 3, seed=1), 0.3 * draws(2, 3, seed=2)
    t = linspace(-5, 3, 6).view(2, 3)
    s = t + linspace(0.1, 2, 6).view(2, 3)
    x_t, (alpha, sigma) = diffuse(x0, eps, t), (t.sigmoid().sqrt(), (-t).sigmoid().sqrt())
    prior = Normal(torch.zeros_like(x0), torch.ones_like(x0))
    close(prior_kl(x0, t), kl_divergence(Normal(alpha * x0, sigma), prior))
    true, model = (posterior(data, x_t, s, t) for data in (x0, x0 + error))
    expected = kl_divergence(*(Normal(mean, var.sqrt()) for mean, var in (true, model)))
    close(step_kl(lambda x, t: from_x0(x, x0 + error, t), x0, eps, s, t), expected, 1e-10)


# paths


@pytest.mark.parametrize("steps", [1, 7, 100])
def test_path_without_stagger_is_the_grid(steps):
    path = NoisePath(COSINE, torch.ones(2, 3), draws(2, 3).sigmoid(), torch.zeros(2))
    assert path.grid(steps).equal(grid(COSINE, steps).view(-1, 1, 1).expand(-1, 2, 3))


@every_path
def test_grid_has_the_log_snrs_of_times(order, window):
    path = ordered(COSINE, double(order, order), window)
    levels = path.grid(10)
    assert levels.dtype == torch.float32
    expected = [COSINE(path.times(double(tau, tau))) for tau in linspace(1, 0, 11).tolist()]
    close(levels, torch.stack(expected).float(), 1e-6)
    close(levels[[0, -1]].double(), double(*endpoints(COSINE)).view(2, 1, 1).expand(2, 2, 4), 1e-6)


@pytest.mark.parametrize("power", [0.5, 1.5, 3.0])
def test_grid_of_a_power_has_its_moments(power):
    """tau = 1 - (k / steps)^power, by the definition."""
    path = random_path()
    levels = path.grid(4, power)
    for k in range(5):
        tau = torch.full((6,), 1 - (k / 4) ** power, dtype=torch.float64)
        close(levels[k], path(tau).float(), 1e-6)


@pytest.mark.parametrize("stagger", [0.0, 0.1, 3.0, 50.0])
def test_times_run_from_start_to_clean(stagger):
    path = random_path(stagger)
    close(path.times(torch.ones(6).double()), path.start)
    assert not path.times(torch.zeros(6).double()).any()


def test_times_fall_and_stay_within_bounds():
    path = random_path()
    times = torch.stack([path.times(tau.expand(6)) for tau in linspace(1, 0, 200)])
    assert (times[1:] <= times[:-1]).all()
    assert ((times >= 0) & (times <= path.start + 1e-12)).all()


def test_time_is_linear_in_own_window():
    """From the definition, where the clip has no effect."""
    path = NoisePath(COSINE, double([0.5, 1.0]), double([0.25, 0.75]), double(2.0))
    close(path.times(double(0.6)), double([0.5 * 0.3, 1.0]))
    close(path.times(double(0.3)), double([0.0, 0.4]))


def test_given_coordinates_never_move():
    path = random_path()
    levels = path.grid(50)[:, path.start == 0]
    assert levels.equal(COSINE(double(0.0)).float().expand_as(levels))


@pytest.mark.parametrize("window", [1, 2, 9, double(0.5, 1.0, 3.5)], ids=str)
def test_window_is_the_number_of_moving_coordinates(window):
    """Except at the ends, where there are fewer."""
    moving, priority = uniforms(3, 30) < 0.6, uniforms(3, 30, seed=1)
    path = NoisePath(
        COSINE, moving.double(), places(priority, moving), stagger_of(window, moving).double()
    )
    times = torch.stack([path.times(tau.expand(3)) for tau in linspace(1, 0, 1999)])
    count = ((times > 1e-5) & (times < 1 - 1e-5)).sum(2).amax(0)
    assert count.equal(torch.as_tensor(window).expand(3).ceil().long())


def test_neighbours_are_one_window_share_apart():
    """With a window of 2 a coordinate starts when the one before it is halfway."""
    moving = torch.ones(1, 5, dtype=torch.bool)
    path = NoisePath(COSINE, moving.double(), linspace(0, 1, 5).view(1, 5), stagger_of(2, moving))
    close(path.times(double(0.6)), double([0.0, 0.3, 0.8, 1.0, 1.0]))


def test_earlier_places_are_never_noisier():
    path = ordered(straight, uniforms(5, 9), 2)
    by_place = path.place.argsort(1)
    for tau in linspace(1, 0, 100):
        levels = path(tau.expand(5)).gather(1, by_place)
        assert (levels[:, 1:] <= levels[:, :-1]).all()


def test_places_are_even_in_order_of_priority():
    priority = double([0.5, -2.0, 9.0, 0.1], [2.0, 0.0, 3.0, 1.0])
    moving = torch.tensor([[True, True, True, False], [True, True, True, True]])
    found = places(priority, moving)
    close(found[0, :3].double(), double(0.5, 0.0, 1.0))
    close(found[1].double(), double(2 / 3, 0.0, 1.0, 1 / 3), 1e-7)


@pytest.mark.parametrize("count", [0, 1])
def test_few_moving_coordinates_have_no_stagger(count):
    moving = torch.arange(3).expand(2, 3) < count
    found = places(double([5.0, 1.0, 2.0], [0.0, 1.0, 2.0]), moving)
    assert not found[moving].any()
    assert ((found >= 0) & (found <= 1)).all()
    assert not stagger_of(1, moving).any()


def test_even_path_is_straight_between_endpoints():
    tau = linspace(1, 0, 9)
    noisy, clean = endpoints(COSINE)
    close(even_in_logsnr(COSINE)(tau), linspace(noisy, clean, 9))
