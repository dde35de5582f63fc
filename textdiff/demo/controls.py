"""Controls that the tabs of all models have: sampler, steps, seed, and the buttons."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import gradio as gr

from textdiff.config import SamplerName

MOST_STEPS, MOST_SAMPLES = 100, 8
LARGEST_SEED = 2**31 - 1


@dataclass(frozen=True)
class Controls:
    """Components by the names of the arguments that they set."""

    by_name: dict[str, gr.components.Component] = field(default_factory=dict)

    @property
    def inputs(self) -> list[gr.components.Component]:
        """The components, as inputs of an event."""
        return [*self.by_name.values()]

    def options(self, values: Sequence[Any]) -> dict[str, Any]:
        """Arguments from the values of the components. Those without a value are left out."""
        named = zip(self.by_name, values, strict=True)
        return {name: value for name, value in named if value is not None}


def sampling_controls(steps: int, sampler: str) -> dict[str, gr.components.Component]:
    """Number of steps, sampler and seed.

    Args:
        steps: Number of steps at first.
        sampler: Sampler at first.
    """
    return {
        "steps": gr.Slider(1, MOST_STEPS, steps, step=1, precision=0, label="Steps"),
        "sampler": gr.Dropdown([*get_args(SamplerName)], value=sampler, label="Sampler"),
        "seed": gr.Number(0, minimum=0, maximum=LARGEST_SEED, precision=0, label="Seed"),
    }


def number_of_samples(label: str, value: int) -> gr.Slider:
    """Number of samples of a request."""
    return gr.Slider(1, MOST_SAMPLES, value, step=1, precision=0, label=label)


def buttons(label: str) -> tuple[gr.Button, gr.Button]:
    """A button that starts and one that stops."""
    with gr.Row(elem_classes="td-buttons"):
        start = gr.Button(label, variant="primary", scale=3)
        return start, gr.Button("Stop", scale=1)
