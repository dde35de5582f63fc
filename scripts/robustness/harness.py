"""Tiny runs in child processes that can be killed, and fingerprints of what they write.

Children are forked from a process that has imported everything, so that a run takes a second.
Nothing of torch may run before a fork.
"""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from image import config as image_config
from image import train as image_train
from textdiff.cli.streams import TolerantStream
from textdiff.config import TrainConfig, UserError
from textdiff.text import config as text_config
from textdiff.text import grammar
from textdiff.text import train as text_train
from textdiff.training.run_dir import open_run_dir

TRAIN = TrainConfig(
    steps=30,
    batch_size=8,
    warmup=5,
    precision="no",
    log_every=1,
    valid_every=15,
    save_every=4,
    lr=1e-3,
)


class Result(NamedTuple):
    """A claim, how often it held, and how often it was tested."""

    claim: str
    held: int
    tried: int


class Outcome(NamedTuple):
    """Exit code and output of a child process."""

    exit_code: int
    output: str


@dataclass(frozen=True)
class TinyRun:
    """A short run.

    Args:
        name: text or images.
        config: Configuration of the run.
        train_function: Function that trains it.
    """

    name: str
    config: Any
    train_function: Callable[..., Path]

    @property
    def path(self) -> Path:
        """The run folder."""
        return Path(self.config.run)

    def at(self, folder: Path, **options: object) -> "TinyRun":
        """The same run in another folder, with other options of training."""
        train = replace(self.config.train, **options)
        return replace(self, config=replace(self.config, run=str(folder), train=train))

    def train(self, resume: bool = False) -> None:
        """Trains in this process."""
        self.train_function(self.config, open_run_dir(self.config, resume=resume))

    def resume(self) -> None:
        """Trains in this process, from the newest checkpoint if there is one."""
        self.train(resume=True)

    def complete(self) -> None:
        """Trains to the last step in a child process."""
        code, output = run_child(self.resume)
        if code:
            raise RuntimeError(f"a run of {self.name} ended with exit code {code}: {output}")


def tiny_runs(folder: Path) -> tuple[TinyRun, TinyRun]:
    """Runs of text and of images, with dropout, on data that need no download."""
    text = folder / "text.txt"
    text.write_text("\n".join(grammar.corpus(300, seed=0)) + "\n", encoding="utf-8")
    sentences = text_config.TextConfig(
        data=text_config.DataConfig(train=str(text), length=20),
        model=text_config.ModelConfig(embed_dim=8, width=16, depth=1, heads=2, dropout=0.1),
        train=TRAIN,
    )
    shape = {"width": 4, "channel_multipliers": [1, 2], "res_blocks": 1}
    digits = image_config.ImageConfig(
        data=image_config.DataConfig(flip=True),
        model=image_config.ModelConfig(**shape, dropout=0.1),
        train=TRAIN,
    )
    return TinyRun("text", sentences, text_train.train), TinyRun(
        "images", digits, image_train.train
    )


def run_child(work: Callable[[], object]) -> Outcome:
    """Runs work in a child process."""
    with tempfile.TemporaryDirectory(prefix="textdiff-log-") as folder:
        log = Path(folder, "log")
        code = wait(start_child(work, log))
        return Outcome(code, log.read_text(errors="replace", encoding="utf-8"))


def start_child(work: Callable[[], object], log: Path | None = None) -> int:
    """Starts work in a child process and returns its id.

    Its exit code will be 0, 2 for an error of one line, 130 for an interruption, or 1.

    Args:
        log: File for its output, which is otherwise discarded.
    """
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        sink = os.open(log or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        sys.stderr = TolerantStream(sys.stderr)  # type: ignore[assignment]  # as in the commands
        torch.set_num_threads(1)
        code = _exit_code(work)
        sys.stderr.flush()
    finally:
        os._exit(code)  # without the clean-up that belongs to the parent


def _exit_code(work: Callable[[], object]) -> int:
    try:
        work()
    except (UserError, OSError) as error:
        print(f"textdiff: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def wait(child: int, timeout: float = 120.0) -> int:
    """Waits for a child and returns its exit code, or minus the signal that ended it."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    kill(child)
    raise TimeoutError(f"a child did not end within {timeout:g} seconds")


def wait_until(condition: Callable[[], bool], child: int, timeout: float = 60.0) -> None:
    """Waits for an effect of a child."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            kill(child)
            raise TimeoutError("a child did not begin")
        time.sleep(0.005)


def kill(child: int) -> None:
    """Kills a child and waits for its end."""
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


@contextlib.contextmanager
def scratch_folder(folder: Path) -> Any:
    """Yields an empty folder, which is deleted afterwards."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def fingerprint(folder: Path) -> dict[str, str]:
    """SHA-256 of a run's newest checkpoint, its model, and its log without times."""
    last = max(folder.glob("state/step-*"))
    paths = [*last.glob("*.safetensors"), *(folder / "model").glob("*.safetensors")]
    contents = {path.name: path.read_bytes() for path in paths}
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    contents["log"] = json.dumps([_without_times(json.loads(line)) for line in lines]).encode()
    return {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}


def _without_times(line: dict[str, Any]) -> dict[str, Any]:
    """A line of the log without measured speeds, and without the folders of its images."""
    measured = ("seconds", "utilization")
    same = {k: v for k, v in line.items() if k not in measured and not k.endswith("_per_second")}
    samples = [sample.rpartition("/")[2] for sample in line.get("samples", [])]
    return same | {"samples": samples}
