"""The log of a run: progress bar, metrics.jsonl and experiment trackers."""

import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from textdiff.config import RunConfig
from textdiff.device import matmul_dtype
from textdiff.progress import ProgressBar
from textdiff.timing import matmul_rate
from textdiff.training.batching import MicroBatch
from textdiff.training.checkpoint import atomic_write, reraise_write_errors
from textdiff.training.trainer import Trainer, TrainStep

log = logging.getLogger("textdiff")


class ValidationReport(NamedTuple):
    """Figures, messages and samples of a validation.

    Args:
        metrics: Figures by name.
        messages: Lines of text for the terminal.
        samples: Generated texts, or paths of pictures.
    """

    metrics: dict[str, float]
    messages: list[str]
    samples: list[str]


class Logger:
    """Writes the progress of a run to standard error, metrics.jsonl and the trackers.

    Args:
        unit: Unit of the sizes of micro-batches, `tokens` or `images`. Speed is given in units per
            second.
    """

    def __init__(self, trainer: Trainer[Any], config: RunConfig, unit: str) -> None:
        self.trainer, self.config, self.unit = trainer, config, unit
        self.path = Path(config.run) / "metrics.jsonl"
        self.main = trainer.accelerator.is_main_process
        self.size, self.since, self.began = 0, time.perf_counter(), time.perf_counter()
        self.flops: float | None = None
        if self.main:
            _drop_lines_after(self.path, trainer.step)
        steps, begun = config.train.steps, trainer.step
        self.bar = ProgressBar(total=steps, initial=begun, disable=not self.main, unit="step")
        self.tracking = bool(config.train.tracker_names)
        self._track(lambda: self._init_trackers())

    def measured(self, batches: Iterator[list[MicroBatch]]) -> Iterator[list[MicroBatch]]:
        """The same batches, whose sizes are counted for the speed."""
        for micro_batches in batches:
            if self.flops is None:
                self.flops = self._flops(micro_batches[0])
            self.size += sum(micro.size for micro in micro_batches if micro.weight)
            yield micro_batches

    def step(self, done: TrainStep) -> None:
        """Logs a step, every `train.log_every` steps."""
        self.bar.update()
        if done.step % self.config.train.log_every and done.step != self.config.train.steps:
            return
        losses = {name: float(value) for name, value in done.losses.items()}
        now = time.perf_counter()
        speed = self.size * self.trainer.accelerator.num_processes / (now - self.since)
        self.size, self.since = 0, now
        utilization = self._utilization(speed)
        shown = " ".join(f"{name} {value:.3f}" for name, value in losses.items())
        rate = f"{speed:,.0f} {self.unit}/s, {utilization:.0%} of the matmul rate"
        self.bar.set_postfix_str(f"{shown} {rate}")
        self._write(
            {
                "step": done.step,
                **losses,
                "lr": done.lr,
                "grad_norm": float(done.grad_norm),
                f"{self.unit}_per_second": speed,
                "utilization": utilization,
                "seconds": now - self.began,
            }
        )

    def validation(self, losses: dict[str, float], report: ValidationReport) -> None:
        """Logs the losses and the report of a validation."""
        step = self.trainer.step
        shown = " ".join(f"{name} {value:.3f}" for name, value in losses.items())
        ProgressBar.write(f"step {step}: validation {shown}", file=self.bar.fp)
        for line in (*report.messages, *(f"| {sample}" for sample in report.samples)):
            ProgressBar.write(f"  {line}", file=self.bar.fp)
        metrics = {f"valid/{name}": value for name, value in losses.items()} | report.metrics
        self._write({"step": step, **metrics, "samples": report.samples})
        self.since = time.perf_counter()

    def close(self) -> None:
        """Ends the progress bar and the trackers."""
        self.bar.close()
        self._track(self.trainer.accelerator.end_training)

    def _flops(self, micro: MicroBatch) -> float:
        """Training FLOPs of one token or image: three forward passes (PaLM, 2204.02311, app. B)."""
        if self.trainer.sharded:
            return 0.0  # a process has only a part of the network
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            self.trainer.forward(self.trainer.ema, micro.tensors)
        return 3 * counter.get_total_flops() / micro.size

    def _utilization(self, speed: float) -> float:
        """The model's FLOP/s as a share of the device's matmul rate in the chosen precision."""
        accelerator = self.trainer.accelerator
        dtype = matmul_dtype(self.config.train.precision, accelerator.device)
        flops = (self.flops or 0) * speed / accelerator.num_processes
        return flops / matmul_rate(dtype, accelerator.device)

    def _write(self, line: dict[str, Any]) -> None:
        if self.main:
            finite = {name: _finite(value) for name, value in line.items()}
            with (
                reraise_write_errors("the log", self.path),
                open(self.path, "a", encoding="utf-8") as file,
            ):
                file.write(json.dumps(finite) + "\n")
        numbers = {name: value for name, value in line.items() if isinstance(value, float)}
        self._track(lambda: self.trainer.accelerator.log(numbers, step=line["step"]))

    def _init_trackers(self) -> None:
        self.trainer.accelerator.init_trackers("textdiff", config={"run": self.config.run})

    def _track(self, work: Callable[[], object]) -> None:
        """Calls a tracker. If it fails, the run continues without it."""
        if not self.tracking:
            return
        try:
            work()
        except Exception as error:  # trackers raise exceptions of their own
            self.tracking = False
            names = ", ".join(self.config.train.tracker_names)
            log.warning("%s failed (%s): the run continues without it", names, error)


def _finite(value: object) -> object:
    """The value, or None for a number that JSON cannot hold."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _drop_lines_after(path: Path, step: int) -> None:
    """Deletes the lines of steps that will be repeated, and an incomplete last line."""

    def keep(line: str) -> bool:
        try:
            return bool(json.loads(line)["step"] <= step)
        except ValueError:
            return False

    if path.exists():
        text = path.read_text(errors="replace", encoding="utf-8")
        shortened = "".join(line + "\n" for line in text.splitlines() if keep(line))
        if shortened != text:
            atomic_write(path, shortened)
