"""Baselines that are counted from text, and the configuration of Diffusion-LM."""

from collections import Counter
from itertools import pairwise, product

import numpy as np
import pytest

from textdiff.evaluation.baselines import autoregressive_config, diffusion_lm_config
from textdiff.evaluation.ngram import Bigram, Unigram, shuffled
from textdiff.text.config import ModelConfig, TextConfig

SENTENCES = [(0, 1, 2), (0, 2), (1, 1, 2), (0, 1)] * 5


@pytest.mark.parametrize("kind", [Bigram, Unigram])
def test_probabilities_after_every_word_sum_to_one(kind):
    model = kind(SENTENCES, vocab_size=4)
    for previous in range(5):
        total = sum(model.probability(token, previous) for token in range(5))
        assert total == pytest.approx(1, abs=1e-12)


def test_likelihood_is_product_of_bigrams():
    bigram = Bigram(SENTENCES, vocab_size=4)
    p = bigram.probability(0, 4) * bigram.probability(2, 0) * bigram.probability(4, 2)
    assert np.exp(-bigram.nats((0, 2))) == pytest.approx(p, rel=1e-12)


def test_bigram_samples_have_bigrams_of_text():
    samples = Bigram(SENTENCES, vocab_size=4).sample(20_000, seed=0, longest=60)
    firsts = Counter(sentence[0] for sentence in samples)
    assert firsts[0] / 20_000 == pytest.approx(0.75, abs=0.02)
    assert {pair for s in samples for pair in pairwise(s)} <= {(0, 1), (0, 2), (1, 1), (1, 2)}


def test_unigram_samples_have_word_frequencies_of_text():
    samples = Unigram(SENTENCES, vocab_size=4).sample(20_000, seed=0, longest=200)
    counts = Counter(token for sentence in samples for token in sentence)
    shares = [counts[token] / counts.total() for token in range(3)]
    assert shares == pytest.approx([0.3, 0.4, 0.3], abs=0.01)


@pytest.mark.parametrize("kind", [Bigram, Unigram])
def test_blocks_of_one_length_code_no_end(kind):
    """Samples have this length too."""
    model = kind([(0, 1, 2), (1, 1, 2), (2, 2, 0)], vocab_size=3)
    assert {len(sentence) for sentence in model.sample(200, seed=0, longest=60)} == {3}
    total = sum(np.exp(-model.nats(block)) for block in product(range(4), repeat=3))
    assert total == pytest.approx(1, abs=1e-12)


def test_no_sampled_sentence_is_empty():
    assert all(Unigram([(0,), (1, 0)], vocab_size=2).sample(500, seed=0, longest=60))


def test_autoregressive_baseline_depends_on_shape_alone():
    """So the same one serves all runs of a shape."""
    own, other = (
        TextConfig(model=ModelConfig(width=64, heads=2, embed_dim=dim, stagger_prob=dim / 100))
        for dim in (16, 32)
    )
    assert autoregressive_config(own) == autoregressive_config(other)
    wider = TextConfig(model=ModelConfig(width=128, heads=2))
    assert autoregressive_config(own) != autoregressive_config(wider)


def test_shuffled_sentences_have_words_of_text():
    text = [(1, 2, 3, 4, 5), (6, 7, 8, 9)]
    mixed = shuffled(text, 2, seed=0)
    assert {tuple(sorted(sentence)) for sentence in mixed} == set(text)
    assert mixed not in (text, text[::-1])


def test_diffusion_lm_is_sampled_without_guidance():
    config = TextConfig(model=ModelConfig(sampling_guidance_scale=5.0))
    assert diffusion_lm_config(config).model.sampling_guidance_scale == 1
