"""Metrics of the rows of an evaluation table."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from tokenizers import Tokenizer

from textdiff.evaluation import metrics
from textdiff.evaluation.reference_lm import ReferenceLM, perplexity
from textdiff.evaluation.scores import Scores
from textdiff.text import grammar
from textdiff.text.diagnostics import Sentence, unigram_entropy
from textdiff.text.tokenizer import PAD, UNK

SLOW = 200  # number of sentences per row in metrics that take long


@dataclass
class Row:
    """A row of the table: sentences of one source.

    Args:
        name: Name of the row.
        sentences: The sentences.
        scores: Nats of the held-out sentences under the source's own model, if it has one.
        seconds: Time to sample the sentences.
        evaluations: Network evaluations per sentence.
        dtype: Precision of sampling.
    """

    name: str
    sentences: list[Sentence]
    scores: Scores | None = None
    seconds: float | None = None
    evaluations: int | None = None
    dtype: str | None = None


@dataclass
class Evaluator:
    """Computes the metrics of rows.

    Args:
        scored: Held-out sentences whose likelihood is estimated.
        reference: Other held-out sentences, which all rows are compared with.
        training: The training sentences.
        reference_lm: Model that measures perplexity.
        tokenizer: Tokenizer of the model.
        mauve: Whether MAUVE is computed.
        grammar: Whether the text is of the built-in grammar, which can check sentences.
    """

    scored: list[Sentence]
    reference: list[Sentence]
    training: list[Sentence]
    reference_lm: ReferenceLM
    tokenizer: Tokenizer
    mauve: bool = False
    grammar: bool = False

    def __post_init__(self) -> None:
        self.overlap = metrics.NgramOverlap(self.training)
        self.neighbors = metrics.NearestNeighbor(self.texts(self.training))
        self.real = self.texts(self.reference)
        self.real_features = self._features(self.reference)
        words = sum(len(text.split()) for text in self.texts(self.scored))
        self.words_per_token = words / sum(map(len, self.scored))

    def texts(self, sentences: Sequence[Sentence]) -> list[str]:
        """The sentences as text."""
        return [self.tokenizer.decode(list(sentence)) for sentence in sentences]

    def metrics_of(self, row: Row) -> dict[str, Any]:
        """All metrics of a row."""
        features = self._features(row.sentences)
        found = self._likelihood(row) | self._text_metrics(row) | self._two_sample(row, features)
        if self.grammar:
            grammatical = sum(map(self._is_grammatical, row.sentences))
            found["grammatical"] = grammatical / len(row.sentences)
        if self.mauve:
            hidden_states = self.real_features[:, :-2], features[:, :-2]
            found["mauve"] = metrics.mauve(*hidden_states)
        per_1000 = row.seconds and 1000 * row.seconds / len(row.sentences)
        return found | {
            "seconds_per_1000": per_1000,
            "evaluations": row.evaluations,
            "dtype": row.dtype,
            "sentences": len(row.sentences),
        }

    def _text_metrics(self, row: Row) -> dict[str, Any]:
        """Metrics of the sentences alone, and of their overlap with the training text."""
        sentences, texts = row.sentences, self.texts(row.sentences)
        lengths = [len(sentence) for sentence in sentences]
        counts: Counter[int | None] = Counter(token for s in sentences for token in s)
        unknown, padding = (counts[self.tokenizer.token_to_id(token)] for token in (UNK, PAD))
        longest = [self.overlap.longest_copied(sentence) for sentence in sentences[:SLOW]]
        similarities = [similarity for similarity, _ in self.neighbors(texts[:SLOW])]
        return {
            "perplexity": perplexity(self.reference_lm, sentences),
            "unigram_entropy": unigram_entropy(sentences),
            **{f"distinct_{n}": metrics.distinct(sentences, n) for n in range(1, 5)},
            "self_bleu": metrics.self_bleu(texts, SLOW),
            "length_mean": float(np.mean(lengths)),
            "length_std": float(np.std(lengths)),
            "unk_rate": unknown / counts.total(),
            "pad_rate": padding / counts.total(),
            "novelty": self.overlap.novelty(sentences),
            "copied_8grams": self.overlap.copied(sentences, 8),
            "longest_copied_ngram": float(np.mean(longest)),
            "nearest_similarity": float(np.mean(similarities)),
        }

    def _two_sample(self, row: Row, features: Float[np.ndarray, "n w"]) -> dict[str, Any]:
        """Two-sample tests against held-out text: by words, and by the features."""
        texts = self.texts(row.sentences)
        by_words = metrics.two_sample_accuracy(self.real, texts)
        pair = (self.real_features, features)
        by_features = metrics.two_sample_accuracy(self.real, texts, pair)
        return {
            "two_sample_accuracy": by_words and by_words.value,
            "two_sample_interval": by_words and [by_words.low, by_words.high],
            "two_sample_by_features": by_features and by_features.value,
            "by_features_interval": by_features and [by_features.low, by_features.high],
        }

    def _likelihood(self, row: Row) -> dict[str, float | None]:
        """Nats per token and per word of the held-out sentences, with the standard error.

        A ratio of sums, whose error is that of the residuals. The part of it that comes from random
        draws is `nats_draw_error`. The end of a sentence is coded, but not counted as a token.
        """
        scores, tokens = row.scores, sum(map(len, self.scored))
        found: dict[str, float | None] = {"nats_draw_error": scores and scores.error / tokens}
        for name in ("nats", "ode_nats"):
            nats = getattr(scores, name, None)
            columns = (f"{name}_per_token", f"{name}_error", f"{name}_per_word")
            if nats is None:
                found |= dict.fromkeys(columns)
                continue
            lengths = np.array([len(sentence) for sentence in self.scored])[: len(nats)]
            ratio = float(nats.sum() / lengths.sum())
            residuals = nats - ratio * lengths
            error = float(residuals.std() / math.sqrt(len(lengths)) / lengths.mean())
            values = (ratio, error, ratio / self.words_per_token)
            found |= dict(zip(columns, values, strict=True))
        return found

    def _features(self, sentences: Sequence[Sentence]) -> Float[np.ndarray, "n w"]:
        """Features of each sentence: last hidden state, nats per token, and length."""
        lengths = np.array([len(sentence) for sentence in sentences])
        nats = self.reference_lm.nats(sentences) / np.maximum(lengths, 1)
        return np.column_stack([self.reference_lm.features(sentences), nats, lengths])

    def _is_grammatical(self, sentence: Sentence) -> bool:
        return grammar.judge(" ".join(str(self.tokenizer.id_to_token(i)) for i in sentence))
