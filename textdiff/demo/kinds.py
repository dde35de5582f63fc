"""Kinds of models that the page can show: plug-ins of the entry points `textdiff.demo`.

So the page needs not know text or images, and images can be left out.
"""

from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from typing import NamedTuple

from transformers import PreTrainedConfig

from textdiff.config import UserError
from textdiff.hub import model_source

GROUP = "textdiff.demo"


class Tab(NamedTuple):
    """A tab of the page.

    Args:
        title: Its title.
        build: Builds its components, within the context of the page.
    """

    title: str
    build: Callable[[], None]


class Kind(NamedTuple):
    """A kind of models.

    Args:
        model_types: `model_type` in the config.json of its models.
        tabs: Loads a model by name and returns its tabs.
    """

    model_types: Sequence[str]
    tabs: Callable[[str], list[Tab]]


def open_model(name: str) -> list[Tab]:
    """Loads a model and returns its tabs.

    Args:
        name: A run folder, its model/ folder, or a model on the Hugging Face hub.

    Raises:
        UserError: If there is no such model, or no kind for it is installed.
    """
    source = model_source(name, ("config.json",))
    try:
        options, _ = PreTrainedConfig.get_config_dict(source)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{name} cannot be loaded: {reason}") from error
    model_type = options.get("model_type")
    kinds: list[Kind] = [entry.load() for entry in entry_points(group=GROUP)]
    for kind in kinds:
        if model_type in kind.model_types:
            return kind.tabs(name)
    known = ", ".join(each for kind in kinds for each in kind.model_types)
    raise UserError(f"{name} is a model of type {model_type}; the page shows {known}")
