"""Bounds along orders of the words: their means, their errors, and their parts by position."""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from textdiff.config import UserError
from textdiff.diffusion.gaussian import from_x0
from textdiff.diffusion.likelihood import prior_and_diffusion_loss
from textdiff.diffusion.paths import even_in_logsnr
from textdiff.evaluation.config import EvaluationConfig
from textdiff.evaluation.scores import by_position, scores_of
from textdiff.prng import fold_in, likelihood_noise, stratified_offsets
from textdiff.text.lengths import length_nats
from textdiff.text.likelihood import negative_elbo, word_nats
from textdiff.text.transformer import NoisyText

every_order = pytest.mark.parametrize(
    ("order", "window"),
    [("parallel", 1), ("left-to-right", 1), ("random", 1), ("right-to-left", 3), ("random", 3)],
)


@pytest.fixture
def exact(new_model):
    """A Markov text: the prior without the network."""
    model = new_model().eval()
    model.prior_weight.fill_(1.0)
    model.head.weight.data.zero_()
    model.head.bias.data.zero_()
    return model


@pytest.fixture
def inexact(new_model):
    """A network that disagrees with Bayes' rule."""
    model = new_model(self_cond_prob=0.0).eval()
    model.prior_weight.fill_(0.7)
    return model


def many(batch, times: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The sentences many times, with other keys."""
    ids, mask = (batch[name].repeat(times, 1) for name in ("ids", "mask"))
    return ids, mask, fold_in(torch.arange(len(ids)), 7)


def markov_nats(model, ids, mask):
    """-log p(words | length) of the Markov text."""
    nothing = torch.zeros(*ids.shape, model.config.vocab_size)
    return model.markov.chain().nats(nothing, ids, mask)


@every_order
def test_bound_of_markov_text_is_its_likelihood(exact, batch, order, window):
    """Of every sentence, along every path, with two draws."""
    ids, mask, key = many(batch, 40)
    nats = negative_elbo(exact, ids, mask, key, draws=2, order=order, window=window)
    gap = (nats - length_nats(exact, ids, mask) - markov_nats(exact, ids, mask)).view(40, 8)
    assert_close(gap.mean(0), torch.zeros(8), atol=0.15, rtol=0)
    assert gap.std(0).max() < 0.5


def test_unknown_orders_are_refused(exact, batch):
    with pytest.raises(UserError, match="order must be one of parallel, left-to-right"):
        word_nats(exact, *many(batch, 1), order="auto")


def test_word_by_word_is_the_chain_rule(exact, batch):
    """The sum over the first words is the likelihood of the beginning, given the length."""
    ids, mask, key = many(batch, 40)
    words = word_nats(exact, ids, mask, key, order="left-to-right").view(40, 8, -1).mean(0)
    ids, mask = ids[:8], mask[:8]
    nothing = torch.zeros(*ids.shape, exact.config.vocab_size)
    before = markov_nats(exact, ids, mask)
    for known in range(1, ids.shape[1] + 1):
        certain = nothing.scatter(2, ids.unsqueeze(2), 60.0)
        certain[:, known:] = 0
        after = exact.markov.chain().nats(certain, ids, mask)
        assert_close(words[:, known - 1], before - after, atol=0.1, rtol=0)
        before = after


def test_control_variate_keeps_the_mean(inexact, batch):
    """The usual estimate, evenly spaced in log SNR, has the same mean and a larger error."""
    ids, mask, key = many(batch, 30)
    x0, path = inexact.words.embeddings[ids].detach(), even_in_logsnr(inexact.schedule())

    def denoise(x_t, logsnr):
        return from_x0(x_t, inexact.predict(NoisyText(x_t, logsnr, mask))[0].x0, logsnr)

    with torch.no_grad():
        offsets, noise = stratified_offsets(key, 32), likelihood_noise(key)
        usual = prior_and_diffusion_loss(denoise, x0, path, offsets, noise, 100_000)
        usual = usual.sum(2).where(mask, 0).sum(1)
    nats = word_nats(inexact, ids, mask, key, draws=8).sum(1)
    assert (nats - markov_nats(inexact, ids, mask)).mean() > 0.2
    gap = nats - usual
    assert gap.mean().abs() < 4 * gap.std() / math.sqrt(len(gap))
    by_sentence = (each.view(30, 8).std(0).mean() for each in (nats, usual))
    assert 2 * next(by_sentence) < next(by_sentence)


@every_order
def test_reported_error_is_that_of_draws(inexact, batch, order, window):
    """Over many keys; in random order, the order is drawn as well."""
    times = 15
    ids, mask, _ = many(batch, times)
    sentences = [tuple(row[kept].tolist()) for row, kept in zip(ids, mask, strict=True)]
    options = EvaluationConfig(order=order, window=None if order == "parallel" else window, ode=0)
    scores = scores_of("model", inexact, sentences, options)
    spread = scores.nats.reshape(times, 8).std(0, ddof=1)
    actual = math.sqrt(times * np.square(spread).sum())
    assert scores.error == pytest.approx(actual, rel=0.25)
    assert scores.nats == pytest.approx(
        np.nansum(scores.words, 1) + length_nats(inexact, ids, mask).numpy(), abs=1e-3
    )


def test_default_bound_moves_all_words_together(inexact, batch):
    ids, mask, _ = many(batch, 1)
    sentences = [tuple(row[kept].tolist()) for row, kept in zip(ids, mask, strict=True)]
    usual, parallel = (
        scores_of("model", inexact, sentences, EvaluationConfig(order=order, ode=0)).nats
        for order in ("auto", "parallel")
    )
    assert usual.tolist() == parallel.tolist()


def test_words_are_averaged_by_position():
    words = np.array([[1.0, 2.0, np.nan], [3.0, np.nan, np.nan], [5.0, 6.0, 7.0]])
    found = by_position(words)
    assert found["nats"] == [3, 4]
    assert found["sentences"] == [3, 2]
    assert found["error"] == pytest.approx([2 / math.sqrt(3), math.sqrt(8) / math.sqrt(2)])
