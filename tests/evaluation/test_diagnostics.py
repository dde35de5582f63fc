"""Diagnostics of a text model during training."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from textdiff.diffusion.gaussian import Prediction, diffuse, from_x0
from textdiff.prng import normal
from textdiff.text.dataset import collate
from textdiff.text.diagnostics import (
    losses_by_logsnr,
    sanity_warnings,
    token_recovery,
    unigram_entropy,
)

LOGSNRS = (-6.0, -3.0, 0.0)
TRAINING = [(1, 2, 3), (4, 5, 6), (7, 8, 9)]


def gain(model, batch, logsnrs=LOGSNRS) -> dict[float, float]:
    losses = losses_by_logsnr(model, batch["ids"], batch["mask"], logsnrs)
    return {logsnr: loss.context_gain for logsnr, loss in losses.items()}


def test_model_without_context_gains_nothing(contextless, corpus):
    rows = np.arange(len(corpus))  # enough words that chance decides nothing
    assert max(gain(contextless, collate(list(corpus), rows)).values()) <= 0


def test_best_guess_without_context_gains_exactly_nothing(contextless, batch):
    contextless.head.weight.data.zero_()
    assert_close(gain(contextless, batch), dict.fromkeys(LOGSNRS, 0.0), atol=1e-5, rtol=0)


def test_perfect_model_gains_all_nats(contextless, batch, monkeypatch):
    ids, mask = batch["ids"], batch["mask"]
    certain = 1e4 * F.one_hot(ids, contextless.config.vocab_size).float()

    def predict(text) -> tuple[Prediction, torch.Tensor]:
        return from_x0(text.x_t, text.x_t, text.logsnr), certain

    monkeypatch.setattr(contextless, "predict", predict)
    x0, logsnr = contextless.words.embeddings[ids].detach(), torch.full((len(ids),), -3.0)
    x_t = diffuse(x0, normal(torch.arange(len(x0)), x0.shape, stream=10), logsnr)
    logits = contextless.words.context_free_logits(x_t, logsnr)
    nats = F.cross_entropy(logits[mask], ids[mask]).item()
    loss = losses_by_logsnr(contextless, ids, mask, [-3.0])[-3.0]
    assert loss == pytest.approx((0, nats), abs=1e-4)


def test_padding_does_not_change_context_gain(model, batch):
    longer = {name: F.pad(batch[name], (0, 4)) for name in ("ids", "mask")}
    assert_close(gain(model, longer), gain(model, batch), atol=1e-4, rtol=0)


def test_token_recovery_rises_with_logsnr(contextless, batch):
    recovered = token_recovery(contextless, batch["ids"], batch["mask"], (-9.0, -2.0, 5.0))
    shares = list(recovered.values())
    assert shares[0] < 0.5 < shares[2]
    assert shares == sorted(shares)


def test_unigram_entropy_of_uniform_words():
    assert unigram_entropy([(1, 1, 2, 2), (3, 3, 4, 4)]) == pytest.approx(math.log(4), abs=1e-12)


@pytest.mark.parametrize(
    ("sentences", "part"),
    [
        ([(5, 6, 7)] * 3, "collapsed"),
        ([(5, 5, 5, 5), (5, 5, 5), (5, 5)], "collapsed"),
        ([(1, 2, 3), (4, 5, 6)], "copies"),
    ],
)
def test_bad_samples_give_warnings(sentences, part):
    assert any(part in warning for warning in sanity_warnings(sentences, TRAINING, unknown=0))


def test_good_samples_give_no_warnings():
    assert sanity_warnings([(1, 5, 9), (4, 2, 3), (7, 8, 6)], TRAINING, unknown=0) == []


def test_repeated_training_text_allows_repeated_samples():
    training = [(1,), (2,), (3,), (4,)] * 5
    assert "collapsed" not in str(
        sanity_warnings([(1,), (4,), (2,), (1,), (3,)], training, unknown=0)
    )


def test_unknown_words_in_training_text_give_warning():
    (warning,) = sanity_warnings([(1, 5, 9), (4, 2, 3)], [(0, 2, 3), (4, 5, 0)], unknown=0)[:1]
    assert "[UNK]" in warning
