"""Metrics of sentences alone, and of their overlap with the training text."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from textdiff.evaluation import metrics
from textdiff.text.diagnostics import Sentence, unigram_entropy
from textdiff.text.tokenizer import PAD, UNK

SLOW = 200  # number of sentences per row in metrics that take long


class SentenceMetrics:
    """Computes the metrics of rows that need no model and no held-out text.

    Args:
        training: The training sentences, or the targets of the training text.
        tokenizer: Tokenizer of the model.
    """

    def __init__(self, training: Sequence[Sentence], tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.overlap = metrics.NgramOverlap(training)
        self.neighbors = metrics.NearestNeighbor(self.texts(training))

    def texts(self, sentences: Sequence[Sentence]) -> list[str]:
        """The sentences as text."""
        return [self.tokenizer.decode(list(sentence)) for sentence in sentences]

    def __call__(self, sentences: Sequence[Sentence]) -> dict[str, Any]:
        """The metrics by name."""
        texts = self.texts(sentences[: SLOW + 1])
        lengths = [len(sentence) for sentence in sentences]
        counts: Counter[int | None] = Counter(token for s in sentences for token in s)
        unknown, padding = (counts[self.tokenizer.token_to_id(token)] for token in (UNK, PAD))
        longest = [self.overlap.longest_copied(sentence) for sentence in sentences[:SLOW]]
        similarities = [similarity for similarity, _ in self.neighbors(texts[:SLOW])]
        return {
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
