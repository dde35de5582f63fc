"""Metrics of generated text."""

import random

import numpy as np
import pytest

from textdiff.evaluation.metrics import (
    NearestNeighbor,
    NgramOverlap,
    corpus_scores,
    distinct,
    mauve,
    self_bleu,
    two_sample_accuracy,
    wilson,
)
from textdiff.text import grammar

SENTENCES = [(1, 2, 3, 4), (1, 2, 3), (5, 6)]


def test_distinct_is_share_of_different_ngrams():
    assert distinct(SENTENCES, 1) == pytest.approx(6 / 9)
    assert distinct(SENTENCES, 2) == pytest.approx(4 / 6)


def test_self_bleu_is_high_for_copies_only():
    assert self_bleu(["the cat sat on the mat"] * 5) == pytest.approx(100)
    assert self_bleu(["a b c d e", "f g h i j", "k l m n o"]) < 20


def test_copied_ngrams_are_found():
    overlap = NgramOverlap([(1, 2, 3, 4, 5), (6, 7)])
    assert overlap.novelty([(1, 2, 3), (6, 7)]) == 0.5
    assert overlap.copied([(1, 2, 3, 9)], n=2) == pytest.approx(2 / 3)
    sentences = [(9, 2, 3, 4, 8), (1, 2, 3, 4, 5), (9, 8), (6, 7, 1)]
    assert [*map(overlap.longest_copied, sentences)] == [3, 5, 0, 2]


def test_nearest_training_text_is_found():
    nearest = NearestNeighbor(["the dog sleeps .", "a cat sings .", "the old dog sleeps ."])
    (copied, text), (near, other) = nearest(["a cat sings .", "the dog never sleeps ."])
    assert (copied, text) == (pytest.approx(1), "a cat sings .")
    assert other == "the dog sleeps ."
    assert 0.1 < near < 0.9


def test_mauve_falls_from_one_with_distance():
    rng = np.random.default_rng(0)
    real = rng.standard_normal((400, 8))
    same, near, far = (mauve(real, rng.standard_normal((400, 8)) + shift) for shift in (0, 0.5, 4))
    assert same > 0.9 > near > 0.1 > far


def test_two_sample_accuracy_is_half_for_equal_texts():
    texts = grammar.corpus(800, seed=0)
    _, low, high = two_sample_accuracy(texts[:400], texts[400:])
    assert low < 0.5 < high
    shuffled = [" ".join(sorted(text.split())) for text in texts[400:]]
    assert two_sample_accuracy(texts[:400], shuffled).value > 0.95


def test_repeated_sentences_do_not_leak():
    """Without the split by sentence, a repeated one would be in training and test set."""
    texts = sorted(set(grammar.corpus(3000, seed=5)))
    random.Random(0).shuffle(texts)
    often, once = [text for text in texts[:100] for _ in range(4)], texts[100:500]
    _, low, high = two_sample_accuracy(once, often)
    assert low < 0.5 < high


@pytest.mark.parametrize("generated", [["the dog sleeps ."] * 40, ["a cat sings ."]])
def test_too_few_different_sentences_give_no_accuracy(generated):
    assert two_sample_accuracy(grammar.corpus(40, seed=0)[: len(generated)], generated) is None


def test_features_separate_texts_that_words_do_not():
    texts, rng = grammar.corpus(800, seed=0), np.random.default_rng(0)
    near, far, real = (rng.standard_normal((400, 3)) + shift for shift in (0, 3, 0))
    _, low, high = two_sample_accuracy(texts[:400], texts[400:], (near, real))
    assert low < 0.5 < high
    assert two_sample_accuracy(texts[:400], texts[400:], (near, far)).value > 0.95


def test_wilson_interval_matches_newcombe():
    """10 of 100: 5.5 % to 17.4 % (Newcombe, 1998, method 3)."""
    assert wilson(10, 100) == pytest.approx((0.0552, 0.1744), abs=1e-4)


def test_corpus_scores_take_any_number_of_references():
    """Spaces around punctuation do not count, and capital letters only if asked to."""
    texts = ["a family - friendly pub, by the river.", "Zizzi is a cheap place in the centre"]
    references = [["no", "A family-friendly pub , by the river ."], [texts[1]]]
    scores = corpus_scores(texts, references, lowercase=True)
    assert (scores.bleu, scores.chrf) == (pytest.approx(100), pytest.approx(100))
    assert "nrefs:var" in scores.signatures["bleu"]
    assert corpus_scores(texts, references, lowercase=False).bleu < 99
    low, high = corpus_scores(
        ["a b c d e", *texts], [["a b c d f"], *references], True
    ).bleu_interval
    assert low < high
