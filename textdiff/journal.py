"""What a person and a plot see of a run while it goes on, and how it is stopped without loss."""

import json
import logging
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from textdiff.batches import MicroBatch
from textdiff.checkpoint import telling, write_whole
from textdiff.config import Run
from textdiff.device import matmul_dtype, matmul_rate
from textdiff.trainer import Trainer, TrainStep

log = logging.getLogger("textdiff")


class Told(Exception):
    """A signal to stop, in what may be interrupted."""


class Signals:
    """Remembers the first signal to stop while active; a second one is obeyed at once.

    Python handles signals in the main thread only: in another one, they go to whoever started it.
    Windows delivers Ctrl-C and Ctrl-Break, but no SIGTERM.
    """

    NAMES = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name))

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator, self.told, self._interruptible = accelerator, False, False
        self._received = False

    def __enter__(self) -> None:
        names = self.NAMES if threading.current_thread() is threading.main_thread() else ()
        self.before = {name: signal.signal(name, self._remember) for name in names}

    def __exit__(self, *error: object) -> None:
        for name, handler in self.before.items():
            signal.signal(name, handler)

    def _remember(self, number: int, frame: object) -> None:
        self.accelerator.set_trigger()
        self.told = True
        signal.signal(number, self.before[signal.Signals(number)])
        if self._interruptible:
            raise Told

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """What is done in it is left as soon as a signal comes. Not for what other processes wait for."""
        self._interruptible = True
        try:
            yield
        except Told:
            pass
        finally:
            self._interruptible = False

    def received(self) -> bool:
        """Whether any process was told to stop, from then on. All processes must ask."""
        self._received = self._received or self.accelerator.check_trigger()
        return self._received


class Seen(NamedTuple):
    """What is seen of a model at a validation: figures for plots, lines for people, and samples (texts, or where a picture of them lies)."""

    figures: dict[str, float]
    told: list[str]
    samples: list[str]


class Journal:
    """What a person and a plot want to know of a run, on standard error, in metrics.jsonl and in the trackers. Speed is in `unit`s a second."""

    def __init__(self, trainer: Trainer[Any], folder: Path, config: Run, unit: str) -> None:
        self.unit = unit
        self.trainer, self.config, self.path = trainer, config, folder / "metrics.jsonl"
        self.main = trainer.accelerator.is_main_process
        self.size, self.since, self.began = 0, time.perf_counter(), time.perf_counter()
        self.flops: float | None = None
        if self.main:
            _forget_after(self.path, trainer.step)
        rest = 0.1 if sys.stderr.isatty() else 10  # seconds between updates; a log file needs few
        self.bar = tqdm(total=config.train.steps, initial=trainer.step, disable=not self.main, unit="step", dynamic_ncols=True, mininterval=rest)
        self.tracked = bool(config.train.tracker_names)
        self._tracking(lambda: trainer.accelerator.init_trackers("textdiff", config={"run": config.run}))

    def counted(self, batches: Iterator[list[MicroBatch]]) -> Iterator[list[MicroBatch]]:
        for micro_batches in batches:
            if self.flops is None:
                self.flops = self._flops(micro_batches[0])
            self.size += sum(micro.size for micro in micro_batches if micro.share)
            yield micro_batches

    def step(self, done: TrainStep) -> None:
        self.bar.update()
        if done.step % self.config.train.log_every and done.step != self.config.train.steps:
            return
        losses = {name: float(value) for name, value in done.losses.items()}
        now = time.perf_counter()
        speed = self.size * self.trainer.accelerator.num_processes / (now - self.since)
        self.size, self.since = 0, now
        self.bar.set_postfix_str(
            " ".join(f"{name} {value:.3f}" for name, value in losses.items())
            + f" {speed:,.0f} {self.unit}/s, {self._utilization(speed):.0%} of the matmul rate"
        )
        self._write(
            {
                "step": done.step,
                **losses,
                "lr": done.lr,
                "grad_norm": float(done.grad_norm),
                f"{self.unit}_per_second": speed,
                "utilization": self._utilization(speed),
                "seconds": now - self.began,
            }
        )

    def _flops(self, micro: MicroBatch) -> float:
        """FLOPs that training takes for one token or image: three times those of a forward pass (PaLM, arXiv:2204.02311, app. B)."""
        if self.trainer.sharded:
            return 0.0  # a process has only a part of the network
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            self.trainer._forward(self.trainer.ema, micro.tensors)
        return 3 * counter.get_total_flops() / micro.size

    def _utilization(self, speed: float) -> float:
        """Share of the machine's own rate of matrix products, in the precision chosen, that the model's FLOPs take."""
        accelerator = self.trainer.accelerator
        dtype = matmul_dtype(self.config.train.precision, accelerator.device)
        return (self.flops or 0) * speed / accelerator.num_processes / matmul_rate(dtype, accelerator.device)

    def validation(self, losses: dict[str, float], seen: Seen) -> None:
        step = self.trainer.step
        tqdm.write(f"step {step}: validation {' '.join(f'{n} {v:.3f}' for n, v in losses.items())}", file=self.bar.fp)
        for line in (*seen.told, *(f"| {sample}" for sample in seen.samples)):
            tqdm.write(f"  {line}", file=self.bar.fp)
        self._write({"step": step, **{f"valid/{n}": v for n, v in losses.items()}, **seen.figures, "samples": seen.samples})
        self.since = time.perf_counter()

    def close(self) -> None:
        self.bar.close()
        self._tracking(self.trainer.accelerator.end_training)

    def _write(self, line: dict[str, Any]) -> None:
        if self.main:
            with telling("the log", self.path), open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps({k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in line.items()}) + "\n")
        numbers = {name: value for name, value in line.items() if isinstance(value, float)}
        self._tracking(lambda: self.trainer.accelerator.log(numbers, step=line["step"]))

    def _tracking(self, work: Callable[[], object]) -> None:
        """A tracker that fails is told once and left alone: the run is worth more."""
        if self.tracked:
            try:
                work()
            except Exception as error:  # of anyone's making
                self.tracked = False
                log.warning("%s failed (%s): the run goes on without", ", ".join(self.config.train.tracker_names), error)


def _forget_after(path: Path, step: int) -> None:
    """Drops lines of steps that are about to be repeated, and a line that was cut off."""

    def kept(line: str) -> bool:
        try:
            return json.loads(line)["step"] <= step
        except ValueError:
            return False

    if path.exists():
        text = path.read_text(errors="replace", encoding="utf-8")
        whole = "".join(line + "\n" for line in text.splitlines() if kept(line))
        if whole != text:
            write_whole(path, whole)
