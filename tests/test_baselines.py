from collections import Counter
from itertools import pairwise, product

import numpy as np
import pytest

from textdiff.baselines import Bigram, Unigram, diffusion_lm, shuffled
from textdiff.config import Model, TextRun

SENTENCES = [(0, 1, 2), (0, 2), (1, 1, 2), (0, 1)] * 5


@pytest.mark.parametrize("kind", [Bigram, Unigram])
def test_probabilities_add_up_to_one_after_every_word(kind):
    model = kind(SENTENCES, vocab_size=4)
    for before in range(5):
        assert sum(model.probability(token, before) for token in range(5)) == pytest.approx(1, abs=1e-12)


def test_a_sentences_likelihood_is_the_product_of_its_bigrams():
    bigram = Bigram(SENTENCES, vocab_size=4)
    p = bigram.probability(0, 4) * bigram.probability(2, 0) * bigram.probability(4, 2)
    assert np.exp(-bigram.nats((0, 2))) == pytest.approx(p, rel=1e-12)


def test_bigram_samples_have_the_bigrams_of_the_text():
    samples = Bigram(SENTENCES, vocab_size=4).sample(20_000, seed=0, longest=60)
    firsts = Counter(sentence[0] for sentence in samples)
    assert firsts[0] / 20_000 == pytest.approx(0.75, abs=0.02)
    assert {pair for s in samples for pair in pairwise(s)} <= {(0, 1), (0, 2), (1, 1), (1, 2)}


def test_unigram_samples_have_the_words_of_the_text_by_their_frequency():
    samples = Unigram(SENTENCES, vocab_size=4).sample(20_000, seed=0, longest=200)
    counts = Counter(token for sentence in samples for token in sentence)
    shares = [counts[token] / counts.total() for token in range(3)]
    assert shares == pytest.approx([0.3, 0.4, 0.3], abs=0.01)


@pytest.mark.parametrize("kind", [Bigram, Unigram])
def test_of_blocks_of_one_length_so_are_the_samples_and_no_end_is_coded(kind):
    model = kind([(0, 1, 2), (1, 1, 2), (2, 2, 0)], vocab_size=3)
    assert {len(sentence) for sentence in model.sample(200, seed=0, longest=60)} == {3}
    assert sum(np.exp(-model.nats(block)) for block in product(range(4), repeat=3)) == pytest.approx(1, abs=1e-12)


def test_no_sentence_is_empty():
    assert all(Unigram([(0,), (1, 0)], vocab_size=2).sample(500, seed=0, longest=60))


def test_shuffled_sentences_hold_the_words_of_the_text():
    text = [(1, 2, 3, 4, 5), (6, 7, 8, 9)]
    mixed = shuffled(text, 2, seed=0)
    assert {tuple(sorted(sentence)) for sentence in mixed} == set(text)
    assert mixed not in (text, text[::-1])


def test_the_published_recipe_is_sampled_without_our_guidance():
    assert diffusion_lm(TextRun(model=Model(sampling_guidance=5.0))).model.sampling_guidance == 1
