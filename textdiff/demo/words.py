"""Texts of a task as frames of the page: words with colours and marks."""

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any

import gradio as gr
from tokenizers import Tokenizer

from textdiff.config import SamplingConfig, UserError
from textdiff.demo.controls import sampling_controls
from textdiff.demo.frames import Frame, Word, paragraphs
from textdiff.text.autoregressive import Autoregressive
from textdiff.text.pipeline import TextDiffusion
from textdiff.text.task import TextOutput
from textdiff.text.tokenizer import UNK, decode_after

MOST_CHARACTERS = 2000
Marks = Callable[[int, int], bool]  # (position, token) -> whether it is marked
Spelling = dict[int, str]  # position -> how the token is written there


def decoding_controls(pipe: TextDiffusion) -> dict[str, gr.components.Component]:
    """The controls of the sampler, and those of decoding that the model has."""
    if isinstance(pipe.model, Autoregressive):
        sampling = sampling_controls(SamplingConfig.steps, SamplingConfig.sampler)
        return {"seed": sampling["seed"], "temperature": _temperature(1.0)}
    found = sampling_controls(16, SamplingConfig.sampler)
    config = pipe.model.config
    scale, label = config.sampling_guidance_scale, "Guidance (1: none)"
    found["guidance_scale"] = gr.Slider(0, 3, scale, step=0.1, precision=2, label=label)
    if config.objective == "ce":
        found["temperature"] = _temperature(config.sampling_temperature)
    return found


def _temperature(value: float) -> gr.Slider:
    return gr.Slider(0.2, 2, value, step=0.05, precision=2, label="Temperature")


def text_input(label: str, value: str, **options: Any) -> gr.Textbox:
    """A line for a text."""
    return gr.Textbox(value, label=label, max_length=MOST_CHARACTERS, max_lines=6, **options)


def checked(text: str | None) -> str:
    """The text. Raises UserError if it is empty or too long."""
    text = (text or "").strip()
    if not text:
        raise UserError("the text is empty: type some words")
    if len(text) > MOST_CHARACTERS:
        limit = f"at most {MOST_CHARACTERS:,} are allowed"
        raise UserError(f"the text has {len(text):,} characters: {limit}")
    return text


def spans(tokenizer: Tokenizer, text: str) -> list[tuple[int, int]]:
    """First and last character of each token of a text."""
    return [*tokenizer.encode(text, add_special_tokens=False).offsets]


def unknown_words(tokenizer: Tokenizer, text: str) -> str:
    """A line that names the words of a text without a token; empty if there are none."""
    encoding = tokenizer.encode(text, add_special_tokens=False)
    pairs = zip(encoding.tokens, encoding.offsets, strict=True)
    unknown = dict.fromkeys(text[start:end] for token, (start, end) in pairs if token == UNK)
    return f"Not in the model's vocabulary: {', '.join(unknown)}." if unknown else ""


def text_frames(
    pipe: TextDiffusion,
    steps: Iterable[TextOutput],
    marks: Marks = lambda position, token: False,
    *,
    first: int = 0,
    spelling: Spelling | None = None,
    note: str = "",
) -> Iterator[Frame]:
    """The frames of a stream of steps.

    Args:
        marks: Which tokens are marked.
        first: Number of tokens at the beginning that are not shown.
        spelling: How given tokens are written.
    """
    tokenizer, spelled, texts = pipe.tokenizer, spelling or {}, dict[int, list[Word]]()

    @cache
    def piece(before: int | None, token: int) -> str:
        return decode_after(tokenizer, [] if before is None else [before], [token])

    def words(ids: list[int], probabilities: list[float] | None) -> Iterator[Word]:
        for i, token in enumerate(ids[first:], first):
            text = spelled.get(i) or piece(ids[i - 1] if i > first else None, token)
            yield Word(text, probabilities[i] if probabilities else None, marks(i, token))

    for step in steps:
        for i, (row, ids) in enumerate(zip(step.rows, step.sequences, strict=True)):
            texts[row] = [*words(ids, step.probabilities[i] if step.probabilities else None)]
        content = paragraphs(texts[row] for row in sorted(texts))
        yield Frame(content, step.steps, f"step {step.step} of {step.steps}", note)
