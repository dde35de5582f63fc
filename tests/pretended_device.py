"""A pretended accelerator: torch's `meta` device, whose tensors have shapes but no values.

Torch itself refuses shapes that depend on values there. This module also refuses what a GPU would
refuse: CPU tensors among tensors of the device, and float64, which MPS lacks. It records where the
program waits for the device: values fetched from it, and blocking copies to it.

Torch's FakeTensorMode is no alternative: without CUDA, the process ends at the first backward pass
of a pretended `cuda` tensor, because there are no streams of that kind. `meta` runs everywhere,
forward and backward, and the CPU's part of the work, such as noise schedules, has its true values.
"""

import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

DEVICE = torch.device("meta")
ROOT = Path(__file__).parents[1]
aten = torch.ops.aten
ONES = {torch.bool: True, torch.int64: 1, torch.float32: 1.0}  # results of fetching a value
INTEGER_PRODUCTS = ("mul", "bitwise_right_shift", "__rshift__", "bitwise_left_shift", "remainder")


class Refused(AssertionError):
    """Raised for an operation that a device would refuse."""


class _Operations(TorchDispatchMode):
    """Checks every operation below autograd, in backward passes and optimizers too."""

    def __init__(self, waits: list[str], exact_int64: bool) -> None:
        super().__init__()
        self.waits, self.exact_int64 = waits, exact_int64

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        if not any(each.device == DEVICE for each in tensors):
            return self._on_device(func, args, kwargs)
        if func is aten._local_scalar_dense.default:
            self.waits.append(_location(func))
            return ONES[args[0].dtype]
        if func is aten._to_copy.default:
            target = kwargs.get("device") or DEVICE
            if target == DEVICE:
                return self._on_device(func, args, kwargs)
            return self._fetched(args[0], kwargs.get("dtype"))
        if func is aten.copy_.default:
            return self._copied(*args, **kwargs)
        on_cpu = [each for each in tensors if each.device != DEVICE]
        if any(each.ndim or torch.Tag.pointwise not in func.tags for each in on_cpu):
            raise Refused(f"{_location(func)}: a CPU tensor among tensors of the device")
        return self._on_device(func, args, kwargs)

    def _on_device(self, func: Any, args: Any, kwargs: Any) -> Any:
        out = func(*args, **kwargs)
        results = [each for each in tree_leaves(out) if isinstance(each, Tensor)]
        if any(each.device == DEVICE and each.dtype == torch.float64 for each in results):
            raise Refused(f"{_location(func)}: float64 on the device")
        inexact = not self.exact_int64 and _name(func) in INTEGER_PRODUCTS
        if inexact and out.device == DEVICE and out.dtype == torch.int64:
            raise Refused(f"{_location(func)}: a 64-bit integer product or shift on the device")
        copied = func is aten._to_copy.default and args[0].device != out.device
        if copied and not kwargs.get("non_blocking") and out.device == DEVICE:
            self.waits.append(_location(func))
        return out

    def _fetched(self, source: Tensor, dtype: torch.dtype | None) -> Tensor:
        """Ones on the CPU, which also make every condition true."""
        self.waits.append(_location(aten._to_copy.default))
        if dtype == torch.float64 != source.dtype:
            where = self.waits[-1]
            raise Refused(
                f"{where}: converted to float64 while fetched, which MPS does on the device"
            )
        return torch.ones(source.shape, dtype=dtype or source.dtype)

    def _copied(self, target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
        if target.device == source.device:
            return aten.copy_.default(target, source)
        if not non_blocking or target.device != DEVICE:
            self.waits.append(_location(aten.copy_.default))
        return target if target.device == DEVICE else target.fill_(1)


class _Calls(TorchFunctionMode):
    """Records copies to the device without an operation: tensors made from Python numbers."""

    def __init__(self, waits: list[str]) -> None:
        super().__init__()
        self.waits = waits

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in (torch.tensor, Tensor.new_tensor) and out.device == DEVICE and out.numel():
            self.waits.append(_location(func))
        if func in (Tensor.__getitem__, Tensor.__setitem__) and args[0].device == DEVICE:
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            if any(isinstance(each, list) for each in index):
                self.waits.append(_location(func))
        return out


@contextmanager
def pretended_device(exact_int64: bool = True) -> Iterator[list[str]]:
    """Checks all operations on the device. Yields the growing list of waits.

    A wait is a line of the sources and an operation.

    Args:
        exact_int64: Whether the device multiplies and shifts 64-bit integers exactly; MPS does not.
    """
    waits: list[str] = []
    with ExitStack() as stack:
        real = torch.autocast
        stack.enter_context(patch("torch.autocast", lambda *_, **__: real("cpu", enabled=False)))
        fused = "torch.optim.optimizer._get_fused_kernels_supported_devices"
        stack.enter_context(patch(fused, lambda: ["cpu", DEVICE.type]))
        if not exact_int64:
            on_cpu = patch("textdiff.prng.has_exact_int64", lambda device: device != DEVICE)
            stack.enter_context(on_cpu)
        stack.enter_context(_Calls(waits))
        stack.enter_context(_Operations(waits, exact_int64))
        yield waits


def _name(func: Any) -> str:
    return str(func.overloadpacket.__name__)


def _location(func: Any) -> str:
    """The innermost line of this repository's sources, and the operation that it calls."""
    for frame in reversed(traceback.extract_stack()):
        path = Path(frame.filename)
        if path.is_relative_to(ROOT) and "tests" not in path.relative_to(ROOT).parts:
            return f"{path.relative_to(ROOT)}:{frame.lineno} {func}"
    return str(func)
