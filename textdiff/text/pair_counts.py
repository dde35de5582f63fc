"""Counts of neighbouring words in a text, smoothed for a Markov prior.

Interpolated Kneser-Ney smoothing of contexts of several lengths. Each count is lowered by a
discount, and the rest of the probability goes to the context without its first word. A word after
a longer context counts once for the shorter one, which is only asked for what the longer one does
not explain (Kneser & Ney, ICASSP 1995; Siivola, Hirsimäki & Virpioja, IEEE TASLP 2007). The
discount n1 / (n1 + 2 n2) maximizes the likelihood of each word when that word itself is left out of
the counts (Ney, Essen & Kneser, 1994); n1 and n2 are the numbers of counts 1 and 2.
"""

import numpy as np
import torch
from torch import Tensor

from textdiff.text.context_tree import ContextTree, Followers
from textdiff.text.dataset import Corpus
from textdiff.text.markov_prior import LONGEST, PairStatistics

ENOUGH = 20  # occurrences of a context of several words


def pair_statistics(
    corpus: Corpus, vocab_size: int, *, ends: bool = True, most: int = 2**20, contexts: int = 0
) -> PairStatistics:
    """Counts neighbouring words, and discounts the counts.

    Args:
        ends: Whether examples begin and end as sentences do. Blocks of packed text do not.
        most: Largest number of pairs of words that are kept, the most frequent ones.
        contexts: Largest number of contexts of each length from two words on, the most frequent
            ones.
    """
    tree = ContextTree(vocab_size)
    counts = [tree.count(corpus, ends)]
    while contexts and len(counts) < LONGEST:
        tree.grow(counts[-1], contexts, ENOUGH)
        counts.append(tree.count(corpus, ends))
    backoff = np.bincount(counts[0].word, minlength=vocab_size + 1) + 0.1
    backoff /= backoff.sum()
    words, *longer = (_discounted(_unexplained(tree, counts, i)) for i in range(len(counts)))
    listed = words.of(_most_frequent(counts[0], vocab_size, most))
    ended = words.of(words.word == vocab_size).total(vocab_size)
    weight = 1 - listed.total(vocab_size) - ended
    end, rest = _ends_of_longer(tree, longer, ended + weight * backoff[-1])
    pairs, values = _pairs(tree, [listed, *longer])
    return PairStatistics(
        start=_float(_start(tree, words, backoff)),
        end=_float(end) if ends else torch.ones(len(end)),
        pairs=torch.from_numpy(pairs.astype(np.int32)),
        values=_float(values),
        backoff_weight=_float(np.pad(weight, (0, len(rest)))),
        backoff=_float(np.pad(backoff[:-1], (0, len(rest)))),
        context_last=torch.from_numpy(np.concatenate([[], *tree.suffix_states]).astype(np.int32)),
        context_weight=_float(rest),
    )


def _most_frequent(pairs: Followers, vocab_size: int, most: int) -> np.ndarray:
    """Entries of the most frequent pairs of words, in order."""
    inner = np.flatnonzero((pairs.context < vocab_size) & (pairs.word < vocab_size))
    return np.sort(inner[np.argsort(-pairs.value[inner], kind="stable")[:most]])


def _ends_of_longer(
    tree: ContextTree, longer: list[Followers], end: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of an end after each state, and the weights of the suffixes of contexts.

    Args:
        longer: Probabilities of the words after contexts of two words, of three words and so on.
        end: Probability of an end after each word.
    """
    weights = [np.empty(0)]
    for row, suffix in zip(longer, tree.suffix_states, strict=True):
        weights.append(1 - row.total(len(suffix)))
        ended = row.of(row.word == tree.boundary).total(len(suffix))
        end = np.concatenate([end, ended + weights[-1] * end[suffix]])
    return end, np.concatenate(weights)


def _unexplained(tree: ContextTree, counts: list[Followers], i: int) -> Followers:
    """Counts in which a word after a longer context counts once, however often it occurs."""
    if i + 1 == len(counts):
        return counts[i]
    context, word, times = counts[i]
    longer = counts[i + 1]
    shorter = tree.key(tree.suffixes[i][longer.context], longer.word)
    entry = np.searchsorted(tree.key(context, word), shorter)
    return Followers(context, word, times - np.bincount(entry, longer.value - 1, len(times)))


def _discounted(counts: Followers) -> Followers:
    """Probabilities of the words after contexts: the counts lowered by the discount."""
    context, word, times = counts
    once, twice = (times == 1).sum(), (times == 2).sum()
    discount = once / (once + 2 * twice) if once and twice else 0.5
    total = np.bincount(context, times)
    return Followers(context, word, (times - discount) / total[context])


def _pairs(tree: ContextTree, rows: list[Followers]) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of states, sorted, and the probabilities of the second after the first."""
    before, after, values = [], [], []
    for longer, row in enumerate(rows):
        context, word, value = row.of(row.word < tree.boundary)
        before.append(context + tree.first_states[longer])
        after.append(tree.next_state(longer, context, word))
        values.append(value)
    pairs = np.stack([np.concatenate(before), np.concatenate(after)])
    order = np.lexsort(pairs[::-1])
    return np.ascontiguousarray(pairs[:, order]), np.concatenate(values)[order]


def _start(tree: ContextTree, seen: Followers, backoff: np.ndarray) -> np.ndarray:
    """Probability that a sentence begins with each state."""
    first = seen.of(seen.context == tree.boundary)
    start = np.zeros(tree.boundary + sum(map(len, tree.keys)))
    start[: tree.boundary] = (1 - first.value.sum()) * backoff[:-1]
    context, word, value = first.of(first.word < tree.boundary)
    start[tree.next_state(0, context, word)] += value
    return start


def _float(numbers: np.ndarray) -> Tensor:
    return torch.from_numpy(numbers).float()
