"""The Markov prior of a text model: pairs of neighbouring words, counted in the training text.

The table of pairs is smoothed by interpolated absolute discounting and saved with the model.
Nothing of it is trained.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from textdiff.diffusion.markov import MarkovChain
from textdiff.diffusion.transitions import Transitions
from textdiff.text.dataset import Corpus


class Evidence(NamedTuple):
    """Bayes' rule for the noisy vectors under a Markov prior, without the network.

    Args:
        chain: The prior.
        log_likelihood: Log-likelihood of each word given its own vector.
        messages: Logits of each word given the vectors of the other words.
        estimate: Posterior mean of x0.
    """

    chain: MarkovChain
    log_likelihood: Float[Tensor, "b *l v"]
    messages: Float[Tensor, "b *l v"]
    estimate: Float[Tensor, "b l d"]

    def at(self, gather: Callable[[Tensor], Tensor]) -> "Evidence":
        """The logits at selected positions."""
        return self._replace(
            log_likelihood=gather(self.log_likelihood), messages=gather(self.messages)
        )


class Joint(NamedTuple):
    """Distribution of sentences, proportional to chain(words) exp(sum of the words' logits).

    Args:
        chain: The prior.
        messages: What the distribution of single words adds to the logits. If None, it is computed
            by the recursion over the words.
    """

    chain: MarkovChain
    messages: Float[Tensor, "b l v"] | None

    def log_messages(
        self, logits: Float[Tensor, "b l v"], mask: Bool[Tensor, "b l"]
    ) -> Float[Tensor, "b l v"]:
        """Logits that are added for the distribution of single words."""
        if self.messages is not None:
            return self.messages
        return self.chain.log_messages(logits, mask)


class PairStatistics(NamedTuple):
    """Smoothed statistics of neighbouring words: the buffers of a `MarkovPrior`.

    Args:
        start: Probability that a sentence begins with each word.
        end: Probability that a sentence ends after each word.
        pairs: The pairs of words that are kept, sorted.
        values: Discounted probability of the second word of each pair after the first.
        backoff_weight: Weight of the backoff distribution after each word.
        backoff: Backoff distribution of the words; with the end of the sentence it adds up to 1.
    """

    start: Float[Tensor, " v"]
    end: Float[Tensor, " v"]
    pairs: Int[Tensor, "2 p"]
    values: Float[Tensor, " p"]
    backoff_weight: Float[Tensor, " v"]
    backoff: Float[Tensor, " v"]


class MarkovPrior(nn.Module):
    """The statistics of word pairs as buffers, and the Markov chain that they make.

    Args:
        pairs: Number of word pairs.
    """

    start: Tensor
    end: Tensor
    pairs: Tensor
    values: Tensor
    backoff_weight: Tensor
    backoff: Tensor

    def __init__(self, vocab_size: int, pairs: int) -> None:
        super().__init__()
        uniform = torch.full((vocab_size,), 1 / vocab_size)
        statistics = PairStatistics(
            start=uniform,
            end=uniform,
            pairs=torch.zeros(2, pairs, dtype=torch.int32),
            values=torch.zeros(pairs),
            backoff_weight=torch.ones(vocab_size),
            backoff=uniform,
        )
        for name, value in statistics._asdict().items():
            self.register_buffer(name, value.clone())

    def set_statistics(self, statistics: PairStatistics) -> None:
        """Copies the statistics into the buffers."""
        for name, value in statistics._asdict().items():
            getattr(self, name).copy_(value)

    def chain(self) -> MarkovChain:
        """The Markov chain of the words."""
        before, after = self.pairs
        table = Transitions(before, after, self.values, self.backoff_weight, self.backoff)
        return MarkovChain(self.start, table, self.end)


def pair_statistics(
    corpus: Corpus, vocab_size: int, *, ends: bool = True, most: int = 2**20
) -> PairStatistics:
    """Counts neighbouring words, and discounts the counts.

    The discount n1 / (n1 + 2 n2) is the best one for the text without the pair itself (Ney, Essen &
    Kneser, 1994); n1 and n2 are the numbers of pairs that occur once and twice.

    Args:
        ends: Whether examples begin and end as sentences do. Blocks of packed text do not.
        most: Largest number of pairs that are kept, the most frequent ones.
    """
    size = vocab_size + 1  # the last word is the boundary of sentences
    pair, count = _count_pairs(corpus, vocab_size, ends)
    before, after = np.divmod(pair, size)
    once, twice = (count == 1).sum(), (count == 2).sum()
    discount = once / (once + 2 * twice) if once and twice else 0.5
    value = (count - discount) / np.bincount(before, count, size)[before]
    backoff = np.bincount(after, count, size) + 0.1
    backoff /= backoff.sum()
    inner = np.flatnonzero((before < vocab_size) & (after < vocab_size))
    kept = np.sort(inner[np.argsort(-count[inner], kind="stable")[:most]])
    seen_end = np.bincount(before[after == vocab_size], value[after == vocab_size], size)
    seen_start = np.bincount(after[before == vocab_size], value[before == vocab_size], size)
    weight = 1 - np.bincount(before[kept], value[kept], size) - seen_end
    start = seen_start + (1 - seen_start.sum()) * backoff
    end = seen_end + weight * backoff[-1] if ends else np.ones(size)
    pairs = torch.from_numpy(np.stack([before[kept], after[kept]]).astype(np.int32))
    numbers = (start[:-1], end[:-1], value[kept], weight[:-1], backoff[:-1])
    first, last, values, *rest = (torch.from_numpy(each).float() for each in numbers)
    return PairStatistics(first, last, pairs, values, rest[0], rest[1])


def _count_pairs(corpus: Corpus, vocab_size: int, ends: bool) -> tuple[np.ndarray, np.ndarray]:
    """Pairs a * (vocab_size + 1) + b, sorted, and the number of times that b follows a."""
    pair: np.ndarray = np.empty(0, np.int64)
    count: np.ndarray = np.empty(0)
    for piece in corpus.pieces():
        new, times = np.unique(_pairs(piece, vocab_size, ends), return_counts=True)
        pair, index = np.unique(np.concatenate([pair, new]), return_inverse=True)
        count = np.bincount(index, np.concatenate([count, times]))
    return pair, count


def _pairs(corpus: Corpus, vocab_size: int, ends: bool) -> np.ndarray:
    """Every pair of neighbours, and with `ends` the boundaries of the examples."""
    size, tokens = vocab_size + 1, corpus.tokens.astype(np.int64)
    first = np.zeros(len(tokens), bool)
    first[corpus.starts[:-1]] = True
    inner = (tokens[:-1] * size + tokens[1:])[~first[1:]]
    if not ends:
        return inner
    starts = vocab_size * size + tokens[first]
    return np.concatenate([inner, starts, tokens[corpus.starts[1:] - 1] * size + vocab_size])
