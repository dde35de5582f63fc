"""The Markov prior: a model whose network adds nothing to it."""

import json

import pytest
import torch
from torch.testing import assert_close

from textdiff.config import UserError
from textdiff.diffusion.gaussian import diffuse
from textdiff.diffusion.markov_text import MarkovText
from textdiff.text.decoding_config import DecodingConfig
from textdiff.text.model import DiffusionLM
from textdiff.text.requests import sample_request
from textdiff.text.transformer import NoisyText


def oracle(model: DiffusionLM) -> MarkovText:
    return MarkovText(model.markov.chain(), model.words.embeddings.detach())


@pytest.fixture(params=[False, True], ids=["word loss", "sentence loss"])
def untrained(new_model, request) -> DiffusionLM:
    """A model whose network adds nothing."""
    model = new_model(sentence_loss=request.param).eval()
    model.prior_weight.fill_(1.0)
    model.head.weight.data.zero_()
    model.head.bias.data.zero_()
    return model


def test_model_without_network_is_bayes_rule(untrained, batch, noisy):
    x_t, logsnr = noisy
    mask = batch["mask"]
    with torch.no_grad():
        found, logits = untrained.predict(NoisyText(x_t, logsnr, mask))
    exact = oracle(untrained)
    posterior = exact.log_posterior(x_t, logsnr, mask)
    assert_close(logits.log_softmax(-1)[mask], posterior[mask], atol=2e-3, rtol=1e-3)
    assert_close(found.x0[mask], exact.denoise(x_t, logsnr, mask).x0[mask], atol=1e-4, rtol=1e-3)


def test_loss_without_network_is_the_exact_posterior(untrained, batch):
    """Of single words or of whole sentences."""
    corrupted, (ids, mask) = untrained._corrupt(**batch), (batch["ids"], batch["mask"])
    exact, vectors = oracle(untrained), (corrupted.x_t, corrupted.logsnr)
    if untrained.config.sentence_loss:
        nats = exact.chain.nats(exact.log_likelihood(*vectors), ids, mask).sum()
    else:
        posterior = exact.log_posterior(*vectors, mask)
        nats = -posterior.gather(2, ids.unsqueeze(2)).squeeze(2)[mask].sum()
    with torch.no_grad():
        assert_close(untrained(**batch)["ce"], (nats / mask.sum()).detach(), atol=1e-4, rtol=1e-4)


def test_warmup_begins_with_the_network_alone(new_model, batch, noisy):
    """Unigrams and the network, without likelihoods and messages."""
    model = new_model().eval()
    text = NoisyText(*noisy, batch["mask"])
    with torch.no_grad():
        _, logits = model.predict(text)
        model.head.weight.zero_()
        model.head.bias.zero_()
        _, unigram = model.predict(text)
    assert_close(unigram, model.words.unigram.log().expand_as(unigram))
    assert (logits - unigram).abs().max() > 0.01


def test_given_words_are_evidence_of_the_prior(untrained, batch):
    """Words at the clean end change the posterior of their neighbours."""
    ids, mask = batch["ids"], batch["mask"]
    known = mask & (torch.arange(ids.shape[1]) % 2 == 0)
    x0, levels = untrained.words.embeddings[ids].detach(), torch.where(known, 6.0, -4.0)
    x_t = diffuse(x0, torch.ones_like(x0), levels)
    with torch.no_grad():
        _, logits = untrained.predict(NoisyText(x_t, levels, mask))
    expected = oracle(untrained).log_posterior(x_t, levels, mask)
    wanted = mask & ~known
    assert_close(logits.log_softmax(-1)[wanted], expected[wanted], atol=2e-3, rtol=1e-3)


def test_guidance_of_zero_is_the_priors_posterior(model, batch, noisy):
    x_t, logsnr = noisy
    mask = batch["mask"]
    with torch.no_grad():
        found, _ = model.predict(NoisyText(x_t, logsnr, mask), guidance_scale=0.0)
    exact = oracle(model).denoise(x_t, logsnr, mask).x0
    assert_close(found.x0[mask], exact[mask], atol=1e-4, rtol=1e-3)


def test_low_temperature_draws_the_best_sentence(new_model, batch, noisy):
    """Temperature reaches the transitions too: every draw is the same sentence."""
    model = new_model(stagger_prob=0.0).eval()  # with other weights two words are equally likely
    model.prior_weight.fill_(1.0)
    mask = batch["mask"]
    with torch.no_grad():
        logits, joint = model.word_logits(NoisyText(*noisy, mask), temperature=0.02)
        draws = [joint.chain.sample(logits, mask, torch.full(mask.shape, u)) for u in (0.2, 0.8)]
    assert draws[0][mask].equal(draws[1][mask])


@pytest.mark.parametrize("temperature", [0.001, 0.1])
def test_lowest_temperature_keeps_clean_words(untrained, batch, temperature):
    """Also words that the prior never saw together."""
    ids, mask = batch["ids"].flip(1), torch.ones_like(batch["mask"])
    x0, logsnr = untrained.words.embeddings[ids].detach(), torch.full((len(ids),), 6.0)
    text = NoisyText(x0, logsnr, mask)
    with torch.no_grad():
        uniforms = torch.full(mask.shape, 0.5)
        words, _ = untrained.draw_words(text, uniforms, temperature=temperature)
    assert words.equal(ids)


def test_joint_draws_need_a_markov_prior(new_model):
    with pytest.raises(UserError, match="--x0 joint needs a model with a Markov prior"):
        sample_request(new_model(prior="unigram"), 1, seed=0, decoding=DecodingConfig(x0="joint"))


def test_joint_draws_need_ancestral_sampling(new_request, draw):
    with pytest.raises(UserError, match="--x0 joint needs --sampler ddpm, got ddim"):
        draw(new_request("sample", x0="joint"), sampler="ddim")


def test_joint_draws_need_a_moderate_temperature(new_request, draw):
    with pytest.raises(UserError, match=r"at least 0.2, got 0.1: use --x0 mean"):
        draw(new_request("sample", x0="joint", temperature=0.1))
    cold, mean = (draw(new_request("sample", x0=x0, temperature=0.1)) for x0 in ("auto", "mean"))
    assert cold == mean


def test_models_saved_before_contexts_predict_the_same(new_model, tmp_path, batch, noisy):
    before = new_model(prior_contexts=0).eval()
    before.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    del config["prior_contexts"]
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    after, text = DiffusionLM.from_pretrained(tmp_path), NoisyText(*noisy, batch["mask"])
    with torch.no_grad():
        assert_close(after.predict(text)[1], before.predict(text)[1], atol=0, rtol=0)


def test_contexts_change_the_prediction(new_model, batch, noisy):
    text = NoisyText(*noisy, batch["mask"])
    with torch.no_grad():
        few, many = (new_model(prior_contexts=n).eval().evidence(text).messages for n in (0, 20))
    assert (few - many).abs().max() > 0.1


def test_prior_of_another_vocabulary_is_refused(model, tmp_path):
    model.save_pretrained(tmp_path)
    config = (tmp_path / "config.json").read_text(encoding="utf-8")
    changed = config.replace(f'"vocab_size": {model.config.vocab_size}', '"vocab_size": 9')
    (tmp_path / "config.json").write_text(changed, encoding="utf-8")
    with pytest.raises(RuntimeError, match="mismatched_sizes"):
        DiffusionLM.from_pretrained(tmp_path)
