"""Injects faults and counts what survives: `python scripts/faults.py`. Needs no GPU; exit code 1 if anything failed.

Runs are killed, told to stop and starved of disk; checkpoints damaged; model files made hostile; options mistaken; corpora and images broken.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from injected import files, processes, runs, surroundings
from injected.harness import kinds
from injected.runs import Result
from jsonargparse import auto_cli

from textdiff.parser import hush_libraries


def faults(
    runs_killed: int = 100,
    flips: int = 1000,
    saves: int = 20,
    signals: int = 50,
    drawn: int = 64,
    only: list[str] | None = None,
) -> None:
    """Prints a table: what was promised, how often it held.

    Args:
        runs_killed: Runs of each kind that are killed three times and resumed.
        flips: Bits flipped in a checkpoint.
        saves: Saves of each kind that fail for lack of disk.
        signals: Runs told to stop, half of each kind.
        drawn: Samples of each kind drawn in batches of several sizes.
        only: Parts to run instead of all: resume, checkpoints, disk, signals, folder, nonfinite, alone, samples,
            processes, hostile, options, corpora, images.
    """
    hush_libraries()
    with tempfile.TemporaryDirectory(prefix="textdiff-faults-") as name:
        folder = Path(name)
        text, images = kinds(folder)
        parts: dict[str, Callable[[], Iterator[Result]]] = {
            "options": lambda: files.mistaken_options(folder),
            "corpora": lambda: files.broken_corpora(folder),
            "images": lambda: files.broken_images(folder),
            "hostile": lambda: files.hostile_files(text, images, folder),
            "checkpoints": lambda: runs.damaged_checkpoints(text, folder, flips),
            "folder": lambda: (result for kind in (text, images) for result in runs.two_runs(kind, folder)),
            "disk": lambda: (result for kind in (text, images) for result in runs.failing_saves(kind, folder, saves)),
            "signals": lambda: (result for kind in (text, images) for result in runs.signals(kind, folder, signals // 2)),
            "nonfinite": lambda: (result for kind in (text, images) for result in surroundings.nonfinite(kind, folder)),
            "alone": lambda: (result for kind in (text, images) for result in surroundings.nobody_there(kind, folder)),
            "samples": lambda: (result for kind in (text, images) for result in surroundings.samples(kind, folder, drawn)),
            "processes": lambda: (result for kind in (text, images) for result in processes.everything(kind, folder)),
            "resume": lambda: (result for kind in (text, images) for result in runs.exact_resume(kind, folder, runs_killed)),
        }
        failed = False
        for part in only or parts:
            began = time.monotonic()
            for what, good, tried in parts[part]():
                print(f"{good:5} of {tried:5}  {what}  ({time.monotonic() - began:.0f} s)", flush=True)
                failed |= good != tried
    sys.exit(int(failed))


if __name__ == "__main__":
    auto_cli(faults, as_positional=False)
