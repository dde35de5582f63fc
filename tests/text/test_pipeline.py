"""Laws of the Python interface: `TextDiffusion` and its stream of steps."""

import subprocess
import sys

import pytest
import torch

import textdiff
from textdiff import TextDiffusion
from textdiff.config import UserError
from textdiff.prng import noise_generator, sample_keys, uniform_generator
from textdiff.text.decoding import Decoding
from textdiff.text.denoiser import build_denoiser
from textdiff.text.tokenizer import MASK

SENTENCE = "the king sees a small dog ."


@pytest.fixture(scope="module")
def pipe(model, tokenizer):
    return TextDiffusion(model, tokenizer)


def calls(pipe, **options):
    """Each task, as a function of no arguments."""
    return {
        "sample": lambda: pipe.sample(3, **options),
        "rewrite": lambda: pipe.rewrite(SENTENCE, n=3, **options),
        "infill": lambda: pipe.infill(f"the {MASK} sees a {MASK} .", n=3, **options),
        "complete": lambda: pipe.complete("the king", n=3, **options),
    }


every_task = pytest.mark.parametrize("task", ["sample", "rewrite", "infill", "complete"])


@every_task
def test_texts_are_those_of_their_sequences(pipe, task):
    found = calls(pipe, steps=3, temperature=2.0)[task]()
    assert len(found.texts) == len(found.sequences) == 3
    assert found.rows == [0, 1, 2]
    for text, ids in zip(found.texts, found.sequences, strict=True):
        assert pipe.tokenizer.encode(text).ids == ids


@every_task
def test_same_seed_gives_the_same_texts(pipe, task):
    options = {"steps": 3, "temperature": 3.0, "seed": 5}
    found = calls(pipe, **options)[task]()
    assert calls(pipe, batch_size=2, **options)[task]() == found
    assert calls(pipe, **options | {"seed": 6})[task]().texts != found.texts


@every_task
def test_stream_ends_with_the_result(pipe, task):
    """It has one output for each step."""
    result = calls(pipe, steps=4)[task]()
    *_, last = steps = list(calls(pipe.stream, steps=4)[task]())
    assert [each.step for each in steps] == list(range(1, last.steps + 1))
    assert (last.texts, last.rows) == (result.texts, result.rows)


def test_several_texts_at_once_are_grouped(pipe):
    """The texts of the first input come first. Their lengths differ."""
    texts = ["the king sees a dog .", "a king ."]
    found = pipe.rewrite(texts, n=2, strength=0.4, steps=3)
    sizes = [len(pipe.tokenizer.encode(text).ids) for text in texts]
    assert [len(ids) for ids in found.sequences] == [sizes[0]] * 2 + [sizes[1]] * 2
    completed = pipe.complete(["the king", "a dog"], n=2, steps=3).texts
    assert [text.split()[0] for text in completed] == ["the", "the", "a", "a"]


@pytest.mark.parametrize(
    ("task", "text"), [("complete", "the king"), ("infill", "the king [MASK*] ."), ("sample", 24)]
)
def test_lengths_are_drawn_for_each_text(pipe, task, text):
    given = [text] * 24 if isinstance(text, str) else text
    found = getattr(pipe, task)(given, steps=1)
    sizes = [*map(len, found.sequences)]
    assert len({*sizes}) > 2
    fewer = getattr(pipe, task)(given[:5] if isinstance(text, str) else 5, steps=1)
    assert [*map(len, fewer.sequences)] == sizes[:5]


def test_protected_words_stay(pipe):
    found = pipe.rewrite(SENTENCE, protect=["small dog"], strength=1.0, n=5, temperature=3.0)
    assert all("small dog" in text for text in found.texts)


def test_rewriting_with_strength_0_keeps_characters(pipe):
    assert pipe.rewrite("The   KING", strength=0.0, n=2).texts == ["The   KING"] * 2


def test_unknown_arguments_name_the_nearest(pipe):
    with pytest.raises(TypeError, match="unexpected argument stepz: did you mean steps"):
        pipe.sample(stepz=3)
    with pytest.raises(TypeError, match=r"unexpected argument qqq$"):
        pipe.infill(f"the {MASK}", qqq=3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda pipe: pipe.rewrite("  "), "text must be a text"),
        (lambda pipe: pipe.rewrite([]), "at least one"),
        (lambda pipe: pipe.rewrite(f"the {MASK}"), "without .*MASK.*, which infill fills"),
        (lambda pipe: pipe.complete(f"the {MASK}"), "without .*MASK.*, which infill fills"),
        (lambda pipe: pipe.infill("the king"), "no .*MASK.* to fill"),
        (lambda pipe: pipe.sample(0), "n must be between 1"),
        (lambda pipe: pipe.complete("the", length=1000), "length must be between"),
    ],
)
def test_bad_input_is_refused_in_one_line(pipe, call, message):
    with pytest.raises(UserError, match=message) as error:
        call(pipe)
    assert "\n" not in str(error.value)


def test_random_state_is_left_alone(pipe):
    before = torch.random.get_rng_state()
    pipe.sample(2, steps=2)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_importing_textdiff_imports_no_torch():
    code = "import sys, textdiff; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.strip() == b"False"


def test_unknown_attributes_of_the_package_raise():
    with pytest.raises(AttributeError, match="no attribute 'TextDifusion'"):
        textdiff.TextDifusion  # noqa: B018


@every_task
def test_stream_has_a_probability_of_every_token(pipe, task):
    """That of given words is 1, and that of a free word is less until it is settled."""
    for number, step in enumerate(calls(pipe.stream, steps=4)[task]()):
        sizes = [len(ids) for ids in step.sequences]
        assert [len(values) for values in step.probabilities] == sizes
        assert all(0 <= value <= 1 for values in step.probabilities for value in values)
        if task == "infill":
            assert all(values[0] == 1 for values in step.probabilities)
            assert number or all(values[1] < 1 for values in step.probabilities)


def test_results_have_no_probabilities(pipe):
    assert pipe.sample(2, steps=2).probabilities is None


@pytest.mark.parametrize("x0", ["joint", "mean"])
def test_kept_probabilities_are_those_of_the_prediction(model, x0):
    """Their mean embedding is x0, unless words are drawn."""
    keys, predicted = sample_keys(0, 3), []
    mask, banned = torch.ones(3, 6, dtype=torch.bool), torch.zeros(model.config.vocab_size).bool()
    uniforms = uniform_generator(keys) if x0 == "joint" else None
    options = {"uniforms": uniforms, "predicted": predicted}
    denoise = build_denoiser(model, mask, banned, Decoding(), "no", **options)
    x = noise_generator(keys)(torch.zeros(3, 6, model.config.embed_dim))
    with torch.no_grad():
        prediction = denoise(x, torch.full((3,), -4.0))
    (found,) = predicted
    torch.testing.assert_close(found.sum(-1), torch.ones(3, 6), atol=1e-5, rtol=0)
    if x0 == "mean":
        mean = found @ model.words.embeddings
        torch.testing.assert_close(prediction.x0, mean, atol=1e-4, rtol=0)
