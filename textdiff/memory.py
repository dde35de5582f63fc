"""The memory allocator of this process. This module imports nothing heavy."""

import ctypes
import os
import platform
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

MMAP_MAX, TRIM_THRESHOLD, ARENA_MAX = -4, -1, -8  # from malloc.h


def keep_freed_memory() -> None:
    """Tells glibc to keep freed memory for later tensors, which makes steps on a CPU faster.

    Otherwise large tensors return to the kernel when they are freed, and the kernel clears every
    page of the next ones. Other C libraries, and MALLOC_* variables of the user, are left alone.
    """
    _set_options({MMAP_MAX: 0, TRIM_THRESHOLD: -1})


def returning_unused_memory(steps: Iterable[T], every: int = 100) -> Iterator[T]:
    """Yields the steps, and after every hundredth gives unused memory back to the kernel.

    Otherwise tensors of many sizes scatter over the memory that `keep_freed_memory` keeps, and a
    long training takes twice what it needs. Returning 1 GB takes 0.3 seconds.
    """
    for number, step in enumerate(steps, 1):
        yield step
        if number % every == 0 and platform.libc_ver()[0] == "glibc":
            ctypes.CDLL(None).malloc_trim(0)


def use_few_arenas() -> None:
    """Tells glibc to let the threads of a server share freed memory.

    Otherwise each thread keeps its own, and the process grows with the number of threads.
    """
    _set_options({ARENA_MAX: 2})


def _set_options(options: dict[int, int]) -> None:
    chosen = any(name.startswith("MALLOC_") for name in os.environ)
    if platform.libc_ver()[0] == "glibc" and not chosen:
        libc = ctypes.CDLL(None)
        for option, value in options.items():
            libc.mallopt(option, value)
