"""Lengths of targets, which models of pairs predict from the tokens of the source."""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from textdiff.text.dataset import Corpus

WEIGHTED = 2_000  # tokens with a weight of their own; others share one
RIDGE = (
    100.0  # number of occurrences at which a token's weight is half its own, half the shared one
)
FITTED = 100_000  # pairs to which the weights are fitted
SPREAD = 0.5  # tokens; sources with almost the same prediction count together


class TargetLengths(nn.Module):
    """Frequencies of the lengths of targets, given the tokens of the source.

    The predicted length is the sum of the weights of the source's tokens, the separator included.
    The frequencies are those of training targets with about the same predicted length. In a new
    model every weight is 1, so that sources of the same length have the same frequencies.

    Args:
        vocab_size: Number of tokens.
        longest: Number of tokens of the longest sequence.
    """

    weights: Tensor
    frequencies: Tensor

    def __init__(self, vocab_size: int, longest: int) -> None:
        super().__init__()
        self.register_buffer("weights", torch.ones(vocab_size))
        self.register_buffer("frequencies", torch.ones(longest + 1, longest + 1))

    def forward(self, ids: Int[Tensor, "b l"], source: Bool[Tensor, "b l"]) -> Float[Tensor, "b n"]:
        """Frequencies of the lengths 0 to `longest` of each target.

        Args:
            ids: Sequences that begin with a source and the separator.
            source: True at these.
        """
        predicted = (self.weights[ids] * source).sum(1).round().long()
        return self.frequencies[predicted.clamp(0, len(self.frequencies) - 1)]

    def fit(self, corpus: Corpus, separator: int) -> None:
        """Fits weights and frequencies to training pairs.

        Args:
            corpus: Sequences of source, separator and target.
            separator: Token of the separator.
        """
        weights = _fit_weights(corpus.head(FITTED), separator, len(self.weights))
        longest = len(self.frequencies) - 1
        counts = np.zeros((longest + 1, longest + 1), np.int64)
        for piece in corpus.pieces():
            source, targets = _sources(piece, separator)
            predicted = np.add.reduceat(weights[piece.tokens] * source, piece.starts[:-1])
            rows = predicted.round().clip(0, longest).astype(np.int64)
            np.add.at(counts, (rows, targets), 1)
        length = torch.arange(longest + 1).double()
        near = (-(length - length[:, None]).abs() / SPREAD).exp()
        frequencies = near @ torch.from_numpy(counts).double()
        self.weights.copy_(torch.from_numpy(weights))
        self.frequencies.copy_(frequencies / frequencies.sum(1, keepdim=True))


def target_share(corpus: Corpus, separator: int) -> float:
    """Share of the tokens of pairs that are in targets."""
    targets = sum(int(_sources(piece, separator)[1].sum()) for piece in corpus.pieces())
    return targets / int(corpus.starts[-1])


def _sources(pairs: Corpus, separator: int) -> tuple[np.ndarray, np.ndarray]:
    """Whether each token is in a source or a separator, and the length of each target."""
    ends = np.flatnonzero(pairs.tokens == separator) + 1
    source = np.arange(len(pairs.tokens)) < np.repeat(ends, pairs.sizes)
    return source, pairs.starts[1:] - ends


def _fit_weights(corpus: Corpus, separator: int, vocab_size: int) -> np.ndarray:
    """Weights of tokens whose sum over a source predicts the length of the target.

    Ridge regression in which the weights are drawn to a shared one. That of the separator, which
    every source has once, is the constant.
    """
    counts = np.zeros(vocab_size, np.int64)
    for piece in corpus.pieces():
        source, _ = _sources(piece, separator)
        counts += np.bincount(piece.tokens[source], minlength=vocab_size)
    counts[separator] = 0
    own = np.argsort(-counts, kind="stable")[: min(WEIGHTED, np.count_nonzero(counts))]
    shared, constant = len(own), len(own) + 1
    column = np.full(vocab_size, -1)
    column[own] = np.arange(len(own))
    products, moments = np.zeros((constant + 1, constant + 1)), np.zeros(constant + 1)
    for piece in corpus.pieces(size=2**17):
        source, targets = _sources(piece, separator)
        rows = np.repeat(np.arange(len(piece)), piece.sizes)
        features = np.zeros((len(piece), constant + 1), np.float32)
        weighted = source & (column[piece.tokens] >= 0)
        np.add.at(features, (rows[weighted], column[piece.tokens[weighted]]), 1)
        features[:, shared] = np.bincount(rows[source], minlength=len(piece)) - 1
        features[:, constant] = 1
        products += features.T @ features
        moments += features.T @ targets.astype(np.float32)
    penalty = np.full(constant + 1, RIDGE)
    penalty[shared:] = 1e-3  # for sources that all have the same length
    solution = np.linalg.solve(products + np.diag(penalty), moments)
    weights = np.full(vocab_size, solution[shared])
    weights[own] += solution[:shared]
    weights[separator] = solution[constant]
    return weights
