import math
import random
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from textdiff.counter import normal
from textdiff.data import collate
from textdiff.diffusion.gaussian import Prediction, diffuse, from_x0
from textdiff.grammar import corpus as corpus_of_the_grammar
from textdiff.metrics import (
    Copies,
    Nearest,
    bound,
    complaints,
    context_gain,
    distinct,
    mauve,
    ode_bound,
    recovery,
    self_bleu,
    two_sample_accuracy,
    unigram_entropy,
    wilson,
)

LEVELS = (-6.0, -3.0, 0.0)


@pytest.fixture
def contextless(new_model):
    """No position looks at another, all the evidence is added, and only `describe_data` has been learned from."""
    model = new_model().eval()
    model.prior_weight.fill_(1.0)
    for block in model.denoiser.blocks:
        block.out.weight.data.zero_()
    return model


def gain(model, batch, levels=LEVELS) -> dict[float, float]:
    return context_gain(model, batch["ids"], batch["mask"], levels)


def test_a_model_that_ignores_its_neighbours_gains_nothing(contextless, corpus):
    """Of enough words that chance does not favour it."""
    rows = np.arange(len(corpus))
    assert max(gain(contextless, collate(list(corpus), rows)).values()) <= 0


def test_the_best_guess_without_context_gains_exactly_nothing(contextless, batch):
    contextless.head.weight.data.zero_()
    assert_close(gain(contextless, batch), dict.fromkeys(LEVELS, 0.0), atol=1e-5, rtol=0)


def test_a_model_that_knows_every_word_gains_all_the_nats_of_the_guess(contextless, batch, monkeypatch):
    def certain(x_t, logsnr, earlier, known, mask) -> tuple[Prediction, torch.Tensor]:
        return from_x0(x_t, logsnr, x_t), 1e4 * F.one_hot(batch["ids"], contextless.config.vocab_size).float()

    monkeypatch.setattr(contextless, "predict", certain)
    x0, logsnr = contextless.vectors[batch["ids"]].detach(), torch.full((len(batch["ids"]),), -3.0)
    x_t = diffuse(x0, logsnr, normal(torch.arange(len(x0)), x0.shape, stream=10))
    surprise = F.cross_entropy(contextless.alone(x_t, logsnr)[batch["mask"]], batch["ids"][batch["mask"]])
    assert_close(gain(contextless, batch, [-3.0])[-3.0], surprise.item(), atol=1e-4, rtol=0)


def test_padding_does_not_change_the_gain(model, batch):
    longer = {name: F.pad(batch[name], (0, 4)) for name in ("ids", "mask")}
    assert_close(gain(model, longer), gain(model, batch), atol=1e-4, rtol=0)


# --- figures of texts

SENTENCES = [(1, 2, 3, 4), (1, 2, 3), (5, 6)]


def test_unigram_entropy_is_that_of_the_words():
    assert unigram_entropy([(1, 1, 2, 2), (3, 3, 4, 4)]) == pytest.approx(math.log(4), abs=1e-12)


def test_distinct_is_the_share_of_different_ngrams():
    assert distinct(SENTENCES, 1) == pytest.approx(6 / 9)
    assert distinct(SENTENCES, 2) == pytest.approx(4 / 6)


def test_self_bleu_is_high_for_copies_and_low_for_strangers():
    assert self_bleu(["the cat sat on the mat"] * 5) == pytest.approx(100)
    assert self_bleu(["a b c d e", "f g h i j", "k l m n o"]) < 20


def test_what_is_copied_is_found():
    copies = Copies([(1, 2, 3, 4, 5), (6, 7)])
    assert copies.novel([(1, 2, 3), (6, 7)]) == 0.5
    assert copies.copied([(1, 2, 3, 9)], n=2) == pytest.approx(2 / 3)
    assert [copies.longest_copied(s) for s in ((9, 2, 3, 4, 8), (1, 2, 3, 4, 5), (9, 8), (6, 7, 1))] == [3, 5, 0, 2]


@pytest.mark.parametrize(
    ("sentences", "complaint"),
    [
        ([(5, 6, 7)] * 3, "collapsed"),
        ([(5, 5, 5, 5), (5, 5, 5), (5, 5)], "collapsed"),
        ([(1, 2, 3), (4, 5, 6)], "copied"),
    ],
)
def test_what_is_plainly_wrong_is_said(sentences, complaint):
    assert any(complaint in said for said in complaints(sentences, [(1, 2, 3), (4, 5, 6), (7, 8, 9)], unknown=0))


def test_nothing_is_said_of_sound_samples():
    assert complaints([(1, 5, 9), (4, 2, 3), (7, 8, 6)], [(1, 2, 3), (4, 5, 6), (7, 8, 9)], unknown=0) == []


def test_a_training_text_of_unknown_words_is_said():
    assert "[UNK]" in complaints([(1, 5, 9), (4, 2, 3)], [(0, 2, 3), (4, 5, 0)], unknown=0)[0]


def test_the_nearest_training_text_is_found():
    nearest = Nearest(["the dog sleeps .", "a cat sings .", "the old dog sleeps ."])
    (copied, text), (near, other) = nearest(["a cat sings .", "the dog never sleeps ."])
    assert (copied, text) == (pytest.approx(1), "a cat sings .")
    assert other == "the dog sleeps ."
    assert 0.1 < near < 0.9


def test_mauve_is_one_for_samples_of_one_distribution_and_falls_with_distance():
    rng = np.random.default_rng(0)
    real = rng.standard_normal((400, 8))
    alike, near, far = (mauve(real, rng.standard_normal((400, 8)) + shift) for shift in (0, 0.5, 4))
    assert alike > 0.9 > near > 0.1 > far


def test_two_samples_of_one_text_cannot_be_told_apart_and_others_can():
    texts = corpus_of_the_grammar(800, seed=0)
    _, low, high = two_sample_accuracy(texts[:400], texts[400:])
    assert low < 0.5 < high
    shuffled = [" ".join(sorted(text.split())) for text in texts[400:]]
    assert two_sample_accuracy(texts[:400], shuffled)[0] > 0.95


def test_sentences_that_repeat_in_one_of_two_halves_of_a_text_give_nothing_away():
    """Split by place, a repeated sentence of one half would be learned and then asked."""
    texts = sorted(set(corpus_of_the_grammar(3000, seed=5)))
    random.Random(0).shuffle(texts)
    often, once = [text for text in texts[:100] for _ in range(4)], texts[100:500]
    _, low, high = two_sample_accuracy(once, often)
    assert low < 0.5 < high


@pytest.mark.parametrize("generated", [["the dog sleeps ."] * 40, ["a cat sings ."]])
def test_two_samples_of_too_few_different_sentences_are_not_judged(generated):
    assert two_sample_accuracy(corpus_of_the_grammar(40, seed=0)[: len(generated)], generated) is None


def test_features_tell_apart_what_words_do_not():
    texts = corpus_of_the_grammar(800, seed=0)
    rng = np.random.default_rng(0)
    near, far = (rng.standard_normal((400, 3)) + shift for shift in (0, 3))
    _, low, high = two_sample_accuracy(texts[:400], texts[400:], (near, rng.standard_normal((400, 3))))
    assert low < 0.5 < high
    assert two_sample_accuracy(texts[:400], texts[400:], (near, far))[0] > 0.95


def test_wilsons_interval_is_the_published_one():
    """Of 10 in 100: 5.5 % to 17.4 % (Newcombe, 1998, method 3)."""
    assert wilson(10, 100) == pytest.approx((0.0552, 0.1744), abs=1e-4)


# --- likelihood


def single_words(model, n: int = 400) -> dict:
    """Sentences of one word each, by their frequencies."""
    model.lengths.copy_(torch.arange(len(model.lengths)) == 1)
    ids = torch.multinomial(model.unigram, n, replacement=True, generator=torch.Generator().manual_seed(0)).unsqueeze(1)
    return {"ids": ids, "mask": torch.ones_like(ids, dtype=torch.bool), "key": torch.arange(n)}


def test_the_bound_of_a_perfect_model_of_single_words_is_their_entropy(contextless):
    """With frequencies and evidence the prediction is Bayes' rule: there is no better model, so the bound is tight but for the steps' length."""
    model = contextless
    model.head.weight.data.zero_()
    model.config.self_condition = 0.0
    nats = bound(model, **single_words(model), steps=2000, draws=32)
    entropy = -(model.unigram * model.unigram.log()).sum()
    assert nats.mean().item() == pytest.approx(entropy.item(), abs=0.15)


def test_more_steps_tighten_the_bound(contextless):
    contextless.head.weight.data.zero_()
    contextless.config.self_condition = 0.0
    words = single_words(contextless)
    few, more, most = (bound(contextless, **words, steps=steps).mean() for steps in (30, 300, 3000))
    assert few > more > most
    assert few - more > 5 * (more - most)  # the excess falls as 1 / steps


def test_the_odes_bound_of_a_perfect_model_of_single_words_is_their_entropy(contextless):
    model = contextless
    model.head.weight.data.zero_()
    model.config.self_condition = 0.0
    nats = ode_bound(model, **single_words(model, 200), steps=96)
    entropy = -(model.unigram * model.unigram.log()).sum()
    assert nats.mean().item() == pytest.approx(entropy.item(), abs=0.3)


@pytest.mark.parametrize("figure", [bound, partial(ode_bound, steps=4)], ids=["bound", "ode_bound"])
def test_a_bound_asks_for_no_noise_level_that_the_schedule_does_not_train(new_model, batch, monkeypatch, figure):
    """Diffusion-LM's schedule ends at log SNR 4.6: what a network says beyond is noise, which the bound would weigh with the SNR."""
    model, asked = new_model(objective="x0", schedule="sqrt", logsnr_max=6.0).eval(), list[torch.Tensor]()
    predict = model.predict
    monkeypatch.setattr(model, "predict", lambda x_t, logsnr, *rest, **options: (asked.append(logsnr), predict(x_t, logsnr, *rest, **options))[1])
    figure(model, batch["ids"], batch["mask"], torch.arange(8))
    assert torch.cat(asked).max() == pytest.approx(math.log(0.99 / 0.01), abs=1e-4)


@pytest.mark.parametrize("figure", [partial(bound, draws=4), partial(ode_bound, steps=4)], ids=["bound", "ode_bound"])
def test_a_bound_is_that_of_the_model_as_trained_however_it_is_sampled(model, batch, figure):
    before = figure(model, batch["ids"], batch["mask"], torch.arange(8))
    model.config.sampling_guidance, model.config.sampling_temperature = 5.0, 0.3
    assert torch.equal(figure(model, batch["ids"], batch["mask"], torch.arange(8)), before)


def test_padding_is_neither_coded_nor_counted(model, batch):
    key = torch.arange(8)
    wide = {name: torch.nn.functional.pad(batch[name], (0, 3)) for name in ("ids", "mask")}
    assert_close(bound(model, **wide, key=key, draws=4), bound(model, batch["ids"], batch["mask"], key, draws=4), atol=1e-2, rtol=1e-4)


def test_a_word_is_found_again_the_more_often_the_less_the_noise(contextless, batch):
    shares = list(recovery(contextless, batch["ids"], batch["mask"], (-9.0, -2.0, 5.0)).values())
    assert shares[0] < 0.5 < shares[2]
    assert shares == sorted(shares)
