"""Faults of the disk: damaged checkpoints, and no space left."""

import random
import resource
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from robustness.harness import Result, TinyRun, run_child, scratch_folder
from textdiff.training import checkpoint

SHARES = (0, 0.01, 0.25, 0.5, 0.75, 0.99)  # of a file that is truncated


def damaged_checkpoints(run: TinyRun, folder: Path, flips: int) -> Iterator[Result]:
    """A truncated or changed checkpoint is never loaded; the one before it is."""
    home = run.at(folder / "intact")
    home.complete()
    state = home.path / "state"
    older, newer = sorted(state.glob("step-*"))[-2:]
    expected = int(older.name.removeprefix("step-"))
    found, quick, tried = 0, 0, 0
    files = [path for path in newer.iterdir() if path.stat().st_size]
    for path in files:
        content = path.read_bytes()
        for share in SHARES:
            path.write_bytes(content[: int(len(content) * share)])
            began = time.monotonic()
            saved = checkpoint.load_latest(state)
            found += saved is not None and saved.facts["step"] == expected
            quick += time.monotonic() - began < 5
            tried += 1
        path.write_bytes(content)
    yield Result("newest checkpoint truncated: detected, the one before it loaded", found, tried)
    yield Result("  in under 5 seconds", quick, tried)
    yield Result("a bit of a checkpoint flipped: detected", _detected_flips(files, flips), flips)


def _detected_flips(files: list[Path], flips: int) -> int:
    """Flips single bits, one at a time, and returns how many of them were detected."""
    rng, detected = random.Random(0), 0
    for _ in range(flips):
        path = rng.choice(files)
        content = path.read_bytes()
        byte, bit = rng.randrange(len(content)), rng.randrange(8)
        flipped = bytearray(content)
        flipped[byte] ^= 1 << bit
        path.write_bytes(flipped)
        detected += checkpoint.verify(path.parent) is not None
        path.write_bytes(content)
    return detected


def full_disk(run: TinyRun, folder: Path, repeats: int) -> Iterator[Result]:
    """A run whose disk is full ends with an error, and continues once there is space.

    A limit of the file size stands for the full disk. Any file of a run may exceed it.
    """
    rng, held = random.Random(0), 0
    example = run.at(folder / f"sizes-{run.name}", steps=4)
    example.complete()
    files = [path for path in example.path.rglob("*") if path.is_file()]
    sizes = sorted({path.stat().st_size for path in files if path.stat().st_size > 800})
    for _ in range(repeats):
        with scratch_folder(folder / "full") as home:
            run.at(home, steps=4).complete()
            longer = run.at(home, steps=8, save_every=4)
            code, output = run_child(partial(_train_limited, longer, rng.choice(sizes) - 1))
            one_error = code == 2 and "could not be written" in output
            saved = checkpoint.load_latest(home / "state")
            intact = saved is not None and saved.facts["step"] in (4, 8)
            continued = run_child(run.at(home, steps=8).resume).exit_code == 0
            held += one_error and "Traceback" not in output and intact and continued
    claim = "disk full at any file: error, checkpoint intact, and the run continues with space"
    yield Result(f"{run.name}: {claim}", held, repeats)


def _train_limited(run: TinyRun, limit: int) -> None:
    """Trains with a limit of the file size in bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    run.resume()
