"""The five-minute tour: trains on the built-in grammar, judges 500 samples with the grammar itself, and shows a rewrite and an infill.

Two models train side by side on half the cores each, one by the x0-loss with rounding, one by the plain eps-loss. Writes
runs/demo/report.json: the shares of grammatical and of new sentences, the ratio of unigram entropies, and the seconds of training and
sampling, for both.
"""

import json
import math
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from textdiff import grammar
from textdiff.config import Sampling
from textdiff.generate import finished, from_noise, generate, load
from textdiff.parser import hush_libraries

N, STEPS = 500, 32
RUNS = {
    "runs/demo": ["--config", "configs/text_demo.yaml"],
    "runs/demo-eps": ["--config", "configs/text_demo.yaml", "--model.objective", "eps", "--model.schedule", "cosine", "--model.logsnr_max", "9"],
}


def main() -> None:
    hush_libraries()
    seconds = train()
    reports = {run: {**report(run), "training_seconds": seconds[run]} for run in RUNS}
    for row in reports.values():
        row["seconds"] = {"training": row.pop("training_seconds"), "sampling": row.pop("sampling_seconds")}
    first, second = RUNS
    path = Path(first) / "report.json"
    path.write_text(json.dumps({**reports[first], "eps_objective": reports[second]}, indent=2) + "\n", encoding="utf-8")
    show(reports)
    print(f"written to {path}\n")
    tour(first)


def train() -> dict[str, float]:
    """Both runs at once; the first one's progress is shown, the other's is kept in its folder. Seconds each took."""
    half = {**os.environ, "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 2) // 2))}
    print(f"training {' and '.join(RUNS)} side by side", flush=True)
    Path("runs").mkdir(exist_ok=True)
    began, running = time.perf_counter(), {}
    for number, (run, options) in enumerate(RUNS.items()):
        log = open(f"{run}.log", "w", encoding="utf-8") if number else None  # noqa: SIM115
        running[run] = subprocess.Popen(textdiff("train", *options, "--run", run, "--overwrite"), env=half, stderr=log)
    seconds: dict[str, float] = {}
    while len(seconds) < len(running):
        time.sleep(0.1)
        for run, process in running.items():
            if process.poll() is not None and run not in seconds:
                seconds[run] = time.perf_counter() - began
                if process.returncode:
                    sys.exit(f"training {run} failed: see {run}.log")
    return seconds


def report(run: str) -> dict[str, Any]:
    """Judges what a model writes."""
    began = time.perf_counter()
    sentences = write(run)
    good = [sentence for sentence in sentences if grammar.judge(sentence)]
    return {
        "grammatical": len(good) / N,
        "novel": sum(not grammar.in_training_share(sentence) for sentence in good) / max(1, len(good)),
        "entropy_ratio": unigram_entropy(sentences) / grammar.unigram_entropy(),
        "sampling_seconds": time.perf_counter() - began,
        "samples": N,
        "steps": STEPS,
    }


def write(run: str) -> list[str]:
    """N sentences as the grammar spells them: tokens with single spaces."""
    model, tokenizer = load(run)
    drafts = generate(model, tokenizer, from_noise(model, N, seed=1), Sampling(steps=STEPS, seed=1, batch_size=250))
    return [" ".join(tokenizer.id_to_token(i) for i in ids) for ids in finished(drafts)]


def unigram_entropy(sentences: list[str]) -> float:
    """In nats."""
    counts = Counter(word for sentence in sentences for word in sentence.split())
    total = sum(counts.values())
    return -sum(count / total * math.log(count / total) for count in counts.values())


def show(reports: dict[str, dict[str, Any]]) -> None:
    print(f"\n{N} samples, {STEPS} steps   grammatical   new, of those   entropy ratio   seconds of training, sampling")
    for name, row in zip(("x0 and rounding", "eps-loss"), reports.values(), strict=True):
        seconds = f"{row['seconds']['training']:.0f}, {row['seconds']['sampling']:.0f}"
        print(f"{name:24} {row['grammatical']:12.1%} {row['novel']:15.1%} {row['entropy_ratio']:15.3f}   {seconds}")
    print(f"{'a perfect model':24} {1:12.1%} {1 - grammar.TRAINING_SHARE:15.1%} {1:15.3f}")


def tour(run: str) -> None:
    """The commands a reader would type next, and what they print."""
    for arguments in (
        ["sample", run, "--n", "5"],
        ["rewrite", run, "--text", "the brave queen near the river paints herself .", "--strength", "0.5"],
        ["infill", run, "--text", "the [MASK] near the castle [MASK] themselves ."],
    ):
        print("$ textdiff " + " ".join(f'"{word}"' if " " in word else word for word in arguments), flush=True)
        subprocess.run(textdiff(*arguments), check=True)


def textdiff(*arguments: str) -> list[str]:
    """The `textdiff` command of this environment."""
    return [sys.executable, "-m", "textdiff", *arguments]


if __name__ == "__main__":
    main()
