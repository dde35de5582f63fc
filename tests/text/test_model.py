"""Laws of the text model's predictions, of guidance, and of saved models."""

import pytest
import torch
from torch.testing import assert_close

from textdiff.diffusion.gaussian import Prediction, diffuse
from textdiff.text.model import DiffusionLM
from textdiff.text.transformer import NoisyText

every_objective = pytest.mark.parametrize("objective", ["ce", "x0", "eps"])


@torch.no_grad()
def predict(model, batch, noisy, **options) -> tuple[Prediction, torch.Tensor]:
    """Prediction and logits without self-conditioning."""
    return model.predict(NoisyText(*noisy, batch["mask"]), **options)


@every_objective
def test_prediction_recombines_to_the_noisy_vector(new_model, batch, noisy, objective):
    x_t, logsnr = noisy
    (x0, eps), _ = predict(new_model(objective=objective).eval(), batch, noisy)
    assert_close(diffuse(x0, eps, logsnr), x_t, atol=1e-4, rtol=1e-4)


@every_objective
def test_banned_words_have_probability_zero(new_model, batch, noisy, objective):
    model = new_model(objective=objective).eval()
    banned = torch.arange(model.config.vocab_size) < 3
    _, logits = predict(model, batch, noisy, banned=banned)
    assert (logits.softmax(-1)[..., :3] == 0).all()


def test_low_temperature_predicts_the_most_likely_word(model, batch, noisy):
    prediction, logits = predict(model, batch, noisy, temperature=1e-6)
    nearest = model.words.embeddings[logits.argmax(-1)].detach()
    assert_close(prediction.x0, nearest, atol=1e-4, rtol=0)


def test_zero_head_predicts_bayes_posterior(new_model, batch, noisy):
    """The network adds to unigram and likelihood; with weights of zero it adds nothing."""
    model = new_model(prior="unigram").eval()
    model.prior_weight.fill_(1.0)
    model.head.weight.data.zero_()
    _, logits = predict(model, batch, noisy)
    expected = model.words.unigram.log() + model.words.log_likelihood(*noisy).detach()
    assert_close(logits, expected, atol=1e-4, rtol=1e-5)


def test_guidance_scales_the_evidence_of_the_context(new_model, batch, noisy):
    """log p_g = log p_0 + g (log p - log p_0) up to its normalization; p_0 is context-free."""
    model = new_model(prior="unigram").eval()
    base = model.words.context_free_logits(*noisy).detach().log_softmax(-1)
    unguided = predict(model, batch, noisy)[1].log_softmax(-1)
    expected = (base + 2.5 * (unguided - base)).log_softmax(-1)
    prediction, logits = predict(model, batch, noisy, guidance_scale=2.5)
    expected_x0 = expected.exp() @ model.words.embeddings.detach()
    assert_close(prediction.x0, expected_x0, atol=1e-4, rtol=1e-4)
    assert_close(logits.log_softmax(-1), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("objective", ["x0", "eps"])
def test_guidance_extrapolates_x0_linearly(new_model, batch, noisy, objective):
    model = new_model(objective=objective).eval()
    context_free, unguided, guided = (
        predict(model, batch, noisy, guidance_scale=scale)[0].x0 for scale in (0.0, 1.0, 2.5)
    )
    expected = context_free + 2.5 * (unguided - context_free)
    assert_close(guided, expected, atol=1e-4, rtol=1e-4)


@every_objective
def test_guidance_scale_zero_ignores_the_context(new_model, batch, noisy, objective):
    """x0 is the posterior mean of each word given its own noisy vector."""
    model = new_model(objective=objective, prior="unigram").eval()
    posterior = model.words.context_free_logits(*noisy).detach().softmax(-1)
    prediction, _ = predict(model, batch, noisy, guidance_scale=0.0)
    expected = posterior @ model.words.embeddings.detach()
    assert_close(prediction.x0, expected, atol=1e-5, rtol=1e-5)


def test_prediction_depends_on_distance_to_the_end(new_model):
    """Nothing else differs between positions without attention and with equal vectors."""
    model = new_model(prior="unigram").eval()
    for block in model.denoiser.blocks:
        block.out.weight.data.zero_()
    mask = torch.arange(9) < torch.tensor([[5], [9]])
    with torch.no_grad():
        _, (short, long) = model.predict(NoisyText(torch.ones(2, 9, 16), torch.zeros(2), mask))
    assert_close(short[:5], long[4:], atol=1e-5, rtol=1e-5)
    assert (short[:5] - long[:5]).abs().max() > 1e-3


@every_objective
def test_saved_model_gives_the_same_outputs(new_model, batch, objective, tmp_path):
    model = new_model(objective=objective).eval()
    model.prior_weight.fill_(0.7)
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        assert_close(DiffusionLM.from_pretrained(tmp_path)(**batch), model(**batch), atol=0, rtol=0)


def test_saved_model_has_the_same_state_dict(model, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = DiffusionLM.from_pretrained(tmp_path)
    assert_close(loaded.state_dict(), model.state_dict(), atol=0, rtol=0)
