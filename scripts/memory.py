"""Trains a tiny model on much generated text and measures the memory: `python scripts/memory.py`. Linux only.

Counted is memory of the process's own, RssAnon + RssShmem of /proc/PID/status: pages of mapped files, which
the kernel takes back when it needs them, are told apart. Exit code 1 above the bound.
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
        print(f"{lines:,} lines, {(home / 'text.txt').stat().st_size / 1e6:,.0f} MB of text", flush=True)
        first = trained(home)
        again = trained(home, "--resume", "--train.steps", str(2 * STEPS))
    print(f"peak of its own memory: {first:,.0f} MB, of a run that goes on {again:,.0f} MB, bound {bound:,}")
    sys.exit(int(max(first, again) > bound))


def generate(path: Path, megabytes: int) -> int:
    """Writes sentences of the grammar, drawn again and again from some, and returns how many."""
    sentences, rng, lines = np.array(grammar.corpus(20_000), dtype=object), np.random.default_rng(0), 0
    with open(path, "w", encoding="utf-8") as file:
        while file.tell() < megabytes * 1e6:
            some = sentences[rng.integers(len(sentences), size=10_000)]
            file.write("\n".join(some) + "\n")
            lines += len(some)
    return lines


def trained(home: Path, *options: str) -> float:
    """Runs a training and returns the peak of its own memory in millions of bytes."""
    command = [sys.executable, str(Path(__file__).parent / "train_text.py"), "--run", str(home / "run")]
    command += ["--data.train", str(home / "text.txt"), *(f"--{key}={value}" for key, value in TINY.items()), *options]
    began, own, all_pages = time.monotonic(), 0.0, 0.0
    preparing, prepared = 0.0, 0.0
    process = subprocess.Popen(command, env={**os.environ, "HF_HOME": str(home / "cache")})
    while process.poll() is None:
        now = resident(process.pid)
        own, all_pages = max(own, now.get("RssAnon", 0) + now.get("RssShmem", 0)), max(all_pages, now.get("VmHWM", 0))
        if not preparing and any((home / "run" / "tokens").glob(".train-*.partial")):
            preparing = time.monotonic()
        if not prepared and any((home / "run" / "tokens").glob("train-*")):
            prepared = time.monotonic()
        time.sleep(0.02)
    if process.returncode:
        raise RuntimeError(f"the training ended with exit code {process.returncode}")
    print(f"  {time.monotonic() - began:,.0f} s, own memory {own:,.0f} MB, with pages of files {all_pages:,.0f} MB", flush=True)
    if preparing:
        (facts,) = (json.loads(path.read_text(encoding="utf-8")) for path in (home / "run" / "tokens").glob("train-*/facts.json"))
        tokens, seconds = facts["tokens"], prepared - preparing
        print(f"  {preparing - began:,.0f} s until the vocabulary was there, {tokens:,} tokens in {seconds:,.0f} s: {tokens / seconds:,.0f} a second")
    return own


def resident(pid: int) -> dict[str, float]:
    """What /proc tells of a process's memory, in millions of bytes."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:  # it has ended
        return {}
    return {name: int(kilobytes) * 1024 / 1e6 for name, kilobytes in re.findall(r"^(RssAnon|RssShmem|VmHWM):\s+(\d+) kB", status, re.MULTILINE)}


if __name__ == "__main__":
    auto_cli(memory, as_positional=False)
