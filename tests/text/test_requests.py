"""Laws of requests: lengths, rewriting, infilling, continuing and decoding."""

from collections import Counter

import pytest
import torch
from torch.testing import assert_close

from textdiff.config import SamplingConfig, UserError
from textdiff.text.decoding_config import DecodingConfig
from textdiff.text.requests import (
    continue_request,
    infill_request,
    rewrite_request,
    sample_request,
)
from textdiff.text.sampling import generate
from textdiff.text.tokenizer import MASK, UNK, encode


def test_lengths_are_as_frequent_as_in_training(model):
    counts = Counter(sample_request(model, 20_000, seed=0).mask.sum(1).tolist())
    shares = torch.tensor([counts[length] / 20_000 for length in range(model.config.length + 1)])
    assert_close(shares, model.lengths, atol=0.02, rtol=0)


def test_every_sample_has_the_requested_length(model, draw):
    assert [len(ids) for ids in draw(sample_request(model, 3, seed=0, length=7))] == [7, 7, 7]


def test_continuation_is_longer_than_its_beginning(model, ids):
    assert (continue_request(model, ids, 500, seed=0).mask.sum(1) > len(ids)).all()


def test_beginning_longer_than_training_sentences_is_continued(model, corpus):
    beginning = [5] * int(corpus.sizes.max())
    assert (continue_request(model, beginning, 50, seed=0).mask.sum(1) > len(beginning)).all()


@pytest.mark.parametrize("length", [0, -1, 21])
def test_length_out_of_range_is_refused(model, length):
    with pytest.raises(UserError, match=f"--length must be between 1 and 20, .* got {length}"):
        sample_request(model, 2, seed=0, length=length)


def test_length_without_room_to_continue_is_refused(model, ids):
    with pytest.raises(UserError, match=f"--length must be between {len(ids) + 1} and 20"):
        continue_request(model, ids, 2, seed=0, length=len(ids))


def test_rewriting_at_strength_0_returns_the_text(model, draw, ids):
    assert draw(rewrite_request(model, ids, 3, strength=0.0)) == [ids] * 3


def test_rewriting_changes_more_at_higher_strength(model, draw, ids):
    def changes(strength: float) -> int:
        samples = draw(rewrite_request(model, ids, 20, strength), steps=8)
        return sum(a != b for new in samples for a, b in zip(new, ids, strict=True))

    assert changes(0.1) < changes(0.9)


def test_rewriting_at_strength_1_is_sampling(model, draw, ids):
    """Only the length of the text has an effect."""
    parallel = DecodingConfig(order="parallel")
    rewritten = draw(rewrite_request(model, ids, 3, strength=1.0))
    assert rewritten == draw(sample_request(model, 3, 0, len(ids), parallel))


@pytest.mark.parametrize(("strength", "steps"), [(0.5, 8), (0.2, 10), (0.3, 20)])
def test_rewriting_takes_its_share_of_steps(model, tokenizer, ids, strength, steps):
    """In float32, in which strengths are stored, 0.3 is a little more."""
    request = rewrite_request(model, ids, 2, strength)
    found = list(generate(model, tokenizer, request, SamplingConfig(steps=steps)))
    assert len(found) == round(strength * steps)


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_strength_out_of_range_is_refused(model, ids, strength):
    with pytest.raises(UserError, match="--strength must be between 0"):
        rewrite_request(model, ids, 2, strength)


@pytest.mark.parametrize("n", [0, 21])
def test_empty_or_too_long_text_is_refused(model, n):
    with pytest.raises(UserError, match=f"must have 1 to 20 tokens for this model, got {n}"):
        rewrite_request(model, [5] * n, 2, strength=0.5)


def test_given_unknown_token_stays_unknown(model, tokenizer, draw):
    ids = encode(tokenizer, f"the unicorn {MASK} .")
    (sample,) = draw(infill_request(model, ids, 1, tokenizer.token_to_id(MASK)))
    assert sample[1] == tokenizer.token_to_id(UNK)


def test_continuation_of_nothing_is_a_sample(model, draw):
    continued = draw(continue_request(model, [], 3, seed=2), seed=2)
    assert continued == draw(sample_request(model, 3, seed=2), seed=2)


@pytest.mark.parametrize("mask_id", [2, None])
def test_infilling_without_a_mask_is_refused(model, ids, mask_id):
    with pytest.raises(UserError, match=r"no \[MASK\] to fill"):
        infill_request(model, ids, 2, mask_id)


def test_infilling_of_a_long_text_is_refused(model):
    with pytest.raises(UserError, match="1 to 20 tokens"):
        infill_request(model, [2] * 21, 2, 2)


@pytest.mark.parametrize("length", [None, 20])
def test_beginning_without_room_is_refused(model, length):
    with pytest.raises(UserError, match="20 tokens leaves no room"):
        continue_request(model, [5] * 20, 2, seed=0, length=length)


@pytest.mark.parametrize("objective", ["x0", "eps"])
def test_temperature_needs_objective_ce(new_model, objective):
    model = new_model(objective=objective).eval()
    with pytest.raises(UserError, match=f"objective ce, this one has {objective}"):
        sample_request(model, 1, seed=0, decoding=DecodingConfig(temperature=0.5))
