"""Laws of likelihoods of texts, of ranking, and of several strengths."""

import numpy as np
import pytest
import torch

from textdiff import TextDiffusion
from textdiff.config import UserError
from textdiff.text.autoregressive import Autoregressive, AutoregressiveConfig
from textdiff.text.likelihood import negative_elbo
from textdiff.text.selection import best, similarity
from textdiff.text.sequence_likelihood import ranking_order, sequence_nats
from textdiff.text.task import Result
from textdiff.text.tokenizer import MASK

SENTENCE = "the king sees a small dog ."
TASKS = {
    "sample": lambda pipe, n, **options: pipe.sample(n, **options),
    "rewrite": lambda pipe, n, **options: pipe.rewrite(SENTENCE, n=n, **options),
    "infill": lambda pipe, n, **options: pipe.infill(f"the {MASK} [MASK*] a", n=n, **options),
    "complete": lambda pipe, n, **options: pipe.complete("the king", n=n, **options),
}
every_task = pytest.mark.parametrize("task", TASKS)


@pytest.fixture(scope="module")
def pipe(model, tokenizer):
    return TextDiffusion(model, tokenizer)


@pytest.fixture(scope="module")
def autoregressive(tokenizer):
    size = {"width": 32, "depth": 1, "heads": 2, "length": 20}
    config = AutoregressiveConfig(vocab_size=tokenizer.get_vocab_size(), **size)
    return TextDiffusion(Autoregressive(config).eval(), tokenizer)


def test_likelihood_of_texts_is_the_bound(pipe):
    texts = [SENTENCE, "a king ."]
    found = pipe.log_likelihood(texts, draws=64)
    assert found.tokens == [len(pipe.tokenizer.encode(text).ids) for text in texts]
    for text, nats, error in zip(texts, found.nats, found.errors, strict=True):
        ids = torch.tensor([pipe.tokenizer.encode(text).ids])
        mask, key = torch.ones_like(ids, dtype=torch.bool), torch.tensor([99])
        assert abs(negative_elbo(pipe.model, ids, mask, key, draws=64).item() - nats) < 6 * error
        assert 0 < error < nats / 5


def test_errors_of_likelihoods_are_honest(pipe):
    """Estimates of other seeds differ by about as much as their errors say."""
    found = [pipe.log_likelihood(SENTENCE, draws=16, seed=seed) for seed in range(12)]
    spread = np.std([each.nats[0] for each in found])
    assert 0.4 < spread / np.mean([each.errors[0] for each in found]) < 2.5


def test_autoregressive_likelihood_is_exact(autoregressive):
    found = autoregressive.log_likelihood([SENTENCE, "a dog ."])
    ids = torch.tensor([autoregressive.tokenizer.encode(SENTENCE).ids])
    nats = autoregressive.model.nats(ids, torch.ones_like(ids, dtype=torch.bool)).sum()
    assert found.nats[0] == pytest.approx(nats.item(), rel=1e-5)
    assert found.errors == [0, 0]


@every_task
def test_ranked_texts_are_the_best_candidates(pipe, task):
    options = {"steps": 3, "temperature": 3.0}
    ranked = TASKS[task](pipe, 2, rank=4, **options)
    candidates = TASKS[task](pipe, 8, rank=1, **options)
    assert candidates.scores == sorted(candidates.scores)
    assert candidates.texts != TASKS[task](pipe, 8, **options).texts
    assert ranked.texts == candidates.texts[:2]
    assert ranked.scores == candidates.scores[:2]


@every_task
def test_ranking_does_not_depend_on_batches(pipe, task):
    options = {"steps": 3, "temperature": 3.0, "rank": 3, "seed": 4}
    found = TASKS[task](pipe, 2, **options)
    assert TASKS[task](pipe, 2, batch_size=2, **options) == found
    assert TASKS[task](pipe, 2, **options | {"rank": None}).scores is None


def test_similar_texts_are_ranked_first(pipe):
    """Each of several texts has its own source; unchanged texts come last."""
    texts, options = [SENTENCE, "a king sees a dog ."], {"steps": 3, "temperature": 3.0}
    many = pipe.rewrite(texts, n=8, **options).texts
    best = pipe.rewrite(texts, n=2, rank=4, rank_by="similarity", **options)
    for i, source in enumerate(texts):
        changed = {text for text in many[8 * i : 8 * i + 8] if text != source}
        likeness = sorted((similarity(source, text) for text in changed), reverse=True)
        found = [similarity(source, text) for text in best.texts[2 * i : 2 * i + 2]]
        assert found == likeness[:2]
    assert best.scores is not None
    with pytest.raises(UserError, match=r"^rank_by must be left out without rank"):
        pipe.rewrite(SENTENCE, rank_by="similarity")


def test_chain_rule_ranks_models_trained_for_it(pipe, new_model):
    sequences = [pipe.tokenizer.encode(text).ids for text in (SENTENCE, "a king .")]
    key, order = torch.tensor(3), ranking_order(pipe.model)
    assert order == "left-to-right"
    found = sequence_nats(pipe.model, sequences, key, order=order)
    for ids, nats in zip(sequences, found, strict=True):
        row, mask = torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.bool)
        expected = negative_elbo(pipe.model, row, mask, key.view(1), order=order, window=1)
        assert nats == pytest.approx(expected.item(), rel=1e-4)
    assert ranking_order(new_model(stagger_prob=0.0)) == "parallel"
    assert ranking_order(new_model(objective="x0", prior="none")) == "parallel"


def test_inputs_are_ranked_one_by_one(pipe):
    texts = [SENTENCE, "a king ."]
    found = pipe.rewrite(texts, n=2, rank=3, steps=3, temperature=3.0)
    assert [len(ids) for ids in found.sequences] == [7, 7, 3, 3]
    alone = pipe.rewrite(SENTENCE, n=2, rank=3, steps=3, temperature=3.0)
    assert alone.texts == found.texts[:2]


def test_repeated_texts_come_last():
    """A rewrite without a change repeats what was given."""
    scored = [
        Result(text, [ord(text)], 0, score)
        for text, score in [("b", 2.0), ("a", 1.0), ("a", 1.0), ("c", 3.0)]
    ]
    assert [each.text for each in best(scored, 3, [])] == ["a", "b", "c"]
    assert [each.text for each in best(scored, 4, [])] == ["a", "b", "c", "a"]
    assert [each.text for each in best(scored, 4, [ord("a")])] == ["b", "c", "a", "a"]


def test_autoregressive_texts_are_ranked_too(autoregressive):
    found = autoregressive.complete("the king", n=3, rank=2)
    expected = autoregressive.log_likelihood(found.texts)
    assert found.scores == sorted(found.scores)
    per_token = [nats / n for nats, n in zip(expected.nats, expected.tokens, strict=True)]
    assert found.scores == pytest.approx(per_token, rel=1e-3)


def test_every_strength_has_its_texts(pipe):
    """They are grouped by text, then by strength, and do not depend on batches."""
    texts, options = [SENTENCE, "a king ."], {"n": 2, "steps": 4, "temperature": 3.0}
    found = pipe.rewrite(texts, strength=[0.0, 0.3, 1.0], **options)
    assert found.texts[:2] == [SENTENCE] * 2
    assert found.texts[6:8] == ["a king ."] * 2
    assert [len(ids) for ids in found.sequences] == [7] * 6 + [3] * 6
    assert pipe.rewrite(texts, strength=[0.0, 0.3, 1.0], batch_size=3, **options) == found
    one = pipe.rewrite(texts, strength=[0.3], **options)
    assert one == pipe.rewrite(texts, strength=0.3, **options)


def test_strengths_do_not_change_each_other(pipe):
    """Rewriting has another schedule than sampling from pure noise."""
    options = {"n": 3, "steps": 8, "temperature": 3.0}
    mixed = pipe.rewrite(SENTENCE, strength=[1.0, 0.5], **options)
    assert mixed.texts[:3] == pipe.rewrite(SENTENCE, strength=1.0, **options).texts


def test_more_noise_changes_more_words(pipe):
    found = pipe.rewrite(SENTENCE, strength=[0.1, 1.0], n=20, steps=4, temperature=3.0).texts
    near, far = (
        np.mean([similarity(SENTENCE, text) for text in part]) for part in (found[:20], found[20:])
    )
    assert near > far + 0.1


def test_similarity_is_that_of_words():
    assert similarity("The king sees", "the king sees") == 1
    assert similarity("the king sees", "a dog runs") == 0
    assert similarity("the king sees a", "the king hears a") == 0.75
    assert similarity("the king sees .", "the king sees.") == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda pipe: pipe.sample(2, rank=0), "rank must be between 1 and"),
        (lambda pipe: pipe.stream.sample(2, rank=2), "left out of stream"),
        (lambda pipe: pipe.rewrite(SENTENCE, strength=[]), "strength must be at least one"),
        (lambda pipe: pipe.rewrite(SENTENCE, strength=[0.1, 2]), "strength must be between 0"),
        (lambda pipe: pipe.log_likelihood(SENTENCE, draws=3), "draws must be at least 4"),
        (lambda pipe: pipe.log_likelihood("dog " * 21), "1 to 20 tokens for this model, got 21"),
        (lambda pipe: pipe.log_likelihood(["dog", " "]), r"^texts \(number 2\) must be a text"),
        (
            lambda pipe: pipe.rewrite([SENTENCE, "king " * 21]),
            r"^text \(number 2\): the text must",
        ),
    ],
)
def test_bad_requests_are_refused_in_one_line(pipe, call, message):
    with pytest.raises(UserError, match=message) as error:
        call(pipe)
    assert "\n" not in str(error.value)
