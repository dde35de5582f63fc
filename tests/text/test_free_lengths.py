"""Laws of [MASK*]: the number of words for which it stands, and what stays as it is."""

import pytest
import torch
from torch.testing import assert_close

from textdiff import TextDiffusion
from textdiff.config import SamplingConfig, UserError
from textdiff.text.free_lengths import choose_lengths, placed_texts, placement_nats
from textdiff.text.special_tokens import ANY_NUMBER
from textdiff.text.tokenizer import MASK

TEXT = f"The  KING sees {ANY_NUMBER} , zebra dog."


@pytest.fixture(scope="module")
def pipe(model, tokenizer):
    return TextDiffusion(model, tokenizer)


@pytest.fixture
def markov_text(new_model):
    """A model without the network: its texts are those of the chain, with any length as likely."""
    model = new_model().eval()
    model.prior_weight.fill_(1.0)
    model.head.weight.data.zero_()
    model.head.bias.data.zero_()
    model.lengths.fill_(1 / len(model.lengths))
    return model


def test_every_number_of_words_is_compared():
    assert placed_texts(f"a {ANY_NUMBER}.", 3) == [f"a {' '.join([MASK] * k)}." for k in (1, 2, 3)]
    both = placed_texts(f"{ANY_NUMBER} a {ANY_NUMBER}", 2)
    assert len(both) == len({*both}) == 4
    assert len(placed_texts(f"{ANY_NUMBER} " * 3, 8)) == 4**3  # not more than 64 in all
    assert len(placed_texts(f"{ANY_NUMBER} " * 6, 8)) == 2**6


def test_nats_of_placed_words_are_exact(markov_text, tokenizer):
    """-log p(x, any m words, y, end) of a Markov text by products of its matrices.

    At the noisy end the noise still says a little about the words.
    """
    chain = markov_text.markov.chain()
    pairs, start, end = chain.transitions.dense().double(), chain.start.double(), chain.end.double()
    x, y, mask_id = 7, 12, tokenizer.token_to_id(MASK)
    expected = []
    for m in range(1, 6):
        forward = start[x] * torch.eye(len(start), dtype=torch.float64)[x]
        for _ in range(m + 1):
            forward = forward @ pairs
        backward = torch.eye(len(start), dtype=torch.float64)[y] * end
        total = start
        for _ in range(m + 1):
            total = total @ pairs
        expected.append(-((forward @ backward) / (total @ end)).log())
    texts = [[x, *[mask_id] * m, y] for m in range(1, 6)]
    found = placement_nats(markov_text, texts, mask_id)
    found -= -(markov_text.lengths.double()[3:8] + 1e-6).log()
    assert_close(found, torch.stack(expected).detach(), atol=0.3, rtol=0)
    assert found.std() > 0


def test_length_follows_the_given_words(markov_text, tokenizer):
    """Where only one number of words is possible, no other is drawn."""
    mask_id = tokenizer.token_to_id(MASK)
    markov_text.lengths.zero_()[5] = 1.0
    texts = [[7, *[mask_id] * m, 12] for m in range(1, 6)]
    assert placement_nats(markov_text, texts, mask_id).argmin() == 2


def test_numbers_depend_on_the_seed_only(pipe):
    def chosen(n, **options):
        config = SamplingConfig(**options)
        return choose_lengths(pipe.model, pipe.tokenizer, TEXT, n, 8, config)

    many = chosen(40)
    assert chosen(3) == many[:3] == chosen(3, batch_size=1)
    assert chosen(40, seed=1) != many
    assert len({*many}) > 2


def test_given_characters_stay_around_any_number(pipe):
    found = pipe.infill(TEXT, n=12, steps=3, temperature=3.0)
    for text, ids in zip(found.texts, found.sequences, strict=True):
        assert text.startswith("The  KING sees ")
        assert text.endswith(" , zebra dog.")
        assert MASK[:5] not in text
        assert pipe.tokenizer.encode(text).ids[:3] == ids[:3]
    assert len({len(ids) for ids in found.sequences}) > 1


def test_any_number_does_not_depend_on_batches(pipe):
    texts = [TEXT, f"the {MASK} sees {ANY_NUMBER} ."]
    options = {"n": 3, "steps": 3, "temperature": 2.0}
    found = pipe.infill(texts, **options)
    assert pipe.infill(texts, batch_size=2, **options) == found
    assert pipe.infill(TEXT, **options).texts == found.texts[:3]


def test_longest_of_one_is_a_mask(pipe):
    plain = pipe.infill(TEXT.replace(ANY_NUMBER, MASK), n=3, steps=3)
    assert pipe.infill(TEXT, n=3, steps=3, longest=1) == plain


def test_lengths_stay_within_the_model(pipe, model, tokenizer):
    """Only those that fit are drawn. If none fits, one line says so."""
    words = "dog " * (model.config.length - 2)
    found = pipe.infill(f"{words}{ANY_NUMBER}", n=5, steps=2)
    assert max(map(len, found.sequences)) <= model.config.length
    with pytest.raises(UserError, match="at most 20 tokens for this model, with one for each"):
        pipe.infill(f"{words} dog dog {ANY_NUMBER}")


def test_numbers_have_room_for_required_phrases(pipe):
    found = pipe.infill("the [MASK*] .", n=8, steps=2, require=["small king"], longest=4)
    assert all("small king" in text for text in found.texts)
    with pytest.raises(UserError, match="has all required phrases"):
        pipe.infill("the [MASK*] .", steps=2, require=["small king"], longest=1)


def test_stream_fills_any_number_of_words(pipe):
    *_, last = pipe.stream.infill(TEXT, n=2, steps=3)
    assert last.texts == pipe.infill(TEXT, n=2, steps=3).texts


@pytest.mark.parametrize("text", ["a unicorn", "[MASK*] unicorn" + " dog" * 20])
def test_errors_come_without_warnings(pipe, caplog, text):
    with pytest.raises(UserError):
        pipe.infill(text)
    assert not caplog.records
    pipe.infill("[MASK*] unicorn", steps=1)
    assert "unicorn" in caplog.text


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda pipe: pipe.rewrite(f"the {ANY_NUMBER}"), r"without \[MASK\*\], which infill fills"),
        (lambda pipe: pipe.complete(f"the {ANY_NUMBER}"), "which infill fills"),
        (lambda pipe: pipe.infill([TEXT] * 2, longest=0), "^longest must be at least 1, got 0"),
        (lambda pipe: pipe.infill(f"the {ANY_NUMBER} " * 7), "at most 6"),
        (lambda pipe: pipe.infill("the [MASK+] dog"), r"written \[MASK\], or \[MASK\*\] for one"),
        (lambda pipe: pipe.infill("the [MASK]* dog"), r"written \[MASK\], or \[MASK\*\] for one"),
        (lambda pipe: pipe.infill(["the dog", TEXT]), r"^text \(number 1\) has no"),
    ],
)
def test_bad_marks_are_refused_in_one_line(pipe, call, message):
    with pytest.raises(UserError, match=message) as error:
        call(pipe)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["the dog [sic] [MASK] .", "is the dog [MASK]? [1]"])
def test_other_words_in_brackets_are_no_marks(pipe, text):
    before, _, after = text.partition(MASK)
    (found,) = pipe.infill(text, steps=1).texts
    assert found.startswith(before)
    assert found.endswith(after)
