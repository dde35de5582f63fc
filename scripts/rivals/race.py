"""Training steps and network evaluations of two denoisers, taking turns in one run; and what memory a step takes."""

import os
import statistics
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil
import torch
from rivals.denoisers import SUBJECTS
from torch import Tensor
from tqdm import tqdm

from textdiff.device import autocast, compiles, has_native_bf16, matmul_rate, timed


def matmul_rates(device: torch.device) -> dict[str, float]:
    """FLOP/s of matrix products in the precisions that are compared: bf16 only where it is not emulated."""
    precisions = {"bf16": torch.bfloat16} if has_native_bf16(device) else {}
    return {name: matmul_rate(dtype, device) for name, dtype in (precisions | {"float32": torch.float32}).items()}


def compared(
    subject: str,
    shape: str,
    size: tuple[float, ...],
    precision: str,
    batch_size: int,
    rounds: int,
    device: torch.device,
    seconds_of_matmul: float | None = None,
) -> list[dict[str, Any]]:
    """Both contenders at one size, their runs taking turns; `seconds_of_matmul` is what the products of one example's evaluation would take."""
    names = SUBJECTS[subject].builders
    runs = {name: Contender(subject, name, size, precision, batch_size, device) for name in names}
    work = {(name, what): getattr(run, what) for name, run in runs.items() for what in ("step", "evaluate")}
    seconds = interleaved(work, rounds, device, f"{shape} {precision}")
    examples = batch_size * SUBJECTS[subject].count
    share = seconds_of_matmul * batch_size if seconds_of_matmul else None  # of an evaluation; a step takes three times as much
    return [
        {
            "denoiser": name,
            "shape": shape,
            "precision": precision,
            "parameters": sum(p.numel() for p in runs[name].model.parameters()),
            "step_per_second": examples / seconds[name, "step"],
            "step_share_of_matmul": share and 3 * share / seconds[name, "step"],
            "evaluation_per_second": examples / seconds[name, "evaluate"],
            "evaluation_share_of_matmul": share and share / seconds[name, "evaluate"],
            "step_megabytes": memory(subject, name, size, precision, batch_size, device),
        }
        for name in names
    ]


class Contender:
    """A denoiser with its optimizer and a batch."""

    def __init__(self, subject: str, name: str, size: tuple[Any, ...], precision: str, batch_size: int, device: torch.device) -> None:
        torch.manual_seed(0)
        self.model = SUBJECTS[subject].builders[name](*size).to(device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)
        self.x0 = torch.randn(batch_size, *SUBJECTS[subject].example, device=device)
        self.logsnr = torch.linspace(-6, 6, batch_size, device=device)
        self.autocast = autocast(device, precision)
        self.network: Callable[[Tensor, Tensor], Tensor] = torch.compile(self.model) if compiles("auto", device) else self.model

    def step(self) -> None:
        self.model.train()
        with self.autocast:
            loss = (self.network(self.x0, self.logsnr) - self.x0).square().mean()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    @torch.no_grad()
    def evaluate(self) -> None:
        self.model.eval()
        with self.autocast:
            self.network(self.x0, self.logsnr)


def memory(*arguments: Any) -> float:
    """Megabytes that a training step adds to a process, at the most: on the CPU, measured in a process of its own."""
    if arguments[-1].type != "cpu":
        torch.accelerator.reset_peak_memory_stats()
        before = torch.accelerator.memory_allocated()
        contender = Contender(*arguments)
        for _ in range(3):
            contender.step()
        return (torch.accelerator.max_memory_allocated() - before) / 1e6
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
        return alone.submit(_resident_growth, *arguments).result()


def _resident_growth(*arguments: Any) -> float:
    before = _peak_megabytes()
    contender = Contender(*arguments)
    for _ in range(3):
        contender.step()
    return _peak_megabytes() - before


def _peak_megabytes() -> float:
    """Of this process alone: what getrusage says on Linux includes the parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        (peak,) = (line.split()[1] for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM"))
        return int(peak) / 1e3
    if os.name == "nt":
        return float(psutil.Process().memory_info().peak_wset) / 1e6
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)  # bytes there, kilobytes elsewhere


def interleaved(work: dict[Any, Callable[[], object]], rounds: int, device: torch.device, label: str) -> dict[Any, float]:
    """Median seconds of each piece of work, their runs taking turns; two rounds to warm up."""
    seconds: dict[Any, list[float]] = {key: [] for key in work}
    for number in tqdm(range(rounds + 2), desc=label, unit="round", leave=False):
        for key, run in work.items():
            taken = timed(run, device)
            if number >= 2:
                seconds[key].append(taken)
    return {key: statistics.median(each) for key, each in seconds.items()}
