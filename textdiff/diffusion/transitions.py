"""Transition matrices of Markov chains: sparse plus rank one."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

Words = Int[Tensor, "b l"]
Columns = Float[Tensor, "v b"]  # numbers of all words, one column per sentence


class SparseRows(NamedTuple):
    """A sparse matrix by rows (CSR): row i has the entries `offsets[i]` to `offsets[i + 1]`."""

    indices: Int[Tensor, " p"]
    offsets: Int[Tensor, " rows"]
    values: Float[Tensor, " p"]

    def __matmul__(self, columns: Columns) -> Columns:
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


@dataclass(frozen=True)
class Transitions:
    """Transition matrix P = S + backoff_weight backoff^T with a sparse matrix S.

    Smoothed tables of word pairs have this form: S holds the pairs that occur, and all pairs back
    off to the frequency of their second word.

    Args:
        before: First word of each pair in S. Pairs are sorted by it, then by the second word.
        after: Second word of each pair.
        values: Entries of S.
        backoff_weight: Weight of the backoff distribution after each first word.
        backoff: Backoff distribution of the second word.
    """

    before: Int[Tensor, " p"]
    after: Int[Tensor, " p"]
    values: Float[Tensor, " p"]
    backoff_weight: Float[Tensor, " v"]
    backoff: Float[Tensor, " v"]

    @classmethod
    def from_dense(cls, matrix: Float[Tensor, "v v"]) -> "Transitions":
        """Transitions of a dense matrix, without its zeros."""
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

    def forward(self, columns: Columns) -> Columns:
        """P^T x: probabilities of the words to those of their successors."""
        backoff = self.backoff_weight @ columns
        return torch.addr(self._by_after @ columns, self.backoff, backoff)

    def backward(self, columns: Columns) -> Columns:
        """P x: likelihoods of the words to those of their predecessors."""
        backoff = self.backoff @ columns
        return torch.addr(self._by_before @ columns, self.backoff_weight, backoff)

    def lookup(self, before: Words, after: Words) -> Float[Tensor, "b l"]:
        """P(before, after) of given pairs."""
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
        backoff = self.backoff_weight[self.before] * self.backoff[self.after]
        rank_one = self.backoff_weight**exponent, self.backoff**exponent
        values = (self.values + backoff) ** exponent - backoff**exponent
        return Transitions(self.before, self.after, values, *rank_one)

    def dense(self) -> Float[Tensor, "v v"]:
        """P as a dense matrix."""
        return self.backward(torch.eye(len(self.backoff)).to(self.backoff))


def _sparse_rows(rows: Tensor, columns: Tensor, values: Tensor, n: int) -> SparseRows:
    """Rows of a sparse matrix whose entries are sorted by row."""
    numbers = torch.arange(n + 1, device=rows.device, dtype=rows.dtype)
    offsets = torch.searchsorted(rows, numbers).to(columns.dtype)
    return SparseRows(columns.contiguous(), offsets, values)
