"""Small Markov chains, all their sentences, and the posteriors by enumeration."""

from dataclasses import replace
from itertools import pairwise, product

import torch
from tensors import double, draws, seeded

from textdiff.diffusion.markov import MarkovChain
from textdiff.diffusion.markov_text import MarkovText
from textdiff.diffusion.transitions import Contexts, Transitions

V, L = 4, 5
# every row and the probability of the end after it add up to 1; word 3 never follows word 0
TABLE = double(
    [0.10, 0.55, 0.15, 0.00],
    [0.25, 0.05, 0.40, 0.10],
    [0.30, 0.20, 0.05, 0.35],
    [0.05, 0.15, 0.30, 0.10],
)
END = 1 - TABLE.sum(1)
START = double(0.5, 0.2, 0.3, 0.0)
CHAIN = MarkovChain(START, Transitions.from_dense(TABLE), END)
TEXT = MarkovText(CHAIN, draws(V, 3, seed=5))
MASK = torch.arange(L) < torch.tensor([L, 3, 1, 4]).unsqueeze(1)
LEVELS = torch.linspace(-3, 3, MASK.numel(), dtype=torch.float64).view_as(MASK)


# a chain with contexts: after these two words, LATER + WEIGHT TABLE[second word]
PAIRS = [(0, 1), (1, 1), (2, 3)]
LATER = double([0.1, 0.0, 0.2, 0.3], [0.0, 0.4, 0.0, 0.1], [0.2, 0.1, 0.0, 0.0])
WEIGHT = double(0.3, 0.5, 0.0)


def _longer() -> MarkovChain:
    table = torch.zeros(V + len(PAIRS), V + len(PAIRS), dtype=torch.float64)
    for first, second in product(range(V), repeat=2):
        table[first, _state(first, second)] = TABLE[first, second]
    for number, (_, second) in enumerate(PAIRS):
        for word in range(V):
            table[V + number, _state(second, word)] = LATER[number, word]
    last = torch.tensor([second for _, second in PAIRS])
    end = torch.cat([END, double(0.2, 0.1, 0.6)])
    contexts = Contexts(last, WEIGHT)
    transitions = replace(Transitions.from_dense(table), contexts=contexts)
    return MarkovChain(torch.cat([START, torch.zeros(3)]), transitions, end)


def _state(first: int, second: int) -> int:
    return V + PAIRS.index((first, second)) if (first, second) in PAIRS else second


LONGER = _longer()


def sentences(length: int) -> torch.Tensor:
    """All sentences of a length, one per row."""
    return torch.tensor(list(product(range(V), repeat=length)))


def log_joint(words: torch.Tensor) -> torch.Tensor:
    """log start(w_1) + sum log P + log end of each sentence, from the definition."""
    rows = [CHAIN.start[words[:, 0]], *TABLE[words[:, :-1], words[:, 1:]].T, END[words[:, -1]]]
    return torch.stack(rows).log().sum(0)


def longer_log_joint(words: torch.Tensor) -> torch.Tensor:
    """The same of the chain with contexts."""
    return torch.stack([_longer_probability(row).log() for row in words.tolist()])


def _longer_probability(words: list[int]) -> torch.Tensor:
    p, end = START[words[0]], END[words[-1]]
    for i, (second, word) in enumerate(pairwise(words)):
        following, context = TABLE[second], (words[i - 1], second) if i else None
        if context in PAIRS:
            number = PAIRS.index(context)
            following = LATER[number] + WEIGHT[number] * following
        p = p * following[word]
    if tuple(words[-2:]) in PAIRS:
        end = LONGER.end[V + PAIRS.index(tuple(words[-2:]))]
    return p * end


def enumerated(
    log_likelihood: torch.Tensor, chain: MarkovChain = CHAIN
) -> tuple[torch.Tensor, torch.Tensor]:
    """All sentences and their posterior probabilities, given `log_likelihood` (l, v)."""
    words = sentences(len(log_likelihood))
    own = log_likelihood[torch.arange(words.shape[1]), words].sum(1)
    joint = longer_log_joint(words) if chain is LONGER else log_joint(words)
    return words, (joint + own).softmax(0)


def marginals(log_likelihood: torch.Tensor, chain: MarkovChain = CHAIN) -> torch.Tensor:
    """Posterior of each word by enumeration (l, v)."""
    words, probability = enumerated(log_likelihood, chain)
    one_hot = torch.nn.functional.one_hot(words, V).double()
    return torch.einsum("n,nlv->lv", probability, one_hot)


def uniforms(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=seeded(seed), dtype=torch.float64)
