"""Texts from a file or from standard input, one per line."""

import logging
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

from textdiff.config import UserError
from textdiff.text.inputs import TextError

log = logging.getLogger("textdiff")


def read_lines(file: str | None = None, option: str = "--text") -> dict[int, str]:
    """The texts of a file by their line numbers. A warning counts empty lines.

    Args:
        file: Its path. If None, standard input.
        option: The option for a single text.

    Raises:
        UserError: If standard input is a terminal, or the file is not UTF-8 or has no text.
    """
    way_out = f"give {option}, or one text per line on standard input"
    name, stdin = file or "standard input", getattr(sys.stdin, "buffer", None)
    if file is None and (stdin is None or sys.stdin.isatty()):
        raise UserError(f"missing: {option.strip('-')}; {way_out}")
    stream: Any = BytesIO(Path(file).read_bytes()) if file else stdin
    lines = {number: _decoded(line, number, name) for number, line in enumerate(stream, 1)}
    texts = {number: line for number, line in lines.items() if line.strip()}
    if not texts:
        raise UserError(f"{name} has no text in {len(lines)} lines; {way_out}")
    if empty := len(lines) - len(texts):
        log.warning("left out %d empty line%s", empty, "s" * (empty > 1))
    return texts


def naming_lines(lines: dict[int, str], do: Callable[[list[str]], None]) -> None:
    """Calls `do(texts)` with the texts of lines. An error in one of them names its line."""
    try:
        do([*lines.values()])
    except TextError as error:
        raise UserError(f"line {[*lines][error.index]}: {error.error}") from error


def _decoded(line: bytes, number: int, name: str) -> str:
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise UserError(f"line {number} of {name} is not UTF-8: {error.reason}") from error
