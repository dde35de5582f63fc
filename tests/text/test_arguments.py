"""Laws of wrong arguments from Python: one line names the argument and what it takes."""

import re

import numpy as np
import pytest

from textdiff import TextDiffusion
from textdiff.config import UserError

SENTENCE = "the king sees a dog ."


@pytest.fixture(scope="module")
def pipe(model, tokenizer):
    return TextDiffusion(model, tokenizer)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda pipe: pipe.sample("3"), "^n must be a whole number, got '3'$"),
        (lambda pipe: pipe.sample(2.0), "n must be a whole number, got 2.0"),
        (lambda pipe: pipe.sample(True), "n must be a whole number, got True"),
        (lambda pipe: pipe.sample(length="5"), "length must be a whole number or None"),
        (lambda pipe: pipe.sample(steps=4.5), "steps must be a whole number, got 4.5"),
        (lambda pipe: pipe.sample(seed=None), "seed must be a whole number, got None"),
        (lambda pipe: pipe.sample(temperature="hot"), "temperature must be a number or None"),
        (lambda pipe: pipe.sample(sampler="euler"), "sampler must be one of ddpm, ddim"),
        (lambda pipe: pipe.rewrite(None), "text must be a text or a list of which each is a text"),
        (lambda pipe: pipe.rewrite(b"the king"), "text must be a text"),
        (lambda pipe: pipe.rewrite(SENTENCE, strength="0.5"), "strength must be a number or"),
        (lambda pipe: pipe.rewrite(SENTENCE, strength=[0.2, None]), "strength must be a number"),
        (lambda pipe: pipe.rewrite(SENTENCE, require=[3]), "require must be a text or a list of"),
        (lambda pipe: pipe.rewrite(SENTENCE, protect=[""]), "protect must be words or phrases"),
        (lambda pipe: pipe.rewrite(SENTENCE, protect=""), "protect must be words or phrases"),
        (lambda pipe: pipe.sample(order="parallel", window=2), "window must be left out where all"),
        (lambda pipe: pipe.rewrite("Zebra"), "^'Zebra' has no word of the model's vocabulary"),
        (lambda pipe: pipe.complete(["the king", "Zebra"]), "number 2.: 'Zebra' has no word"),
        (lambda pipe: pipe.rewrite(SENTENCE, window=2), "window needs order left-to-right"),
        (lambda pipe: pipe.infill(SENTENCE, longest="4"), "longest must be a whole number"),
        (lambda pipe: pipe.generate(5), "source must be a text"),
        (lambda pipe: pipe.complete("the [PAD] king"), r"text must be without \[PAD\]"),
        (lambda pipe: pipe.generate("the [SEP] king"), r"source must be without \[SEP\]"),
    ],
)
def test_wrong_types_are_refused_in_one_line(pipe, call, message):
    with pytest.raises(UserError, match=message) as error:
        call(pipe)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda pipe: pipe.rewrite(SENTENCE, strngth=0.2), "strngth: did you mean strength"),
        (lambda pipe: pipe.infill(SENTENCE, longst=3), "longst: did you mean longest"),
        (
            lambda pipe: pipe.sample(num_inference_steps=3),
            "num_inference_steps: did you mean steps",
        ),
        (lambda pipe: pipe.stream.rewrite(SENTENCE, stepz=3), "stepz: did you mean steps"),
    ],
)
def test_unknown_arguments_name_those_of_the_task(pipe, call, message):
    with pytest.raises(TypeError, match=f"unexpected argument {message}"):
        call(pipe)


def test_protected_words_may_be_one_text(pipe):
    options = {"strength": 1.0, "n": 3, "temperature": 3.0, "steps": 2}
    alike = [pipe.rewrite(SENTENCE, protect=each, **options) for each in (["dog"], "dog", "dog, .")]
    assert alike[0].texts == alike[1].texts
    assert all(re.search(r"dog\s*\.$", text) for text in alike[2].texts)


def test_numbers_of_numpy_are_numbers(pipe):
    options = {"n": np.int64(2), "steps": np.int32(2), "seed": np.int64(3)}
    found = pipe.rewrite(SENTENCE, strength=np.float32(0.5), **options)
    assert found.texts == pipe.rewrite(SENTENCE, strength=0.5, n=2, steps=2, seed=3).texts
