"""Contexts of one, two and more words in a text, and counts of the words that follow them."""

from dataclasses import dataclass, field
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from textdiff.text.dataset import Corpus


class Followers(NamedTuple):
    """The words that follow contexts of one length.

    Args:
        context: Number of the context of each entry; entries are sorted by it and by the word.
        word: Word that follows. The boundary of sentences comes after all words.
        value: Number of times that it follows, or its probability.
    """

    context: np.ndarray
    word: np.ndarray
    value: np.ndarray

    def total(self, contexts: int) -> np.ndarray:
        """Sum of the values after each context."""
        return np.bincount(self.context, self.value, contexts)

    def of(self, entries: np.ndarray) -> "Followers":
        """The selected entries."""
        return Followers(*(each[entries] for each in self))


@dataclass
class ContextTree:
    """Contexts of one word, of two words and so on, numbered by length.

    The contexts of one word are all words and the boundary of sentences. The states of a chain are
    the words, then the contexts of two words, of three words and so on.

    Args:
        boundary: Number of the boundary of sentences, which is that of words.
        keys: Contexts of each length from 2, as prefix * (boundary + 1) + last word, sorted.
        suffixes: Number of each of them without its first word.
    """

    boundary: int
    keys: list[np.ndarray] = field(default_factory=list)
    suffixes: list[np.ndarray] = field(default_factory=list)

    def grow(self, counts: Followers, most: int, enough: int) -> None:
        """Adds contexts, each a context of the longest length and a word that follows it.

        Args:
            counts: Counts of words after the contexts of the longest length.
            most: Largest number of new contexts, the most frequent ones.
            enough: Least number of times that each occurs.
        """
        suffix = counts.word
        if self.suffixes:
            shorter = self.suffixes[-1][counts.context]
            suffix = self._child(len(self.suffixes) - 1, shorter, counts.word)
        # a context is left out if it is not known without its first word
        often = np.flatnonzero(
            (counts.value >= enough) & (counts.word < self.boundary) & (suffix >= 0)
        )
        often = np.sort(often[np.argsort(-counts.value[often], kind="stable")[:most]])
        self.keys.append(self.key(counts.context[often], counts.word[often]))
        self.suffixes.append(suffix[often])

    def key(self, context: np.ndarray, word: np.ndarray) -> np.ndarray:
        """One number for a context and a word."""
        return context * (self.boundary + 1) + word

    @property
    def first_states(self) -> list[int]:
        """State of the first word, of the first context of two words, of three words and so on."""
        return [0, *accumulate(map(len, self.keys[:-1]), initial=self.boundary)]

    @property
    def suffix_states(self) -> list[np.ndarray]:
        """For each length from 2, the states of the contexts without their first words."""
        return [a + b for a, b in zip(self.first_states, self.suffixes, strict=False)]

    def next_state(self, longer: int, context: np.ndarray, word: np.ndarray) -> np.ndarray:
        """State after contexts and a word that follows: the longest context at the end of both.

        Args:
            longer: Number of words that the contexts have more than one.
        """
        state = word
        if longer:
            state = self.next_state(longer - 1, self.suffixes[longer - 1][context], word)
        if longer == len(self.keys):
            return state
        child = self._child(longer, context, word)
        return np.where(child >= 0, self.first_states[longer + 1] + child, state)

    def count(self, corpus: Corpus, ends: bool) -> Followers:
        """Counts the words after the contexts of the longest length.

        Args:
            ends: Whether examples begin and end as sentences do.
        """
        key: np.ndarray = np.empty(0, np.int64)
        count: np.ndarray = np.empty(0)
        for piece in corpus.pieces():
            new, times = np.unique(self._occurrences(piece, ends), return_counts=True)
            key, index = np.unique(np.concatenate([key, new]), return_inverse=True)
            count = np.bincount(index, np.concatenate([count, times]))
        return Followers(*np.divmod(key, self.boundary + 1), count)

    def _occurrences(self, corpus: Corpus, ends: bool) -> np.ndarray:
        """The key of each occurrence of a context of the longest length and the next word."""
        tokens, first = corpus.tokens.astype(np.int64), corpus.starts[:-1]
        after = np.roll(tokens, -1)
        after[corpus.starts[1:] - 1] = self.boundary
        context, outside = tokens, self.boundary
        for level in range(len(self.keys)):
            before = np.roll(context, 1)
            before[first] = outside
            context, outside = self._child(level, before, tokens), -1
        seen = (context >= 0) & (ends | (after < self.boundary))
        keys = self.key(context[seen], after[seen])
        if self.keys or not ends:
            return keys
        return np.concatenate([keys, self.key(np.full(len(first), self.boundary), tokens[first])])

    def _child(self, level: int, prefix: np.ndarray, last: np.ndarray) -> np.ndarray:
        """Number of each prefix and word among the contexts of `keys[level]`, or -1."""
        keys, wanted = self.keys[level], self.key(prefix, last)
        if not len(keys):
            return np.full_like(wanted, -1)
        number = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
        return np.where((keys[number] == wanted) & (prefix >= 0), number, -1)
