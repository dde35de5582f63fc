"""Standard output and standard error that survive a closed pipe or a full disk."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


def accept_all_characters(stream: Any) -> None:
    """Makes files and pipes UTF-8 in any locale.

    Terminals keep their encoding and show characters that it lacks as \\xe9.
    """
    if isinstance(stream, io.TextIOWrapper):
        encoding = None if stream.isatty() else "utf-8"
        stream.reconfigure(encoding=encoding, errors="backslashreplace")


class TolerantStream:
    """A stream that discards its input after its reader has left or its disk is full.

    Args:
        raises: Whether the first failure is raised. Standard output needs this; standard error
            hides the failure, because a run should survive its terminal.
    """

    def __init__(self, stream: Any, raises: bool = False) -> None:
        self.stream, self.raises = stream, raises
        self.failure: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Writes the text, or discards it."""
        with self._failures_handled():
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flushes the stream, if that is still possible."""
        with self._failures_handled():
            self.stream.flush()

    @contextmanager
    def _failures_handled(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.failure = error
            self._discard()
            if self.raises:
                raise

    def _discard(self) -> None:
        """Redirects the stream to nowhere; Python would write its buffer once more at the end."""
        with (
            suppress(OSError, ValueError, AttributeError),
            open(os.devnull, "w", encoding="utf-8") as nowhere,
        ):
            os.dup2(nowhere.fileno(), self.stream.fileno())  # a stream in memory has none
