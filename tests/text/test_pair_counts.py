"""Counts of neighbouring words, against their definitions."""

from collections import Counter
from itertools import pairwise

import pytest
import torch
from torch.testing import assert_close

from textdiff.diffusion.transitions import Contexts, Transitions
from textdiff.text.dataset import Corpus
from textdiff.text.markov_prior import PairStatistics
from textdiff.text.pair_counts import pair_statistics

V = 6
TEXT = [[0, 1, 2], [0, 1], [3, 1, 2, 0, 1, 2], [4], [2, 2], [3, 1]]


def dense(statistics: PairStatistics) -> torch.Tensor:
    before, after = statistics.pairs.long()
    rank_one = statistics.backoff_weight, statistics.backoff
    contexts = Contexts(statistics.context_last.long(), statistics.context_weight)
    table = Transitions(before, after, statistics.values, *rank_one, contexts)
    return table.of_words(table.dense().T).T  # from states to words


@pytest.fixture
def every_pair(monkeypatch):
    """Pairs need not be frequent to be contexts."""
    monkeypatch.setattr("textdiff.text.pair_counts.ENOUGH", 1)


@pytest.mark.parametrize("most", [0, 2, 100])
def test_next_words_and_end_add_up_to_one(most):
    """Also of the word 5, which never occurs, and with pairs left out."""
    statistics = pair_statistics(Corpus.of(TEXT), V, most=most)
    assert_close(dense(statistics).sum(1) + statistics.end, torch.ones(V))
    assert_close(dense(statistics)[5], statistics.backoff)


def test_first_words_are_those_of_sentences():
    """Words 0, 3, 4 and 2 begin 2, 2, 1 and 1 of 6 sentences; 1 and 5 never begin one."""
    start = pair_statistics(Corpus.of(TEXT), V).start
    assert start[[0, 3]].min() > start[[4, 2]].max() > start[[1, 5]].max() > 0
    assert 0.9 < start.sum() < 1  # the rest is the empty sentence


def test_probabilities_are_discounted_counts():
    """The definition, with loops. Without `ends`, boundaries are not counted."""
    statistics = pair_statistics(Corpus.of(TEXT), V, ends=False)
    pairs = Counter(pair for sentence in TEXT for pair in pairwise(sentence))
    kinds = Counter(pairs.values())
    discount = kinds[1] / (kinds[1] + 2 * kinds[2])
    seen = Counter(after for pair, n in pairs.items() for after in [pair[1]] * n)
    total = seen.total() + 0.1 * (V + 1)
    expected = torch.zeros(V, V)
    for before in range(V):
        followers = {b: n for (a, b), n in pairs.items() if a == before}
        n = sum(followers.values())
        weight = discount * len(followers) / n if n else 1.0
        for after in range(V):
            counted = max(followers.get(after, 0) - discount, 0) / n if n else 0.0
            expected[before, after] = counted + weight * (seen[after] + 0.1) / total
    assert_close(dense(statistics), expected)
    assert_close(statistics.end, torch.ones(V))


@pytest.mark.usefixtures("every_pair")
@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("contexts", [1, 4, 100])
def test_words_after_contexts_add_up_to_one(ends, contexts):
    """With the end of the sentence; the rest is that of the last word."""
    found = pair_statistics(Corpus.of(TEXT), V, ends=ends, contexts=contexts)
    total = dense(found).sum(1) + ends * found.end
    weight, of_last = found.context_weight, total[found.context_last]
    assert_close(total[V:], 1 - weight + weight * of_last)
    assert_close(total[:V], torch.ones(V), atol=0 if ends else 0.1, rtol=1e-5)
    assert len(weight) == min(contexts, 9 if ends else 5)


@pytest.mark.usefixtures("every_pair")
def test_words_after_contexts_are_counted_given_both():
    """The definition, with loops: discounted counts, and the last word's row for the rest."""
    statistics = pair_statistics(Corpus.of(TEXT), V, contexts=100)
    bounded = [[V, *sentence, V] for sentence in TEXT]
    triples = Counter(t for s in bounded for t in zip(s, s[1:], s[2:], strict=False))
    kinds = Counter(triples.values())
    discount = kinds[1] / (kinds[1] + 2 * kinds[2])
    contexts = sorted({t[:2] for t in triples})
    rows = dense(statistics)
    for number, context in enumerate(contexts, V):
        followers = {t[2]: n for t, n in triples.items() if t[:2] == context}
        n, weight = sum(followers.values()), discount * len(followers) / sum(followers.values())
        for word in range(V):
            counted = max(followers.get(word, 0) - discount, 0) / n
            assert_close(rows[number, word], counted + weight * rows[context[1], word])
        counted = max(followers.get(V, 0) - discount, 0) / n
        assert_close(statistics.end[number], counted + weight * statistics.end[context[1]])
    assert statistics.context_last.tolist() == [last for _, last in contexts]


@pytest.mark.usefixtures("every_pair")
def test_states_after_contexts_are_contexts():
    """After the words 0 and 1, the word 2 leads to the context of the words 1 and 2."""
    statistics = pair_statistics(Corpus.of(TEXT), V, contexts=100)
    pairs = sorted({p for s in TEXT for p in pairwise([V, *s])})
    first, then = V + pairs.index((0, 1)), V + pairs.index((1, 2))
    assert [first, then] in statistics.pairs.T.tolist()
    assert [first, 2] not in statistics.pairs.T.tolist()


def test_rare_pairs_are_no_contexts():
    """Each must occur at least 20 times."""
    often = Corpus.of([*[[0, 1]] * 20, *[[0, 2]] * 19])
    statistics = pair_statistics(often, V, contexts=100)
    assert statistics.context_last.tolist() == [1, 0]  # after 0, and at the start of a sentence


def test_most_frequent_pairs_are_kept():
    statistics = pair_statistics(Corpus.of(TEXT), V, most=2)
    assert statistics.pairs.tolist() == [[0, 1], [1, 2]]


def test_large_texts_are_counted_in_pieces(monkeypatch):
    whole = pair_statistics(Corpus.of(TEXT), V)
    monkeypatch.setattr("textdiff.text.dataset.PIECE", 3)
    for part, expected in zip(pair_statistics(Corpus.of(TEXT), V), whole, strict=True):
        assert_close(part, expected)


def test_text_of_single_words_has_no_pairs():
    statistics = pair_statistics(Corpus.of([[0], [1], [1]]), V)
    assert statistics.pairs.shape == (2, 0)
    assert_close(dense(statistics).sum(1) + statistics.end, torch.ones(V))
