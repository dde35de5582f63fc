"""`textdiff doctor`: what this machine is, what was chosen for it, how long runs take, and whether it computes right.

Knows neither text nor images: installed packages name their `Subject`s under the entry point group
`textdiff.doctor`.
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
from textdiff.batches import MicroBatch
from textdiff.config import Run
from textdiff.loop import new_accelerator
from textdiff.pretrained import load_pretrained
from textdiff.trainer import Trainer

GROUP = "textdiff.doctor"
CONFIGS = Path(__file__).parents[1] / "configs"
TOLERANCE = {"no": 2e-4, "bf16": 5e-2}  # relative, of the device's results to float64's on the CPU


class CheckFailed(Exception):
    """The machine computes wrong results, or there is nothing to check."""


class Configuration(NamedTuple):
    """A configuration whose training can be timed: `batch` is a typical step's, of `size` units."""

    name: str
    config: Run
    model: Callable[[], PreTrainedModel]
    batch: dict[str, Tensor]
    size: int
    unit: str
    processes: int = 1  # that share the machine's cores


class Subject(NamedTuple):
    """A kind of model: text or images.

    Args:
        small: a small model, the same at every call.
        batch: of its training.
        sample: x0 after one sampler step, from (model, device, precision).
        configurations: names of the files in configs/ whose training is timed.
        configuration: reads one of them.
    """

    name: str
    small: Callable[[], PreTrainedModel]
    batch: dict[str, Tensor]
    sample: Callable[[Any, torch.device, str], Tensor]
    configurations: tuple[str, ...]
    configuration: Callable[[Path], Configuration]


def examine() -> Iterator[str]:
    """The report, line by line. Raises CheckFailed at the end if a check failed, or if there is nothing to check."""
    device = devices.own_device()
    yield from _software()
    yield from _machine(device)
    precision = devices.choose_precision("auto", device)
    subjects = [entry.load()() for entry in entry_points(group=GROUP)]
    if not subjects:
        raise CheckFailed("nothing to check is installed: pip install -e . -c constraints.txt")
    yield f"checks on {device.type}, precision {precision}, against float64 on the CPU"
    failed = []
    for subject in subjects:
        for what, error, limit in _checks(subject, device, precision):
            good = error <= limit
            failed += [] if good else [f"{subject.name}: {what}"]
            verdict = "ok" if good else "FAILED"
            yield f"  {verdict:6}  {subject.name}: {what}, error {error:.1e} (at most {limit:g})"
    yield "training times on this machine, from a few steps of each configuration"
    for subject in subjects:
        yield from (f"  {_time(subject.configuration(path))}" for path in _found(subject))
    if failed:
        raise CheckFailed(f"this machine computes wrong results: {'; '.join(failed)}")


def _software() -> Iterator[str]:
    names = ("textdiff", "torch", "transformers", "accelerate", "datasets", "tokenizers")
    yield f"{platform.platform()}, Python {platform.python_version()}"
    yield ", ".join(f"{name} {_version(name) or '(not installed)'}" for name in names)
    yield "extras: " + ", ".join(f"{extra} {'installed' if not lacking else 'lacks ' + ' '.join(lacking)}" for extra, lacking in _extras().items())


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _extras() -> dict[str, list[str]]:
    """Missing packages of each extra."""
    lacking: dict[str, list[str]] = {}
    for line in (requires("textdiff") or []) if _version("textdiff") else []:
        requirement = Requirement(line)
        extra = str(requirement.marker).rpartition('extra == "')[2].rstrip('"') if requirement.marker else ""
        if extra and requirement.name != "textdiff":
            missing = [] if _version(requirement.name) else [requirement.name]
            lacking[extra] = lacking.get(extra, []) + missing
    return lacking


def _machine(device: torch.device) -> Iterator[str]:
    memory = psutil.virtual_memory().total / 2**30
    yield f"{psutil.cpu_count()} cores, {memory:.0f} GiB of memory"
    yield f"device: {device} ({devices.machine_name(device)})"
    rates = {"float32": torch.float32, "bf16": torch.bfloat16}
    speeds = {name: devices.matmul_rate(dtype, device) / 1e9 for name, dtype in rates.items()}
    yield "matrix products: " + ", ".join(f"{name} {rate:,.0f} GFLOP/s" for name, rate in speeds.items())
    chosen, reason = devices.best_precision(device)
    yield f"precision: {chosen} ({reason})"
    attention = "torch's fused kernel" if devices.has_fused_attention(device) else "written out"
    compiled = "on" if devices.compiles("auto", device) else "off"
    if lacking := devices.compile_lacks(device):
        compiled += f", for it lacks {lacking}"
    yield f"attention: {attention}; torch.compile: {compiled}; random keys: " + ("on the device" if devices.has_exact_int64(device) else "on the CPU")


# --- checks


def _checks(subject: Subject, device: torch.device, precision: str) -> Iterator[tuple[str, float, float]]:
    """What was checked, its relative error, and the error allowed."""
    exact = subject.small().double()
    with _in_float64():
        wanted = _training_step(exact.train(), subject.batch, torch.device("cpu"), "no")
        drawn = subject.sample(exact.eval(), torch.device("cpu"), "no")
    model = torch.nn.Module.to(subject.small(), device)
    found = _training_step(model.train(), subject.batch, device, precision)
    yield "loss of a training step", _error(found[0], wanted[0]), TOLERANCE[precision]
    yield "gradient of a training step", _error(found[1], wanted[1]), 2 * TOLERANCE[precision]
    sample = subject.sample(model.eval(), device, precision)
    yield "sampling step", _error(sample, drawn), TOLERANCE[precision]
    with tempfile.TemporaryDirectory(prefix="textdiff-doctor-", ignore_cleanup_errors=True) as folder:
        model.save_pretrained(folder)
        again, _ = load_pretrained(folder, (type(model),), ("config.json",))
        yield "saved and loaded", _error(subject.sample(again, device, precision), sample), 0.0


def _training_step(model: PreTrainedModel, batch: dict[str, Tensor], device: torch.device, precision: str) -> tuple[Tensor, Tensor]:
    """The loss and all gradients, flat."""
    model.zero_grad()
    with devices.autocast(device, precision):
        terms = model(**{name: tensor.to(device) for name, tensor in batch.items()})
        loss = torch.stack(list(terms.values())).sum()
    loss.backward()
    gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return loss.detach(), torch.cat(gradients)


def _error(found: Tensor, wanted: Tensor) -> float:
    """Relative error in the Euclidean norm; infinite if it is not finite."""
    found, wanted = found.detach().cpu().double(), wanted.detach().cpu().double()
    error = float((found - wanted).norm() / wanted.norm())
    return error if math.isfinite(error) else math.inf


@contextmanager
def _in_float64() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


# --- times


def _found(subject: Subject) -> list[Path]:
    """The subject's configurations, where they lie beside the package."""
    paths = [CONFIGS / f"{name}.yaml" for name in subject.configurations]
    return [path for path in paths if path.exists()]


def _time(configuration: Configuration) -> str:
    """How long a configuration's training takes, by a few of its steps on made-up data."""
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // configuration.processes))
    try:
        accelerator, config = new_accelerator(configuration.config)
        seconds = _step_seconds(configuration, config, accelerator)
    finally:
        torch.set_num_threads(threads)
    rate = f"{configuration.size / seconds:,.0f} {configuration.unit}/s"
    speed = f"{seconds:.2g} s a step, {rate}"
    if config.train.minutes:
        return f"{configuration.name}: {config.train.minutes:g} minutes, as it asks for ({speed})"
    return f"{configuration.name}: {config.train.steps:,} steps, about {_duration(config.train.steps * seconds)} ({speed})"


def _step_seconds(configuration: Configuration, config: Run, accelerator: Accelerator) -> float:
    trainer = Trainer(configuration.model(), config.train, Path(), accelerator)
    steps = trainer.train([[MicroBatch(configuration.batch, 1.0, 1)]] * 4)
    first, *others = [devices.timed(lambda: next(steps), accelerator.device) for _ in range(2)]
    if first < 1:  # cheap enough to look again
        others += [devices.timed(lambda: next(steps), accelerator.device) for _ in range(2)]
    accelerator.free_memory()
    return min(others)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 100 else f"{seconds / 60:.0f} minutes"
