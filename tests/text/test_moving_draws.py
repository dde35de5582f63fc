"""Laws of draws in which the network predicts only the words that move."""

import pytest
import torch

from textdiff.config import SamplingConfig, UserError
from textdiff.diffusion.gaussian import diffuse
from textdiff.prng import sample_keys, uniform_generator
from textdiff.text import sampling
from textdiff.text.decoding import resolve_decoding, without_auto
from textdiff.text.decoding_config import DecodingConfig
from textdiff.text.requests import sample_request
from textdiff.text.sampling import generate
from textdiff.text.transformer import NoisyText

N, LENGTH, PLACE = 4000, 5, 2  # the word at PLACE moves after two clean ones and before noise


@pytest.fixture
def confident(new_model):
    """A model whose network says much about every word."""
    model = new_model().eval()
    model.prior_weight.fill_(1.0)
    model.head.weight.data *= 8
    return model


def largest_deviation(model, batch, moving) -> float:
    """Between drawn words and their predicted probabilities, in standard errors."""
    ids = batch["ids"][:1, :LENGTH].expand(N, -1)
    levels = torch.where(torch.arange(LENGTH) < PLACE, 6.0, -9.0).expand(N, -1)
    x0 = model.words.embeddings[ids].detach()
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    text = NoisyText(diffuse(x0, eps, levels), levels, torch.ones(N, LENGTH, dtype=torch.bool))
    options = {"temperature": 1.0, "banned": None}
    uniforms = uniform_generator(sample_keys(0, N))(LENGTH)
    with torch.no_grad():
        words, predicted = model.draw_words(text, uniforms, moving=moving, **options)
    predicted, words = predicted[:, PLACE].double(), words[:, PLACE]
    seen = torch.bincount(words, minlength=predicted.shape[1])
    variance = (predicted * (1 - predicted)).sum(0)
    frequent = variance > 10
    assert frequent.sum() > 3
    deviation = (seen - predicted.sum(0)) / variance.sqrt()
    return deviation[frequent].abs().max().item()


def test_moving_word_has_its_predicted_probability(confident, batch):
    """It is drawn by the chain rule. In joint draws the predictions of its neighbours count too."""
    moving = (torch.arange(LENGTH) == PLACE).expand(N, -1)
    assert largest_deviation(confident, batch, moving) < 4
    assert largest_deviation(confident, batch, None) > 8


def test_one_word_moves_at_a_time(model, tokenizer, monkeypatch):
    """In even steps, as many as there are words."""
    monkeypatch.setattr(sampling, "FEW_FIRST", 1.0)
    seen, draw_words = [], model.draw_words

    def recorded(text, uniforms, moving, **options):
        seen.append(moving)
        return draw_words(text, uniforms, moving, **options)

    monkeypatch.setattr(model, "draw_words", recorded)
    request = sample_request(model, 3, 0, LENGTH, DecodingConfig(x0="moving"))
    list(generate(model, tokenizer, request, SamplingConfig(steps=LENGTH)))
    assert torch.stack(seen).equal(torch.eye(LENGTH, dtype=torch.bool)[:, None].expand(-1, 3, -1))


def test_words_that_all_move_are_drawn_jointly(draw, new_request):
    together = [new_request("sample", x0=x0, order="parallel") for x0 in ("moving", "joint")]
    assert draw(together[0]) == draw(together[1])
    ordered = [new_request("sample", x0=x0, temperature=2.0) for x0 in ("moving", "joint")]
    assert draw(ordered[0]) != draw(ordered[1])


def test_documents_are_drawn_word_by_word(model):
    decoding = resolve_decoding(model, DecodingConfig())
    found = [without_auto(model, decoding, "ddpm", document).x0 for document in (False, True)]
    assert found == ["joint", "moving"]


def test_moving_draws_need_ancestral_sampling(new_request, draw):
    with pytest.raises(UserError, match="--x0 moving needs --sampler ddpm, got ddim"):
        draw(new_request("sample", x0="moving"), sampler="ddim")
    with pytest.raises(UserError, match=r"at least 0.2, got 0.1: use --x0 mean"):
        draw(new_request("sample", x0="moving", temperature=0.1))
