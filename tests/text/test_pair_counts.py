"""Counts of neighbouring words, against their definitions."""

from collections import Counter

import pytest
import torch
from torch.testing import assert_close

from textdiff.diffusion.transitions import Contexts, Transitions
from textdiff.text.dataset import Corpus
from textdiff.text.markov_prior import PairStatistics
from textdiff.text.pair_counts import pair_statistics

V = 6
TEXT = [[0, 1, 2], [0, 1], [3, 1, 2, 0, 1, 2], [4], [2, 2], [3, 1], [0, 1, 2, 0, 1, 4]]

Context = tuple[int, ...]


def dense(statistics: PairStatistics) -> torch.Tensor:
    before, after = statistics.pairs.long()
    rank_one = statistics.backoff_weight, statistics.backoff
    contexts = Contexts(statistics.context_last.long(), statistics.context_weight, 4)
    table = Transitions(before, after, statistics.values, *rank_one, contexts)
    return table.of_words(table.dense().T).T  # from states to words


def occurrences(ends: bool) -> list[tuple[Context, int]]:
    """Every word of the text, and all words before it. The boundary of sentences is V."""
    bounded = [[V, *sentence, V] if ends else sentence for sentence in TEXT]
    return [(tuple(s[:i]), s[i]) for s in bounded for i in range(1, len(s))]


def contexts_of(longest: int, ends: bool) -> list[Context]:
    """All contexts of at least two words, by length."""
    starts = [[V, *sentence] if ends else sentence for sentence in TEXT]
    found = {
        tuple(s[i - n : i]) for s in starts for i in range(len(s) + 1) for n in range(2, i + 1)
    }
    return sorted((c for c in found if len(c) <= longest), key=lambda c: (len(c), c))


def smoothed(chosen: set[Context], ends: bool) -> dict[Context, list[float]]:
    """Interpolated Kneser-Ney smoothing, with loops: each word's probability after each context.

    The contexts are those chosen, all single words, and the empty one.
    """
    contexts = {(), *[(word,) for word in range(V + 1)], *chosen}
    counts: dict[Context, Counter[int]] = {context: Counter() for context in contexts}
    longer = set()
    for history, word in occurrences(ends):
        suffixes = [history[i:] for i in range(len(history) + 1) if history[i:] in contexts]
        counts[suffixes[0]][word] += 1
        longer |= {(context, word) for context in suffixes if context}
    for context, word in longer:
        counts[context[1:]][word] += 1
    total = counts[()].total() + 0.1 * (V + 1)
    probabilities = {(): [(counts[()][word] + 0.1) / total for word in range(V + 1)]}
    for context in sorted(contexts - {()}, key=len):
        same_length = [
            c for other in contexts if len(other) == len(context) for c in counts[other].values()
        ]
        once, twice = same_length.count(1), same_length.count(2)
        discount = once / (once + 2 * twice) if once and twice else 0.5
        n, shorter = counts[context].total(), probabilities[context[1:]]
        rest = discount * len(counts[context]) / n if n else 1.0
        seen = [max(counts[context][w] - discount, 0) / n if n else 0.0 for w in range(V + 1)]
        probabilities[context] = [p + rest * q for p, q in zip(seen, shorter, strict=True)]
    return probabilities


@pytest.fixture
def every_context(monkeypatch):
    """Contexts need not be frequent."""
    monkeypatch.setattr("textdiff.text.pair_counts.ENOUGH", 1)


@pytest.mark.parametrize("most", [0, 2, 100])
def test_next_words_and_end_add_up_to_one(most):
    """Also of the word 5, which never occurs, and with pairs left out."""
    statistics = pair_statistics(Corpus.of(TEXT), V, most=most)
    assert_close(dense(statistics).sum(1) + statistics.end, torch.ones(V))
    assert_close(dense(statistics)[5], statistics.backoff)


def test_first_words_are_those_of_sentences():
    """Words 0, 3, 4 and 2 begin 3, 2, 1 and 1 of 7 sentences; 1 and 5 never begin one."""
    start = pair_statistics(Corpus.of(TEXT), V).start
    assert start[[0, 3]].min() > start[[4, 2]].max() > start[[1, 5]].max() > 0
    assert 0.9 < start.sum() < 1  # the rest is the empty sentence
    assert_close(start.double(), torch.tensor(smoothed(set(), ends=True)[V,][:-1]).double())


@pytest.mark.usefixtures("every_context")
@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("longest", [1, 2, 3, 4])
def test_probabilities_are_those_of_kneser_and_ney(longest, ends, monkeypatch):
    """The definition. Without `ends`, boundaries are not counted."""
    monkeypatch.setattr("textdiff.text.pair_counts.LONGEST", longest)
    statistics = pair_statistics(Corpus.of(TEXT), V, ends=ends, contexts=100)
    contexts = contexts_of(longest, ends)
    expected = smoothed({*contexts}, ends)
    words = [(word,) for word in range(V)]
    rows = torch.tensor([expected[context] for context in [*words, *contexts]])
    assert_close(dense(statistics), rows[:, :V])
    assert_close(statistics.end, rows[:, V] if ends else torch.ones(len(rows)))
    states = [*words, *contexts]
    assert [states[i] for i in statistics.context_last] == [context[1:] for context in contexts]


@pytest.mark.usefixtures("every_context")
@pytest.mark.parametrize(
    ("most", "chosen"),
    [
        (1, [(0, 1)]),  # (0, 1, 2) is frequent, but (1, 2) is not chosen
        (2, [(0, 1), (1, 2), (0, 1, 2)]),
    ],
)
def test_only_frequent_contexts_are_chosen(most, chosen):
    """The most frequent of each length that are also contexts without their first words."""
    statistics = pair_statistics(Corpus.of(TEXT), V, contexts=most)
    expected = smoothed({*chosen}, ends=True)
    words = [(word,) for word in range(V)]
    rows = torch.tensor([expected[context] for context in [*words, *chosen]])
    assert_close(dense(statistics), rows[:, :V])
    assert_close(statistics.end, rows[:, V])


@pytest.mark.usefixtures("every_context")
def test_next_states_are_the_longest_contexts():
    """After the words 0 and 1, the word 2 leads to the context of all three."""
    statistics = pair_statistics(Corpus.of(TEXT), V, contexts=100)
    contexts = [*[(word,) for word in range(V)], *contexts_of(3, ends=True)]
    expected = set()
    for history, word in occurrences(ends=True):
        for context in contexts:
            if word < V and history[-len(context) :] == context:
                suffixes = [(*context, word)[-n:] for n in (3, 2, 1)]
                expected.add((context, next(c for c in suffixes if c in contexts)))
    found = {(contexts[i], contexts[j]) for i, j in statistics.pairs.T.tolist()}
    assert found == expected


def test_rare_pairs_are_no_contexts():
    """Each must occur at least 20 times."""
    often = Corpus.of([*[[0, 1]] * 20, *[[0, 2]] * 19])
    statistics = pair_statistics(often, V, contexts=100)
    # after the word 0, at the start of a sentence, and after both
    assert statistics.context_last.tolist() == [1, 0, V]


def test_most_frequent_pairs_are_kept():
    statistics = pair_statistics(Corpus.of(TEXT), V, most=2)
    assert statistics.pairs.tolist() == [[0, 1], [1, 2]]


@pytest.mark.usefixtures("every_context")
def test_large_texts_are_counted_in_pieces(monkeypatch):
    whole = pair_statistics(Corpus.of(TEXT), V, contexts=100)
    monkeypatch.setattr("textdiff.text.dataset.PIECE", 3)
    parts = pair_statistics(Corpus.of(TEXT), V, contexts=100)
    for part, expected in zip(parts, whole, strict=True):
        assert_close(part, expected)


def test_text_of_single_words_has_no_pairs():
    statistics = pair_statistics(Corpus.of([[0], [1], [1]]), V)
    assert statistics.pairs.shape == (2, 0)
    assert_close(dense(statistics).sum(1) + statistics.end, torch.ones(V))
