"""The machine: which device, which precision and which kernels this process uses. No other module asks.

Everything here is a question about a `torch.device`; nothing here knows a model.
"""

import importlib.util
import logging
import os
import platform
import shutil
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Literal, NamedTuple

import psutil
import torch

from textdiff.config import Precision

log = logging.getLogger("textdiff")

RACE = 0.1  # seconds of a measurement, of which the best run counts: others may be at work
GAIN = 2.0  # how much faster a linear layer must be in bf16, for a training step to be faster at all
WIDTH = 256  # of the layers of a typical model


class Choice(NamedTuple):
    """A precision, bf16 or no (float32), and the reason for it."""

    precision: Literal["bf16", "no"]
    reason: str


# --- which device


def is_accelerated() -> bool:
    """Whether this process may use an accelerator; `accelerate launch --cpu` forbids it."""
    forbidden = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    return torch.accelerator.is_available() and not forbidden


def own_device() -> torch.device:
    """The accelerator of this process (of several on one machine, each has its own), or the CPU."""
    accelerator = torch.accelerator.current_accelerator() if is_accelerated() else None
    if accelerator is None:
        return torch.device("cpu")
    if accelerator.type == "mps":
        return torch.device("mps")
    rank, count = int(os.environ.get("LOCAL_RANK", "0")), torch.accelerator.device_count()
    return torch.device(accelerator.type, rank % count)


def machine_name(device: torch.device) -> str:
    """The device in words, such as `NVIDIA H100` or `AMD EPYC 7B13, AVX2, 2 threads`."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type.upper()
    threads = torch.get_num_threads()
    return f"{_cpu_name()}, {torch.backends.cpu.get_cpu_capability()}, {threads} threads"


def _cpu_name() -> str:
    """Model name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def set_threads() -> None:
    """Shares the cores of a CPU among the processes of a launcher that gave each one thread.

    `accelerate launch` and torchrun do so unasked; a user's own OMP_NUM_THREADS is left alone.
    """
    launched = {"ACCELERATE_MIXED_PRECISION", "TORCHELASTIC_RUN_ID"} & os.environ.keys()
    one_thread = os.environ.get("OMP_NUM_THREADS") == "1"
    if is_accelerated() or not (launched and one_thread) or _user_set_threads(os.getppid()):
        return
    cores = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    threads = max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    torch.set_num_threads(threads)
    log.info("on the CPU with %d threads a process", threads)


def _user_set_threads(launcher: int) -> bool:
    """Whether the user chose the number of threads when starting the launcher."""
    try:
        parent = psutil.Process(launcher)
        options = [word.replace("-", "_") for word in parent.cmdline()]
        return "OMP_NUM_THREADS" in parent.environ() or "__num_cpu_threads_per_process" in options
    except psutil.Error:
        return True


# --- which precision


@cache
def choose_precision(asked: Precision, device: torch.device, width: int = WIDTH) -> Literal["bf16", "no"]:
    """The precision to compute in. Logs once, in one line, what was chosen and why.

    `auto` is bf16 where the device computes it natively and, on a CPU, where a short race of
    linear layers of the model's width says that it pays; else float32. An explicit choice is
    obeyed, with a warning where bf16 is emulated.
    """
    if asked == "auto":
        chosen, reason = best_precision(device, width)
        log.info("precision %s on %s: %s", chosen, machine_name(device), reason)
        return chosen
    if asked == "bf16" and (factor := emulation_factor(device)) > 1:
        log.warning(
            "bf16 is emulated on this %s: matrix products take %.0f times as long as in float32; choose precision auto or no",
            device.type.upper(),
            factor,
        )
    return asked


@cache
def best_precision(device: torch.device, width: int = WIDTH) -> Choice:
    """bf16 where it is native and pays, else float32."""
    if device.type == "mps":
        return Choice("no", "bf16 gains nothing there")
    if not has_native_bf16(device):
        return Choice("no", "it has no native bf16")
    if device.type != "cpu":
        return Choice("bf16", "bf16 is native")
    gain = bf16_gain(device, width)
    reason = f"linear layers of width {width} are {gain:.1f} times as fast in bf16"
    return Choice("bf16" if gain >= GAIN else "no", reason)


@cache
def bf16_gain(device: torch.device, width: int) -> float:
    """How many times as fast a linear layer is under bf16 autocast, forwards and backwards."""
    layer = torch.nn.Linear(width, 4 * width, dtype=torch.float32, device=device)
    x = torch.ones(8 * WIDTH, width, dtype=torch.float32, device=device, requires_grad=True)

    def step(precision: str) -> None:
        with autocast(device, precision):
            y = layer(x)
        y.sum().backward()

    with torch.enable_grad():
        return _best_seconds(partial(step, "no"), device) / _best_seconds(partial(step, "bf16"), device)


def _best_seconds(work: Callable[[], object], device: torch.device) -> float:
    work()  # the first run is slower than the others
    seconds: list[float] = []
    while len(seconds) < 3 or sum(seconds) < RACE:
        seconds.append(timed(work, device))
    return min(seconds)


def matmul_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The type in which matrix products are fast: bfloat16 if chosen and not emulated."""
    return torch.bfloat16 if precision == "bf16" and has_native_bf16(device) else torch.float32


@cache
def has_native_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for bf16, so that it is not emulated."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "xpu":
        return bool(torch.xpu.is_bf16_supported())
    if device.type == "cpu":
        supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
        return bool(supported and supported())  # builds without oneDNN lack it
    return device.type == "mps"  # of other accelerators nothing is known


@cache
def emulation_factor(device: torch.device) -> float:
    """How many times as long as float32 bf16 products take, where they are emulated; else 1."""
    if has_native_bf16(device):
        return 1.0
    return matmul_rate(torch.float32, device) / matmul_rate(torch.bfloat16, device)


@cache
def matmul_rate(dtype: torch.dtype, device: torch.device) -> float:
    """FLOP/s of the best of some products as a transformer has them (rows x width x 4 width)."""
    width, rows = (256, 512) if device.type == "cpu" else (2048, 8192)
    columns = 4 * width
    a = torch.ones(rows, width, dtype=dtype, device=device)
    b = torch.ones(width, columns, dtype=dtype, device=device)
    return 2 * rows * width * columns / _best_seconds(lambda: a @ b, device)


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of work, to the end of what it started on the device."""
    synchronize(device)
    began = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - began


def synchronize(device: torch.device) -> None:
    """Waits for all work on the device."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Mixed precision for the networks: bf16 where `precision` says so, else as the weights are."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


# --- which kernels


def has_fused_attention(device: torch.device) -> bool:
    """Whether torch's fused attention is used.

    On CPUs its backward pass takes 2 to 7 times as long as the plain formula up to length 64.
    """
    return device.type != "cpu"


def wants_static_shapes(device: torch.device) -> bool:
    """Whether shapes must not depend on data: on an accelerator that would wait for the device.

    On a CPU it costs nothing, and leaving out what is not needed saves work.
    """
    return device.type != "cpu"


def compiles(asked: Literal["auto"] | bool, device: torch.device) -> bool:
    """Whether the training step is compiled; `auto`: on CUDA, if all that it needs is there."""
    return device.type == "cuda" and not compile_lacks(device) if asked == "auto" else asked


@cache
def compile_lacks(device: torch.device) -> str | None:
    """What torch.compile lacks on a CUDA device; None where it lacks nothing, or is not wanted."""
    if device.type != "cuda":
        return None
    if importlib.util.find_spec("triton") is None:
        return "the package triton"
    if torch.cuda.get_device_capability(device) < (7, 0):
        return "a GPU of compute capability 7.0 or more"
    if not any(map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang"))):
        return "a C compiler"
    return None


def pins_memory(device: torch.device) -> bool:
    """Whether batches go to the device through pinned memory."""
    return device.type == "cuda"


def has_exact_int64(device: torch.device) -> bool:
    """Whether 64-bit integer products and shifts are exact; on MPS they are not."""
    return device.type != "mps"
