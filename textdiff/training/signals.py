"""Stopping a run without loss when Ctrl-C or a termination signal arrives."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from accelerate import Accelerator


class StopRequested(Exception):
    """Raised by a signal to stop, in a block that may be interrupted."""


class StopSignals:
    """Remembers the first signal to stop while active; a second one takes effect at once.

    Python handles signals in the main thread only. In another thread, signals go to the program
    that started it. Windows delivers Ctrl-C and Ctrl-Break, but no SIGTERM.
    """

    NAMES = tuple(
        getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)
    )

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.received = False  # by this process
        self._received_anywhere = False
        self._interruptible = False

    def __enter__(self) -> None:
        in_main_thread = threading.current_thread() is threading.main_thread()
        names = self.NAMES if in_main_thread else ()
        self.before = {name: signal.signal(name, self._remember) for name in names}

    def __exit__(self, *error: object) -> None:
        for name, handler in self.before.items():
            signal.signal(name, handler)

    def _remember(self, number: int, frame: object) -> None:
        self.accelerator.set_trigger()
        self.received = True
        signal.signal(number, self.before[signal.Signals(number)])
        if self._interruptible:
            raise StopRequested

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """A block that is left as soon as a signal arrives.

        Other processes must not wait for anything in it.
        """
        self._interruptible = True
        try:
            yield
        except StopRequested:
            pass
        finally:
            self._interruptible = False

    def received_anywhere(self) -> bool:
        """Whether a signal has reached any process. All processes must call it."""
        self._received_anywhere = self._received_anywhere or self.accelerator.check_trigger()
        return self._received_anywhere
