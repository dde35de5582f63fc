"""Transition matrices of Markov chains: sparse plus rank one, between words and contexts."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

Words = Int[Tensor, "b l"]
Columns = Float[Tensor, "s b"]  # numbers of all states, one column per sentence
WordColumns = Float[Tensor, "v b"]  # numbers of all words


class SparseRows(NamedTuple):
    """A sparse matrix by rows (CSR): row i has the entries `offsets[i]` to `offsets[i + 1]`."""

    indices: Int[Tensor, " p"]
    offsets: Int[Tensor, " rows"]
    values: Float[Tensor, " p"]

    def __matmul__(self, columns: Float[Tensor, "columns b"]) -> Float[Tensor, "rows b"]:
        """The product with dense columns.

        `embedding_bag` computes it, on a CPU three times as fast as torch's own sparse product.
        """
        return F.embedding_bag(
            self.indices,
            columns,
            self.offsets,
            mode="sum",
            per_sample_weights=self.values,
            include_last_offset=True,
        )


class Contexts(NamedTuple):
    """Contexts of several words, after which the next word depends on more than the last one.

    They are states of a chain after those of the words, so that the chain has a variable order
    (Ron, Singer & Tishby, Machine Learning 1996).

    Args:
        suffix: State of each context without its first word: a word, or a shorter context.
        weight: Weight of the transitions from that state.
        longest: Most words of a context.
    """

    suffix: Int[Tensor, " k"]
    weight: Float[Tensor, " k"]
    longest: int = 2


@dataclass(frozen=True)
class Transitions:
    """Transition matrix P = S + backoff_weight backoff^T with a sparse matrix S.

    Smoothed tables of word pairs have this form: S holds the pairs that occur, and all pairs back
    off to one distribution of their second word. The row of a context is S plus `contexts.weight`
    times the row of its suffix.

    Args:
        before: First state of each pair in S. Pairs are sorted by it, then by the second state.
        after: Second state of each pair.
        values: Entries of S.
        backoff_weight: Weight of the backoff distribution after each state; 0 after contexts.
        backoff: Backoff distribution of the second state.
        contexts: The states after those of the words. If None, all states are words.
    """

    before: Int[Tensor, " p"]
    after: Int[Tensor, " p"]
    values: Float[Tensor, " p"]
    backoff_weight: Float[Tensor, " s"]
    backoff: Float[Tensor, " s"]
    contexts: Contexts | None = None

    @classmethod
    def from_dense(cls, matrix: Float[Tensor, "v v"]) -> "Transitions":
        """Transitions of a dense matrix between words, without its zeros."""
        before, after = matrix.nonzero(as_tuple=True)
        zeros = torch.zeros_like(matrix[0])
        return cls(before, after, matrix[before, after], zeros, zeros)

    @cached_property
    def _by_before(self) -> SparseRows:
        return _sparse_rows(self.before, self.after, self.values, len(self.backoff))

    @cached_property
    def _by_after(self) -> SparseRows:
        order = self.after.argsort(stable=True)
        entries = self.after[order], self.before[order], self.values[order]
        return _sparse_rows(*entries, len(self.backoff))

    @property
    def vocab_size(self) -> int:
        """Number of the states that are words."""
        return len(self.backoff) - (len(self.contexts.suffix) if self.contexts else 0)

    @cached_property
    def _fallbacks(self) -> SparseRows:
        """The states to which each context falls back, and the products of their weights."""
        assert self.contexts
        k, depth = len(self.contexts.suffix), self.contexts.longest - 1
        suffixes, weights = self._suffixes, F.pad(self.contexts.weight, (self.vocab_size, 0))
        states, products = [self.contexts.suffix.long()], [self.contexts.weight]
        for _ in range(depth - 1):  # a word does not fall back: its weight is 0
            products.append(products[-1] * weights[states[-1]])
            states.append(suffixes[states[-1]])
        offsets = torch.arange(0, k * depth + 1, depth, device=self.backoff.device)
        return SparseRows(
            torch.stack(states, 1).flatten(), offsets, torch.stack(products, 1).flatten()
        )

    @cached_property
    def _by_fallback(self) -> SparseRows:
        """The contexts that fall back to each state."""
        states, offsets, weights = self._fallbacks
        order, k = states.argsort(stable=True), len(offsets) - 1
        contexts = torch.arange(k, device=states.device).repeat_interleave(len(states) // max(k, 1))
        return _sparse_rows(states[order], contexts[order], weights[order], len(self.backoff))

    @cached_property
    def _by_last(self) -> SparseRows:
        """The contexts with each last word."""
        last = self.words[self.vocab_size :]
        order, ones = last.argsort(stable=True), torch.ones_like(self.backoff[: len(last)])
        return _sparse_rows(last[order], order, ones, self.vocab_size)

    def forward(self, columns: Columns) -> Columns:
        """P^T x: probabilities of the states to those of their successors."""
        if self.contexts:
            columns = (self._by_fallback @ columns[self.vocab_size :]).add_(columns)
        backoff = self.backoff_weight @ columns
        return (self._by_after @ columns).addr_(self.backoff, backoff)

    def backward(self, columns: Columns) -> Columns:
        """P x: likelihoods of the states to those of their predecessors."""
        backoff = self.backoff @ columns
        result = (self._by_before @ columns).addr_(self.backoff_weight, backoff)
        if self.contexts:
            result[self.vocab_size :] += self._fallbacks @ result
        return result

    @cached_property
    def words(self) -> Int[Tensor, " s"]:
        """The last word of each state."""
        states = torch.arange(len(self.backoff), device=self.backoff.device)
        if self.contexts:
            suffixes = self._suffixes
            for _ in range(self.contexts.longest - 1):
                states = suffixes[states]
        return states

    @property
    def _suffixes(self) -> Int[Tensor, " s"]:
        """The suffix of each state. That of a word is the word."""
        assert self.contexts
        words = torch.arange(self.vocab_size, device=self.backoff.device)
        return torch.cat([words, self.contexts.suffix])

    def of_states(self, columns: WordColumns) -> Columns:
        """Numbers of words to those of states: a context has that of its last word."""
        return columns[self.words] if self.contexts else columns

    def of_words(self, columns: Columns) -> WordColumns:
        """Numbers of states, summed over the states of each word."""
        if not self.contexts:
            return columns
        return columns[: self.vocab_size] + self._by_last @ columns[self.vocab_size :]

    def lookup(self, before: Int[Tensor, "*n"], after: Int[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """P(before, after) of given pairs of states."""
        result = self._own(before, after)
        if not self.contexts:
            return result
        weights = F.pad(self.contexts.weight, (self.vocab_size, 0))
        suffixes, product = self._suffixes, torch.ones_like(result)
        for _ in range(self.contexts.longest - 1):
            product, before = product * weights[before], suffixes[before]
            result = result + product * self._own(before, after)
        return result

    def _own(self, before: Int[Tensor, "*n"], after: Int[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """P(before, after) of given pairs of states, for contexts without that of the suffix."""
        backoff = self.backoff_weight[before] * self.backoff[after]
        if not len(self.values):
            return backoff
        size = len(self.backoff)
        rows = torch.arange(0, size * size, size, device=before.device)  # sums need no product
        keys, wanted = rows[self.before.long()] + self.after, rows[before] + after
        found = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
        return backoff + self.values[found].where(keys[found] == wanted, 0)

    def power(self, exponent: float) -> "Transitions":
        """The transitions with every entry of P raised to a power."""
        rest = self.backoff_weight[self.before] * self.backoff[self.after]
        contexts = self.contexts
        if contexts:
            weights = F.pad(contexts.weight, (self.vocab_size, 0))
            of_suffix = self.lookup(self._suffixes[self.before.long()], self.after.long())
            rest = rest + weights[self.before] * of_suffix
            contexts = contexts._replace(weight=contexts.weight**exponent)
        values = (self.values + rest) ** exponent - rest**exponent
        # contexts keep a backoff weight of 0, for exponents are positive
        rank_one = self.backoff_weight**exponent, self.backoff**exponent
        return Transitions(self.before, self.after, values, *rank_one, contexts)

    def dense(self) -> Float[Tensor, "s s"]:
        """P as a dense matrix."""
        return self.backward(torch.eye(len(self.backoff)).to(self.backoff))


def _sparse_rows(rows: Tensor, columns: Tensor, values: Tensor, n: int) -> SparseRows:
    """Rows of a sparse matrix whose entries are sorted by row."""
    numbers = torch.arange(n + 1, device=rows.device, dtype=rows.dtype)
    offsets = torch.searchsorted(rows, numbers).to(columns.dtype)
    return SparseRows(columns.contiguous(), offsets, values)
