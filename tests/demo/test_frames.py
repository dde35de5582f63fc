"""Laws of the frames of the page: what is sent, and how words are written."""

import re

import pytest

from textdiff.config import UserError, check
from textdiff.demo import curve, noising
from textdiff.demo.editing import infill_frames, masked, masked_positions
from textdiff.demo.frames import Frame, Word, paragraphs, shown
from textdiff.demo.words import text_frames, unknown_words
from textdiff.diffusion.schedules import SCHEDULES
from textdiff.text import grammar
from textdiff.text.special_tokens import ANY_NUMBER, MASK

TEXT = grammar.corpus(1, seed=0)[0]


def plain_text(content: str) -> str:
    return re.sub(r"<[^>]*>", "", content)


def letters(text: str) -> str:
    return "".join(text.split())


def test_every_step_is_sent_with_those_before():
    frames = [Frame(str(i), 3, f"step {i}") for i in range(3)]
    sent = [*shown(lambda: iter(frames))]
    assert [value["frames"] for value in sent] == [["0"], ["0", "1"], ["0", "1", "2"]]
    assert not any(value["error"] for value in sent)


def test_error_is_one_line_without_option_names():
    def refuse():
        yield Frame("", 1, "")
        check(False, "--guidance_scale", "smaller", 5)

    *_, last = shown(refuse)
    assert last["error"] == "guidance scale must be smaller, got 5"
    assert last["frames"] == []


def test_text_is_not_markup():
    assert "<b>" not in paragraphs([[Word("<b>"), Word(" 'x'", 0.5)]])


def test_colour_follows_the_probability():
    levels = [re.search(r"p(\d)", paragraphs([[Word("a", i / 10)]]))[1] for i in range(11)]
    assert levels == sorted(levels)
    assert {levels[0], levels[-1]} == {"0", "9"}


def test_frames_show_the_texts_of_steps(pipe):
    steps = [*pipe.stream.sample(3, steps=4)]
    for step, frame in zip(steps, text_frames(pipe, steps), strict=True):
        found = re.findall(r"<p>(.*?)</p>", frame.content)
        assert [" ".join(plain_text(text).split()) for text in found] == step.texts
        assert frame.label == f"step {step.step} of 4"


def test_unchanged_words_of_a_text_have_no_mark(pipe):
    (step,) = pipe.stream.rewrite(TEXT, strength=0.0)
    ids = step.sequences[0]
    (frame,) = text_frames(pipe, [step], lambda row, i, token: token != ids[i])
    assert "new" not in frame.content


def test_clicked_words_become_masks(pipe):
    assert masked_positions(pipe, TEXT, [1, 4]) == {1, 4}
    expected = TEXT.split()
    expected[1] = expected[4] = MASK
    assert masked(pipe, TEXT, {1, 4}).split() == expected
    assert masked(pipe, TEXT, set()) == TEXT


def test_typed_masks_are_filled_without_clicks(pipe):
    assert masked_positions(pipe, f"the {MASK} sees", []) == {1}


def test_adjacent_words_become_one_gap(pipe):
    words = TEXT.split()
    expected = [ANY_NUMBER, *words[2:4], ANY_NUMBER, *words[5:]]
    assert masked(pipe, TEXT, {0, 1, 4}, free=True).split() == expected


def test_typed_gaps_are_kept_and_filled(pipe):
    text = f"the {MASK} sees {ANY_NUMBER} dog ."
    assert masked_positions(pipe, text, []) == {1, 3}
    assert masked(pipe, text, {1, 3}).split() == text.split()
    assert "MASK" not in unknown_words(pipe.tokenizer, text)


@pytest.mark.parametrize("seed", range(3))
def test_gaps_of_the_page_are_those_of_infill(pipe, seed):
    """Also the given words, as they are written."""
    options = {"n": 4, "seed": seed, "steps": 3}
    *_, last = infill_frames(pipe, TEXT.upper(), [1, 2], True, 5, options)
    masks = TEXT.split()
    masks[1:3] = [ANY_NUMBER]
    found = re.findall(r"<p>(.*?)</p>", last.content)
    wanted = pipe.infill(" ".join(masks).upper(), longest=5, **options).texts
    assert [letters(plain_text(text)) for text in found] == [*map(letters, wanted)]


@pytest.mark.parametrize("sizes", [[2, 2], [1, 3, 2]])
def test_words_in_gaps_are_marked(pipe, monkeypatch, sizes):
    """All of them and no others, whatever the number of words in a gap."""
    first, *_, last = TEXT.split()
    texts = [" ".join([first, *[MASK] * size, last]) for size in sizes]
    monkeypatch.setattr("textdiff.demo.editing.choose_lengths", lambda *_: texts)
    options = {"n": len(sizes), "seed": 0, "steps": 1}
    *_, frame = infill_frames(pipe, f"{first} {ANY_NUMBER} {last}", [], True, 3, options)
    for text, size in zip(re.findall(r"<p>(.*?)</p>", frame.content), sizes, strict=True):
        marks = ["new" in mark for mark in re.findall(r"<span class='(.*?)'", text)]
        assert marks == [False, *[True] * size, False]


def test_infill_needs_a_word(pipe):
    with pytest.raises(UserError, match="click those to be replaced"):
        masked_positions(pipe, TEXT, [])


def test_noise_ends_in_the_sentence_and_in_noise(pipe):
    """At the clean end every word is read as it is; at the noisy end few are."""
    for schedule in (curve.OWN, *SCHEDULES):
        frames = [*noising.noise_frames(pipe, TEXT, schedule, seed=0)]
        assert len(frames) == curve.POINTS
        clean, noisy = (plain_text(frames[i].content.partition("</p>")[0]) for i in (0, -1))
        if schedule != "sqrt":  # which begins with noise
            assert letters(clean) == letters(TEXT)
        assert letters(noisy) != letters(TEXT)
        assert all("polyline" in frame.content for frame in frames)
