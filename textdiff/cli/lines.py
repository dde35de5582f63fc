"""Texts from standard input, one per line, for commands without --text."""

import logging
import sys
from collections.abc import Callable

from textdiff.config import UserError
from textdiff.text.inputs import TextError

log = logging.getLogger("textdiff")


def read_lines() -> dict[int, str]:
    """The texts of standard input by their line numbers. A warning counts empty lines.

    Raises:
        UserError: If standard input is a terminal, is not UTF-8 or has no text.
    """
    way_out = "give --text, or one text per line on standard input"
    stream = getattr(sys.stdin, "buffer", None)
    if stream is None or sys.stdin.isatty():
        raise UserError(f"missing: text; {way_out}")
    lines = {number: _decoded(line, number) for number, line in enumerate(stream, 1)}
    texts = {number: line for number, line in lines.items() if line.strip()}
    if not texts:
        raise UserError(f"standard input has no text in {len(lines)} lines; {way_out}")
    if empty := len(lines) - len(texts):
        log.warning("left out %d empty line%s", empty, "s" * (empty > 1))
    return texts


def naming_lines(lines: dict[int, str], do: Callable[[list[str]], None]) -> None:
    """Calls `do(texts)` with the texts of lines. An error in one of them names its line."""
    try:
        do([*lines.values()])
    except TextError as error:
        raise UserError(f"line {[*lines][error.index]}: {error.error}") from error


def _decoded(line: bytes, number: int) -> str:
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise UserError(f"line {number} of standard input is not UTF-8: {error.reason}") from error
