"""Faults of the environment: no network, closed output, a failing tracker, a read-only folder."""

import importlib.util
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from image import sampling as image_sampling
from image.sources import digits
from robustness.harness import Result, TinyRun, fingerprint, run_child, scratch_folder
from textdiff.text import hub as text_hub
from textdiff.training.run_dir import open_run_dir

LOADERS: dict[str, Callable[[str], Any]] = {
    "text": text_hub.load_model,
    "images": image_sampling.load_model,
}
NOBODY = 65534  # user id without rights


def environment(run: TinyRun, folder: Path) -> Iterator[Result]:
    """A run survives each fault of its environment, with the same bytes, or can be resumed."""
    complete = run.at(folder / f"undisturbed-{run.name}")
    complete.complete()
    expected = fingerprint(complete.path)
    held = [
        _train_within(fault, run, folder) == expected
        for fault in (_forbid_network, _close_output, _fill_output)
    ]
    claim = "no network (no connection attempted), closed output, full output: same bytes"
    yield Result(f"{run.name}: {claim}", sum(held), len(held))
    with scratch_folder(folder / "tracker") as home:
        tracked = run.at(home, trackers="tensorboard")
        code, output = run_child(partial(_train_with_failing_tracker, tracked))
        one_message = code == 0 and output.count("tensorboard failed") == 1
        same = one_message and fingerprint(home) == expected
    yield Result(f"{run.name}: a failing tracker: one message, same bytes", int(same), 1)
    held = [_survives_read_only(run, folder, part) for part in (".", "state", "model")]
    claim = "a read-only folder: error of one line, checkpoint intact, and the run can be resumed"
    yield Result(f"{run.name}: {claim}", sum(held), len(held))


def _train_within(fault: Callable[[], None], run: TinyRun, folder: Path) -> dict[str, str] | None:
    """Fingerprint of a run under a fault, or None if it failed."""
    with scratch_folder(folder / "disturbed") as home:
        disturbed = run.at(home)

        def work() -> None:
            fault()
            disturbed.train()
            LOADERS[run.name](str(home))

        return None if run_child(work).exit_code else fingerprint(home)


def _forbid_network() -> None:
    """Ends the process at the first connection or look-up of an address."""

    def end(*args: object) -> None:
        os._exit(1)

    socket.socket.connect = end  # type: ignore[assignment,method-assign]
    socket.socket.connect_ex = end  # type: ignore[assignment,method-assign]
    socket.getaddrinfo = end  # type: ignore[assignment]


def _close_output() -> None:
    """Closes the reading end of the output, as `textdiff train | head` does."""
    reading, writing = os.pipe()
    os.dup2(writing, 1)
    os.dup2(writing, 2)
    os.close(reading)


def _fill_output() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, 1)
    os.dup2(full, 2)


def _train_with_failing_tracker(run: TinyRun) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise ConnectionError("no answer")

    importlib.util.find_spec = lambda name: True  # type: ignore[assignment]  # as if installed
    Accelerator.init_trackers = fail  # type: ignore[method-assign]
    run.train()


def _survives_read_only(run: TinyRun, folder: Path, part: str) -> bool:
    """Whether a run with a read-only part ends with one error and can be resumed later.

    Root may write anywhere, so a child of root changes its user first.
    """
    folder.chmod(0o755)
    with scratch_folder(folder / "read-only") as home:
        run.at(home, steps=4).complete()
        longer = run.at(home, steps=8, save_every=4)
        with _read_only(home, home / part):
            code, output = run_child(partial(_resume_without_rights, longer))
        one_error = code == 2 and "ermission denied" in output and "Traceback" not in output
        return one_error and run_child(longer.resume).exit_code == 0


@contextmanager
def _read_only(home: Path, part: Path) -> Iterator[None]:
    """Makes `part` read-only for all users, and the rest of `home` writable."""
    for path in (home, *home.rglob("*")):
        path.chmod(0o777)
    part.chmod(0o555)
    try:
        yield
    finally:
        part.chmod(0o777)


def _resume_without_rights(run: TinyRun) -> None:
    if os.geteuid() == 0:
        # loads libraries whose files the other user may not read
        digits()
        open_run_dir(run.config, resume=True)
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    run.resume()
