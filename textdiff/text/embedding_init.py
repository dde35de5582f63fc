"""Spectral initialization of word embeddings.

Words with similar neighbours start close to each other, so that a little noise hides only which of
them a word is, and more noise hides its kind. The embeddings are the rows of the positive pointwise
mutual information of words and their neighbours, reduced by SVD (Levy & Goldberg, NeurIPS 2014).
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from textdiff.text.dataset import Corpus

MAX_TOKENS = 2**24  # approximate number of tokens whose co-occurrences are counted


def spectral_embedding(
    corpus: Corpus, vocab_size: int, dim: int, *, window: int = 2, noise: float = 0.3, seed: int = 0
) -> Float[Tensor, "v d"]:
    """Initial embeddings of norm sqrt(dim).

    Args:
        window: Number of neighbours on each side. Those before and after are counted separately.
        noise: Norm of the random vectors that are added to the unit vectors, which separates words
            with the same neighbours. The embedding of a word that never occurs is all random.
    """
    generator = torch.Generator().manual_seed(seed)
    pmi = positive_pmi(corpus, vocab_size, window)
    both = torch.cat([pmi, pmi.t().coalesce()], 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        u, s, _ = torch.svd_lowrank(both, q=min(dim + 8, *both.shape), niter=4)
    rows = torch.zeros(vocab_size, dim)
    # float64 up to this line, so that the result does not depend on the number of threads
    rows[:, : min(dim, len(s))] = (u * s.sqrt())[:, :dim].float()
    random = torch.randn(rows.shape, generator=generator)
    rows = F.normalize(rows, dim=-1) + noise / math.sqrt(dim) * random
    return F.normalize(rows, dim=-1) * math.sqrt(dim)


def positive_pmi(corpus: Corpus, vocab_size: int, window: int) -> Tensor:
    """Sparse matrix of max(0, log p(a, b) / p(a) p(b)).

    b is a word at most `window` positions after a in the same example. A corpus of more than
    `MAX_TOKENS` tokens is sampled in evenly spaced pieces, to save time and memory.
    """
    pair: np.ndarray = np.empty(0, np.int64)
    count: np.ndarray = np.empty(0)
    for piece in corpus.pieces(every=-(-len(corpus.tokens) // MAX_TOKENS)):
        new, times = np.unique(_pairs(piece, vocab_size, window), return_counts=True)
        pair, index = np.unique(np.concatenate([pair, new]), return_inverse=True)
        count = np.bincount(index, np.concatenate([count, times]))
    before, after = np.divmod(pair, vocab_size)
    count_before = np.bincount(before, count, vocab_size)[before]
    count_after = np.bincount(after, count, vocab_size)[after]
    pmi = np.log(count * (count.sum() / (count_before * count_after))).clip(0)
    indices, values = torch.from_numpy(np.stack([before, after])), torch.from_numpy(pmi)
    shape = (vocab_size, vocab_size)
    return torch.sparse_coo_tensor(indices, values, shape, check_invariants=True).coalesce()


def _pairs(corpus: Corpus, vocab_size: int, window: int) -> np.ndarray:
    """a * vocab_size + b for every occurrence of a pair of words."""
    example = np.repeat(np.arange(len(corpus)), corpus.sizes)
    pairs = [np.empty(0, np.int64)]
    for distance in range(1, window + 1):
        same = example[distance:] == example[:-distance]
        before, after = corpus.tokens[:-distance][same], corpus.tokens[distance:][same]
        pairs.append(before.astype(np.int64) * vocab_size + after)
    return np.concatenate(pairs)
