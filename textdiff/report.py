"""What an evaluation shows: a table with the same figures for every writer, the same as JSON, samples to read, and two figures."""

import json
import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from tokenizers import Tokenizer

from textdiff import grammar, metrics
from textdiff.baselines import Bigram
from textdiff.metrics import Sentence
from textdiff.table import lines
from textdiff.teacher import Teacher, perplexity
from textdiff.vocab import PAD, UNK

log = logging.getLogger("textdiff")

SLOW = 200  # sentences that are looked up in the training text, or compared with each other


@dataclass
class Row:
    """What one writer wrote, and what it thinks of held-out text (nats a sentence; none: it cannot say)."""

    name: str
    sentences: list[Sentence]
    nats: np.ndarray | None = None
    ode_nats: np.ndarray | None = None
    seconds: float | None = None
    evaluations: int | None = None
    dtype: str | None = None


@dataclass
class Judge:
    """All that a row is measured against.

    Args:
        scored: Held-out sentences whose likelihood the rows say.
        reference: Other held-out sentences, which rows are told apart from.
        of_grammar: Whether the text is of the built-in grammar, which judges every row.
    """

    scored: list[Sentence]
    reference: list[Sentence]
    training: list[Sentence]
    teacher: Teacher
    tokenizer: Tokenizer
    mauve: bool = False
    of_grammar: bool = False

    def __post_init__(self) -> None:
        self.copies = metrics.Copies(self.training)
        self.nearest = metrics.Nearest(self.texts(self.training))
        self.real, self.real_features = self.texts(self.reference), self._features(self.reference)
        self.words_per_token = sum(len(text.split()) for text in self.texts(self.scored)) / sum(map(len, self.scored))

    def texts(self, sentences: Sequence[Sentence]) -> list[str]:
        return [self.tokenizer.decode(list(sentence)) for sentence in sentences]

    def _features(self, sentences: Sequence[Sentence]) -> Float[np.ndarray, "n w"]:
        """What the teacher sees in each: its state of mind at the end, its surprise at a token, and the length."""
        sizes = np.array([len(sentence) for sentence in sentences])
        return np.column_stack([self.teacher.features(sentences), self.teacher.nats(sentences) / np.maximum(sizes, 1), sizes])

    def figures(self, row: Row) -> dict[str, Any]:
        """A row of the table."""
        texts, sizes = self.texts(row.sentences), [len(sentence) for sentence in row.sentences]
        tokens: Counter[int | None] = Counter(token for sentence in row.sentences for token in sentence)
        features = self._features(row.sentences)
        told = metrics.two_sample_accuracy(self.real, texts)
        told_by_teacher = metrics.two_sample_accuracy(self.real, texts, (self.real_features, features))
        figures: dict[str, Any] = {
            **self._likelihood(row),
            "teacher_perplexity": perplexity(self.teacher, row.sentences),
            "unigram_entropy": metrics.unigram_entropy(row.sentences),
            **{f"distinct_{k}": metrics.distinct(row.sentences, k) for k in range(1, 5)},
            "self_bleu": metrics.self_bleu(texts, SLOW),
            "length_mean": float(np.mean(sizes)),
            "length_std": float(np.std(sizes)),
            **{f"{mark.strip('[]').lower()}_rate": tokens[self.tokenizer.token_to_id(mark)] / tokens.total() for mark in (UNK, PAD)},
            "novel": self.copies.novel(row.sentences),
            "copied_8grams": self.copies.copied(row.sentences, 8),
            "longest_copied_ngram": float(np.mean([self.copies.longest_copied(sentence) for sentence in row.sentences[:SLOW]])),
            "nearest_similarity": float(np.mean([similarity for similarity, _ in self.nearest(texts[:SLOW])])),
            "two_sample_accuracy": told and told[0],
            "two_sample_interval": told and list(told[1:]),
            "two_sample_by_teacher": told_by_teacher and told_by_teacher[0],
            "by_teacher_interval": told_by_teacher and list(told_by_teacher[1:]),
        }
        if self.of_grammar:
            figures["grammatical"] = sum(map(self._grammatical, row.sentences)) / len(row.sentences)
        if self.mauve:
            figures["mauve"] = metrics.mauve(self.real_features[:, :-2], features[:, :-2])
        return figures | {
            "seconds_per_1000": row.seconds and 1000 * row.seconds / len(row.sentences),
            "evaluations": row.evaluations,
            "dtype": row.dtype,
            "sentences": len(row.sentences),
        }

    def _grammatical(self, sentence: Sentence) -> bool:
        return grammar.judge(" ".join(str(self.tokenizer.id_to_token(i)) for i in sentence))

    def _likelihood(self, row: Row) -> dict[str, float | None]:
        """Nats a token and a word; a ratio of sums, whose error is that of the residuals. The end of a sentence is coded, not counted."""
        figures: dict[str, float | None] = {}
        for name, nats in (("nats", row.nats), ("ode_nats", row.ode_nats)):
            if nats is None:
                figures |= {f"{name}_per_token": None, f"{name}_error": None, f"{name}_per_word": None}
                continue
            sizes = np.array([len(sentence) for sentence in self.scored])[: len(nats)]
            ratio = float(nats.sum() / sizes.sum())
            error = float((nats - ratio * sizes).std() / math.sqrt(len(sizes)) / sizes.mean())
            figures |= {f"{name}_per_token": ratio, f"{name}_error": error, f"{name}_per_word": ratio / self.words_per_token}
        return figures


def report(judge: Judge) -> dict[str, Any]:
    """What report.json holds, as yet without rows."""
    nats = float(judge.teacher.nats(judge.scored).sum() / sum(map(len, judge.scored)))
    bigram = Bigram(judge.training, judge.tokenizer.get_vocab_size())
    counted = math.exp(sum(map(bigram.nats, judge.scored)) / sum(len(sentence) + 1 for sentence in judge.scored))
    judges = {"held_out_nats_per_token": nats, "held_out_perplexity": perplexity(judge.teacher, judge.scored), "bigram_perplexity": counted}
    if judges["held_out_perplexity"] > counted:
        log.warning("the teacher predicts held-out text worse than bigrams do, so its judgement means little: raise --teacher_minutes")
    return {"table": {}, "teacher": judges}


def show(report: dict[str, Any]) -> Iterator[str]:
    """The table as text, and what to think of the teacher."""
    yield from lines(report["table"])
    teacher = report["teacher"]
    own = "the teacher on held-out text: {held_out_nats_per_token:.3f} nats a token, perplexity {held_out_perplexity:.2f}"
    yield (own + " (bigrams: {bigram_perplexity:.2f})").format(**teacher)


def write(report: dict[str, Any], rows: list[Row], judge: Judge, folder: Path) -> None:
    """report.json, samples.txt, figures.png."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    with open(folder / "samples.txt", "w", encoding="utf-8") as file:
        for row in rows:
            texts = judge.texts(row.sentences[:20])
            print(f"# {row.name}", *texts, "", sep="\n", file=file)
            print(f"## {row.name}: the training sentences nearest to the first five", file=file)
            print(*(f"{similarity:.2f}  {text}" for similarity, text in judge.nearest(texts[:5])), "", sep="\n", file=file)
    _draw(report, rows, folder / "figures.png")


def _draw(report: dict[str, Any], rows: list[Row], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    if recovery := report["recovery"]:
        left.plot(recovery["logsnr"], recovery["share"], marker="o")
    left.set(xlabel="log SNR", ylabel="share of words found again", ylim=(0, 1), title="Recovery of held-out words against noise")
    for row in islice(rows, 8):
        sizes, counts = np.unique([len(sentence) for sentence in row.sentences], return_counts=True)
        right.plot(sizes, counts / counts.sum(), label=row.name)
    right.set(xlabel="tokens", ylabel="share of sentences", title="Length")
    right.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)
