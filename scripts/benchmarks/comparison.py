"""Speed and memory of training steps and network evaluations of two networks, interleaved."""

import os
import statistics
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch
from benchmarks.denoisers import DOMAINS
from torch import Tensor

from textdiff.device import autocast, compiles, has_native_bf16
from textdiff.progress import ProgressBar
from textdiff.timing import matmul_rate, timed

WARM_UP = 2  # rounds that are not measured


class Setting(NamedTuple):
    """What a comparison varies.

    Args:
        domain: Name in `DOMAINS`.
        shape: Name of the shape in the table.
        size: Arguments of the networks' constructors.
        precision: bf16 or float32.
        batch_size: Examples per batch.
        device: Device of the networks.
    """

    domain: str
    shape: str
    size: tuple[float, ...]
    precision: str
    batch_size: int
    device: torch.device


def matmul_rates(device: torch.device) -> dict[str, float]:
    """FLOP/s of matrix products in bf16, unless it is emulated, and in float32."""
    precisions = {"bf16": torch.bfloat16} if has_native_bf16(device) else {}
    precisions["float32"] = torch.float32
    return {name: matmul_rate(dtype, device) for name, dtype in precisions.items()}


def compare(
    setting: Setting, rounds: int, matmul_seconds: float | None = None
) -> list[dict[str, Any]]:
    """A row of results for each network.

    Args:
        rounds: Number of measurements, of which the median counts.
        matmul_seconds: Time of the matrix products in the evaluation of one example, at the matmul
            rate of the device. The products of a training step take three times as long.
    """
    networks = DOMAINS[setting.domain].networks
    workloads = {name: Workload(setting, name) for name in networks}
    work = {
        (name, kind): getattr(workload, kind)
        for name, workload in workloads.items()
        for kind in ("step", "evaluate")
    }
    label = f"{setting.shape} {setting.precision}"
    seconds = median_seconds(work, rounds, setting.device, label)
    units = setting.batch_size * DOMAINS[setting.domain].units
    least = setting.batch_size * matmul_seconds if matmul_seconds else None
    return [
        {
            "denoiser": name,
            "shape": setting.shape,
            "precision": setting.precision,
            "parameters": sum(p.numel() for p in workloads[name].model.parameters()),
            "step_per_second": units / seconds[name, "step"],
            "step_share_of_matmul": least and 3 * least / seconds[name, "step"],
            "evaluation_per_second": units / seconds[name, "evaluate"],
            "evaluation_share_of_matmul": least and least / seconds[name, "evaluate"],
            "step_megabytes": step_megabytes(setting, name),
        }
        for name in networks
    ]


class Workload:
    """A network with its optimizer and a batch."""

    def __init__(self, setting: Setting, name: str) -> None:
        torch.manual_seed(0)
        domain, device, n = DOMAINS[setting.domain], setting.device, setting.batch_size
        self.model = domain.networks[name](*setting.size).to(device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)
        self.x0 = torch.randn(n, *domain.shape, device=device)
        self.logsnr = torch.linspace(-6, 6, n, device=device)
        self.autocast = autocast(device, setting.precision)
        self.network: Callable[[Tensor, Tensor], Tensor] = self.model
        if compiles("auto", device):
            self.network = torch.compile(self.model)

    def step(self) -> None:
        """A training step: forward, backward, optimizer."""
        self.model.train()
        with self.autocast:
            loss = (self.network(self.x0, self.logsnr) - self.x0).square().mean()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    @torch.no_grad()
    def evaluate(self) -> None:
        """A network evaluation."""
        self.model.eval()
        with self.autocast:
            self.network(self.x0, self.logsnr)


def median_seconds(
    work: dict[Any, Callable[[], object]], rounds: int, device: torch.device, label: str
) -> dict[Any, float]:
    """Median seconds of each function. The functions are interleaved."""
    seconds: dict[Any, list[float]] = {key: [] for key in work}
    for number in ProgressBar(range(WARM_UP + rounds), desc=label, unit="round", leave=False):
        for key, run in work.items():
            duration = timed(run, device)
            if number >= WARM_UP:
                seconds[key].append(duration)
    return {key: statistics.median(durations) for key, durations in seconds.items()}


def step_megabytes(setting: Setting, name: str) -> float:
    """Peak memory of a training step in megabytes. On the CPU, it is that of a new process."""
    if setting.device.type == "cpu":
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
            return executor.submit(_resident_growth, setting, name).result()
    torch.accelerator.reset_peak_memory_stats()
    before = torch.accelerator.memory_allocated()
    _train_briefly(setting, name)
    return (torch.accelerator.max_memory_allocated() - before) / 1e6


def _resident_growth(setting: Setting, name: str) -> float:
    before = peak_megabytes()
    _train_briefly(setting, name)
    return peak_megabytes() - before


def _train_briefly(setting: Setting, name: str) -> None:
    workload = Workload(setting, name)
    for _ in range(3):
        workload.step()


def peak_megabytes() -> float:
    """Peak memory of this process. On Linux, getrusage would include that of the parent process."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text(encoding="utf-8").splitlines()
        (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM"))
        return int(peak) / 1e3
    if os.name == "nt":
        return float(psutil.Process().memory_info().peak_wset) / 1e6
    import resource

    peak_size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak_size / (1e6 if sys.platform == "darwin" else 1e3)  # bytes on macOS, else kilobytes
