"""A pretended accelerator: torch's `meta` device, whose tensors have a shape and a type, no numbers.

Beside what torch refuses there (shapes that depend on numbers), it refuses what a GPU would:
tensors of the CPU among tensors of the device, and float64, which MPS has not. It writes down where
the program waits for the device: numbers fetched from it, and copies to it that block.

Not torch's FakeTensorMode: a build without CUDA ends the process at the first backward pass of a
pretended `cuda` tensor, for it has no streams of that kind. `meta` runs everywhere, forwards and
backwards, and the CPU's own part of the work, such as noise schedules, keeps its true numbers.
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
TRUE = {torch.bool: True, torch.int64: 1, torch.float32: 1.0}  # what is fetched, were it a number
INTEGER_PRODUCTS = ("mul", "bitwise_right_shift", "__rshift__", "bitwise_left_shift", "remainder")


class Refused(AssertionError):
    """What a device would refuse."""


class _Operations(TorchDispatchMode):
    """Every operation, below autograd: backward passes and optimizers too."""

    def __init__(self, waits: list[str], exact_int64: bool) -> None:
        super().__init__()
        self.waits, self.exact_int64 = waits, exact_int64

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        if not any(each.device == DEVICE for each in tensors):
            return self._on_device(func, args, kwargs)
        if func is aten._local_scalar_dense.default:
            self.waits.append(_place(func))
            return TRUE[args[0].dtype]
        if func is aten._to_copy.default:
            target = kwargs.get("device") or DEVICE
            return self._on_device(func, args, kwargs) if target == DEVICE else self._fetched(args[0], kwargs.get("dtype"))
        if func is aten.copy_.default:
            return self._copied(*args, **kwargs)
        lonely = [each for each in tensors if each.device != DEVICE]
        if any(each.ndim or torch.Tag.pointwise not in func.tags for each in lonely):
            raise Refused(f"{_place(func)}: a tensor of the CPU among tensors of the device")
        return self._on_device(func, args, kwargs)

    def _on_device(self, func: Any, args: Any, kwargs: Any) -> Any:
        out = func(*args, **kwargs)
        if any(isinstance(each, Tensor) and each.device == DEVICE and each.dtype == torch.float64 for each in tree_leaves(out)):
            raise Refused(f"{_place(func)}: float64 on the device")
        if not self.exact_int64 and _name(func) in INTEGER_PRODUCTS and out.device == DEVICE and out.dtype == torch.int64:
            raise Refused(f"{_place(func)}: a 64-bit integer product or shift on the device")
        blocking = func is aten._to_copy.default and args[0].device != out.device and not kwargs.get("non_blocking")
        if blocking and out.device == DEVICE:
            self.waits.append(_place(func))
        return out

    def _fetched(self, source: Tensor, dtype: torch.dtype | None) -> Tensor:
        """Ones on the CPU: true, where it is asked."""
        self.waits.append(_place(aten._to_copy.default))
        if dtype == torch.float64 != source.dtype:
            raise Refused(f"{self.waits[-1]}: made float64 on the way, which MPS does on the device")
        return torch.ones(source.shape, dtype=dtype or source.dtype)

    def _copied(self, target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
        if target.device == source.device:
            return aten.copy_.default(target, source)
        if not non_blocking or target.device != DEVICE:
            self.waits.append(_place(aten.copy_.default))
        return target if target.device == DEVICE else target.fill_(1)


class _Calls(TorchFunctionMode):
    """What copies to the device without an operation of its own: numbers of Python made tensors."""

    def __init__(self, waits: list[str]) -> None:
        super().__init__()
        self.waits = waits

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in (torch.tensor, Tensor.new_tensor) and out.device == DEVICE and out.numel():
            self.waits.append(_place(func))
        if func in (Tensor.__getitem__, Tensor.__setitem__) and args[0].device == DEVICE:
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            if any(isinstance(each, list) for each in index):
                self.waits.append(_place(func))
        return out


@contextmanager
def pretended_device(exact_int64: bool = True) -> Iterator[list[str]]:
    """Within it, operations obey the law. Yields the list of waits, which grows: each a place in
    the sources and an operation.

    Args:
        exact_int64: whether the device multiplies and shifts 64-bit integers exactly; MPS does not.
    """
    waits: list[str] = []
    with ExitStack() as stack:
        real = torch.autocast
        stack.enter_context(patch("torch.autocast", lambda *_, **__: real("cpu", enabled=False)))
        supported = ["cpu", DEVICE.type]
        stack.enter_context(patch("torch.optim.optimizer._get_fused_kernels_supported_devices", lambda: supported))
        if not exact_int64:
            stack.enter_context(patch("textdiff.counter.has_exact_int64", lambda device: device != DEVICE))
        stack.enter_context(_Calls(waits))
        stack.enter_context(_Operations(waits, exact_int64))
        yield waits


def _name(func: Any) -> str:
    return str(func.overloadpacket.__name__)


def _place(func: Any) -> str:
    """The innermost line of this repository's own sources, and what it calls."""
    for frame in reversed(traceback.extract_stack()):
        path = Path(frame.filename)
        if path.is_relative_to(ROOT) and "tests" not in path.relative_to(ROOT).parts:
            return f"{path.relative_to(ROOT)}:{frame.lineno} {func}"
    return str(func)
