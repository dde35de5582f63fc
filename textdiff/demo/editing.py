"""Tabs that change a text: rewrite all of it, or fill words that were clicked."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import gradio as gr

from textdiff.config import SamplingConfig, UserError
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
from textdiff.text.free_lengths import choose_lengths
from textdiff.text.pipeline import TextDiffusion
from textdiff.text.predictor import WordPredictor
from textdiff.text.special_tokens import ANY_NUMBER, MASK
from textdiff.text.tokenizer import encode

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
        changed = lambda row, position, token: token != given[position]  # noqa: E731
        spelling = {} if strength else _spelling(pipe, text)
        return text_frames(pipe, steps, changed, spelling=lambda row: spelling, note=note)

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
            free = gr.Checkbox(
                label="Gaps of any length",
                info="One or more new words for each run of clicked words.",
            )
            start, stop = buttons("Fill")
            with gr.Accordion("Settings", open=False):
                longest = gr.Slider(1, 16, 8, step=1, precision=0, label="Longest gap in tokens")
                controls = _controls(pipe)
        with gr.Column(scale=2, min_width=320):
            view = new_frames("infill", "Texts with new words appear here.", LEGEND)

    def frames(
        text: str, chosen: Sequence[int], free: bool, longest: int, *values: Any
    ) -> Iterator[Frame]:
        return infill_frames(pipe, text, chosen, free, longest, controls.options(values))

    def new_choices(text: str) -> Any:
        return gr.CheckboxGroup(_choices(pipe, text[:2000]), value=[])

    text.change(new_choices, text, words, show_progress="hidden", trigger_mode="always_last")
    connect([start.click], frames, [text, words, free, longest, *controls.inputs], view, stop)


def infill_frames(
    pipe: TextDiffusion,
    text: str,
    chosen: Sequence[int],
    free: bool,
    longest: int,
    options: dict[str, Any],
) -> Iterator[Frame]:
    """The frames of an infill.

    Args:
        chosen: Positions of the tokens that are replaced, beside typed marks.
        free: Whether runs of them are replaced by any number of tokens.
        longest: The largest such number.
        options: Further arguments of `TextDiffusion.infill`.
    """
    assert isinstance(pipe.model, WordPredictor)  # an autoregressive model has no such tab
    text, sampling = checked(text), SamplingConfig(seed=options["seed"])
    gaps = masked(pipe, text, masked_positions(pipe, text, chosen), free)
    n = options["n"]
    texts = choose_lengths(pipe.model, pipe.tokenizer, gaps, n, longest, sampling)
    spelling = [_spelling(pipe, each) for each in texts]
    alike = len({*texts}) == 1  # one text, whose errors have no number
    asked = {"text": texts[0], "n": n} if alike else {"text": texts, "n": 1}
    steps = pipe.stream.infill(**options | asked)
    is_new = lambda row, position, token: position not in spelling[row]  # noqa: E731
    note = unknown_words(pipe.tokenizer, text)
    return text_frames(pipe, steps, is_new, spelling=spelling.__getitem__, note=note)


def masked_positions(pipe: TextDiffusion, text: str, chosen: Sequence[int]) -> set[int]:
    """Positions of the tokens to be filled: chosen ones, and where the text has [MASK] or [MASK*].

    Raises:
        UserError: If there are none.
    """
    found = spans(pipe.tokenizer, text)
    typed = {i for i, (start, end) in enumerate(found) if _is_mark(text[start:end])}
    positions = typed | {i for i in chosen if i < len(found)}
    if not positions:
        raise UserError(f"no word is chosen: click those to be replaced, or write {MASK}")
    return positions


def masked(pipe: TextDiffusion, text: str, positions: set[int], free: bool = False) -> str:
    """The text with [MASK] in place of some of its tokens; a [MASK*] stays.

    Args:
        free: Whether each run of such tokens becomes one [MASK*], which has any length.
    """
    parts, last = [], 0
    for i, (start, end) in enumerate(spans(pipe.tokenizer, text)):
        mark = ANY_NUMBER if free or text[start:end] == ANY_NUMBER else MASK
        if not (free and {i - 1, i} <= positions):
            parts += [text[last:start], f" {mark}" if i in positions else text[start:end]]
        last = end
    return "".join(parts) + text[last:]


def _is_mark(text: str) -> bool:
    return MASK in text or text == ANY_NUMBER


def _choices(pipe: TextDiffusion, text: str) -> list[tuple[str, int]]:
    """The tokens of a text, numbered."""
    found = spans(pipe.tokenizer, text)
    return [(text[start:end].strip(), i) for i, (start, end) in enumerate(found)]


def _spelling(pipe: TextDiffusion, text: str) -> dict[int, str]:
    """How the tokens of a text are written, with the white space before them, without [MASK]s."""
    ends = [0, *(end for _, end in spans(pipe.tokenizer, text))]
    pieces = (text[start:end] for start, end in pairwise(ends))
    return {i: piece for i, piece in enumerate(pieces) if not _is_mark(piece)}


def _controls(pipe: TextDiffusion) -> Controls:
    return Controls({"n": number_of_samples("Texts", 3), **decoding_controls(pipe)})
