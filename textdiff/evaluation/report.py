"""The report of an evaluation: a table, the same as JSON, samples to read, and figures."""

import json
import logging
import math
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from textdiff.evaluation.evaluator import Evaluator, Row
from textdiff.evaluation.ngram import Bigram
from textdiff.evaluation.reference_lm import perplexity
from textdiff.evaluation.scores import by_position
from textdiff.table import table_lines

log = logging.getLogger("textdiff")


def start_report(evaluator: Evaluator) -> dict[str, Any]:
    """The content of report.json, without rows."""
    scored, reference_lm = evaluator.scored, evaluator.reference_lm
    tokens = sum(map(len, scored))
    bigram = Bigram(evaluator.training, evaluator.tokenizer.get_vocab_size())
    bigram_nats = sum(map(bigram.nats, scored))
    quality = {
        "held_out_nats_per_token": float(reference_lm.nats(scored).sum() / tokens),
        "held_out_perplexity": perplexity(reference_lm, scored),
        "bigram_perplexity": math.exp(bigram_nats / (tokens + len(scored))),
    }
    if quality["held_out_perplexity"] > quality["bigram_perplexity"]:
        log.warning(
            "the reference model predicts held-out text worse than bigrams, so perplexities mean "
            "little: raise --reference_minutes"
        )
    return {"table": {}, "reference_lm": quality}


def report_lines(report: dict[str, Any]) -> Iterator[str]:
    """The table as text, and the quality of the reference model."""
    yield from table_lines(report["table"])
    line = (
        "the reference model on held-out text: {held_out_nats_per_token:.3f} nats per token, "
        "perplexity {held_out_perplexity:.2f} (bigrams: {bigram_perplexity:.2f})"
    )
    yield line.format(**report["reference_lm"])


def write_report(
    report: dict[str, Any], rows: Sequence[Row], evaluator: Evaluator, folder: Path
) -> None:
    """Writes report.json, with nats by position, samples.txt and figures.png."""
    report["positions"] = {
        row.name.partition(",")[0]: by_position(row.scores.words)  # once for all numbers of steps
        for row in rows
        if row.scores and row.scores.words is not None
    }
    folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps(report, indent=2) + "\n"
    (folder / "report.json").write_text(content, encoding="utf-8")
    with open(folder / "samples.txt", "w", encoding="utf-8") as file:
        for row in rows:
            texts = evaluator.texts(row.sentences[:20])
            print(f"# {row.name}", *texts, "", sep="\n", file=file)
            print(f"## {row.name}: nearest training sentences of the first five", file=file)
            nearest = evaluator.neighbors(texts[:5])
            lines = (f"{similarity:.2f}  {text}" for similarity, text in nearest)
            print(*lines, "", sep="\n", file=file)
    _draw(report, rows, folder / "figures.png")


def _draw(report: dict[str, Any], rows: Sequence[Row], path: Path) -> None:
    """Draws token recovery, sentence lengths, and nats by position."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(15, 3.6), layout="constrained")
    if recovery := report["recovery"]:
        left.plot(recovery["logsnr"], recovery["share"], marker="o")
    left.set(title="Recovered words of held-out text", xlabel="log SNR")
    left.set(ylabel="share of words", ylim=(0, 1))
    for row in islice(rows, 8):
        lengths = [len(sentence) for sentence in row.sentences]
        sizes, counts = np.unique(lengths, return_counts=True)
        middle.plot(sizes, counts / counts.sum(), label=row.name)
    middle.set(xlabel="tokens", ylabel="share of sentences", title="Length")
    middle.legend()
    for name, found in report["positions"].items():
        nats, error = np.array(found["nats"]), np.array(found["error"])
        place = np.arange(1, len(nats) + 1)
        right.plot(place, nats, label=name)
        right.fill_between(place, nats - error, nats + error, alpha=0.3)
    right.set(title="Nats of held-out words", xlabel="position in the sentence", ylabel="nats")
    if report["positions"]:
        right.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)
