import itertools
import math

import numpy as np
import pytest
import torch

from textdiff.data import Corpus
from textdiff.spectral import positive_pmi, spectral_embedding

# the A B | the a b: 0 and 1 are interchangeable, so are 2 and 3; 4 follows them all, 5 is never seen
CORPUS = Corpus.of([[noun, verb, 4] for noun, verb in itertools.product((0, 1), (2, 3))] * 5)


def test_pmi_is_the_log_of_observed_over_expected_pairs():
    pmi = positive_pmi(CORPUS, 6, window=1).to_dense()
    # nouns and verbs each begin a quarter of the pairs, verbs end a quarter each and 4 half of them
    assert pmi[0, 2] == pytest.approx(math.log((1 / 8) / (1 / 4 * 1 / 4)))
    assert pmi[2, 4] == pytest.approx(math.log((1 / 4) / (1 / 4 * 1 / 2)))
    assert pmi[2, 0] == pmi[0, 1] == pmi[5].sum() == 0


def test_pairs_do_not_cross_examples_and_reach_as_far_as_the_window():
    corpus = Corpus.of([[0, 1, 2], [3]])
    assert {tuple(pair) for pair in positive_pmi(corpus, 4, window=2).indices().T.tolist()} == {(0, 1), (1, 2), (0, 2)}
    assert positive_pmi(corpus, 4, window=1).indices().shape[1] == 2


def test_words_that_keep_the_same_company_start_together():
    e = spectral_embedding(CORPUS, 6, 4, noise=0.0) / 2
    assert e[0] @ e[1] == pytest.approx(1, abs=1e-4)
    assert e[2] @ e[3] == pytest.approx(1, abs=1e-4)
    assert abs(e[0] @ e[2]) < 0.9


def test_all_vectors_have_the_norm_that_the_noise_expects_and_differ():
    e = spectral_embedding(CORPUS, 6, 16)
    assert np.allclose(e.norm(dim=-1), 4, atol=1e-4)
    assert (torch.pdist(e) > 0.5).all()


def test_the_same_seed_gives_the_same_vectors_and_leaves_the_global_generator_alone():
    torch.manual_seed(1)
    first = spectral_embedding(CORPUS, 6, 4)
    following = torch.rand(1)
    torch.manual_seed(1)
    assert following == torch.rand(1)
    assert torch.equal(first, spectral_embedding(CORPUS, 6, 4))
    assert not torch.equal(first, spectral_embedding(CORPUS, 6, 4, seed=1))
