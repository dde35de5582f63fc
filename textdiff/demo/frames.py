"""Frames: the part of the page that shows steps as they arrive, with a slider to go back.

The server sends one piece of HTML for each step. The browser keeps them, so that scrubbing asks
nothing of the server and the server remembers nothing of a request.
"""

import base64
import html
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, no_type_check

import gradio as gr
from PIL.Image import Image

from textdiff.config import UserError

CONCURRENT = 2  # requests computed at the same time; the others wait
LEVELS = 10  # of colour
LARGEST_LOSSLESS = 64 * 64  # pixels
EMPTY: dict[str, Any] = {"frames": [], "labels": [], "steps": 0, "note": "", "error": ""}
PROBABILITIES = (
    "Probability: <span class='p1'>below 0.3</span><span class='p4'>0.3 to 0.5</span>"
    "<span class='p6'>0.5 to 0.7</span><span class='p8'>0.7 to 0.9</span>"
    "<span class='p9'>above 0.9</span>"
)


class Word(NamedTuple):
    """A word, or another piece of a text, as it is shown.

    Args:
        text: The piece, with the white space before it.
        probability: Its probability, which is its colour. None has no colour.
        marked: Whether it is marked as new.
    """

    text: str
    probability: float | None = None
    marked: bool = False


class Frame(NamedTuple):
    """The content of the page after a step.

    Args:
        content: HTML.
        steps: Number of steps in all.
        label: Text beside the slider.
        note: A line below the content.
    """

    content: str
    steps: int
    label: str
    note: str = ""


def new_frames(
    name: str, hint: str = "", legend: str = "", frames: Iterable[Frame] = (), at: int | None = None
) -> gr.HTML:
    """The component. Its value is what `shown` yields.

    Args:
        name: Its `id` in the page.
        hint: What is shown before there are frames.
        legend: HTML that explains the colours.
        frames: Frames to begin with.
        at: Number of the frame that is shown at first. If None, the last one.
    """
    first = {**EMPTY, "frames": [f"<p class='td-hint'>{hint}</p>"], "labels": [""]}
    value = [first, *shown(lambda: iter(frames))][-1]
    value = value if at is None else {**value, "at": at}
    template, script = asset("frames.html"), asset("frames.js")
    return gr.HTML(value, html_template=template, js_on_load=script, elem_id=name, legend=legend)


def shown(make: Callable[..., Iterator[Frame]], *values: Any) -> Iterator[dict[str, Any]]:
    """Yields the value of the component after every frame. A UserError becomes its error message.

    All frames so far are sent: gradio sends only what is new, and no step is lost.

    Args:
        make: Function of the values of the inputs.
    """
    content: list[str] = []
    labels: list[str] = []
    try:
        for frame in make(*values):
            content, labels = [*content, frame.content], [*labels, frame.label]
            value = {"frames": content, "labels": labels, "steps": frame.steps}
            yield {**EMPTY, **value, "note": frame.note}
    except UserError as error:
        yield {**EMPTY, "error": plain(error)}


def plain(error: UserError) -> str:
    """The message of an error with the names of options as a page has them."""
    return re.sub(r"--(\w+)", lambda match: match[1].replace("_", " "), str(error))


def connect(
    triggers: Sequence[Callable[..., Any]],
    make: Callable[..., Iterator[Frame]],
    inputs: Sequence[gr.components.Component],
    frames: gr.HTML,
    stop: gr.Button | None = None,
    at_once: bool = False,
) -> None:
    """Shows the frames of `make` when a trigger fires.

    Args:
        triggers: Events, such as `button.click`.
        stop: Button that ends the computation.
        at_once: Whether all frames are sent together. The slider then stays where it is.
    """

    @no_type_check  # the wrapper of type checks is no generator function, for which gradio looks
    def run(*values: Any) -> Iterator[dict[str, Any]]:
        found = shown(make, *map(_typed, inputs, values))
        yield from deque(found, maxlen=1) if at_once else found

    event = gr.on(
        triggers,
        run,
        inputs,
        frames,
        concurrency_id="model",
        concurrency_limit=CONCURRENT,
        show_progress="minimal",
        api_name=frames.elem_id,
    )
    if stop is not None:
        stop.click(None, cancels=[event])


def _typed(component: gr.components.Component, value: Any) -> Any:
    """The value, as a float where the component has fractions; browsers send 1.0 as 1."""
    fractional = isinstance(component, gr.Slider) and component.precision
    return float(value) if fractional else value


def paragraphs(texts: Iterable[Iterable[Word]]) -> str:
    """Texts as HTML, each a paragraph."""
    return "".join(f"<p>{''.join(map(_span, text))}</p>" for text in texts)


def pictures(images: Iterable[Image]) -> str:
    """Pictures as HTML that holds them, so that no files are served."""
    return f"<div class='td-pictures'>{''.join(map(_picture, images))}</div>"


def _picture(image: Image) -> str:
    file = BytesIO()
    small = image.width * image.height <= LARGEST_LOSSLESS
    image.save(file, "WEBP", lossless=small, quality=80)
    content = base64.b64encode(file.getvalue()).decode()
    return f"<img alt='' src='data:image/webp;base64,{content}'>"


def _span(word: Word) -> str:
    space, text = word.text[: -len(word.text.lstrip())], html.escape(word.text.strip())
    if not text:
        return space
    names, title = ["new"] * word.marked, ""
    if word.probability is not None:
        names.append(f"p{min(int(word.probability * LEVELS), LEVELS - 1)}")
        title = f" title='{word.probability:.3f}'"
    return f"{space}<span class='{' '.join(names)}'{title}>{text}</span>"


@cache
def asset(name: str) -> str:
    """The content of a file beside this module."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8")
