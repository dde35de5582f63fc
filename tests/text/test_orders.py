"""Laws of sampling in any order: paths of single words, and words that are kept."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from textdiff.config import SamplingConfig, UserError
from textdiff.diffusion.samplers import SAMPLERS
from textdiff.sampling import collect
from textdiff.text.decoding_config import DecodingConfig
from textdiff.text.requests import rewrite_request, sample_request
from textdiff.text.sampling import generate
from textdiff.text.tokenizer import encode, tokens_of_words

PARALLEL = DecodingConfig(order="parallel")
ORDERS = ("left-to-right", "right-to-left", "random")
every_order = pytest.mark.parametrize("order", ORDERS)
every_kind = pytest.mark.parametrize("kind", ["sample", "rewrite", "infill", "continue"])


def levels(model, tokenizer, request, monkeypatch, steps: int) -> torch.Tensor:
    """Log SNR of each word in every evaluation of the network."""
    seen, word_logits = [], model.word_logits

    def recorded(text, **options):
        seen.append(text.levels)
        return word_logits(text, **options)

    monkeypatch.setattr(model, "word_logits", recorded)
    list(generate(model, tokenizer, request, SamplingConfig(steps=steps)))
    return torch.stack(seen)


@every_order
@every_kind
def test_samples_of_an_order_are_reproducible(draw, new_request, kind, order):
    """Also in other batches, and they differ from those of other orders."""
    request = new_request(kind, order=order, window=2, temperature=2.0)
    one_batch = draw(request, steps=6)
    assert draw(request, steps=6, batch_size=2) == one_batch
    assert draw(new_request(kind, temperature=2.0), steps=6) != one_batch


@pytest.mark.parametrize("sampler", SAMPLERS)
@every_order
def test_every_sampler_works_in_every_order(draw, new_request, sampler, order):
    request = new_request("continue", order=order)
    samples = draw(request, steps=5, sampler=sampler)
    for row, sample in enumerate(samples):
        mask = request.mask[row]
        given = request.given[row][mask]
        assert torch.equal(torch.tensor(sample)[given], request.ids[row][mask][given])


@pytest.mark.parametrize("order", ["left-to-right", "right-to-left"])
def test_words_lose_their_noise_in_order(model, tokenizer, monkeypatch, order):
    request = sample_request(model, 3, 0, 8, DecodingConfig(order=order))
    seen = levels(model, tokenizer, request, monkeypatch, steps=16)
    seen = seen if order == "left-to-right" else seen.flip(2)
    assert (seen[:, :, :-1] >= seen[:, :, 1:]).all()
    assert (seen[1:] >= seen[:-1]).all()
    assert len(seen) == 16
    moving = (seen > seen.min()) & (seen < seen.max())
    assert moving.sum(2).max() <= 2


def test_random_orders_differ_between_samples(model, tokenizer, monkeypatch):
    request = sample_request(model, 6, 0, 8, DecodingConfig(order="random"))
    seen = levels(model, tokenizer, request, monkeypatch, steps=16)[8]
    assert len({tuple(row.tolist()) for row in seen}) > 1


@pytest.mark.parametrize("kind", ["sample", "infill", "continue"])
def test_default_order_goes_left_to_right(draw, new_request, kind):
    """Where words are drawn jointly. With the mean of the words, all of them move together."""
    usual, parallel, ordered = (
        new_request(kind, order=order, temperature=2.0)
        for order in ("auto", "parallel", "left-to-right")
    )
    assert draw(usual) == draw(ordered) != draw(parallel)
    assert draw(usual, sampler="ddim") == draw(parallel, sampler="ddim")


def test_default_order_of_rewriting_is_parallel(draw, new_request):
    usual = draw(new_request("rewrite", temperature=2.0))
    assert usual == draw(new_request("rewrite", order="parallel", temperature=2.0))


def test_default_order_of_other_models_is_parallel(new_model, tokenizer):
    model = new_model(stagger_prob=0.0)
    usual, parallel = (
        list(collect(generate(model, tokenizer, request, SamplingConfig(steps=4))))
        for request in (sample_request(model, 6, 0), sample_request(model, 6, 0, None, PARALLEL))
    )
    assert usual == parallel


def test_few_words_move_in_the_first_steps(model, tokenizer, monkeypatch):
    request = sample_request(model, 3, 0, 20, DecodingConfig(order="random"))
    seen = levels(model, tokenizer, request, monkeypatch, steps=8)
    finished = (seen == seen.max()).sum(2).float().mean(1)
    steps = finished.diff()
    assert (steps[1:] >= steps[:-1] - 1).all()
    assert finished[4] < 8.5  # after half of the steps


def test_orders_need_a_model_trained_so(new_model):
    model = new_model(stagger_prob=0.0)
    with pytest.raises(UserError, match="--order random needs a model trained for it"):
        sample_request(model, 2, 0, decoding=DecodingConfig(order="random"))


def test_windows_longer_than_texts_are_refused(model):
    with pytest.raises(UserError, match="--window must be at most 20"):
        sample_request(model, 2, 0, decoding=DecodingConfig(order="random", window=21))
    with pytest.raises(UserError, match="--window must be at least 1"):
        DecodingConfig(order="random", window=0)
    with pytest.raises(UserError, match="--window must be left out where all words move together"):
        DecodingConfig(order="parallel", window=3)


def test_each_token_has_its_own_strength(model, ids, draw):
    """Tokens of strength 0 are kept."""
    strengths = [0.0 if i % 2 else 1.0 for i in range(len(ids))]
    request = rewrite_request(model, ids, 4, strengths)
    request = replace(request, decoding=replace(request.decoding, temperature=3.0))
    samples = draw(request)
    assert all(sample[1::2] == ids[1::2] for sample in samples)
    assert any(sample[::2] != ids[::2] for sample in samples)


def test_strengths_of_another_number_are_refused(model, ids):
    with pytest.raises(UserError, match=f"one strength for each of {len(ids)} tokens"):
        rewrite_request(model, ids, 2, [0.5])


def test_protected_words_are_found_by_spelling(tokenizer):
    text = "The king sees a king's small dog ."
    (kept,) = tokens_of_words(tokenizer, [text], ["KING", "small dog"])
    words = tokenizer.encode(text, add_special_tokens=False)
    spelled = [
        text[start:end] for (start, end), keep in zip(words.offsets, kept, strict=True) if keep
    ]
    assert spelled[0] == "king"
    assert spelled[-2:] == ["small", "dog"]
    assert "sees" not in spelled


def test_protected_words_must_be_in_the_text(tokenizer):
    for word in ("queen", "kin"):
        with pytest.raises(UserError, match=f"--protect: the text does not have '{word}'"):
            tokens_of_words(tokenizer, ["the king sees"], [word])


def test_protected_words_may_be_in_one_text(tokenizer):
    """In many texts, each word protects those that have it."""
    texts, words = ["the king sees .", "the dog ."], ["dog", "."]
    assert tokens_of_words(tokenizer, texts, words) == [
        [False, False, False, True],
        [False, True, True],
    ]
    with pytest.raises(UserError, match="--protect: no text has 'queen'"):
        tokens_of_words(tokenizer, texts, ["queen"])


def test_slight_rewriting_changes_no_word(model, tokenizer):
    """An adaptive schedule has passed all high log SNRs at a time of 0.001."""
    ids = encode(tokenizer, "the king sees a small girl .")
    request = rewrite_request(model, ids, 8, 0.001)
    found = collect(generate(model, tokenizer, request, SamplingConfig(steps=8)))
    assert [*found] == [ids] * 8


def test_unknown_given_words_do_not_disturb(model, tokenizer, draw):
    """A given token that is never sampled stays, and its neighbours are words."""
    ids = encode(tokenizer, "the unicorn sees a small dog .")
    strengths = [1.0, 0.0, *[1.0] * (len(ids) - 2)]
    (sample,) = draw(rewrite_request(model, ids, 1, strengths))
    assert sample[1] == ids[1]
    assert ids[1] not in (sample[0], *sample[2:])


def test_collected_samples_are_those_of_the_last_step(model, tokenizer):
    request = sample_request(model, 2, 0, 6, DecodingConfig(order="random"))
    batches = list(generate(model, tokenizer, request, SamplingConfig(steps=5)))
    assert [batch.step for batch in batches] == [1, 2, 3, 4, 5]
    assert list(collect(iter(batches))) == list(batches[-1].samples)


@pytest.mark.parametrize("kind", ["infill", "continue"])
@pytest.mark.parametrize("order", ["parallel", *ORDERS])
def test_given_words_are_clean_in_every_step(
    model, tokenizer, new_request, monkeypatch, kind, order
):
    """The others start at the noisy end."""
    request = new_request(kind, order=order)
    seen = levels(model, tokenizer, request, monkeypatch, steps=5)
    low, high = model.logsnr_range
    assert_close(seen[:, request.given], torch.full_like(seen[:, request.given], high))
    free = request.mask & ~request.given
    assert_close(seen[0, free], torch.full_like(seen[0, free], low))
