"""Laws of the lengths of targets, predicted from the tokens of the source."""

import numpy as np
import pytest
import torch

from textdiff.text.dataset import Corpus
from textdiff.text.lengths import spread_lengths
from textdiff.text.target_lengths import TargetLengths, target_share

SEPARATOR, LONGEST, VOCABULARY = 9, 40, 12


def lengths_of(model, *source):
    ids = torch.tensor([[*source, SEPARATOR]])
    return model(ids, torch.ones_like(ids, dtype=torch.bool))[0]


def fitted(pairs):
    model = TargetLengths(VOCABULARY, LONGEST)
    model.fit(Corpus.of(pairs), SEPARATOR)
    return model


@pytest.fixture(scope="module")
def additive():
    """Token 1 adds one token to the target, token 2 five, and the separator three."""
    rng = np.random.default_rng(0)
    pairs = []
    for _ in range(3_000):
        source = rng.integers(1, 3, rng.integers(1, 6)).tolist()
        pairs.append([*source, SEPARATOR] + [3] * (3 + source.count(1) + 5 * source.count(2)))
    return fitted(pairs)


@pytest.mark.parametrize(("source", "length"), [([1, 1], 5), ([2, 2], 13), ([1, 2, 1], 10)])
def test_lengths_depend_on_the_words(additive, source, length):
    assert lengths_of(additive, *source)[length] > 0.6


def test_unseen_tokens_have_the_shared_weight(additive):
    assert additive.weights[1] < additive.weights[7] < additive.weights[2]


def test_frequencies_are_those_of_the_training_targets():
    """Half of the targets of the same source have two tokens, half have six."""
    model = fitted([[4, SEPARATOR, *[3] * size] for size in (2, 6) * 500])
    assert lengths_of(model, 4)[[2, 6]].tolist() == pytest.approx([0.5, 0.5])


def test_frequencies_sum_to_one_for_every_source(additive):
    for source in ([], [7], [2] * 30):
        assert lengths_of(additive, *source).sum().item() == pytest.approx(1)


def test_padding_does_not_change_the_prediction(additive):
    ids = torch.tensor([[2, 1, SEPARATOR, 2, 2, 2]])
    source = torch.arange(6) < 3
    assert additive(ids, source[None]).equal(lengths_of(additive, 2, 1)[None])


def test_a_new_model_counts_by_source_length():
    model = TargetLengths(VOCABULARY, LONGEST)
    model.frequencies.copy_(torch.eye(LONGEST + 1))
    assert lengths_of(model, 5, 6, 7).argmax() == 4


def test_share_of_tokens_in_targets():
    corpus = Corpus.of([[1, 9, 2, 2], [1, 9, 2, 2], [1] * 8 + [9, 3]])
    assert target_share(corpus, SEPARATOR) == 5 / 18


def test_lengths_are_spread_evenly_from_the_median():
    weight = torch.ones(16)
    assert spread_lengths(weight, 3, 0).tolist() == [7, 3, 11]
    assert spread_lengths(weight, 15, 0).sort().values.tolist() == [*range(15)]
    assert spread_lengths(weight, 5, 0).equal(spread_lengths(weight, 9, 0)[:5])
    assert spread_lengths(weight, 99, 4).min() == 4


def test_first_length_has_the_given_quantile():
    """The others become longer with it, and stay possible."""
    weight = torch.ones(16)
    assert spread_lengths(weight, 3, 4, first=0.75).tolist() == [12, 10, 14]
    assert spread_lengths(weight, 99, 4, first=0.01).min() == 4
