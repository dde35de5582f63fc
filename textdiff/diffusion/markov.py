"""Markov chains over words of which only noisy vectors are seen: exact posteriors and samples.

The words are a hidden Markov chain, and each noisy vector depends on its own word alone. The
forward-backward recursion (Rabiner, Proc. IEEE 1989, sec. III) then gives the posterior of each
word given all vectors. Noise levels may differ between words, because they enter through the
log-likelihood of each word alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from textdiff.diffusion.transitions import Columns, Transitions, WordColumns, Words

Mask = Bool[Tensor, "b l"]
WordLogits = Float[Tensor, "b l v"]

TINY = 1e-30  # in place of probabilities that are 0 in float32


@dataclass(frozen=True)
class MarkovChain:
    """p(w_1 ... w_L) proportional to start(w_1) P(w_1, w_2) ... P(w_{L-1}, w_L) end(w_L).

    The length L is given. If the transitions have contexts, the chain is one of states: words, and
    contexts of several words. Each has a last word, and the sum is over the states of the words.

    Args:
        start: Probability that a sentence begins with each state.
        transitions: Probabilities P of the next state; a row and `end` add up to 1 if sentences end
            at random.
        end: Probability that a sentence ends after each state.
    """

    start: Float[Tensor, " s"]
    transitions: Transitions
    end: Float[Tensor, " s"]

    def log_messages(self, log_likelihood: WordLogits, mask: Mask) -> WordLogits:
        """Logits of each word given the vectors of all other words.

        With `log_likelihood` added, they are the logits of its posterior given all vectors.

        Args:
            log_likelihood: Log-likelihood of each word given its own vector, up to a constant per
                position.
            mask: True at the positions of a sentence, which come first in every row.
        """
        own = self._of_states(_likelihoods(log_likelihood))
        messages = zip(self._forward(own)[0], self._backward(own, mask), strict=True)
        products = (self.transitions.of_words(before * after) for before, after in messages)
        rows = [product.clamp(min=TINY).T for product in products]
        return torch.stack(rows, 1).log()

    def nats(self, log_likelihood: WordLogits, words: Words, mask: Mask) -> Float[Tensor, " b"]:
        """-log p(words | vectors) of whole sentences, in nats.

        The gradient with respect to `log_likelihood` is the posterior of each word minus its
        one-hot vector, as in a conditional random field (Lafferty et al., ICML 2001).

        Args:
            log_likelihood: As in `log_messages`. It may be any potential of the words.
            mask: As in `log_messages`.
        """
        nats: Tensor = _SentenceNats.apply(log_likelihood, words, mask, self)
        return nats

    def log_prob(self, words: Words, mask: Mask) -> Float[Tensor, " b"]:
        """log start(w_1) P(w_1, w_2) ... end(w_L), without the normalization over words."""
        if self.transitions.contexts:
            # the recursion with known words adds up all states that they may have
            v = self.transitions.vocab_size
            certain = [F.one_hot(word, v).T.to(self.start) for word in words.unbind(1)]
            return self._log_normalizer(self._forward(self._of_states(certain))[1], mask)
        pairs = self.transitions.lookup(words[:, :-1], words[:, 1:]).log().where(mask[:, 1:], 0)
        last = words.gather(1, mask.sum(1, keepdim=True) - 1).squeeze(1)
        return self.start[words[:, 0]].log() + pairs.sum(1) + self.end[last].log()

    def power(self, exponent: float) -> "MarkovChain":
        """The chain with all its probabilities raised to a power."""
        start, end = self.start**exponent, self.end**exponent
        return MarkovChain(start, self.transitions.power(exponent), end)

    def sample(
        self, log_likelihood: WordLogits, mask: Mask, uniforms: Float[Tensor, "b l"]
    ) -> Words:
        """Draws sentences from the posterior, all words together.

        Forward filtering, backward sampling: each word is drawn given those after it.

        Args:
            log_likelihood: As in `log_messages`.
            mask: As in `log_messages`. Elsewhere the words have no meaning.
            uniforms: Uniform random numbers in (0, 1).
        """
        own, end = self._of_states(_likelihoods(log_likelihood)), self.end.unsqueeze(1)
        states, weight = [], end
        for i, joint in reversed([*enumerate(self._forward(own)[1])]):
            posterior = _normalized(joint) * weight
            # high powers of the chain underflow to 0; then the word's own vector decides
            posterior = torch.where(posterior.sum(0) > 0, posterior, own[i])
            state = draw_column(posterior, uniforms[:, i])
            chosen = torch.zeros_like(joint).scatter_(0, state.unsqueeze(0), 1.0)
            weight = torch.where(mask[:, i], self.transitions.backward(chosen), end)
            states.append(state)
        return self.transitions.words[torch.stack(states[::-1], 1)]

    def _of_states(self, own: list[WordColumns]) -> list[Columns]:
        """Likelihoods of the words to those of the states."""
        return [self.transitions.of_states(each) for each in own]

    def _forward(self, own: list[Columns]) -> tuple[list[Columns], list[Columns]]:
        """p(state i, vectors before i) and p(state i, vectors to i), up to factors per sentence."""
        messages = [self.start.unsqueeze(1).expand_as(own[0])]
        joints = [messages[0] * own[0]]
        for each in own[1:]:
            messages.append(self.transitions.forward(_normalized(joints[-1])))
            joints.append(messages[-1] * each)
        return messages, joints

    def _backward(self, own: list[Columns], mask: Mask) -> list[Columns]:
        """p(vectors after i, end | state i), up to a factor per sentence."""
        end = self.end.unsqueeze(1).expand_as(own[0])
        messages = [end]
        for i in reversed(range(1, len(own))):
            message = self.transitions.backward(_normalized(messages[-1] * own[i]))
            messages.append(torch.where(mask[:, i], message, end))
        return messages[::-1]

    def _posterior(
        self, joints: list[Columns], own: list[Columns], mask: Mask
    ) -> Iterator[WordColumns]:
        """Posterior of each word given all vectors, by position."""
        for joint, after in zip(joints, self._backward(own, mask), strict=True):
            yield _normalized(self.transitions.of_words(joint * after))

    def _log_normalizer(self, joints: list[Columns], mask: Mask) -> Float[Tensor, " b"]:
        """Log of the sum of prior times likelihood over all sentences."""
        last = mask & ~F.pad(mask[:, 1:], (0, 1))
        mass = torch.stack([joint.sum(0) for joint in joints], 1)
        ended = torch.stack([self.end @ joint for joint in joints], 1)
        return torch.where(last, ended, mass).clamp(min=TINY).log().where(mask, 0).sum(1)


class _SentenceNats(torch.autograd.Function):
    """`MarkovChain.nats`, with its gradient from the posterior instead of the recursions."""

    @staticmethod
    def forward(
        ctx: Any, log_likelihood: WordLogits, words: Words, mask: Mask, chain: MarkovChain
    ) -> Float[Tensor, " b"]:
        likelihoods = _likelihoods(log_likelihood)
        own = chain._of_states(likelihoods)
        joints = chain._forward(own)[1]
        log_joint = chain.log_prob(words, mask) - chain._log_normalizer(joints, mask)
        # the likelihoods of a position were divided by their sum
        log_sum = log_likelihood.amax(-1) - torch.stack(
            [each.amax(0).log() for each in likelihoods], 1
        )
        chosen = log_likelihood.gather(2, words.unsqueeze(2)).squeeze(2) - log_sum
        slope = torch.stack([each.T for each in chain._posterior(joints, own, mask)], 1)
        ones = torch.ones_like(words, dtype=slope.dtype).unsqueeze(2)
        ctx.save_for_backward(slope.scatter_add_(2, words.unsqueeze(2), -ones), mask)
        return -log_joint - chosen.where(mask, 0).sum(1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        slope, mask = ctx.saved_tensors
        return slope * (gradients[0].unsqueeze(1) * mask).unsqueeze(2), None, None, None


def _likelihoods(log_likelihood: WordLogits) -> list[WordColumns]:
    """Likelihoods by position, which add up to 1, with the batch last for sparse products."""
    return [each.softmax(-1).T.contiguous() for each in log_likelihood.unbind(1)]


def _normalized(columns: Columns) -> Columns:
    return columns / columns.sum(0).clamp(min=TINY)


def draw_column(weight: Columns, uniforms: Float[Tensor, " b"]) -> Int[Tensor, " b"]:
    """Draws one word per column, with probabilities in proportion to the weights."""
    cumulative = weight.T.cumsum(1)
    position = uniforms.unsqueeze(1) * cumulative[:, -1:]
    return (
        torch.searchsorted(cumulative, position, right=True).squeeze(1).clamp(max=len(weight) - 1)
    )
