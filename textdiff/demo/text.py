"""The tabs of a text model."""

from functools import partial

from textdiff.demo import editing, noising, writing
from textdiff.demo.kinds import Kind, Tab
from textdiff.text.autoregressive import Autoregressive
from textdiff.text.pipeline import TextDiffusion


def tabs(name: str) -> list[Tab]:
    """Loads a text model and returns its tabs."""
    return tabs_of(TextDiffusion.from_pretrained(name))


def tabs_of(pipe: TextDiffusion) -> list[Tab]:
    """The tabs of the tasks that a model can do."""
    if pipe.model.config.has_sources:
        return [Tab("Generate", partial(writing.generate_tab, pipe))]
    found = [Tab("Write", partial(writing.sample_tab, pipe))]
    if not isinstance(pipe.model, Autoregressive):
        (example,) = pipe.sample(1, steps=16, seed=1).texts
        found += [
            Tab("Rewrite", partial(editing.rewrite_tab, pipe, example)),
            Tab("Infill", partial(editing.infill_tab, pipe, example)),
            Tab("Noise", partial(noising.noise_tab, pipe, example)),
        ]
    return found


KIND = Kind(("textdiff", "textdiff-autoregressive"), tabs)
