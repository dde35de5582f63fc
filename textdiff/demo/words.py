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
from textdiff.text.special_tokens import ANY_NUMBER, MASK, UNK
from textdiff.text.task import TextOutput
from textdiff.text.tokenizer import decode_after

MOST_CHARACTERS = 2000
Marks = Callable[[int, int, int], bool]  # (row, position, token) -> whether it is marked
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
    """First and last character of each token of a text. A [MASK*] counts as one."""
    first, *rest = text.split(ANY_NUMBER)
    found = [*tokenizer.encode(first.rstrip() if rest else first, add_special_tokens=False).offsets]
    if rest:
        begin = len(first)
        end = begin + len(ANY_NUMBER)
        after = spans(tokenizer, text[end:])
        found += [(begin, end), *((end + start, end + stop) for start, stop in after)]
    return found


def unknown_words(tokenizer: Tokenizer, text: str) -> str:
    """A line that names the words of a text without a token; empty if there are none."""
    text = text.replace(ANY_NUMBER, MASK)
    encoding = tokenizer.encode(text, add_special_tokens=False)
    pairs = zip(encoding.tokens, encoding.offsets, strict=True)
    unknown = dict.fromkeys(text[start:end] for token, (start, end) in pairs if token == UNK)
    return f"Not in the model's vocabulary: {', '.join(unknown)}." if unknown else ""


def text_frames(
    pipe: TextDiffusion,
    steps: Iterable[TextOutput],
    marks: Marks = lambda row, position, token: False,
    *,
    first: int = 0,
    spelling: Callable[[int], Spelling] = lambda row: {},
    note: str = "",
) -> Iterator[Frame]:
    """The frames of a stream of steps.

    Args:
        marks: Which tokens are marked.
        first: Number of tokens at the beginning that are not shown.
        spelling: How given tokens of a row are written.
    """
    tokenizer, texts = pipe.tokenizer, dict[int, list[Word]]()

    @cache
    def piece(before: int | None, token: int) -> str:
        return decode_after(tokenizer, [] if before is None else [before], [token])

    def words(row: int, ids: list[int], probabilities: list[float] | None) -> Iterator[Word]:
        spelled = spelling(row)
        for i, token in enumerate(ids[first:], first):
            text = spelled.get(i) or piece(ids[i - 1] if i > first else None, token)
            yield Word(text, probabilities[i] if probabilities else None, marks(row, i, token))

    for step in steps:
        for i, (row, ids) in enumerate(zip(step.rows, step.sequences, strict=True)):
            texts[row] = [*words(row, ids, step.probabilities[i] if step.probabilities else None)]
        content = paragraphs(texts[row] for row in sorted(texts))
        yield Frame(content, step.steps, f"step {step.step} of {step.steps}", note)
