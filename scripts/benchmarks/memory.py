"""Memory of training on a large text: `python scripts/benchmarks/memory.py`. Linux only.

A tiny model is trained on generated text, and the run is resumed. Measured is the private memory of
the process, RssAnon + RssShmem in /proc/PID/status. Pages of mapped files are counted separately,
because the kernel can free them at any time. The exit code is 1 if the memory exceeds the bound.
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

from textdiff.cli.parser import run_script
from textdiff.text import grammar

STEPS = 30
OPTIONS = {
    "model.embed_dim": 8,
    "model.width": 16,
    "model.depth": 1,
    "model.heads": 2,
    "train.steps": STEPS,
    "train.batch_size": 64,
    "train.warmup": 5,
    "train.precision": "no",
}
UNFINISHED, FINISHED = ".train-*.partial", "train-*"  # folders of the token cache


def memory(megabytes: int = 2000, bound: int = 1500, folder: str | None = None) -> None:
    """Print sizes, times, the speed of the preparation and the peak memory of a training.

    Args:
        megabytes: Size of the text.
        bound: Largest allowed memory in megabytes.
        folder: Folder for temporary files, about four times as large as the text.
    """
    with tempfile.TemporaryDirectory(prefix="textdiff-memory-", dir=folder) as name:
        home = Path(name)
        lines = write_text(home / "text.txt", megabytes)
        print(f"{lines:,} lines, {megabytes:,} MB of text", flush=True)
        first = train(home)
        resumed = train(home, "--resume", "--train.steps", str(2 * STEPS))
    print(f"peak private memory: {first:,.0f} MB, resumed {resumed:,.0f} MB, bound {bound:,} MB")
    sys.exit(int(max(first, resumed) > bound))


def write_text(path: Path, megabytes: int) -> int:
    """Writes random sentences of the built-in grammar and returns their number."""
    sentences = np.array(grammar.corpus(20_000), dtype=object)
    rng, lines = np.random.default_rng(0), 0
    with open(path, "w", encoding="utf-8") as file:
        while file.tell() < megabytes * 1e6:
            chosen = sentences[rng.integers(len(sentences), size=10_000)]
            file.write("\n".join(chosen) + "\n")
            lines += len(chosen)
    return lines


def train(home: Path, *options: str) -> float:
    """Trains a run and returns its peak private memory in megabytes."""
    script, tokens = Path(__file__).parents[1] / "train_text.py", home / "run" / "tokens"
    given = {"run": home / "run", "data.train": home / "text.txt", **OPTIONS}
    command = [sys.executable, str(script), *(f"--{k}={v}" for k, v in given.items()), *options]
    peak, appeared = dict[str, float](), dict[str, float]()
    began = time.monotonic()
    process = subprocess.Popen(command, env={**os.environ, "HF_HOME": str(home / "cache")})
    while process.poll() is None:
        for name, size in resident_megabytes(process.pid).items():
            peak[name] = max(peak.get(name, 0), size)
        for name in (UNFINISHED, FINISHED):
            if name not in appeared and any(tokens.glob(name)):
                appeared[name] = time.monotonic() - began
        time.sleep(0.02)
    if process.returncode:
        raise RuntimeError(f"the training ended with exit code {process.returncode}")
    seconds, own, total = time.monotonic() - began, peak["own"], peak["all"]
    print(f"  {seconds:,.0f} s, private memory {own:,.0f} MB, with mapped files {total:,.0f} MB")
    if UNFINISHED in appeared:
        start, end = appeared[UNFINISHED], appeared[FINISHED]
        (facts,) = tokens.glob("train-*/facts.json")
        count = json.loads(facts.read_text(encoding="utf-8"))["tokens"]
        speed = f"{count / (end - start):,.0f} tokens per second"
        print(f"  vocabulary after {start:,.0f} s")
        print(f"  {count:,} tokens in {end - start:,.0f} s, {speed}", flush=True)
    return own


def resident_megabytes(pid: int) -> dict[str, float]:
    """Private memory of a process, and its peak memory with pages of files. Empty if it ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return {}
    found = re.findall(r"^(Rss\w+|VmHWM):\s+(\d+) kB", status, re.MULTILINE)
    size = {name: int(kilobytes) * 1024 / 1e6 for name, kilobytes in found}
    if not size:
        return {}
    return {"own": size["RssAnon"] + size["RssShmem"], "all": size["VmHWM"]}


if __name__ == "__main__":
    run_script(memory)
