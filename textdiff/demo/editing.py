"""Tabs that change a text: rewrite all of it, or fill words that were clicked."""

from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr

from textdiff.config import UserError, check
from textdiff.demo.controls import Controls, buttons, number_of_samples
from textdiff.demo.frames import PROBABILITIES, Frame, connect, new_frames
from textdiff.demo.words import (
    checked,
    decoding_controls,
    spans,
    text_frames,
    text_input,
    unknown_words,
)
from textdiff.text.pipeline import TextDiffusion
from textdiff.text.special_tokens import ANY_NUMBER
from textdiff.text.tokenizer import MASK, encode

LEGEND = f"{PROBABILITIES} <span class='new'>new word</span>"


def rewrite_tab(pipe: TextDiffusion, example: str) -> None:
    """Variations of a text, with the changed words marked."""
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            text = text_input("Text", example)
            strength = gr.Slider(0, 1, 0.5, step=0.01, precision=2, label="Strength")
            start, stop = buttons("Rewrite")
            with gr.Accordion("Settings", open=False):
                controls = _controls(pipe)
        with gr.Column(scale=2, min_width=320):
            view = new_frames("rewrite", "Variations of the text appear here.", LEGEND)

    def frames(text: str, strength: float, *values: Any) -> Iterator[Frame]:
        text = checked(text)
        given, note = encode(pipe.tokenizer, text), unknown_words(pipe.tokenizer, text)
        steps = pipe.stream.rewrite(text, strength=strength, **controls.options(values))
        changed = lambda position, token: token != given[position]  # noqa: E731
        spelling = {} if strength else _spelling(pipe, text, set())
        return text_frames(pipe, steps, changed, spelling=spelling, note=note)

    inputs = [text, strength, *controls.inputs]
    connect([start.click, text.submit], frames, inputs, view, stop)


def infill_tab(pipe: TextDiffusion, example: str) -> None:
    """A text in which the clicked words are replaced."""
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            text = text_input("Text", example)
            words = gr.CheckboxGroup(
                _choices(pipe, example),
                label="Click the words to replace",
                elem_classes="td-words",
            )
            start, stop = buttons("Fill")
            with gr.Accordion("Settings", open=False):
                controls = _controls(pipe)
        with gr.Column(scale=2, min_width=320):
            view = new_frames("infill", "Texts with new words appear here.", LEGEND)

    def frames(text: str, chosen: Sequence[int], *values: Any) -> Iterator[Frame]:
        text = checked(text)
        found = masked_positions(pipe, text, chosen)
        note = unknown_words(pipe.tokenizer, text)
        steps = pipe.stream.infill(masked(pipe, text, found), **controls.options(values))
        spelling = _spelling(pipe, text, found)
        is_new = lambda position, token: position in found  # noqa: E731
        return text_frames(pipe, steps, is_new, spelling=spelling, note=note)

    def new_choices(text: str) -> Any:
        return gr.CheckboxGroup(_choices(pipe, text[:2000]), value=[])

    text.change(new_choices, text, words, show_progress="hidden", trigger_mode="always_last")
    connect([start.click], frames, [text, words, *controls.inputs], view, stop)


def masked_positions(pipe: TextDiffusion, text: str, chosen: Sequence[int]) -> set[int]:
    """Positions of the tokens to be filled: the chosen ones, and where the text has [MASK].

    Raises:
        UserError: If there are none.
    """
    check(
        ANY_NUMBER not in text, "the text", f"without {ANY_NUMBER}; write one {MASK} a word", text
    )
    found = spans(pipe.tokenizer, text)
    typed = {i for i, (start, end) in enumerate(found) if MASK in text[start:end]}
    positions = typed | {i for i in chosen if i < len(found)}
    if not positions:
        raise UserError(f"no word is chosen: click those to be replaced, or write {MASK}")
    return positions


def masked(pipe: TextDiffusion, text: str, positions: set[int]) -> str:
    """The text with [MASK] in place of some of its tokens."""
    parts, last = [], 0
    for i, (start, end) in enumerate(spans(pipe.tokenizer, text)):
        parts += [text[last:start], f" {MASK}" if i in positions else text[start:end]]
        last = end
    return "".join(parts) + text[last:]


def _choices(pipe: TextDiffusion, text: str) -> list[tuple[str, int]]:
    """The tokens of a text, numbered."""
    found = spans(pipe.tokenizer, text)
    return [(text[start:end].strip(), i) for i, (start, end) in enumerate(found)]


def _spelling(pipe: TextDiffusion, text: str, new: set[int]) -> dict[int, str]:
    """How the tokens of a text are written, with the white space before them, without the new."""
    ends = [0, *(end for _, end in spans(pipe.tokenizer, text))]
    return {i: text[ends[i] : ends[i + 1]] for i in range(len(ends) - 1) if i not in new}


def _controls(pipe: TextDiffusion) -> Controls:
    return Controls({"n": number_of_samples("Texts", 3), **decoding_controls(pipe)})
