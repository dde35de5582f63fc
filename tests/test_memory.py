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
