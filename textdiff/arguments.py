"""Checks of the arguments of functions that users call from Python."""

import difflib
import inspect
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import fields
from functools import cache, wraps
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from textdiff.config import UserError, check

F = TypeVar("F", bound=Callable[..., Any])
KINDS: dict[Any, str] = {int: "a whole number", float: "a number", str: "a text"}
KINDS |= {bool: "True or False", NoneType: "None", Path: "a path"}
# arguments of transformers and diffusers, and their names here
ELSEWHERE = {
    "num_inference_steps": "steps",
    "num_return_sequences": "n",
    "num_images_per_prompt": "n",
    "max_length": "length",
    "max_new_tokens": "length",
    "generator": "seed",
    "bad_words_ids": "forbid",
    "force_words_ids": "require",
    "class_labels": "label",
    "top_k": "temperature",
    "top_p": "temperature",
    "do_sample": "temperature",
}
STEPS = "use pipe.stream, which yields every step"
HINTS = {"streamer": STEPS, "callback_on_step_end": STEPS, "callback": STEPS}

_on_command_line = ContextVar("_on_command_line", default=False)


@contextmanager
def command_line_names() -> Iterator[None]:
    """Messages name options as on the command line: --steps instead of steps."""
    token = _on_command_line.set(True)
    try:
        yield
    finally:
        _on_command_line.reset(token)


def checked_arguments(*kinds: type[Any]) -> Callable[[F], F]:
    """Decorator of a function that checks its arguments by its type hints.

    Args:
        kinds: Dataclasses whose fields are further arguments, taken as **options.

    Returns:
        The decorator. The function raises TypeError, with the nearest name, for an argument that
        does not exist, and UserError for one of another type.
    """

    def decorate(function: F) -> F:
        signature = inspect.signature(function)

        @wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            hints = _hints(function, kinds)
            args, kwargs = tuple(map(_plain, args)), {name: _plain(kwargs[name]) for name in kwargs}
            refuse_unknown(kwargs, hints)
            named = zip(list(signature.parameters)[: len(args)], args, strict=False)
            for name, value in [*named, *kwargs.items()]:
                hint = hints.get(name, Any)
                check(_fits(value, hint), name, _description(hint), value)
            try:
                return function(*args, **kwargs)
            except UserError as error:
                if not _on_command_line.get():
                    names = {name: name for name in [*hints, function.__name__]}
                    error.args = (_with_names(str(error), names | {"class": "label"}),)
                raise

        return checked  # type: ignore[return-value]

    return decorate


def from_arguments(arguments: dict[str, Any], *kinds: type[Any]) -> list[Any]:
    """A dataclass of each kind, from the arguments of the same names.

    `checked_arguments` has refused arguments that no kind has.
    """
    names = [{field.name for field in fields(kind)} & arguments.keys() for kind in kinds]
    own = ({name: arguments[name] for name in each} for each in names)
    return [kind(**values) for kind, values in zip(kinds, own, strict=True)]


def refuse_unknown(arguments: Collection[str], known: Collection[str]) -> None:
    """Raises TypeError for the first argument that is not known, and names the nearest."""
    for name in arguments:
        if name not in known:
            same = [ELSEWHERE[name]] if ELSEWHERE.get(name) in known else []
            nearest = same or difflib.get_close_matches(name, known, n=1)
            hint = HINTS.get(name) or (f"did you mean {nearest[0]}?" if nearest else "")
            raise TypeError(f"unexpected argument {name}{hint and ': ' + hint}")


def _with_names(message: str, names: dict[str, str]) -> str:
    """A message in which options have their names in Python."""
    return re.sub(r"--(\w+)", lambda found: names.get(found[1], found[0]), message)


@cache
def _hints(function: Callable[..., Any], kinds: tuple[type[Any], ...]) -> dict[str, Any]:
    """The types of the named arguments, and of the fields of dataclasses."""
    own, more = get_type_hints(function), dict[str, Any]()
    for kind in kinds:
        found = get_type_hints(kind)
        more |= {field.name: found[field.name] for field in fields(kind)}
    parameters = inspect.signature(function).parameters.values()
    named = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD and p.name != "self"]
    return more | {name: own.get(name, Any) for name in named}


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value has a type. True for types that are not plain values or lists of them."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, each) for each in args)
    if origin is Literal:
        return value in args
    if origin in (list, Sequence):
        several = isinstance(value, Sequence) and not isinstance(value, str | bytes)
        return several and all(_fits(each, args[0]) for each in value)
    if hint in (int, float):
        number = Integral if hint is int else Real
        return isinstance(value, number) and not isinstance(value, bool)
    return isinstance(value, hint) if hint in (str, bool, NoneType) else True


def _plain(value: Any) -> Any:
    """Numbers of numpy and other libraries as those of Python."""
    if isinstance(value, Real) and not isinstance(value, bool | int | float):
        return int(value) if isinstance(value, Integral) else float(value)
    return value


def _description(hint: Any) -> str:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        parts = (_description(each) for each in args if not (each is int and float in args))
        return " or ".join(sorted(parts, key=lambda part: "each" in part))
    if origin is Literal:
        return f"one of {', '.join(map(str, args))}"
    if origin in (list, Sequence):
        return f"a list of which each is {_description(args[0])}"
    return KINDS[hint] if hint in KINDS else str(hint)
