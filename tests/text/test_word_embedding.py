"""Laws of the word embeddings and of their Gaussian likelihood."""

import math

import pytest
import torch
from torch.distributions import Normal
from torch.testing import assert_close

from textdiff.text.functional import project


def log_density(model, x_t, logsnr) -> torch.Tensor:
    """log N(x_t; alpha e_v, sigma^2 I) of each word v, in float64."""
    signal = logsnr.double()[:, None, None, None]
    alpha, sigma = signal.sigmoid().sqrt(), (-signal).sigmoid().sqrt()
    embeddings = model.words.embeddings.detach().double()
    return Normal(alpha * embeddings, sigma).log_prob(x_t.double().unsqueeze(2)).sum(-1)


def test_every_embedding_has_norm_sqrt_d(model):
    norms = torch.full((model.config.vocab_size,), math.sqrt(16))
    assert_close(model.words.embeddings.norm(dim=-1), norms, atol=1e-5, rtol=0)


def test_projection_keeps_vectors_in_the_ball(model):
    inside = model.words.embeddings[:4].mean(0, keepdim=True).unsqueeze(0).detach()
    assert_close(project(inside), inside, atol=1e-6, rtol=0)


def test_projection_shortens_vectors_to_norm_sqrt_d(model):
    """The direction does not change."""
    vectors = model.words.embeddings.unsqueeze(0).detach()
    assert_close(project(3 * vectors), vectors, atol=1e-5, rtol=0)


@pytest.mark.parametrize("objective", ["ce", "x0", "eps"])
def test_clean_embedding_is_rounded_to_its_word(new_model, objective):
    model = new_model(objective=objective)
    logits = model.words.rounding_logits(model.words.embeddings.unsqueeze(0))
    assert torch.equal(logits.argmax(-1)[0], torch.arange(model.config.vocab_size))


def test_log_likelihood_is_gaussian_up_to_constant(model, noisy):
    difference = model.words.log_likelihood(*noisy) - log_density(model, *noisy)
    assert_close(difference, difference[..., :1].expand_as(difference), atol=1e-3, rtol=1e-4)


def test_unigram_and_likelihood_give_bayes_posterior(model, noisy):
    density = log_density(model, *noisy)
    likelihood = (density - density.amax(-1, keepdim=True)).exp()
    joint = model.words.unigram.double() * likelihood
    posterior = (model.words.unigram.log() + model.words.log_likelihood(*noisy)).softmax(-1)
    assert_close(posterior.double(), joint / joint.sum(-1, keepdim=True), atol=1e-5, rtol=1e-3)


def test_context_free_logits_follow_bayes_rule(model, noisy):
    """p(v) N(x_t; alpha e_v, sigma^2 I), up to a normalization."""
    log_unigram = model.words.unigram.double().log()
    expected = (log_unigram + log_density(model, *noisy)).log_softmax(-1)
    actual = model.words.context_free_logits(*noisy).detach().log_softmax(-1).double()
    assert_close(actual, expected, atol=1e-4, rtol=1e-4)


def test_unigram_is_the_frequency_in_the_text(model, corpus):
    tokens = torch.from_numpy(corpus.tokens).long()
    counts = torch.bincount(tokens, minlength=model.config.vocab_size)
    assert_close(model.words.unigram, counts / counts.sum(), atol=1e-3, rtol=0)
