"""Progress bars in terminals, and a few plain lines in files and pipes."""

import sys
import time
from typing import Any

from tqdm import tqdm

LINE = "{l_bar} {n_fmt} of {total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"


class ProgressBar(tqdm):
    """A progress bar of tqdm. Where its stream is no terminal, it is a line every 30 seconds."""

    seconds = 30.0  # between two lines

    def __init__(self, *args: Any, **options: Any) -> None:
        self.plain = not (options.get("file") or sys.stderr).isatty()
        self.printed = time.monotonic()
        usual = {"dynamic_ncols": True} | ({"bar_format": LINE} if self.plain else {})
        super().__init__(*args, **usual | options)

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Shows the bar, or prints a line if it is time, and when a bar that stays is closed."""
        if not self.plain:
            return bool(super().display(msg, pos))
        closed, now = self.disable, time.monotonic()
        if msg is None and (closed or now - self.printed >= self.seconds):
            self.printed = now
            self.fp.write(str(self) if closed else f"{self}\n")  # `close` ends the line
            self.fp.flush()
        return False

    def clear(self, nolock: bool = False) -> None:
        """Removes the bar from a terminal."""
        if not self.plain:
            super().clear(nolock)
