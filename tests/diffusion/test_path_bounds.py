"""Along every path, the optimal denoiser has the entropy as its bound and samples the data."""

import math
from functools import partial

import pytest
import torch
from markov_cases import TEXT, V, log_joint, sentences, uniforms
from path_cases import (
    ALONE,
    COVARIANCE,
    MOVING,
    D,
    bound,
    chain_rule,
    conditional,
    entropies,
    every_path,
    mean_bound,
    optimal,
    ordered,
    responses,
)
from sampler_cases import ORDER, every_sampler, run
from tensors import close, double, draws, seeded
from torch.distributions import MultivariateNormal

from textdiff.diffusion.gaussian import Prediction, diffuse
from textdiff.diffusion.likelihood import prior_and_diffusion_loss, prior_kl
from textdiff.diffusion.samplers import SAMPLERS
from textdiff.diffusion.schedules import bounded, cosine

OPTIMAL = optimal(COVARIANCE)
NATS = MultivariateNormal(torch.zeros(D, dtype=torch.float64), COVARIANCE).entropy()
SIZE = 4
text_paths = pytest.mark.parametrize(
    ("shuffled", "window"),
    [(False, 1), (False, 2), (True, 1)],
    ids=["left to right", "two at a time", "random orders"],
)


# the bound of a correlated Gaussian


@every_path
def test_bound_of_optimal_denoiser_equals_the_entropy(order, window):
    close(bound(OPTIMAL, order, window).sum(), NATS, 1e-3)


@every_path
def test_few_steps_have_a_larger_bound(order, window):
    few, many = (mean_bound(OPTIMAL, order, window, None, steps).sum() for steps in (100, 1000))
    assert few > many > NATS + 0.01


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (2, 0, 3, 1), (3, 2, 1, 0)])
def test_one_coordinate_at_a_time_is_chain_rule(order):
    """Each coordinate has its entropy given the earlier ones."""
    close(bound(OPTIMAL, order, 1), chain_rule(order), 1e-3)
    close(chain_rule(order).sum(), NATS, 1e-10)


@every_path
def test_bound_of_others_is_conditional_on_given(order, window):
    """Given coordinates, which are clean from the start, add nothing."""
    moving = bound(OPTIMAL, order, window, MOVING)[MOVING]
    _, covariance = conditional(~MOVING, MOVING)
    expected = MultivariateNormal(torch.zeros(2, dtype=torch.float64), covariance).entropy()
    close(moving.sum(), expected, 1e-3)


@every_path
def test_denoiser_of_another_law_has_its_cross_entropy(order, window):
    """It is optimal for N(0, S'), so that no path changes its bound either."""
    wrong = COVARIANCE + 0.5 * torch.eye(D, dtype=torch.float64)
    logdet = (2 * math.pi * wrong).logdet()
    expected = 0.5 * (logdet + torch.linalg.solve(wrong, COVARIANCE).trace())
    close(bound(optimal(wrong), order, window).sum(), expected, 1e-3)


@every_path
def test_bound_without_context_is_the_marginals_entropy(order, window):
    close(bound(optimal(ALONE), order, window), entropies(COVARIANCE.diag()), 1e-3)


@every_path
def test_bound_of_suboptimal_denoiser_depends_on_path(order, window):
    """This one uses the other coordinates only if all have the same log SNR."""

    def denoise(x_t, logsnr):
        same = (logsnr == logsnr[:, :1]).all(1, keepdim=True)
        pairs = zip(OPTIMAL(x_t, logsnr), optimal(ALONE)(x_t, logsnr), strict=True)
        return Prediction(*(torch.where(same, joint, alone) for joint, alone in pairs))

    marginals = entropies(COVARIANCE.diag()).sum()
    assert marginals > NATS + 1
    expected = NATS if window is None else marginals
    close(bound(denoise, order, window).sum(), expected, 2e-3)


# the bound of text


@text_paths
def test_bound_of_text_is_its_entropy(shuffled, window):
    """Every word has its own log SNR, in its own order."""
    n, clean = 4000, 6.0
    mask = torch.ones(n, SIZE, dtype=torch.bool)
    words = TEXT.sample(mask, uniforms(n, SIZE, seed=4))
    noise, x0 = partial(torch.randn_like, generator=seeded(6)), TEXT.embeddings[words]
    priority = uniforms(n, SIZE, seed=9) if shuffled else torch.arange(SIZE).double().expand(n, -1)
    path = ordered(lambda t: clean - 14 * t, priority, window)
    nats = prior_and_diffusion_loss(
        partial(TEXT.denoise, mask=mask), x0, path, uniforms(n, 64, seed=8), noise, 100_000
    ).sum((1, 2))
    end = double(clean).expand(n)
    posterior = TEXT.log_posterior(diffuse(x0, noise(x0), end), end, mask)
    nats = nats - posterior.gather(2, words.unsqueeze(2)).sum((1, 2))
    exact = TEXT.nats(words, mask)
    assert (exact.mean() - TEXT.entropy(SIZE)).abs() < 4 * exact.std() / math.sqrt(n)
    gap = nats - exact
    error = gap.std() / math.sqrt(n)
    assert gap.mean().abs() < 4 * error
    assert error < 0.05


@text_paths
def test_loss_of_bayes_rule_is_the_fall_of_nats(shuffled, window):
    """Of one sentence: that of -log p(words | x) from the noisy to the clean end."""
    n, noisy, clean = 4000, -4.0, 2.0
    mask, words = torch.ones(n, SIZE, dtype=torch.bool), torch.tensor([2, 1, 3, 1]).expand(n, -1)
    noise, x0 = partial(torch.randn_like, generator=seeded(6)), TEXT.embeddings[words]
    priority = uniforms(n, SIZE, seed=9) if shuffled else torch.arange(SIZE).double().expand(n, -1)
    path = ordered(lambda t: clean + (noisy - clean) * t, priority, window)
    denoise, offsets = partial(TEXT.denoise, mask=mask), uniforms(n, 32, seed=8)
    nats = prior_and_diffusion_loss(denoise, x0, path, offsets, noise, 100_000)
    nats = (nats - prior_kl(x0, path(torch.ones(n).double()))).sum((1, 2))
    for end, sign in ((noisy, -1), (clean, 1)):
        level = double(end).expand(n)
        own = TEXT.log_likelihood(diffuse(x0, noise(x0), level), level)
        nats += sign * TEXT.chain.nats(own, words, mask)
    error = nats.std() / math.sqrt(n)
    assert nats.mean().abs() < 4 * error
    assert error < 0.05


# samples


def converged(name: str, order: tuple, window: int | None, moving: torch.Tensor) -> torch.Tensor:
    """Start's response and covariance of the noise for many steps, by the sampler's order."""
    results = []
    for steps in (150, 300):
        found = responses(name, order, window, steps, moving)
        free = torch.cat([found[:D][moving], found[D:]])
        assert found[:D, ~moving].equal(torch.eye(D, dtype=torch.float64)[:, ~moving])
        assert not found[D:, ~moving].any()
        results.append(torch.cat([found[:D][~moving], free.T @ free])[:, moving])
    coarse, fine = results
    return fine + (fine - coarse) / (2 ** ORDER.get(name, 1) - 1)


@every_sampler
@every_path
def test_samples_have_the_covariance_of_the_data(name, order, window):
    """Of every coordinate, from exact responses to all random numbers."""
    covariance = converged(name, order, window, torch.ones(D, dtype=torch.bool))
    close(covariance, COVARIANCE, 0.03)


@every_sampler
@pytest.mark.parametrize(("order", "window"), [((0, 1, 2, 3), None), ((2, 0, 3, 1), 1)])
def test_samples_around_given_coordinates_are_conditional(name, order, window):
    """Mean and covariance; the given coordinates stay as they are."""
    found = converged(name, order, window, MOVING)
    weight, covariance = conditional(~MOVING, MOVING)
    close(found[: len(weight)], weight, 0.01)
    close(found[len(weight) :][MOVING], covariance, 0.01)


def pair_counts(words: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Weighted counts of neighbouring words at each position."""
    pairs = torch.nn.functional.one_hot(words[:, :-1] * V + words[:, 1:], V * V)
    return (weight.view(-1, 1, 1) * pairs).sum(0)


def sampled_words(name: str, shuffled: bool, window: int | None) -> torch.Tensor:
    n = 1000
    mask = torch.ones(n, SIZE, dtype=torch.bool)
    priority = uniforms(n, SIZE, seed=2) if shuffled else torch.arange(SIZE).double().expand(n, -1)
    grid = ordered(bounded(cosine, -9.0, 7.0), priority, window).grid(100)
    x = run(name, partial(TEXT.denoise, mask=mask), draws(n, SIZE, 3, seed=4), grid)[-1].x0
    return torch.cdist(x, TEXT.embeddings).argmin(-1)


@pytest.mark.parametrize(
    ("name", "shuffled", "window"),
    [("ddpm", False, 1), ("ddpm", False, 2), *((name, True, 1) for name in SAMPLERS)],
)
def test_sampled_text_has_the_chains_pairs(name, shuffled, window):
    """Within five standard deviations, at every position."""
    words = sampled_words(name, shuffled, window)
    law = log_joint(sentences(SIZE)).softmax(0)
    expected = pair_counts(sentences(SIZE), law * len(words))
    seen = pair_counts(words, torch.ones(len(words)).double())
    assert ((seen - expected).abs() < 5 * (expected + 1).sqrt()).all()
