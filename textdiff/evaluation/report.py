"""The report of an evaluation: a table, the same as JSON, samples to read, and figures."""

import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from textdiff.evaluation.evaluator import Evaluator, Row
from textdiff.evaluation.ngram import Bigram
from textdiff.evaluation.reference_lm import perplexity
from textdiff.evaluation.scores import by_position
from textdiff.evaluation.sentence_metrics import SentenceMetrics
from textdiff.table import table_lines

log = logging.getLogger("textdiff")

R = TypeVar("R", bound=Row)


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


def report_rows(
    report: dict[str, Any],
    rows: Iterable[R],
    metrics_of: Callable[[R], dict[str, Any]],
    sentence_metrics: SentenceMetrics,
    folder: Path,
    sources: Sequence[str] = (),
) -> dict[str, Any]:
    """Adds rows to a report and writes it after each of them; returns it.

    Args:
        metrics_of: Function row -> metrics.
        sources: As in `write_report`.
    """
    done = list[R]()
    for row in rows:
        done.append(row)
        report["table"][row.name] = metrics_of(row)
        # the next row may take an hour
        write_report(report, done, sentence_metrics, folder, sources)
    return report


def report_lines(report: dict[str, Any]) -> Iterator[str]:
    """The table as text, and the quality of the reference model or what the scores are."""
    yield from table_lines(report["table"])
    for name, signature in report.get("signatures", {}).items():
        yield f"{name}: {signature}"
    if "reference_lm" not in report:
        return
    line = (
        "the reference model on held-out text: {held_out_nats_per_token:.3f} nats per token, "
        "perplexity {held_out_perplexity:.2f} (bigrams: {bigram_perplexity:.2f})"
    )
    yield line.format(**report["reference_lm"])


def write_report(
    report: dict[str, Any],
    rows: Sequence[Row],
    sentence_metrics: SentenceMetrics,
    folder: Path,
    sources: Sequence[str] = (),
) -> None:
    """Writes report.json, with nats by position, samples.txt and figures.png.

    Args:
        sources: Sources of the sentences of each row, if these are targets.
    """
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
            texts = sentence_metrics.texts(row.sentences[:20])
            pairs = zip(sources, texts, strict=False)
            shown = [f"{source}\n    {text}" for source, text in pairs] if sources else texts
            print(f"# {row.name}", *shown, "", sep="\n", file=file)
            print(f"## {row.name}: nearest training sentences of the first five", file=file)
            nearest = sentence_metrics.neighbors(texts[:5])
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
