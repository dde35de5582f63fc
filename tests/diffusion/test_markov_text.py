"""Text of a Markov chain: likelihood, bound and samples against closed forms and enumeration."""

import math
from functools import partial

import pytest
import torch
from markov_cases import (
    END,
    LEVELS,
    MASK,
    START,
    TABLE,
    TEXT,
    V,
    log_joint,
    marginals,
    sentences,
    uniforms,
)
from sampler_cases import FINE, every_sampler, run
from tensors import close, double, draws, seeded

from textdiff.diffusion.gaussian import diffuse, from_x0
from textdiff.diffusion.likelihood import prior_and_diffusion_loss
from textdiff.diffusion.paths import even_in_logsnr
from textdiff.diffusion.schedules import bounded, cosine

WORDS = TEXT.sample(MASK, uniforms(*MASK.shape))
X = diffuse(TEXT.embeddings[WORDS], draws(*MASK.shape, 3, seed=2), LEVELS)


def text_sample(n: int, longest: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Sentences whose lengths have the chain's law, none longer than `longest`."""
    law = TEXT.length_probabilities(longest)
    sizes = torch.multinomial(law, n, replacement=True, generator=seeded(seed))
    mask = torch.arange(longest) < sizes.unsqueeze(1)
    return TEXT.sample(mask, uniforms(n, longest, seed=seed)), mask


def test_likelihood_is_that_of_noisy_embeddings():
    """Differences of log N(x; alpha e, sigma^2 I), from the density."""
    alpha, sigma = LEVELS.sigmoid().sqrt()[..., None], (-LEVELS).sigmoid().sqrt()[..., None, None]
    centers = alpha.unsqueeze(-1) * TEXT.embeddings
    density = torch.distributions.Normal(centers, sigma).log_prob(X.unsqueeze(2)).sum(-1)
    close(TEXT.log_likelihood(X, LEVELS).log_softmax(-1), density.log_softmax(-1), 1e-12)


@pytest.mark.parametrize("row", range(len(MASK)))
def test_denoiser_is_the_enumerated_mean(row):
    """Every word has its own log SNR."""
    size = int(MASK[row].sum())
    posterior = marginals(TEXT.log_likelihood(X, LEVELS)[row, :size])
    close(TEXT.denoise(X, LEVELS, MASK).x0[row, :size], posterior @ TEXT.embeddings, 1e-12)


def test_given_words_make_the_exact_conditional():
    """Words 0 and 3 at the clean end; words 1 and 2 without any signal."""
    given, mask = torch.tensor([[1, 0, 0, 2]]), torch.ones(1, 4, dtype=torch.bool)
    levels = double([30.0, -30.0, -30.0, 30.0])
    x = diffuse(TEXT.embeddings[given], draws(1, 4, 3), levels)
    words = sentences(4)
    words = words[(words[:, 0] == 1) & (words[:, 3] == 2)]
    probability = log_joint(words).softmax(0)
    expected = probability @ torch.nn.functional.one_hot(words, V).double().flatten(1)
    found = TEXT.log_posterior(x, levels, mask).exp()
    close(found, expected.view(1, 4, V), 1e-6)


def test_entropy_is_that_of_all_sentences():
    for length in (1, 2, 5):
        log_p = log_joint(sentences(length)).log_softmax(0)
        entropy = -torch.xlogy(log_p.exp(), log_p.exp()).sum()
        close(TEXT.entropy(length), entropy, 1e-12)


def test_nats_are_normalized_over_sentences():
    words = sentences(4)
    nats = TEXT.nats(words, torch.ones_like(words, dtype=torch.bool))
    close(nats, -log_joint(words).log_softmax(0), 1e-12)


def test_lengths_are_those_of_sentences():
    expected = [0.0, *(log_joint(sentences(n)).exp().sum().item() for n in range(1, 6))]
    close(TEXT.length_probabilities(5), double(*expected), 1e-12)


def bound_of(words: torch.Tensor, exponent: float = 1.0) -> torch.Tensor:
    """Bound of each sentence, in nats, with the posterior of its words to the power `exponent`."""
    n, mask = len(words), torch.ones_like(words, dtype=torch.bool)
    noise = partial(torch.randn_like, generator=seeded(6))
    x0, path = TEXT.embeddings[words], even_in_logsnr(bounded(cosine, -12.0, 7.0))

    def denoise(x_t, logsnr):
        posterior = exponent * TEXT.log_posterior(x_t, logsnr, mask)
        return from_x0(x_t, posterior.softmax(-1) @ TEXT.embeddings, logsnr)

    draws_of_t, clean = uniforms(n, 64, seed=8), double(7.0).expand(n)
    nats = prior_and_diffusion_loss(denoise, x0, path, draws_of_t, noise, 100_000).sum((1, 2))
    posterior = TEXT.log_posterior(diffuse(x0, noise(x0), clean), clean, mask)
    return nats - posterior.gather(2, words.unsqueeze(2)).sum((1, 2))


def error(values: torch.Tensor) -> torch.Tensor:
    """Standard error of the mean."""
    return values.std() / math.sqrt(len(values))


def test_bound_of_optimal_denoiser_equals_the_entropy():
    """The largest of the statements: no loss in the noise, the grid of the bound, the rounding."""
    mask = torch.ones(1000, 4, dtype=torch.bool)
    words = TEXT.sample(mask, uniforms(*mask.shape, seed=4))
    exact = TEXT.nats(words, mask)
    assert (exact.mean() - TEXT.entropy(4)).abs() < 4 * error(exact)
    gap = bound_of(words) - exact  # has mean 0, and a smaller variance than either
    assert gap.mean().abs() < 4 * error(gap)
    assert error(gap) < 0.05


@pytest.mark.parametrize("exponent", [0.8, 1.25])
def test_other_denoisers_have_larger_bounds(exponent):
    """With the same noise for both."""
    mask = torch.ones(1000, 4, dtype=torch.bool)
    words = TEXT.sample(mask, uniforms(*mask.shape, seed=4))
    gap = bound_of(words, exponent) - bound_of(words)
    assert gap.mean() > 4 * error(gap)


@pytest.mark.parametrize("logsnr", [-2.0, 0.0, 1.5])
def test_loss_falls_by_the_squared_error_of_the_bound(logsnr):
    """d E[nats] / d logsnr = -SNR E[squared error] / 2 (Guo, Shamai & Verdu, 2005)."""
    n, size, step = 20_000, 4, 0.05
    mask = torch.ones(n, size, dtype=torch.bool)
    words, eps = TEXT.sample(mask, uniforms(n, size, seed=4)), draws(n, size, 3, seed=5)
    x0 = TEXT.embeddings[words]

    def nats(value):
        levels = double(value).expand(n)
        own = TEXT.log_likelihood(diffuse(x0, eps, levels), levels)
        return TEXT.chain.nats(own, words, mask)

    slope = (nats(logsnr + step) - nats(logsnr - step)) / (2 * step)
    levels = double(logsnr).expand(n)
    error = (TEXT.denoise(diffuse(x0, eps, levels), levels, mask).x0 - x0).square().sum((1, 2))
    gap = slope + math.exp(logsnr) * error / 2
    assert gap.mean().abs() < 4 * gap.std() / math.sqrt(n)
    assert gap.std() / math.sqrt(n) < 0.02 * slope.mean().abs()


@every_sampler
def test_samplers_draw_sentences_of_the_chain(name):
    """The mask gives the lengths, which have the chain's law."""
    n, longest = 3000, 12
    _, mask = text_sample(n, longest, seed=3)
    x = draws(n, longest, 3, seed=4)
    last = run(name, partial(TEXT.denoise, mask=mask), x, FINE)[-1].x
    words = torch.cdist(last, TEXT.embeddings).argmin(-1)
    check_pairs(words, mask)
    check_sentences(words, mask)


def check_sentences(words: torch.Tensor, mask: torch.Tensor, size: int = 3) -> None:
    """Chi-square test of the sentences of this size: within five deviations of its mean.

    Sentences with fewer than five expected are counted together.
    """
    codes = words[mask.sum(1) == size, :size] @ (V ** torch.arange(size))
    law = torch.zeros(V**size).double()
    law[sentences(size) @ (V ** torch.arange(size))] = log_joint(sentences(size)).softmax(0)
    seen, expected = torch.bincount(codes, minlength=V**size).double(), len(codes) * law
    rare = expected < 5
    seen = torch.cat([seen[~rare], seen[rare].sum(0, True)])
    expected = torch.cat([expected[~rare], expected[rare].sum(0, True)])
    statistic, degrees = ((seen - expected) ** 2 / expected).sum().item(), len(seen) - 1
    assert degrees > 10
    assert statistic - degrees < 5 * math.sqrt(2 * degrees), (seen, expected)


def check_pairs(words: torch.Tensor, mask: torch.Tensor) -> None:
    """Counts of pairs (word, next word or end) are those of sentences of these lengths."""
    padded = torch.nn.functional.pad(words.where(mask, V), (0, 1), value=V)
    pairs = (padded[:, :-1] * (V + 1) + padded[:, 1:])[mask]
    seen = torch.bincount(pairs, minlength=V * (V + 1)).double().view(V, V + 1)
    expected = expected_pairs(mask.sum(1))
    noise = 5 * (expected + 1).sqrt()
    assert ((seen - expected).abs() < noise).all(), (seen - expected) / noise


def expected_pairs(sizes: torch.Tensor) -> torch.Tensor:
    """Expected counts of pairs in sentences of these lengths, by forward-backward."""
    total = torch.zeros(V, V + 1, dtype=torch.float64)
    for size, count in zip(*sizes.unique(return_counts=True), strict=True):
        before, after = [TEXT.chain.start], [TEXT.chain.end]
        for _ in range(int(size) - 1):
            before.append(before[-1] @ TABLE)
            after.append(TABLE @ after[-1])
        share = (before[-1] * TEXT.chain.end).sum()
        for first, second in zip(before[:-1], after[-2::-1], strict=True):
            total[:, :V] += count * first.unsqueeze(1) * TABLE * second / share
        total[:, V] += count * before[-1] * TEXT.chain.end / share
    return total


def test_one_step_of_jointly_drawn_words_is_exact():
    """From pure noise: words of the joint posterior are samples, words of the marginals are not."""
    _, mask = text_sample(4000, 12, seed=5)
    level = double(-12.0).expand(len(mask))
    own = TEXT.log_likelihood(draws(*mask.shape, 3), level)
    check_pairs(TEXT.chain.sample(own, mask, uniforms(*mask.shape, seed=9)), mask)
    alone = TEXT.log_posterior(draws(*mask.shape, 3), level, mask).exp()
    independent = torch.multinomial(alone.flatten(0, 1), 1, generator=seeded(1)).view_as(mask)
    with pytest.raises(AssertionError):
        check_pairs(independent, mask)


def test_sampled_text_has_the_chains_sentences():
    sample = text_sample(20_000, longest=30)
    check_pairs(*sample)
    check_sentences(*sample)


def test_simulated_sentences_have_the_law_of_lengths():
    """Word by word from the table, until the chain ends; a chi-square test."""
    n, longest, rng = 20_000, 30, seeded(7)
    rows = torch.cat([torch.cat([TABLE, END.unsqueeze(1)], 1), torch.eye(V + 1)[-1:].double()])
    word, sizes = torch.multinomial(START, n, replacement=True, generator=rng), torch.zeros(n)
    while (word < V).any():
        sizes += word < V
        word = torch.multinomial(rows[word], 1, generator=rng).squeeze(1)
    law = TEXT.length_probabilities(longest)[1:]
    seen = torch.bincount(sizes.long(), minlength=longest + 1)[1:longest].double()
    expected = n * law[: longest - 1]
    common = expected >= 5
    statistic = ((seen - expected) ** 2 / expected)[common].sum().item()
    degrees = int(common.sum())
    assert degrees > 10
    assert statistic - degrees < 5 * math.sqrt(2 * degrees)


def test_sentences_longer_than_the_law_are_rare():
    """The chain ends: lengths to 200 have all the probability."""
    close(TEXT.length_probabilities(200).sum(), 1.0, 1e-9)
