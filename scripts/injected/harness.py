"""How faults are injected: a tiny run in a child process that can be killed, and what is left of it afterwards.

Children are forked from a process that has imported everything, so that a run takes a second. Nothing of torch may have run before a fork.
"""

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from image import config as image_config
from image import run as image_run
from textdiff import config as text_config
from textdiff import grammar
from textdiff import run as text_run
from textdiff.config import InputError, Train
from textdiff.parser import TolerantStream

TRAIN = Train(steps=30, batch_size=8, warmup=5, precision="no", log_every=1, valid_every=15, save_every=4, lr=1e-3)


@dataclass(frozen=True)
class Kind:
    """Text or images: a configuration, and the function that trains it."""

    name: str
    config: Any
    train: Callable[..., Path]

    def at(self, folder: Path, **options: object) -> "Kind":
        return replace(self, config=replace(self.config, run=str(folder), train=replace(self.config.train, **options)))


def kinds(folder: Path) -> tuple[Kind, Kind]:
    """Small models of both, with dropout, of data that are there."""
    text = folder / "text.txt"
    text.write_text("\n".join(grammar.corpus(300, seed=0)) + "\n", encoding="utf-8")
    words = text_config.TextRun(
        data=text_config.Data(train=str(text), length=20),
        model=text_config.Model(embed_dim=8, width=16, depth=1, heads=2, dropout=0.1),
        train=TRAIN,
    )
    pictures = image_config.ImageRun(
        data=image_config.Data(flip=True), model=image_config.Model(width=4, multipliers=[1, 2], blocks=1, dropout=0.1), train=TRAIN
    )
    return Kind("text", words, text_run.train), Kind("images", pictures, image_run.train)


def forked(work: Callable[[], object], log: Path | None = None) -> int:
    """Starts work in a child, silent but for `log`; its exit code will be 0, 2 for a mistake told in one line, 130 for an interruption, else 1."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        sink = os.open(log or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        sys.stderr = TolerantStream(sys.stderr)  # type: ignore[assignment]  # as on the command line
        torch.set_num_threads(1)
        code = _exit_code(work)
        sys.stderr.flush()
    finally:
        os._exit(code)  # whatever happened: what the parent would tidy up is not the child's


def _exit_code(work: Callable[[], object]) -> int:
    try:
        work()
    except (InputError, OSError) as error:
        print(f"textdiff: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def ended(child: int, within: float = 120.0) -> int:
    """The child's exit code (negative: the signal that ended it), killed if it takes too long."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise TimeoutError(f"a child did not end within {within:g} seconds")


def until(there: Callable[[], bool], child: int, patience: float = 60.0) -> None:
    """Waits for something that a child does."""
    until = time.monotonic() + patience
    while not there():
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
            raise TimeoutError("a child did not begin")
        time.sleep(0.005)


def run_to_the_end(kind: Kind) -> None:
    if code := ended(forked(lambda: kind.train(kind.config, resume=True))):
        raise RuntimeError(f"a run of {kind.name} ended with exit code {code}")


def killed_in_between(kind: Kind, dice: random.Random, longest: float) -> bool | None:
    """Kills a run at a random moment, every other time in the middle of a save; whether it was in one, or None if it was done before."""
    folder = Path(kind.config.run)
    left = _partial(folder)  # by a run that was killed before
    child = forked(lambda: kind.train(kind.config, resume=True))
    in_save, began, patience = dice.random() < 0.6, time.monotonic(), dice.uniform(0.05, 0.7) * longest
    while True:
        if os.waitpid(child, os.WNOHANG)[0]:
            return None
        saving = bool(_partial(folder) - left)
        waited = time.monotonic() - began
        if waited > patience and (saving or not in_save):
            break
        time.sleep(0.0002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return bool(_partial(folder) - left)


def _partial(folder: Path) -> set[tuple[str, int, int]]:
    """What is being written: names, inodes and times."""
    found = set()
    for path in (*folder.glob("state/.step-*.partial"), folder / "model.partial"):
        with contextlib.suppress(OSError):
            status = path.stat()
            found.add((path.name, status.st_ino, status.st_mtime_ns))
    return found


def fingerprint(folder: Path) -> dict[str, str]:
    """SHA-256 of what a run leaves: its newest checkpoint, its model and its log without times."""
    last = max(folder.glob("state/step-*"))
    files = {path.name: path.read_bytes() for path in [*last.glob("*.safetensors"), *(folder / "model").glob("*.safetensors")]}
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    kept = [
        {key: value for key, value in line.items() if key not in ("seconds", "utilization") and not key.endswith("_per_second")} for line in lines
    ]
    for line in kept:
        line["samples"] = [sample.rpartition("/")[2] for sample in line.get("samples", [])]  # of a picture, its name without its folder
    return {name: hashlib.sha256(content).hexdigest() for name, content in {**files, "log": json.dumps(kept).encode()}.items()}


@contextlib.contextmanager
def emptied(folder: Path) -> Any:
    """A folder that is gone afterwards."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
