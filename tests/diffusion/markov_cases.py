"""A small Markov chain, all its sentences, and the posterior by enumeration."""

from itertools import product

import torch
from tensors import double, draws, seeded

from textdiff.diffusion.markov import MarkovChain
from textdiff.diffusion.markov_text import MarkovText
from textdiff.diffusion.transitions import Transitions

V, L = 4, 5
# every row and the probability of the end after it add up to 1; word 3 never follows word 0
TABLE = double(
    [0.10, 0.55, 0.15, 0.00],
    [0.25, 0.05, 0.40, 0.10],
    [0.30, 0.20, 0.05, 0.35],
    [0.05, 0.15, 0.30, 0.10],
)
END = 1 - TABLE.sum(1)
CHAIN = MarkovChain(double(0.5, 0.2, 0.3, 0.0), Transitions.from_dense(TABLE), END)
TEXT = MarkovText(CHAIN, draws(V, 3, seed=5))
MASK = torch.arange(L) < torch.tensor([L, 3, 1, 4]).unsqueeze(1)
LEVELS = torch.linspace(-3, 3, MASK.numel(), dtype=torch.float64).view_as(MASK)


def sentences(length: int) -> torch.Tensor:
    """All sentences of a length, one per row."""
    return torch.tensor(list(product(range(V), repeat=length)))


def log_joint(words: torch.Tensor) -> torch.Tensor:
    """log start(w_1) + sum log P + log end of each sentence, from the definition."""
    rows = [CHAIN.start[words[:, 0]], *TABLE[words[:, :-1], words[:, 1:]].T, END[words[:, -1]]]
    return torch.stack(rows).log().sum(0)


def enumerated(log_likelihood: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """All sentences and their posterior probabilities, given `log_likelihood` (l, v)."""
    words = sentences(len(log_likelihood))
    own = log_likelihood[torch.arange(words.shape[1]), words].sum(1)
    return words, (log_joint(words) + own).softmax(0)


def marginals(log_likelihood: torch.Tensor) -> torch.Tensor:
    """Posterior of each word by enumeration (l, v)."""
    words, probability = enumerated(log_likelihood)
    one_hot = torch.nn.functional.one_hot(words, V).double()
    return torch.einsum("n,nlv->lv", probability, one_hot)


def uniforms(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=seeded(seed), dtype=torch.float64)
