"""Where word embeddings start: words that keep the same company start close, so that noise hides first which of them it was, then what kind.

Rows of the positive pointwise mutual information of words and their neighbours, reduced by SVD (Levy & Goldberg, NeurIPS 2014). Seconds of work that
a denoiser would otherwise spend minutes on.
"""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from textdiff.data import Corpus

COUNTED = 2**24  # tokens, about, that co-occurrences are counted in


def spectral_embedding(corpus: Corpus, vocab_size: int, dim: int, *, window: int = 2, noise: float = 0.3, seed: int = 0) -> Float[Tensor, "v d"]:
    """A vector of norm sqrt(dim) for every token.

    Args:
        window: Neighbours on each side that count, those before and those after apart.
        noise: Norm of a random vector added to the unit vectors, which sets apart words of the same company. One never seen is all random.
    """
    generator = torch.Generator().manual_seed(seed)
    pmi = positive_pmi(corpus, vocab_size, window)
    both = torch.cat([pmi, pmi.t().coalesce()], 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        u, s, _ = torch.svd_lowrank(both, q=min(dim + 8, *both.shape), niter=4)
    rows = torch.zeros(vocab_size, dim)
    rows[:, : min(dim, len(s))] = (u * s.sqrt())[:, :dim].float()  # float64 till here, so that the number of threads changes no digit
    rows = torch.nn.functional.normalize(rows, dim=-1) + noise / math.sqrt(dim) * torch.randn(rows.shape, generator=generator)
    return torch.nn.functional.normalize(rows, dim=-1) * math.sqrt(dim)


def positive_pmi(corpus: Corpus, vocab_size: int, window: int) -> Tensor:
    """max(0, log p(a, b) / p(a) p(b)), sparse, for a word a and a word b at most `window` places after it in the same example.

    A corpus of more than `COUNTED` tokens is sampled in evenly spaced pieces, for time and memory.
    """
    pair: np.ndarray = np.empty(0, np.int64)
    count: np.ndarray = np.empty(0)
    for piece in corpus.pieces(every=-(-len(corpus.tokens) // COUNTED)):
        new, times = np.unique(_pairs(piece, vocab_size, window), return_counts=True)
        pair, place = np.unique(np.concatenate([pair, new]), return_inverse=True)
        count = np.bincount(place, np.concatenate([count, times]))
    before, after = np.divmod(pair, vocab_size)
    marginals = np.bincount(before, count, vocab_size)[before] * np.bincount(after, count, vocab_size)[after]
    pmi = np.log(count * (count.sum() / marginals)).clip(0)
    places, values = torch.from_numpy(np.stack([before, after])), torch.from_numpy(pmi)
    return torch.sparse_coo_tensor(places, values, (vocab_size, vocab_size), check_invariants=True).coalesce()


def _pairs(corpus: Corpus, vocab_size: int, window: int) -> np.ndarray:
    """a * vocab_size + b for every such pair of words, as often as it occurs."""
    example = np.repeat(np.arange(len(corpus)), corpus.sizes)
    pairs = [np.empty(0, np.int64)]
    for distance in range(1, window + 1):
        same = example[distance:] == example[:-distance]
        before, after = corpus.tokens[:-distance][same], corpus.tokens[distance:][same]
        pairs.append(before.astype(np.int64) * vocab_size + after)
    return np.concatenate(pairs)
