"""Tabs that write new texts: from noise, and from a source."""

from collections.abc import Iterator
from typing import Any

import gradio as gr

from textdiff.demo.controls import Controls, buttons, number_of_samples
from textdiff.demo.frames import PROBABILITIES, Frame, connect, new_frames
from textdiff.demo.words import checked, decoding_controls, text_frames, text_input, unknown_words
from textdiff.text.pipeline import TextDiffusion
from textdiff.text.tokenizer import encode

HINT = "Texts appear here out of noise, step by step. The slider goes back through the steps."


def sample_tab(pipe: TextDiffusion) -> None:
    """Texts from noise."""
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            start, stop = buttons("Write")
            with gr.Accordion("Settings", open=False):
                controls = _controls(pipe, number=4)
        with gr.Column(scale=2, min_width=320):
            view = new_frames("write", HINT, PROBABILITIES)

    def frames(*values: Any) -> Iterator[Frame]:
        return text_frames(pipe, pipe.stream.sample(**_options(controls, values)))

    connect([start.click], frames, controls.inputs, view, stop)


def generate_tab(pipe: TextDiffusion) -> None:
    """Targets of a source."""
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            hint = "A source, written as in the training data"
            source = text_input("Source", "", lines=3, placeholder=hint)
            start, stop = buttons("Generate")
            with gr.Accordion("Settings", open=False):
                controls = _controls(pipe, number=4)
        with gr.Column(scale=2, min_width=320):
            view = new_frames("generate", "Texts for the source appear here.", PROBABILITIES)

    def frames(text: str, *values: Any) -> Iterator[Frame]:
        text = checked(text)
        steps = pipe.stream.generate(text, **_options(controls, values))
        first, note = len(encode(pipe.tokenizer, text)) + 1, unknown_words(pipe.tokenizer, text)
        return text_frames(pipe, steps, first=first, note=note)

    connect([start.click, source.submit], frames, [source, *controls.inputs], view, stop)


def _controls(pipe: TextDiffusion, number: int) -> Controls:
    longest = pipe.model.config.length
    length = gr.Slider(
        0, longest, 0, step=1, precision=0, label="Length in tokens (0: as in the training text)"
    )
    found = {"n": number_of_samples("Texts", number), "length": length}
    return Controls({**found, **decoding_controls(pipe)})


def _options(controls: Controls, values: tuple[Any, ...]) -> dict[str, Any]:
    """Arguments of the task. Length 0 stands for the model's own."""
    options = controls.options(values)
    return {**options, "length": options["length"] or None}
