"""Load of the page: `python scripts/benchmarks/page.py --model RUN`. Needs the extra `demo`.

Starts `textdiff demo` and sends requests of the first tab as it is, each from a new session. Prints
the seconds until the first text, for 32 requests at once how many are answered, the seconds of all
and the longest time in which the page itself answered meanwhile, and the private memory after 20
and after 200 requests. The exit code is 1 if a request is lost or a bound is exceeded. Linux only.
"""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
from gradio_client import Client

from textdiff.cli.parser import run_script

AT_ONCE, FEW, MANY = 32, 20, 200
MOST_SECONDS = {"first text": 2.0, "page": 1.0}
MOST_GROWTH = 1.1  # of the memory


def page(model: str, port: int = 7869) -> None:
    """Print the figures of the page under load.

    Args:
        model: Run folder of a text model.
        port: Port of the page.
    """
    address = f"http://127.0.0.1:{port}/"
    with served(model, port, address) as process:
        first = first_text(address)
        print(f"first text after {first:.2f} s", flush=True)
        for _ in range(FEW - 1):
            request(address)
        few = private_memory(process.pid)
        answered, seconds, slowest = at_once(address)
        print(f"{answered} of {AT_ONCE} requests at once answered in {seconds:.1f} s", flush=True)
        print(f"the page answered within {slowest:.2f} s meanwhile", flush=True)
        for _ in range(MANY - FEW - AT_ONCE):
            request(address)
        many = private_memory(process.pid)
    print(f"private memory: {few:.0f} MB after {FEW} requests, {many:.0f} MB after {MANY}")
    within = first <= MOST_SECONDS["first text"] and slowest <= MOST_SECONDS["page"]
    sys.exit(int(answered < AT_ONCE or not within or many > MOST_GROWTH * few))


@contextmanager
def served(model: str, port: int, address: str) -> Iterator[subprocess.Popen[bytes]]:
    """The process of a page, which is ended at the end."""
    command = [sys.executable, "-m", "textdiff", "demo", model, "--port", str(port)]
    process = subprocess.Popen(command)
    try:
        while process.poll() is None:
            try:
                httpx.get(address, timeout=5)
                break
            except httpx.TransportError:
                time.sleep(0.2)
        yield process
    finally:
        process.terminate()
        process.wait()


def request(address: str) -> bool:
    """Does a request in a new session; returns whether the last step arrived."""
    client = Client(address, verbose=False)
    last = client.predict(api_name="/write")
    client.close()
    return len(last["frames"]) == last["steps"] > 0


def first_text(address: str) -> float:
    """Seconds from a request to its first step."""
    client = Client(address, verbose=False)
    began = time.perf_counter()
    next(iter(client.submit(api_name="/write")))
    return time.perf_counter() - began


def at_once(address: str) -> tuple[int, float, float]:
    """Number of answered requests, seconds of all, and of the slowest answer of the page."""
    began, slowest = time.perf_counter(), 0.0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = [pool.submit(request, address) for _ in range(AT_ONCE)]
        while not all(each.done() for each in found):
            asked = time.perf_counter()
            httpx.get(address, timeout=60).raise_for_status()
            slowest = max(slowest, time.perf_counter() - asked)
            time.sleep(0.1)
    answered = sum(each.exception() is None and each.result() for each in found)
    return answered, time.perf_counter() - began, slowest


def private_memory(pid: int) -> float:
    """Private memory of a process in MB."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    sizes = re.findall(r"(?:RssAnon|RssShmem):\s+(\d+) kB", status)
    return sum(map(int, sizes)) / 1024


if __name__ == "__main__":
    run_script(page)
