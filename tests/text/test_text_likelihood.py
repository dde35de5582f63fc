"""Likelihood of sentences under a text diffusion model."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from textdiff.text.likelihood import negative_elbo, ode_negative_elbo

BOUNDS = {
    "elbo": partial(negative_elbo, draws=4),
    "ode": partial(ode_negative_elbo, steps=4),
}


@pytest.fixture
def bayes(contextless):
    """The best model of single words: with frequencies and likelihood, it is Bayes' rule."""
    contextless.head.weight.data.zero_()
    contextless.config.self_cond_prob = 0.0
    return contextless


def single_words(model, n: int = 400) -> dict:
    """Sentences of one word each, drawn by frequency."""
    model.lengths.copy_(torch.arange(len(model.lengths)) == 1)
    generator = torch.Generator().manual_seed(0)
    ids = torch.multinomial(model.words.unigram, n, replacement=True, generator=generator)
    ids = ids.unsqueeze(1)
    return {"ids": ids, "mask": torch.ones_like(ids, dtype=torch.bool), "key": torch.arange(n)}


def entropy(model) -> float:
    return -(model.words.unigram * model.words.unigram.log()).sum().item()


def test_bound_of_perfect_model_is_entropy(bayes):
    """The bound is tight up to the length of the steps."""
    nats = negative_elbo(bayes, **single_words(bayes), steps=2000, draws=32)
    assert nats.mean().item() == pytest.approx(entropy(bayes), abs=0.15)


def test_more_steps_tighten_bound(bayes):
    words = single_words(bayes)
    few, more, most = (
        negative_elbo(bayes, **words, steps=steps).mean() for steps in (30, 300, 3000)
    )
    assert few > more > most
    assert few - more > 5 * (more - most)  # the excess falls as 1 / steps


def test_ode_bound_of_perfect_model_is_entropy(bayes):
    nats = ode_negative_elbo(bayes, **single_words(bayes, 200), steps=96)
    assert nats.mean().item() == pytest.approx(entropy(bayes), abs=0.3)


@pytest.mark.parametrize("bound", [negative_elbo, BOUNDS["ode"]], ids=BOUNDS)
def test_bounds_stay_in_trained_logsnr_range(new_model, batch, monkeypatch, bound):
    """Diffusion-LM's schedule ends at log SNR 4.6, beyond which the network was not trained."""
    model = new_model(objective="x0", schedule="sqrt", logsnr_max=6.0).eval()
    predict, logsnrs = model.predict, list[torch.Tensor]()

    def recorded(text, **options):
        logsnrs.append(text.logsnr)
        return predict(text, **options)

    monkeypatch.setattr(model, "predict", recorded)
    bound(model, batch["ids"], batch["mask"], torch.arange(8))
    assert torch.cat(logsnrs).max() == pytest.approx(math.log(0.99 / 0.01), abs=1e-4)


@pytest.mark.parametrize("bound", BOUNDS.values(), ids=BOUNDS)
def test_bounds_do_not_depend_on_sampling_options(model, batch, bound, monkeypatch):
    before = bound(model, batch["ids"], batch["mask"], torch.arange(8))
    monkeypatch.setattr(model.config, "sampling_guidance_scale", 5.0)
    monkeypatch.setattr(model.config, "sampling_temperature", 0.3)
    assert torch.equal(bound(model, batch["ids"], batch["mask"], torch.arange(8)), before)


def test_padding_is_neither_coded_nor_counted(model, batch):
    key = torch.arange(8)
    wide = {name: F.pad(batch[name], (0, 3)) for name in ("ids", "mask")}
    padded = negative_elbo(model, **wide, key=key, draws=4)
    nats = negative_elbo(model, batch["ids"], batch["mask"], key, draws=4)
    assert_close(padded, nats, atol=1e-2, rtol=1e-4)
