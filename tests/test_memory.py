"""Laws of the memory allocator."""

import os
import platform
import subprocess
import sys

import pytest

PAGES = """
import resource, torch
from textdiff.memory import keep_freed_memory

def new_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

keep_freed_memory()
new_pages()  # the heap grows to its largest size
print(10 * 2**26 // resource.getpagesize(), new_pages())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are not changed")
@pytest.mark.parametrize("users_choice", [False, True])
def test_freed_memory_is_kept_for_later_tensors(users_choice: bool):
    """Memory that has just come from the kernel has pages that this process has never touched."""
    environment = {name: value for name, value in os.environ.items() if name[:7] != "MALLOC_"}
    if users_choice:
        environment["MALLOC_TRIM_THRESHOLD_"] = "131072"
    command = [sys.executable, "-c", PAGES]
    output = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout
    pages, new = map(int, output.split())
    assert (new > pages / 2) if users_choice else (new < pages / 100)


RETURNED = """
import psutil, torch
from textdiff.memory import keep_freed_memory, returning_unused_memory

def megabytes():
    return psutil.Process().memory_info().rss // 2**20

keep_freed_memory()
tensors = [torch.ones(2**18) for _ in range(400)]  # 400 MB
last = tensors[-1]
kept = megabytes()
tensors.clear()
freed = megabytes()
steps = [*returning_unused_memory([1, 2], every=2)]
print(kept, freed, megabytes(), int(last.sum()), *steps)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are not changed")
def test_unused_memory_returns_to_the_kernel():
    command = [sys.executable, "-c", RETURNED]
    environment = {name: value for name, value in os.environ.items() if name[:7] != "MALLOC_"}
    output = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout
    kept, freed, returned, last, *steps = map(int, output.split())
    assert kept - freed < 40
    assert freed - returned > 350
    assert (last, steps) == (2**18, [1, 2])
