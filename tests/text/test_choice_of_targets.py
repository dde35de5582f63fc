"""Laws of the choice among candidates for the same target."""

import pytest
import torch

from textdiff import TextDiffusion
from textdiff.prng import sample_keys
from textdiff.text.functional import source_positions
from textdiff.text.lengths import length_nats
from textdiff.text.likelihood import word_nats
from textdiff.text.selection import most_like_others
from textdiff.text.sequence_likelihood import padded
from textdiff.text.task import Result
from textdiff.text.tokenizer import MASK

SOURCE = "the king"


@pytest.fixture(scope="module")
def pipe(new_model, tokenizer):
    """A model of pairs; its separator is a token that is never sampled."""
    model = new_model(separator=tokenizer.token_to_id(MASK)).eval()
    model.prior_weight.fill_(1.0)
    return TextDiffusion(model, tokenizer)


def test_ranked_targets_are_most_probable_per_token(pipe):
    options = {"steps": 2, "seed": 4, "temperature": 2.0}
    every = pipe.generate(SOURCE, n=8, **options)
    best = pipe.generate(SOURCE, n=2, rank=4, **options)
    model, (ids, mask) = pipe.model, padded(every.sequences)
    keys = sample_keys(options["seed"], 1)[0].expand(len(ids))
    with torch.no_grad():
        nats = word_nats(model, ids, mask, keys, order="left-to-right").sum(1)
        nats += length_nats(model, ids, mask)
    sizes = (mask & ~source_positions(ids, model.config.separator)).sum(1)
    scores = (nats / sizes).sort()
    assert best.texts == [every.texts[i] for i in scores.indices[:2]]
    assert best.scores == pytest.approx(scores.values[:2].tolist(), rel=1e-3)


def test_minimum_bayes_risk_chooses_among_candidates(pipe):
    every = pipe.generate(SOURCE, n=6, steps=2, seed=4)
    chosen = pipe.generate(SOURCE, n=2, mbr=3, steps=2, seed=4)
    assert chosen.rows[0] < 3 <= chosen.rows[1]
    assert chosen.texts == [every.texts[row] for row in chosen.rows]


def test_the_text_most_like_the_others_wins():
    texts = ["a b c d e", "a b c d f", "x y z u v", "q", "m n o p", "m n o p"]
    candidates = [Result(text, [], row) for row, text in enumerate(texts)]
    select = most_like_others(3)
    assert select.size == 3
    assert [each.row for each in select.choose(candidates[:3])] == [0]
    assert [each.row for each in select.choose(candidates[3:])] == [4]
    assert most_like_others(1) is None


def test_larger_quantiles_give_longer_targets(pipe):
    sizes = [
        len(pipe.generate("the king", steps=1, length_quantile=quantile).sequences[0])
        for quantile in (0.01, 0.5, 0.99, None)
    ]
    assert sizes[0] <= sizes[1] <= sizes[2]
    assert sizes[0] < sizes[2]
    assert sizes[3] == sizes[1]
