"""Small Markov chains, all their sentences, and the posteriors by enumeration."""

from dataclasses import replace
from itertools import product

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


# a chain with contexts: after these words, LATER + WEIGHT times what comes without the first word
CONTEXTS = [(0, 1), (1, 1), (2, 3), (0, 1, 1)]
STATES = [*[(word,) for word in range(V)], *CONTEXTS]
LATER = double(
    [0.1, 0.0, 0.2, 0.3], [0.0, 0.4, 0.0, 0.1], [0.2, 0.1, 0.0, 0.0], [0.3, 0.0, 0.1, 0.1]
)
WEIGHT = double(0.3, 0.5, 0.0, 0.4)
LONGER_END = torch.cat([END, double(0.2, 0.1, 0.6, 0.3)])


def _longer() -> MarkovChain:
    n = len(CONTEXTS)
    table = torch.zeros(V + n, V + n, dtype=torch.float64)
    for row, state in enumerate(STATES):
        for word in range(V):
            p = TABLE[row, word] if row < V else LATER[row - V, word]
            table[row, STATES.index(_next(state, word))] = p
    suffix = torch.tensor([STATES.index(context[1:]) for context in CONTEXTS])
    contexts = Contexts(suffix, WEIGHT, longest=3)
    transitions = replace(Transitions.from_dense(table), contexts=contexts)
    return MarkovChain(torch.cat([START, torch.zeros(n)]), transitions, LONGER_END)


def _next(state: tuple[int, ...], word: int) -> tuple[int, ...]:
    """The longest context at the end of a context and a word."""
    words = (*state, word)
    return next(words[i:] for i in range(len(words)) if words[i:] in STATES)


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
    """Follows every context that the words may have."""
    mass = {(words[0],): START[words[0]]}
    for word in words[1:]:
        following: dict[tuple[int, ...], torch.Tensor] = {}
        for state, p in mass.items():
            context = state
            while len(context) > 1:
                number, after = CONTEXTS.index(context), _next(context, word)
                following[after] = following.get(after, 0) + p * LATER[number, word]
                p, context = p * WEIGHT[number], context[1:]
            after = _next(context, word)
            following[after] = following.get(after, 0) + p * TABLE[context[0], word]
        mass = following
    ends = [p * LONGER_END[STATES.index(state)] for state, p in mass.items()]
    return torch.stack(ends).sum()


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
