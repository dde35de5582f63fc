"""Finite automata over words: sentences of a set, drawn, predicted or found exactly.

The set of sentences with all required and no forbidden phrases is a regular language. If the clean
sentence is known to lie in a set, its posterior is the old one restricted to the set:

    p(w | x_t, w in set) proportional to p(w | x_t) 1[w in set].

So a denoiser that is restricted in every step samples the data of the set: no guidance is needed.
The product of a Markov chain with an automaton is a Markov chain again (Ctrl-G, arXiv:2406.13892).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from textdiff.diffusion.markov import MarkovChain, Mask, WordLogits, draw_column
from textdiff.diffusion.transitions import Columns, Words

FLOOR = -50.0  # log of the smallest likelihood of a word relative to the likeliest, in float32
MEMORY = 2**26  # numbers that are kept at a time


@dataclass(frozen=True)
class Automaton:
    """A deterministic automaton that reads sentences from their last word to their first.

    Args:
        next: State after each word. `states` means that no sentence of the set follows.
        accepting: Whether a sentence is in the set if reading it ends in each state. The first
            state is the initial one.
    """

    next: Int[Tensor, "s v"]
    accepting: Bool[Tensor, " s"]

    @property
    def states(self) -> int:
        """Number of states."""
        return len(self.accepting)

    def to(self, device: torch.device) -> "Automaton":
        """The automaton on a device."""
        return Automaton(self.next.to(device), self.accepting.to(device))

    @cached_property
    def _classes(self) -> tuple[Int[Tensor, "s k"], Int[Tensor, " v"], list[Tensor]]:
        """Classes of words that act alike: next states, the class of each word, the words."""
        steps, of_word = self.next.unique(dim=1, return_inverse=True)
        return steps, of_word, [(of_word == k).nonzero()[:, 0] for k in range(steps.shape[1])]

    def sample(
        self, chain: MarkovChain, log_likelihood: WordLogits, mask: Mask, uniforms: Tensor
    ) -> Words:
        """Draws sentences of the set from the posterior: `MarkovChain.sample`, restricted.

        If the set has no sentence of a length, the words have no meaning.
        """
        words = chain.transitions.words
        of_states = Automaton(self.next[:, words], self.accepting)
        size = max(1, MEMORY // (self.states * len(words) * mask.shape[1]))
        parts = zip(*(x.split(size) for x in (log_likelihood, mask, uniforms)), strict=True)
        drawn = [of_states._sample(chain, own[..., words], *rest) for own, *rest in parts]
        return words[torch.cat(drawn)]

    def _sample(
        self, chain: MarkovChain, log_likelihood: WordLogits, mask: Mask, uniforms: Tensor
    ) -> Words:
        """Forward filtering, backward sampling. The state is known when a word is drawn."""
        end, rows = chain.end.unsqueeze(1), torch.arange(len(mask), device=mask.device)
        words, weight, state = [], end, torch.zeros_like(rows)
        for i, joint in reversed([*enumerate(self._forward(chain, log_likelihood))]):
            mass = joint[:, state, rows]
            posterior = mass * weight
            word = draw_column(torch.where(posterior.sum(0) > 0, posterior, mass), uniforms[:, i])
            chosen = torch.zeros_like(mass).scatter_(0, word.unsqueeze(0), 1.0)
            weight = torch.where(mask[:, i], chain.transitions.backward(chosen), end)
            after = self.next[state, word].clamp(max=self.states - 1)
            state = torch.where(mask[:, i], after, state)
            words.append(word)
        return torch.stack(words[::-1], 1)

    def _forward(self, chain: MarkovChain, log_likelihood: WordLogits) -> list[Tensor]:
        """p(word i, vectors to i, words to i are accepted from each state), of shape (v, s, b).

        Each column is divided by its sum, whose logarithm is kept: rare words do not underflow.
        """
        batch, states = len(log_likelihood), self.states
        dead = torch.full((1, batch), -torch.inf, device=log_likelihood.device)
        scale = torch.cat([self.accepting.float().log().unsqueeze(1).expand(-1, batch), dead])
        message = chain.start[:, None, None].expand(-1, states, batch)
        joints = []
        for own in log_likelihood.unbind(1):
            joint, top = torch.zeros_like(message), []
            for state, arcs in enumerate(self._arcs):
                levels = scale[list(arcs)] if arcs else dead
                top.append(levels.amax(0))
                factors = (levels - top[-1]).exp().nan_to_num(0)
                for factor, (target, words) in zip(factors, arcs.items(), strict=False):
                    joint[words, state] = message[words, target] * factor
            joint *= _floored(own).unsqueeze(1)
            total = joint.sum(0)
            scale = torch.cat([torch.stack(top) + total.log(), dead])
            joints.append(joint / total.clamp(min=1e-37))
            message = chain.transitions.forward(joints[-1].flatten(1)).view_as(joint)
        return joints

    @cached_property
    def _arcs(self) -> list[dict[int, Tensor]]:
        """For each state, the words that lead to each living state."""
        return [
            {int(to): (row == to).nonzero()[:, 0] for to in row.unique() if to < self.states}
            for row in self.next
        ]

    def tilt(self, logits: WordLogits, mask: Mask) -> WordLogits:
        """Logits of each word, given that the sentence is in the set.

        The words are taken as independent. With one required word of probability p_i at position i
        they are those of Bayes' rule with 1 - prod (1 - p_i), the probability that it occurs.
        """
        steps, of_word, members = self._classes
        log_p = logits.log_softmax(-1)
        mass = torch.stack([log_p[..., words].logsumexp(-1) for words in members], -1)
        accepted = self._accepted(mass, mask, torch.logsumexp)
        reached = torch.full_like(self._padded(accepted[0]), -torch.inf)
        reached[:, 0] = 0
        tilts = []
        for i in reversed(range(mask.shape[1])):
            after = self._padded(accepted[i])[:, steps]  # b s k
            tilt = (reached[:, :-1, None] + after).logsumexp(1)
            here = mask[:, i, None]
            tilts.append((tilt - tilt.amax(1, keepdim=True)).where(here, 0))
            moved = (reached[:, :-1, None] + mass[:, i, None]).flatten(1)
            target = steps.flatten().expand(len(moved), -1)
            top = moved.amax(1, keepdim=True).clamp(min=-1e30)
            summed = torch.zeros_like(reached).scatter_add_(1, target, (moved - top).exp())
            reached = torch.where(here, summed.log() + top, reached)
        return logits + torch.stack(tilts[::-1], 1).nan_to_num(0, neginf=-torch.inf)[..., of_word]

    def best(self, scores: WordLogits, mask: Mask) -> Words:
        """The sentence of the set with the greatest sum of scores (Viterbi's algorithm).

        It has the best word at every position if that sentence is in the set.
        """
        steps, _, members = self._classes
        tops = [scores[..., words].max(-1) for words in members]
        mass = torch.stack([top.values for top in tops], -1)
        word = torch.stack(
            [words[top.indices] for words, top in zip(members, tops, strict=True)], -1
        )
        accepted = self._accepted(mass, mask, torch.amax)
        state, found = torch.zeros_like(word[:, 0, 0]), []
        for i in reversed(range(mask.shape[1])):
            after = self._padded(accepted[i]).gather(1, steps[state])
            k = (mass[:, i] + after).argmax(1, keepdim=True)
            found.append(word[:, i].gather(1, k)[:, 0])
            moved = steps[state, k[:, 0]].clamp(max=self.states - 1)
            state = torch.where(mask[:, i], moved, state)
        return torch.stack(found[::-1], 1)

    def accepts(
        self, words: Words, given: Mask, banned: Bool[Tensor, " v"], mask: Mask
    ) -> Bool[Tensor, " b"]:
        """Whether the set has a sentence with the given words, and elsewhere without banned ones.

        Args:
            given: True where `words` are given.
        """
        steps, of_word, members = self._classes
        own = F.one_hot(of_word[words], steps.shape[1]).bool()
        free = torch.stack([~banned[each].all() for each in members])
        possible = torch.where(given.unsqueeze(-1), own, free)
        best = self._accepted(possible.float().log(), mask, torch.amax)[-1][:, 0]
        return best > -torch.inf

    def _accepted(
        self, mass: Tensor, mask: Mask, add: Callable[..., Tensor]
    ) -> list[Float[Tensor, "b s"]]:
        """Logs of the sums over accepted beginnings of 0, 1, ... words, from each state.

        Args:
            mass: Log mass of each class of words, at each position.
            add: logsumexp, or amax for the best beginning instead.
        """
        steps, batch = self._classes[0], len(mass)
        accepted = [self.accepting.float().log().expand(batch, -1)]
        for i in range(mass.shape[1]):
            after = self._padded(accepted[-1])[:, steps]
            new = add(mass[:, i, None] + after, 2)
            accepted.append(torch.where(mask[:, i, None], new, accepted[-1]))
        return accepted

    @staticmethod
    def _padded(values: Float[Tensor, "b s"]) -> Tensor:
        """Logs of the states' masses, with that of no state, which is 0."""
        return F.pad(values, (0, 1), value=-torch.inf)


def _floored(log_likelihood: Float[Tensor, "b v"]) -> Columns:
    """Likelihoods that add up to 1. Those of possible words are not too small for float32."""
    lowest = log_likelihood.amax(1, keepdim=True) + FLOOR
    possible = log_likelihood > -torch.inf
    floored = torch.where(possible, log_likelihood.maximum(lowest), log_likelihood)
    return floored.softmax(1).T.contiguous()
