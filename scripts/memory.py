"""Measures the memory of a training on much generated text: `python scripts/memory.py`. Linux only.

A tiny model is trained and gone on with. Counted is the memory of the process's own, RssAnon +
RssShmem of /proc/PID/status: pages of mapped files, which the kernel takes back when it needs them,
are told apart. Exit code 1 above the bound.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from jsonargparse import auto_cli

from textdiff import grammar

STEPS = 30
TINY = {
    "model.embed_dim": 8,
    "model.width": 16,
    "model.depth": 1,
    "model.heads": 2,
    "train.steps": STEPS,
    "train.batch_size": 64,
    "train.warmup": 5,
    "train.precision": "no",
}


def memory(megabytes: int = 2000, bound: int = 1500, folder: str | None = None) -> None:
    """Prints sizes, times, the speed of the preparation and the peak of the memory.

    Args:
        megabytes: Size of the text.
        bound: Of the memory, in millions of bytes.
        folder: Where some four times as much as the text has room for a while.
    """
    with tempfile.TemporaryDirectory(prefix="textdiff-memory-", dir=folder) as name:
        home = Path(name)
        lines = generate(home / "text.txt", megabytes)
        print(f"{lines:,} lines, {megabytes:,} MB of text", flush=True)
        first = trained(home)
        again = trained(home, "--resume", "--train.steps", str(2 * STEPS))
    print(f"peak of its own memory: {first:,.0f} MB, resumed {again:,.0f} MB, bound {bound:,}")
    sys.exit(int(max(first, again) > bound))


def generate(path: Path, megabytes: int) -> int:
    """Writes sentences of the grammar, drawn again and again from some, and returns how many."""
    sentences = np.array(grammar.corpus(20_000), dtype=object)
    rng, lines = np.random.default_rng(0), 0
    with open(path, "w", encoding="utf-8") as file:
        while file.tell() < megabytes * 1e6:
            some = sentences[rng.integers(len(sentences), size=10_000)]
            file.write("\n".join(some) + "\n")
            lines += len(some)
    return lines


def trained(home: Path, *options: str) -> float:
    """Runs a training and returns the peak of its own memory in millions of bytes."""
    script, tokens = Path(__file__).parent / "train_text.py", home / "run" / "tokens"
    given = {"run": home / "run", "data.train": home / "text.txt", **TINY}
    command = [sys.executable, str(script), *(f"--{k}={v}" for k, v in given.items()), *options]
    peak, times = dict[str, float](), dict[str, float]()  # times: of what is first seen when
    began = time.monotonic()
    process = subprocess.Popen(command, env={**os.environ, "HF_HOME": str(home / "cache")})
    while process.poll() is None:
        for name, size in resident(process.pid).items():
            peak[name] = max(peak.get(name, 0), size)
        for name in (".train-*.partial", "train-*"):
            if name not in times and any(tokens.glob(name)):
                times[name] = time.monotonic() - began
        time.sleep(0.02)
    if process.returncode:
        raise RuntimeError(f"the training ended with exit code {process.returncode}")
    seconds = time.monotonic() - began
    print(f"  {seconds:,.0f} s, memory {peak['own']:,.0f} MB, with files {peak['all']:,.0f} MB")
    if ".train-*.partial" in times:
        start, end = times[".train-*.partial"], times["train-*"]
        (facts,) = tokens.glob("train-*/facts.json")
        count = json.loads(facts.read_text(encoding="utf-8"))["tokens"]
        print(f"  {start:,.0f} s until the vocabulary was there, {count:,} tokens in")
        print(f"  {end - start:,.0f} s, {count / (end - start):,.0f} a second", flush=True)
    return peak["own"]


def resident(pid: int) -> dict[str, float]:
    """Memory of a process of its own, and with pages of files, in millions of bytes."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:  # it has ended
        return {}
    found = re.findall(r"^(Rss\w+|VmHWM):\s+(\d+) kB", status, re.MULTILINE)
    size = {name: int(kilobytes) * 1024 / 1e6 for name, kilobytes in found}
    if not size:  # it is ending
        return {}
    return {"own": size["RssAnon"] + size["RssShmem"], "all": size["VmHWM"]}


if __name__ == "__main__":
    auto_cli(memory, as_positional=False)
