"""The five-minute tour: trains on the built-in grammar, judges 500 samples with the grammar itself, and shows a rewrite and an infill.

Writes runs/demo/report.json: the shares of grammatical and of new sentences, the ratio of unigram entropies, and the seconds it took, for the
default objective and, beside it, for the plain eps-loss.
"""

import json
import math
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from textdiff import grammar
from textdiff.config import Sampling
from textdiff.generate import from_noise, generate, load

CONFIG = "configs/text_demo.yaml"
N, STEPS = 500, 32


def main() -> None:
    rows = {"default": report("runs/demo"), "eps": report("runs/demo-eps", "--model.objective", "eps", "--model.schedule", "cosine")}
    path = Path("runs/demo/report.json")
    path.write_text(json.dumps({**rows["default"], "eps_objective": rows["eps"]}, indent=2) + "\n")
    print(f"\n{N} samples, {STEPS} steps          grammatical   new among those   unigram entropy / the language's   seconds to train, to sample")
    for name, row in rows.items():
        print(
            f"  {name:24} {row['grammatical']:12.1%} {row['novel']:16.1%} {row['entropy_ratio']:25.3f} {row['seconds']['training']:22.0f}, "
            f"{row['seconds']['sampling']:.0f}"
        )
    print(f"a perfect model has 100 %, {1 - grammar.TRAINING_SHARE:.0%} (the language's share that training never shows) and 1; written to {path}\n")
    for command in (
        ["sample", "runs/demo", "--n", "5"],
        ["rewrite", "runs/demo", "--text", "today the brave queen near the river paints herself .", "--strength", "0.5"],
        ["infill", "runs/demo", "--text", "yesterday the [MASK] near the castle [MASK] themselves ."],
    ):
        print("$ textdiff " + " ".join(f'"{word}"' if " " in word else word for word in command), flush=True)
        textdiff(*command)


def report(run: str, *options: str) -> dict[str, Any]:
    """Trains a model and judges what it writes."""
    began = time.perf_counter()
    textdiff("train", "--config", CONFIG, "--run", run, "--overwrite", *options)
    trained = time.perf_counter()
    sentences = write(run)
    good = [sentence for sentence in sentences if grammar.judge(sentence)]
    return {
        "grammatical": len(good) / N,
        "novel": sum(not grammar.in_training_share(sentence) for sentence in good) / max(1, len(good)),
        "entropy_ratio": unigram_entropy(sentences) / grammar.unigram_entropy(),
        "seconds": {"training": trained - began, "sampling": time.perf_counter() - trained},
        "steps": STEPS,
    }


def write(run: str) -> list[str]:
    """N sentences as the grammar spells them: tokens with single spaces."""
    model, tokenizer = load(run)
    drafts = generate(model, tokenizer, from_noise(model, N, seed=1), Sampling(steps=STEPS, seed=1, batch_size=250))
    done = (ids for draft in drafts if draft.step == draft.steps for ids in draft.sentences())
    return [" ".join(tokenizer.id_to_token(i) for i in ids) for ids in done]


def unigram_entropy(sentences: list[str]) -> float:
    """In nats."""
    counts = Counter(word for sentence in sentences for word in sentence.split())
    total = sum(counts.values())
    return -sum(count / total * math.log(count / total) for count in counts.values())


def textdiff(*arguments: str) -> None:
    """As a user would type it; stops where the command fails."""
    if subprocess.run([Path(sys.executable).with_name("textdiff"), *arguments], check=False).returncode:
        sys.exit(f"textdiff {' '.join(arguments)} failed")


if __name__ == "__main__":
    main()
