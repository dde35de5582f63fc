"""Interrupted runs: killed, stopped by a signal, or started twice in one folder."""

import contextlib
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from robustness.harness import (
    Result,
    TinyRun,
    fingerprint,
    kill,
    run_child,
    scratch_folder,
    start_child,
    wait,
    wait_until,
)
from textdiff.training import checkpoint

KILLS = 3  # per run


def exact_resume(run: TinyRun, folder: Path, repeats: int) -> Iterator[Result]:
    """A run that is killed at random moments and resumed ends with the same bytes."""
    complete = run.at(folder / f"complete-{run.name}")
    began = time.monotonic()
    complete.complete()
    duration, rng = time.monotonic() - began, random.Random(0)
    expected = fingerprint(complete.path)
    same, kills, kills_in_saves = 0, 0, 0
    for _ in range(repeats):
        with scratch_folder(folder / "killed") as home:
            in_saves, duration = _kill_repeatedly(run.at(home), rng, duration)
            kills, kills_in_saves = kills + len(in_saves), kills_in_saves + sum(in_saves)
            run.at(home).complete()
            same += fingerprint(home) == expected
    counts = f"killed {kills} times, {kills_in_saves} of them in a save"
    yield Result(f"{run.name}: {counts}, and resumed: same bytes", same, repeats)
    enough = kills >= 2 * repeats and kills_in_saves >= 0.3 * kills
    yield Result("  killed at least twice per run, three in ten in a save", int(enough), 1)


def _kill_repeatedly(run: TinyRun, rng: random.Random, duration: float) -> tuple[list[bool], float]:
    """Kills a run several times. Returns whether each kill was in a save, and the duration."""
    in_saves: list[bool] = []
    while len(in_saves) < KILLS:
        in_save = _kill_once(run, rng, duration)
        if in_save is not None:
            in_saves.append(in_save)
            continue
        duration *= 0.8  # the run ended first, so it is faster than the one that was measured
        if len(in_saves) >= 2:
            break
        shutil.rmtree(run.path)
        run.path.mkdir()
        in_saves.clear()
    return in_saves, duration


def _kill_once(run: TinyRun, rng: random.Random, duration: float) -> bool | None:
    """Kills a run at a random moment, more often than not in a save.

    Returns:
        Whether it was in a save, or None if the run ended first.
    """
    leftovers = _partial_files(run.path)
    child = start_child(run.resume)
    only_in_save = rng.random() < 0.6
    delay, began = rng.uniform(0.05, 0.7) * duration, time.monotonic()
    while True:
        if os.waitpid(child, os.WNOHANG)[0]:
            return None
        saving = bool(_partial_files(run.path) - leftovers)
        if time.monotonic() - began > delay and (saving or not only_in_save):
            break
        time.sleep(0.0002)
    kill(child)
    return bool(_partial_files(run.path) - leftovers)


def _partial_files(folder: Path) -> set[tuple[str, int, int]]:
    """Names, inodes and times of unfinished checkpoints and models."""
    found = set()
    for path in (*folder.glob("state/.step-*.partial"), folder / "model.partial"):
        with contextlib.suppress(OSError):
            status = path.stat()
            found.add((path.name, status.st_ino, status.st_mtime_ns))
    return found


def stop_signals(run: TinyRun, folder: Path, repeats: int) -> Iterator[Result]:
    """After SIGTERM or SIGINT a run saves a checkpoint and ends within 10 seconds."""
    held, rng = 0, random.Random(0)
    for _ in range(repeats):
        with scratch_folder(folder / "stopped") as home:
            # many signals arrive during a validation
            long_run = run.at(home, steps=100_000, save_every=100_000, valid_every=7)
            child = start_child(long_run.train)
            wait_until((home / "metrics.jsonl").exists, child)
            time.sleep(rng.uniform(0, 0.3))
            began = time.monotonic()
            os.kill(child, rng.choice([signal.SIGTERM, signal.SIGINT]))
            code = wait(child, timeout=30)
            saved = checkpoint.load_latest(home / "state")
            held += code == 130 and saved is not None and time.monotonic() - began < 10
    yield Result(f"{run.name}: stopped by a signal: checkpoint within 10 seconds", held, repeats)


def two_runs(run: TinyRun, folder: Path) -> Iterator[Result]:
    """A second run in the same folder is refused, and the first one continues."""
    home = folder / f"shared-{run.name}"
    shutil.rmtree(home, ignore_errors=True)
    first = run.at(home, steps=60)
    child = start_child(first.train)
    wait_until((home / "metrics.jsonl").exists, child)
    refused = run_child(first.resume).exit_code == 2
    held = refused and wait(child) == 0
    yield Result(f"{run.name}: a second run in the folder refused, the first intact", int(held), 1)
