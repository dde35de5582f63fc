"""The Markov prior of a text model: neighbouring words, counted in the training text.

The statistics of `pair_counts` are saved with the model. Nothing of them is trained.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from textdiff.diffusion.markov import MarkovChain
from textdiff.diffusion.transitions import Contexts, Transitions

LONGEST = 3  # words of a context


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

    The states are the words, and after them the contexts: frequent words in a row, after which the
    next word is counted given all of them.

    Args:
        start: Probability that a sentence begins with each state.
        end: Probability that a sentence ends after each state.
        pairs: The pairs of states that are kept, sorted.
        values: Discounted probability of the second state of each pair after the first.
        backoff_weight: Weight of the backoff distribution after each state.
        backoff: Backoff distribution of the words; with the end of a sentence it adds up to 1.
        context_last: State of each context without its first word: for two words, the last one.
        context_weight: Weight of that state after each context.
    """

    start: Float[Tensor, " s"]
    end: Float[Tensor, " s"]
    pairs: Int[Tensor, "2 p"]
    values: Float[Tensor, " p"]
    backoff_weight: Float[Tensor, " s"]
    backoff: Float[Tensor, " s"]
    context_last: Int[Tensor, " k"]
    context_weight: Float[Tensor, " k"]

    @property
    def sizes(self) -> dict[str, int]:
        """Options of a model that has room for them."""
        return {"prior_pairs": len(self.values), "prior_contexts": len(self.context_last)}


class MarkovPrior(nn.Module):
    """The statistics of words and contexts as buffers, and the Markov chain that they make.

    Args:
        pairs: Number of pairs of states.
        contexts: Number of contexts.
    """

    start: Tensor
    end: Tensor
    pairs: Tensor
    values: Tensor
    backoff_weight: Tensor
    backoff: Tensor
    context_last: Tensor
    context_weight: Tensor

    def __init__(self, vocab_size: int, pairs: int, contexts: int = 0) -> None:
        super().__init__()
        uniform = torch.full((vocab_size,), 1 / vocab_size)
        padded = F.pad(uniform, (0, contexts))
        statistics = PairStatistics(
            start=padded,
            end=F.pad(uniform, (0, contexts), value=1 / vocab_size),
            pairs=torch.zeros(2, pairs, dtype=torch.int32),
            values=torch.zeros(pairs),
            backoff_weight=F.pad(torch.ones(vocab_size), (0, contexts)),
            backoff=padded,
            context_last=torch.zeros(contexts, dtype=torch.int32),
            context_weight=torch.ones(contexts),
        )
        # models that were saved before there were contexts have no such buffers
        names = PairStatistics._fields if contexts else PairStatistics._fields[:-2]
        for name in names:
            self.register_buffer(name, getattr(statistics, name).clone())

    def set_statistics(self, statistics: PairStatistics) -> None:
        """Copies the statistics into the buffers."""
        for name, buffer in self.named_buffers():
            buffer.copy_(getattr(statistics, name))

    def chain(self) -> MarkovChain:
        """The Markov chain of the words."""
        has_contexts = hasattr(self, "context_last")
        contexts = None
        if has_contexts:
            contexts = Contexts(self.context_last, self.context_weight, LONGEST)
        before, after = self.pairs
        rank_one = self.backoff_weight, self.backoff
        table = Transitions(before, after, self.values, *rank_one, contexts)
        return MarkovChain(self.start, table, self.end)
