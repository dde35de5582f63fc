"""The demonstration: trains two models on the built-in grammar in some minutes and uses them.

They train side by side on half of the cores each, one with the x0 objective and rounding, one with
the eps objective. The grammar checks 500 samples of each. Writes runs/demo/report.json: the shares
of grammatical and of new sentences, the ratio of unigram entropies, and the seconds of training and
sampling. Then prints samples, a rewrite and an infill of the first model.
"""

import json
import math
import os
import shlex
import subprocess
import sys
import time
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from textdiff.cli.parser import quiet_libraries
from textdiff.config import SamplingConfig
from textdiff.sampling import collect
from textdiff.text import grammar
from textdiff.text.hub import load_model
from textdiff.text.requests import sample_request
from textdiff.text.sampling import generate

N, STEPS = 500, 32
CONFIG = ["--config", "configs/text_demo.yaml"]
RUNS = {"runs/demo": CONFIG, "runs/demo-eps": [*CONFIG, "--model.objective", "eps"]}
NAMES = ("x0 and rounding", "eps")
COLUMNS = "grammatical   new, of those   entropy ratio   seconds of training, sampling"
EXAMPLES = (
    "sample RUN --n 5",
    'rewrite RUN --text "the brave queen near the river paints herself ." --strength 0.5',
    'infill RUN --text "the [MASK] near the castle [MASK] themselves ."',
)


def main() -> None:
    """Trains and evaluates both models and prints what the first one can do."""
    ArgumentParser(description=(__doc__ or "").partition("\n")[0]).parse_args()
    quiet_libraries()
    training_seconds = train()
    reports = {run: evaluate(run, training_seconds[run]) for run in RUNS}
    first, second = RUNS
    path = Path(first) / "report.json"
    content = json.dumps({**reports[first], "eps_objective": reports[second]}, indent=2)
    path.write_text(content + "\n", encoding="utf-8")
    print_table(list(reports.values()))
    print(f"written to {path}\n")
    print_examples(first)


def train() -> dict[str, float]:
    """Trains both runs at once and returns the seconds of each.

    The progress of the first run is shown, that of the other one is written to a file.
    """
    threads = str(max(1, (os.cpu_count() or 2) // 2))
    print(f"training {' and '.join(RUNS)} side by side", flush=True)
    Path("runs").mkdir(exist_ok=True)
    began, processes = time.perf_counter(), {}
    for number, (run, options) in enumerate(RUNS.items()):
        log = open(f"{run}.log", "w", encoding="utf-8") if number else None  # noqa: SIM115
        command = textdiff("train", *options, "--run", run, "--overwrite")
        environment = {**os.environ, "OMP_NUM_THREADS": threads}
        processes[run] = subprocess.Popen(command, env=environment, stderr=log)
    seconds: dict[str, float] = {}
    while len(seconds) < len(processes):
        time.sleep(0.1)
        for run, process in processes.items():
            if process.poll() is not None and run not in seconds:
                seconds[run] = time.perf_counter() - began
                if process.returncode:
                    where = f": see {run}.log" if Path(f"{run}.log").exists() else ""
                    sys.exit(f"training {run} failed{where}")
    return seconds


def evaluate(run: str, training_seconds: float) -> dict[str, Any]:
    """Evaluates samples of a model with the grammar."""
    began = time.perf_counter()
    sentences = sample(run)
    grammatical = [sentence for sentence in sentences if grammar.judge(sentence)]
    new = sum(not grammar.in_training_share(sentence) for sentence in grammatical)
    return {
        "grammatical": len(grammatical) / N,
        "novel": new / max(1, len(grammatical)),
        "entropy_ratio": unigram_entropy(sentences) / grammar.unigram_entropy(),
        "samples": N,
        "steps": STEPS,
        "seconds": {"training": training_seconds, "sampling": time.perf_counter() - began},
    }


def sample(run: str) -> list[str]:
    """N sentences as the grammar needs them: tokens with single spaces between them."""
    model, tokenizer = load_model(run)
    config = SamplingConfig(steps=STEPS, seed=1, batch_size=250)
    batches = generate(model, tokenizer, sample_request(model, N, seed=1), config)
    return [" ".join(tokenizer.id_to_token(i) for i in ids) for ids in collect(batches)]


def unigram_entropy(sentences: Sequence[str]) -> float:
    """Entropy of the words in nats."""
    counts = Counter(word for sentence in sentences for word in sentence.split())
    total = counts.total()
    return -sum(count / total * math.log(count / total) for count in counts.values())


def print_table(reports: Sequence[dict[str, Any]]) -> None:
    """Prints a line for each model."""
    print(f"\n{N} samples, {STEPS} steps   {COLUMNS}")
    for name, row in zip(NAMES, reports, strict=True):
        shares = f"{row['grammatical']:12.1%} {row['novel']:15.1%} {row['entropy_ratio']:15.3f}"
        seconds = f"{row['seconds']['training']:.0f}, {row['seconds']['sampling']:.0f}"
        print(f"{name:24} {shares}   {seconds}")
    print(f"{'a perfect model':24} {1:12.1%} {1 - grammar.TRAINING_SHARE:15.1%} {1:15.3f}")


def print_examples(run: str) -> None:
    """Prints some commands that a user may try next, and runs them."""
    for example in EXAMPLES:
        command = example.replace("RUN", run)
        print(f"$ textdiff {command}", flush=True)
        subprocess.run(textdiff(*shlex.split(command)), check=True)


def textdiff(*arguments: str) -> list[str]:
    """A command of this environment's textdiff."""
    return [sys.executable, "-m", "textdiff", *arguments]


if __name__ == "__main__":
    main()
