"""`textdiff doctor`: a report on this machine, its results and its training times.

Installed packages register their `ModelKind`s under the entry point group `textdiff.doctor`, so
this module imports neither text nor images.
"""

import math
import platform
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, entry_points, requires, version
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch
from accelerate import Accelerator
from packaging.requirements import Requirement
from torch import Tensor
from transformers import PreTrainedModel

from textdiff import device as devices
from textdiff.config import RunConfig
from textdiff.hub import load_pretrained
from textdiff.options import shipped_configs
from textdiff.timing import matmul_rate, timed
from textdiff.training.batching import MicroBatch
from textdiff.training.loop import new_accelerator
from textdiff.training.run_dir import RunDir
from textdiff.training.trainer import Trainer

GROUP = "textdiff.doctor"
TOLERANCE = {"no": 2e-4, "bf16": 5e-2}  # largest relative error, against float64 on the CPU


class CheckFailed(Exception):
    """Raised if the machine computes wrong results, or if there is nothing to check."""


class TrainingBenchmark(NamedTuple):
    """A configuration whose training can be timed.

    Args:
        name: Name for the report.
        config: The configuration.
        model: Builds the model.
        batch: A batch of typical size.
        size: Number of tokens or images in the batch.
        unit: `tokens` or `images`.
        processes: Number of processes that share the machine's cores.
    """

    name: str
    config: RunConfig
    model: Callable[[], PreTrainedModel]
    batch: dict[str, Tensor]
    size: int
    unit: str
    processes: int = 1


class ModelKind(NamedTuple):
    """A kind of model: text or images.

    Args:
        name: Name for the report.
        small: Builds a small model, the same one at every call.
        batch: A training batch of the small model.
        sample: Computes x0 after one sampler step, from (model, device, precision).
        configurations: Names of the files in configs/ whose training is timed.
        configuration: Reads one of these files.
    """

    name: str
    small: Callable[[], PreTrainedModel]
    batch: dict[str, Tensor]
    sample: Callable[[Any, torch.device, str], Tensor]
    configurations: tuple[str, ...]
    configuration: Callable[[Path], TrainingBenchmark]


def examine() -> Iterator[str]:
    """Yields the lines of the report.

    Raises:
        CheckFailed: At the end, if a check failed or if there is nothing to check.
    """
    device = devices.own_device()
    yield from _software()
    yield from _machine(device)
    precision = devices.choose_precision("auto", device)
    kinds = [entry.load()() for entry in entry_points(group=GROUP)]
    if not kinds:
        raise CheckFailed("nothing to check is installed: pip install -e . -c constraints.txt")
    yield f"checks on {device.type}, precision {precision}, against float64 on the CPU"
    failed = []
    for kind in kinds:
        for check in _checks(kind, device, precision):
            passed = check.error <= check.limit
            failed += [] if passed else [f"{kind.name}: {check.name}"]
            error = f"error {check.error:.1e} (at most {check.limit:g})"
            yield f"  {'ok' if passed else 'FAILED':6}  {kind.name}: {check.name}, {error}"
    yield "training times on this machine, from a few steps of each configuration"
    for kind in kinds:
        yield from (f"  {_time(kind.configuration(path))}" for path in _config_files(kind))
    if failed:
        raise CheckFailed(f"this machine computes wrong results: {'; '.join(failed)}")


def _software() -> Iterator[str]:
    names = ("textdiff", "torch", "transformers", "accelerate", "datasets", "tokenizers")
    yield f"{platform.platform()}, Python {platform.python_version()}"
    yield ", ".join(f"{name} {_version(name) or '(not installed)'}" for name in names)
    extras = {extra: " ".join(missing) for extra, missing in _extras().items()}
    states = [f"{extra} {'lacks ' + m if m else 'installed'}" for extra, m in extras.items()]
    yield f"extras: {', '.join(states)}"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _extras() -> dict[str, list[str]]:
    """Missing packages of each extra."""
    extras: dict[str, list[str]] = {}
    for line in (requires("textdiff") or []) if _version("textdiff") else []:
        requirement = Requirement(line)
        _, is_extra, extra = str(requirement.marker or "").rpartition('extra == "')
        if is_extra and requirement.name != "textdiff":
            missing = [] if _version(requirement.name) else [requirement.name]
            extras.setdefault(extra.rstrip('"'), []).extend(missing)
    return extras


def _machine(device: torch.device) -> Iterator[str]:
    memory = psutil.virtual_memory().total / 2**30
    yield f"{psutil.cpu_count()} cores, {memory:.0f} GiB of memory"
    yield f"device: {device} ({devices.machine_name(device)})"
    rates = {"float32": torch.float32, "bf16": torch.bfloat16}
    speeds = {name: matmul_rate(dtype, device) / 1e9 for name, dtype in rates.items()}
    shown = ", ".join(f"{name} {speed:,.0f} GFLOP/s" for name, speed in speeds.items())
    yield f"matrix products: {shown}"
    chosen, reason = devices.best_precision(device)
    yield f"precision: {chosen} ({reason})"
    attention = "torch's fused kernel" if devices.has_fused_attention(device) else "plain formula"
    compiled = "on" if devices.compiles("auto", device) else "off"
    if missing := devices.compile_lacks(device):
        compiled += f" ({missing} is missing)"
    keys = "on the device" if devices.has_exact_int64(device) else "on the CPU"
    yield f"attention: {attention}; torch.compile: {compiled}; random keys: {keys}"


class _Check(NamedTuple):
    name: str
    error: float  # relative
    limit: float


def _checks(kind: ModelKind, device: torch.device, precision: str) -> Iterator[_Check]:
    """Compares results of the device with those of the CPU in float64."""
    exact, cpu, tolerance = kind.small().double(), torch.device("cpu"), TOLERANCE[precision]
    with _in_float64():
        true_loss, true_gradient = _training_step(exact.train(), kind.batch, cpu, "no")
        true_sample = kind.sample(exact.eval(), cpu, "no")
    model = torch.nn.Module.to(kind.small(), device)
    loss, gradient = _training_step(model.train(), kind.batch, device, precision)
    yield _Check("loss of a training step", _error(loss, true_loss), tolerance)
    yield _Check("gradient of a training step", _error(gradient, true_gradient), 2 * tolerance)
    sample = kind.sample(model.eval(), device, precision)
    yield _Check("sampling step", _error(sample, true_sample), tolerance)
    temporary = tempfile.TemporaryDirectory(prefix="textdiff-doctor-", ignore_cleanup_errors=True)
    with temporary as folder:
        model.save_pretrained(folder)
        loaded, _ = load_pretrained(folder, (type(model),), ("config.json",))
        again = kind.sample(loaded, device, precision)
    yield _Check("saved and loaded", _error(again, sample), 0.0)


def _training_step(
    model: PreTrainedModel, batch: dict[str, Tensor], device: torch.device, precision: str
) -> tuple[Tensor, Tensor]:
    """The loss and all gradients in one vector."""
    model.zero_grad()
    with devices.autocast(device, precision):
        terms = model(**{name: tensor.to(device) for name, tensor in batch.items()})
        loss = torch.stack(list(terms.values())).sum()
    loss.backward()
    gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return loss.detach(), torch.cat(gradients)


def _error(result: Tensor, expected: Tensor) -> float:
    """Relative error in the Euclidean norm; infinite if it is not finite."""
    result, expected = result.detach().cpu().double(), expected.detach().cpu().double()
    error = float((result - expected).norm() / expected.norm())
    return error if math.isfinite(error) else math.inf


@contextmanager
def _in_float64() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _config_files(kind: ModelKind) -> list[Path]:
    """The configuration files of a kind."""
    files = shipped_configs()
    return [files[name] for name in kind.configurations if name in files]


def _time(benchmark: TrainingBenchmark) -> str:
    """Training time of a configuration, from a few steps on artificial data."""
    threads, run_dir = torch.get_num_threads(), RunDir[RunConfig](Path(benchmark.config.run))
    torch.set_num_threads(max(1, threads // benchmark.processes))
    try:
        accelerator, config = new_accelerator(benchmark.config, run_dir)
        seconds = _step_seconds(benchmark, config, accelerator)
    finally:
        torch.set_num_threads(threads)
    rate = f"{benchmark.size / seconds:,.0f} {benchmark.unit}/s"
    speed = f"{seconds:.2g} seconds per step, {rate}"
    if config.train.minutes:
        return f"{benchmark.name}: {config.train.minutes:g} minutes, as configured ({speed})"
    duration = _duration(config.train.steps * seconds)
    return f"{benchmark.name}: {config.train.steps:,} steps, about {duration} ({speed})"


def _step_seconds(
    benchmark: TrainingBenchmark, config: RunConfig, accelerator: Accelerator
) -> float:
    trainer = Trainer(benchmark.model(), config.train, Path(), accelerator)
    steps = trainer.train([[MicroBatch(benchmark.batch, 1.0, 1)]] * 4)
    first, *seconds = [timed(lambda: next(steps), accelerator.device) for _ in range(2)]
    if first < 1:  # cheap enough for two more steps
        seconds += [timed(lambda: next(steps), accelerator.device) for _ in range(2)]
    accelerator.free_memory()
    return min(seconds)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 100 else f"{seconds / 60:.0f} minutes"
