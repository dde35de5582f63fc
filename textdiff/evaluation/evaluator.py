"""Metrics of the rows of an evaluation table."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from tokenizers import Tokenizer

from textdiff.evaluation import metrics
from textdiff.evaluation.reference_lm import ReferenceLM, perplexity
from textdiff.evaluation.scores import Scores, likelihood_columns
from textdiff.evaluation.sentence_metrics import SentenceMetrics
from textdiff.text import grammar
from textdiff.text.diagnostics import Sentence


@dataclass
class Row:
    """A row of the table: sentences of one origin.

    Args:
        name: Name of the row.
        sentences: The sentences.
        scores: Nats of the held-out sentences under the model of the sentences, if there is one.
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

    @property
    def cost(self) -> dict[str, Any]:
        """Time, network evaluations and precision of sampling, and the number of sentences."""
        return {
            "seconds_per_1000": self.seconds and 1000 * self.seconds / len(self.sentences),
            "evaluations": self.evaluations,
            "dtype": self.dtype,
            "sentences": len(self.sentences),
        }


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
        self.sentence_metrics = SentenceMetrics(self.training, self.tokenizer)
        self.texts = self.sentence_metrics.texts
        self.real = self.texts(self.reference)
        self.real_features = self._features(self.reference)
        self.words = sum(len(text.split()) for text in self.texts(self.scored))

    def metrics_of(self, row: Row) -> dict[str, Any]:
        """All metrics of a row."""
        features = self._features(row.sentences)
        found = likelihood_columns(row.scores, [*map(len, self.scored)], self.words)
        found |= {"perplexity": perplexity(self.reference_lm, row.sentences)}
        found |= self.sentence_metrics(row.sentences) | self._two_sample(row, features)
        if self.grammar:
            grammatical = sum(map(self._is_grammatical, row.sentences))
            found["grammatical"] = grammatical / len(row.sentences)
        if self.mauve:
            hidden_states = self.real_features[:, :-2], features[:, :-2]
            found["mauve"] = metrics.mauve(*hidden_states)
        return found | row.cost

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

    def _features(self, sentences: Sequence[Sentence]) -> Float[np.ndarray, "n w"]:
        """Features of each sentence: last hidden state, nats per token, and length."""
        lengths = np.array([len(sentence) for sentence in sentences])
        nats = self.reference_lm.nats(sentences) / np.maximum(lengths, 1)
        return np.column_stack([self.reference_lm.features(sentences), nats, lengths])

    def _is_grammatical(self, sentence: Sentence) -> bool:
        return grammar.judge(" ".join(str(self.tokenizer.id_to_token(i)) for i in sentence))
