"""The device, precision and kernels that this process uses.

All decisions that depend on the machine are made here. This module imports no model.
"""

import importlib.util
import logging
import os
import platform
import shutil
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import psutil
import torch

from textdiff.config import Precision, UserError
from textdiff.timing import bf16_gain, matmul_rate

log = logging.getLogger("textdiff")

NARROW = 128  # narrower networks gain nothing from bf16, for converting to it takes time
GAIN = 1.5  # speed-up of linear layers from which on a whole training step is faster in bf16
WIDTH = 256  # width of the layers of a typical model


class PrecisionChoice(NamedTuple):
    """A precision, bf16 or no (float32), and the reason for it."""

    precision: Literal["bf16", "no"]
    reason: str


# --- device


def is_accelerated() -> bool:
    """Whether this process uses an accelerator. `accelerate launch --cpu` forbids it."""
    forbidden = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    return torch.accelerator.is_available() and not forbidden


def own_device() -> torch.device:
    """The accelerator of this process, or the CPU.

    If there are several processes on one machine, each has its own accelerator.
    """
    accelerator = torch.accelerator.current_accelerator() if is_accelerated() else None
    if accelerator is None:
        return torch.device("cpu")
    if accelerator.type == "mps":
        return torch.device("mps")
    rank, count = int(os.environ.get("LOCAL_RANK", "0")), torch.accelerator.device_count()
    return torch.device(accelerator.type, rank % count)


def machine_name(device: torch.device) -> str:
    """Name of the device, such as `NVIDIA H100` or `AMD EPYC 7B13, AVX2, 2 threads`."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type.upper()
    threads = torch.get_num_threads()
    counted = f"{threads} thread{'s' * (threads > 1)}"
    return f"{_cpu_name()}, {torch.backends.cpu.get_cpu_capability()}, {counted}"


def _cpu_name() -> str:
    """Model name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def set_threads() -> None:
    """Divides the CPU's cores between the processes of a launcher, which gave each one thread.

    `accelerate launch` and torchrun do so by default. If the user has set OMP_NUM_THREADS, the
    number of threads is not changed.
    """
    launched = {"ACCELERATE_MIXED_PRECISION", "TORCHELASTIC_RUN_ID"} & os.environ.keys()
    one_thread = os.environ.get("OMP_NUM_THREADS") == "1"
    if is_accelerated() or not (launched and one_thread) or _user_set_threads(os.getppid()):
        return
    cores = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    threads = max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    torch.set_num_threads(threads)
    log.info("on the CPU with %d thread%s per process", threads, "s" * (threads > 1))


def _user_set_threads(launcher: int) -> bool:
    """Whether the user chose the number of threads when starting the launcher."""
    try:
        parent = psutil.Process(launcher)
        options = [word.replace("-", "_") for word in parent.cmdline()]
        return "OMP_NUM_THREADS" in parent.environ() or "__num_cpu_threads_per_process" in options
    except psutil.Error:
        return True


# --- precision


@cache
def choose_precision(
    asked: Precision, device: torch.device, width: int = WIDTH
) -> Literal["bf16", "no"]:
    """Chooses the precision of a network, and logs the choice and its reason once, in one line.

    `auto` is bf16 where the device computes it natively and, on a CPU, where a short measurement
    of linear layers of the model's width shows that it is faster; otherwise float32. An explicit
    choice is used as it is, with a warning where bf16 is emulated.
    """
    if asked == "auto":
        chosen, reason = best_precision(device, width)
        log.info("precision %s on %s: %s", chosen, machine_name(device), reason)
        return chosen
    if asked == "bf16" and (factor := emulation_factor(device)) > 1:
        slower = f"matrix products take {factor:.0f} times as long as in float32"
        kind, way_out = device.type.upper(), "choose precision auto or no"
        log.warning("bf16 is emulated on this %s: %s; %s", kind, slower, way_out)
    return asked


@cache
def best_precision(device: torch.device, width: int = WIDTH) -> PrecisionChoice:
    """The faster precision of the device: bf16 where it is native and faster, else float32."""
    if device.type == "mps":
        return PrecisionChoice("no", "bf16 is not faster on MPS")
    if not has_native_bf16(device):
        return PrecisionChoice("no", "the device has no native bf16")
    if device.type != "cpu":
        return PrecisionChoice("bf16", "bf16 is native")
    if width < NARROW:  # also makes the choice the same in every run
        return PrecisionChoice("no", f"layers of width {width} are too narrow to gain from bf16")
    gain = bf16_gain(device, width)
    reason = f"linear layers of width {width} are {gain:.1f} times as fast in bf16"
    return PrecisionChoice("bf16" if gain >= GAIN else "no", reason)


def matmul_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The type of fast matrix products: bfloat16 if it is chosen and not emulated, else float32."""
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
    return device.type == "mps"  # about other accelerators nothing is known


@cache
def emulation_factor(device: torch.device) -> float:
    """Time of emulated bf16 matrix products relative to float32; 1 where bf16 is native."""
    if has_native_bf16(device):
        return 1.0
    return matmul_rate(torch.float32, device) / matmul_rate(torch.bfloat16, device)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Autocast to bf16 if the precision is bf16; otherwise it has no effect."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


# --- kernels


def has_fused_attention(device: torch.device) -> bool:
    """Whether torch's fused attention is used.

    On CPUs its backward pass takes 2 to 7 times as long as the plain formula up to length 64.
    """
    return device.type != "cpu"


def wants_static_shapes(device: torch.device) -> bool:
    """Whether shapes must not depend on data, which would wait for an accelerator.

    On a CPU such shapes cost nothing and save work, but a graph cannot be exported with them.
    """
    return device.type != "cpu" or torch.compiler.is_exporting()


def compiles(asked: Literal["auto"] | bool, device: torch.device) -> bool:
    """Whether the training step is compiled. `auto` is on for CUDA where nothing is missing.

    Raises:
        UserError: If compilation is asked for and something that it needs is missing.
    """
    missing = compile_lacks(device)
    if asked == "auto":
        return device.type == "cuda" and not missing
    if asked and missing:
        way_out = f"install {missing}, or use --train.compile false"
        raise UserError(f"train.compile true needs {missing} on this machine: {way_out}")
    return asked


@cache
def compile_lacks(device: torch.device) -> str | None:
    """The missing part that torch.compile needs on a device.

    None if nothing is missing, or if the needs of the device are not known here.
    """
    if device.type == "cuda":
        if importlib.util.find_spec("triton") is None:
            return "the package triton"
        if torch.cuda.get_device_capability(device) < (7, 0):
            return "a GPU of compute capability 7.0 or more"
        compilers = (os.environ.get("CC", "cc"), "gcc", "clang")
        return None if any(map(shutil.which, compilers)) else "a C compiler"
    if device.type != "cpu":
        return None
    default = {"Windows": "cl", "Darwin": "clang++"}.get(platform.system(), "g++")
    return None if shutil.which(os.environ.get("CXX", default)) else "a C++ compiler"


def pins_memory(device: torch.device) -> bool:
    """Whether batches go to the device through pinned memory."""
    return device.type == "cuda"


def has_exact_int64(device: torch.device) -> bool:
    """Whether 64-bit integer products and shifts are exact; on MPS they are not."""
    return device.type != "mps"
