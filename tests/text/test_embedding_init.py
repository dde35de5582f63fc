"""Laws of the spectral initialization of word embeddings."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from textdiff.text import dataset
from textdiff.text.dataset import Corpus
from textdiff.text.embedding_init import positive_pmi, spectral_embedding

# Nouns 0 and 1 are interchangeable, and so are verbs 2 and 3. 4 follows all verbs, 5 never occurs.
CORPUS = Corpus.of([[noun, verb, 4] for noun, verb in itertools.product((0, 1), (2, 3))] * 5)


def test_pmi_is_log_of_observed_over_expected_pairs():
    pmi = positive_pmi(CORPUS, 6, window=1).to_dense()
    # each noun and verb begins 1/4 of the pairs; each verb ends 1/4 of them, and 4 ends half
    assert pmi[0, 2] == pytest.approx(math.log((1 / 8) / (1 / 4 * 1 / 4)))
    assert pmi[2, 4] == pytest.approx(math.log((1 / 4) / (1 / 4 * 1 / 2)))
    assert pmi[2, 0] == pmi[0, 1] == pmi[5].sum() == 0


def test_pairs_lie_within_window_and_example():
    corpus = Corpus.of([[0, 1, 2], [3]])
    pairs = positive_pmi(corpus, 4, window=2).indices().T.tolist()
    assert {tuple(pair) for pair in pairs} == {(0, 1), (1, 2), (0, 2)}
    assert positive_pmi(corpus, 4, window=1).indices().shape[1] == 2


def test_pmi_does_not_depend_on_piece_size(corpus, tokenizer, monkeypatch):
    whole = positive_pmi(corpus, tokenizer.get_vocab_size(), 2)
    monkeypatch.setattr(dataset, "PIECE", 50)
    assert_close(positive_pmi(corpus, tokenizer.get_vocab_size(), 2), whole, atol=0, rtol=0)


def test_words_with_same_neighbours_start_together():
    e = spectral_embedding(CORPUS, 6, 4, noise=0.0) / 2
    assert e[0] @ e[1] == pytest.approx(1, abs=1e-4)
    assert e[2] @ e[3] == pytest.approx(1, abs=1e-4)
    assert abs(e[0] @ e[2]) < 0.9


def test_embeddings_differ_and_have_norm_sqrt_dim():
    e = spectral_embedding(CORPUS, 6, 16)
    assert np.allclose(e.norm(dim=-1), 4, atol=1e-4)
    assert (torch.pdist(e) > 0.5).all()


def test_seed_decides_the_embeddings():
    """The global generator does not change."""
    torch.manual_seed(1)
    first = spectral_embedding(CORPUS, 6, 4)
    following = torch.rand(1)
    torch.manual_seed(1)
    assert following == torch.rand(1)
    assert torch.equal(first, spectral_embedding(CORPUS, 6, 4))
    assert not torch.equal(first, spectral_embedding(CORPUS, 6, 4, seed=1))
