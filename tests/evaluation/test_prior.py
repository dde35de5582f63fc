"""The Markov prior as a baseline."""

from itertools import product

import numpy as np
import pytest

from textdiff.config import UserError
from textdiff.evaluation.prior import Prior
from textdiff.text.requests import sample_request
from textdiff.text.tokenizer import special_ids


def pairs(model):
    return [*product(range(model.config.vocab_size), repeat=2)]


def test_probabilities_of_a_length_add_up(model, tokenizer):
    """All sentences of two words together have the probability of this length."""
    total = np.exp(-Prior(model, tokenizer).nats(pairs(model))).sum()
    smoothed = 0.9999 * model.lengths[2] + 1e-4 / len(model.lengths)
    assert total == pytest.approx(float(smoothed), rel=1e-4)


def test_samples_have_the_probabilities_of_the_prior(new_model, tokenizer):
    """Without special tokens: their mean surprisal is the entropy."""
    model = new_model().eval()
    model.lengths.zero_()[2] = 1.0
    prior, special = Prior(model, tokenizer), special_ids(tokenizer)
    possible = [pair for pair in pairs(model) if not special & {*pair}]
    p = np.exp(-prior.nats(possible))
    p /= p.sum()
    surprisal = dict(zip(possible, -np.log(p), strict=True))
    samples = [surprisal[pair] for pair in prior.sample(2000, seed=0)]
    entropy = -(p * np.log(p)).sum()
    deviation = ((p * np.log(p) ** 2).sum() - entropy**2) ** 0.5
    assert abs(np.mean(samples) - entropy) < 4 * deviation / 2000**0.5


def test_lengths_are_those_of_the_model(model, tokenizer):
    samples = Prior(model, tokenizer).sample(200, seed=3)
    assert [*map(len, samples)] == sample_request(model, 200, 3).mask.sum(1).tolist()


def test_models_without_markov_prior_are_refused(new_model, tokenizer):
    with pytest.raises(
        UserError, match=r"--baselines prior needs a model with model\.prior markov"
    ):
        Prior(new_model(prior="unigram"), tokenizer)
