"""Fault injection: `python scripts/robustness.py`. It needs no GPU and works on Linux only.

Runs are killed, stopped and starved of disk space; checkpoints are damaged; model files are
hostile; options are mistaken; corpora and images are broken. A table shows how often each claim
held. The exit code is 1 if any claim failed.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

from robustness.corpora import broken_corpora
from robustness.distributed import distributed
from robustness.environment import environment
from robustness.harness import Result, tiny_runs
from robustness.hostile_files import hostile_files
from robustness.images import broken_images
from robustness.interruption import exact_resume, stop_signals, two_runs
from robustness.nonfinite import nonfinite
from robustness.options import mistaken_options
from robustness.samples import samples
from robustness.storage import damaged_checkpoints, full_disk
from textdiff.cli.parser import fail, quiet_libraries, run_script

Part = Callable[[], Iterator[Result]]


def robustness(
    runs_killed: int = 100,
    flips: int = 1000,
    saves: int = 20,
    signals: int = 50,
    samples: int = 64,
    only: list[str] | None = None,
) -> None:
    """Inject faults and print how often each claim held.

    Args:
        runs_killed: Runs of text and of images that are killed three times and resumed.
        flips: Bits flipped in a checkpoint.
        saves: Saves of text and of images that fail because the disk is full.
        signals: Runs that are stopped by a signal, half of them of text, half of images.
        samples: Samples of text and of images that are drawn in batches of several sizes.
        only: Parts to run. If null, all of them: options, corpora, images, hostile, checkpoints,
            folder, disk, signals, nonfinite, environment, samples, processes, resume.
    """
    quiet_libraries()
    with tempfile.TemporaryDirectory(prefix="textdiff-robustness-") as name:
        parts = _parts(Path(name), runs_killed, flips, saves, signals, samples)
        for part in only or []:
            if part not in parts:
                fail(f"--only must be of {', '.join(parts)}, got {part}")
        failed = False
        for part in only or parts:
            began = time.monotonic()
            for claim, held, tried in parts[part]():
                seconds = time.monotonic() - began
                print(f"{held:5} of {tried:5}  {claim}  ({seconds:.0f} s)", flush=True)
                failed |= held != tried
    sys.exit(int(failed))


def _parts(
    folder: Path, runs_killed: int, flips: int, saves: int, signals: int, n: int
) -> dict[str, Part]:
    """The parts by name, the longest last."""
    text, images = runs = tiny_runs(folder)

    def both(part: Callable[..., Iterator[Result]], *sizes: int) -> Part:
        return lambda: chain.from_iterable(part(run, folder, *sizes) for run in runs)

    return {
        "options": lambda: mistaken_options(folder),
        "corpora": lambda: broken_corpora(folder),
        "images": lambda: broken_images(folder),
        "hostile": lambda: hostile_files(text, images, folder),
        "checkpoints": lambda: damaged_checkpoints(text, folder, flips),
        "folder": both(two_runs),
        "disk": both(full_disk, saves),
        "signals": both(stop_signals, signals // 2),
        "nonfinite": both(nonfinite),
        "environment": both(environment),
        "samples": both(samples, n),
        "processes": both(distributed),
        "resume": both(exact_resume, runs_killed),
    }


def main() -> None:
    """Runs the command line."""
    run_script(robustness)
