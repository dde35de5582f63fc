"""Mistaken options: misspelled, of a wrong type, or out of range."""

import io
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from image import cli as image_cli
from image.config import ImageConfig
from robustness.harness import Result
from textdiff.cli import main as text_cli
from textdiff.text.config import TextConfig

# any text may be valid before the data are opened
UNCHECKED = ("data.train", "data.valid", "data.field")
Command = Callable[[list[str]], None]


def mistaken_options(folder: Path) -> Iterator[Result]:
    """Each mistake is refused at once, by name, before data or model are opened."""
    commands: list[tuple[Command, Any]] = [
        (lambda options: text_cli.main(["train", *options]), TextConfig()),
        (lambda options: image_cli.main("train", options), ImageConfig()),
    ]
    run = folder / "refused"
    held, quick = [], []
    for command, config in commands:
        for key, default in _options(config):
            for option, value in _mistakes(key, default):
                began = time.monotonic()
                code, lines = _run(command, [option, value, "--run", str(run)])
                quick.append(time.monotonic() - began < 2)
                one_line = code == 2 and len(lines) == 1
                held.append(one_line and _names(key, option, lines[0]) and not run.exists())
    claim = "mistaken options: refused in one line that names the right option"
    yield Result(claim, sum(held), len(held))
    yield Result("  in under 2 seconds", sum(quick), len(quick))


def _options(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Name and default of every option except the run folder."""
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            yield from _options(value, f"{prefix}{field.name}.")
        elif field.name != "run":
            yield f"{prefix}{field.name}", value


def _mistakes(key: str, default: Any) -> Iterator[tuple[str, str]]:
    """Misspelled names of an option, and values that it cannot have."""
    section, dot, name = key.rpartition(".")
    for misspelled in (name[:-1], f"{name}x", name[1] + name[0] + name[2:]):
        yield f"--{section}{dot}{misspelled}", str(default)
    if default is not None and key not in UNCHECKED:
        yield f"--{key}", "nonsense!"
    is_number = isinstance(default, int | float) and not isinstance(default, bool)
    if is_number and "logsnr" not in key:
        yield f"--{key}", "-1"


def _run(command: Command, options: list[str]) -> tuple[Any, list[str]]:
    """Exit code and lines of error of a command."""
    errors, code = io.StringIO(), 0
    with redirect_stderr(errors), redirect_stdout(io.StringIO()):
        try:
            command(options)
        except SystemExit as error:
            code = error.code
    return code, errors.getvalue().strip().splitlines()


def _names(key: str, option: str, message: str) -> bool:
    """Whether a message names the right option. A misspelled option that it repeats is ignored."""
    name, typed = key.rpartition(".")[2], option.lstrip("-")
    if typed.rpartition(".")[2] == name:
        return name in message
    return name in message.replace(typed, "", 1)
