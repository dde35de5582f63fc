"""Metrics of generated text, as functions of token ids or of texts. No single one is sufficient."""

import json
import math
import random
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from textdiff.text.diagnostics import Sentence, novelty

Features = Float[np.ndarray, "_ w"]  # one row per sentence


class CorpusScores(NamedTuple):
    """Corpus BLEU and chrF, from 0 to 100, with sacreBLEU's signatures.

    Args:
        bleu_interval: 95 % confidence interval of `bleu`, from 1,000 bootstrap samples.
    """

    bleu: float
    bleu_interval: list[float]
    chrf: float
    signatures: dict[str, str]


class Accuracy(NamedTuple):
    """Accuracy of a classifier, with the ends of its 95 % confidence interval."""

    value: float
    low: float
    high: float


# --- against the references of each text


def corpus_scores(
    texts: Sequence[str], references: Sequence[Sequence[str]], lowercase: bool
) -> CorpusScores:
    """Corpus BLEU (Papineni et al., 2002) and chrF (Popovic, 2015) over all references.

    Words and punctuation marks are separated first, as tokenizers of words do, which cannot restore
    the spaces. Needs sacrebleu.

    Args:
        references: References of each text, in any number.
        lowercase: Whether capital letters do not count.
    """
    from sacrebleu import BLEU, CHRF

    most = max(map(len, references))
    found = [_separated(text) for text in texts]
    rows = ([*map(_separated, each), *[None] * (most - len(each))] for each in references)
    columns: Any = [*map(list, zip(*rows, strict=True))]  # None where there are fewer
    # it would warn that the punctuation is separated
    bleu, chrf = BLEU(lowercase=lowercase, force=True), CHRF(lowercase=lowercase)
    by_words = bleu.corpus_score(found, columns, n_bootstrap=1000)
    signature = bleu.get_signature()
    error = json.loads(by_words.format(signature=str(signature), is_json=True))["confidence_var"]
    return CorpusScores(
        bleu=by_words.score,
        bleu_interval=[by_words.score - error, by_words.score + error],
        chrf=chrf.corpus_score(found, columns).score,
        signatures={"bleu": str(signature), "chrf": str(chrf.get_signature())},
    )


def _separated(text: str) -> str:
    return " ".join(re.findall(r"\w+|[^\w\s]", text))


# --- of the generated text alone


def distinct(sentences: Iterable[Sentence], n: int) -> float:
    """Distinct-n: number of different n-grams per n-gram (Li et al., arXiv:1510.03055).

    It falls with the number of sentences, so only equal numbers of sentences can be compared.
    """
    grams = [gram for sentence in sentences for gram in ngrams(sentence, n)]
    return len(set(grams)) / max(1, len(grams))


def self_bleu(texts: Sequence[str], against: int = 200) -> float:
    """Self-BLEU: mean BLEU-4, from 0 to 100, of each text against the others of the same set.

    High values mean little variety (Texygen, arXiv:1802.01886). Needs sacrebleu.

    Args:
        against: Largest number of texts that a text is compared with.
    """
    from sacrebleu import BLEU

    bleu, texts = BLEU(effective_order=True), texts[: against + 1]
    others = ([*texts[:i], *texts[i + 1 :]] for i in range(len(texts)))
    pairs = zip(texts, others, strict=True)
    scores = (bleu.sentence_score(text, references).score for text, references in pairs)
    return sum(scores) / len(texts)


def ngrams(sentence: Sentence, n: int) -> list[Sentence]:
    """Returns all n-grams of a sentence, in order."""
    return [sentence[i : i + n] for i in range(len(sentence) - n + 1)]


# --- against the training text


class NgramOverlap:
    """N-grams that sentences share with a training text.

    Args:
        training: Sentences of the training text.
        longest: Largest length of an n-gram that `longest_copied` looks for.
    """

    def __init__(self, training: Iterable[Sentence], longest: int = 64) -> None:
        self.training = set(training)
        self.longest = longest
        self._grams: dict[int, set[Sentence]] = {}

    def novelty(self, sentences: Sequence[Sentence]) -> float:
        """Share of the sentences that are not in the training text."""
        return novelty(sentences, self.training)

    def copied(self, sentences: Iterable[Sentence], n: int = 8) -> float:
        """Share of the n-grams that occur in the training text."""
        grams = [gram for sentence in sentences for gram in ngrams(sentence, n)]
        return sum(gram in self._training_grams(n) for gram in grams) / max(1, len(grams))

    def longest_copied(self, sentence: Sentence) -> int:
        """Length of the longest n-gram that occurs in the training text, or 0."""
        low, high = 0, min(len(sentence), self.longest)
        while low < high:  # bisection: a copied n-gram contains copied (n - 1)-grams
            n = (low + high + 1) // 2
            if any(gram in self._training_grams(n) for gram in ngrams(sentence, n)):
                low = n
            else:
                high = n - 1
        return low

    def _training_grams(self, n: int) -> set[Sentence]:
        if n not in self._grams:
            self._grams[n] = {gram for sentence in self.training for gram in ngrams(sentence, n)}
        return self._grams[n]


class NearestNeighbor:
    """Nearest training text by cosine similarity of tf-idf vectors of word 1- to 3-grams.

    Needs scikit-learn.
    """

    def __init__(self, training: Sequence[str]) -> None:
        self.training, self.vectorizer = training, _tfidf()
        self.vectors = self.vectorizer.fit_transform(training)

    def __call__(self, texts: Sequence[str]) -> list[tuple[float, str]]:
        """Similarity and nearest training text of each text; a copy has similarity 1."""
        similarity = (self.vectorizer.transform(texts) @ self.vectors.T).toarray()
        nearest = similarity.argmax(1)
        return [
            (float(row[i]), self.training[i]) for row, i in zip(similarity, nearest, strict=True)
        ]


# --- against real text


def two_sample_accuracy(
    real: Sequence[str], generated: Sequence[str], features: Sequence[Features] | None = None
) -> Accuracy | None:
    """Classifier two-sample test (Lopez-Paz & Oquab, arXiv:1610.06545): 0.5 is perfect text.

    The accuracy on held-out sentences of a classifier of real against generated text. It does not
    measure repetition, because no sentence is in both training and test set; distinct-n does.
    Needs scikit-learn.

    Args:
        features: Features of the real and of the generated texts. If None, tf-idf vectors of word
            1- to 3-grams.

    Returns:
        The accuracy, or None if there are too few different sentences.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    n = min(len(real), len(generated))
    texts, labels = [*real[:n], *generated[:n]], np.repeat([0, 1], n)
    training, test = _split(texts, labels)
    if not test or len(set(labels[training])) < 2:
        return None
    if features is None:
        inputs, scaler, strength = np.array(texts, object), _tfidf(), 10.0
    else:
        inputs, scaler, strength = np.concatenate([x[:n] for x in features]), StandardScaler(), 0.1
    regression = LogisticRegression(C=strength, max_iter=1000, class_weight="balanced")
    classifier = make_pipeline(scaler, regression).fit(inputs[training], labels[training])
    correct = int((classifier.predict(inputs[test]) == labels[test]).sum())
    return Accuracy(correct / len(test), *wilson(correct, len(test)))


def _split(texts: list[str], labels: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Rows of the training set, as a mask, and of the test set, which is balanced.

    Half of the different texts are training texts.
    """
    rng, different = random.Random(0), sorted(set(texts))
    chosen = set(rng.sample(different, len(different) // 2))
    training = np.array([text in chosen for text in texts])
    classes = [np.flatnonzero(~training & (labels == label)).tolist() for label in (0, 1)]
    size = min(map(len, classes))
    return training, [row for rows in classes for row in rng.sample(rows, size)]


def _tfidf() -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(ngram_range=(1, 3), token_pattern=r"\S+", sublinear_tf=True)


def mauve(real: Features, generated: Features) -> float:
    """MAUVE (arXiv:2102.01454) of two sets of features; 1 if their distributions are the same.

    Needs mauve-text.
    """
    from mauve import compute_mauve

    return float(compute_mauve(p_features=real, q_features=generated, verbose=False, seed=0).mauve)


def wilson(successes: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Newcombe, 1998, method 3)."""
    center = successes + z * z / 2
    half = z * math.sqrt(successes * (n - successes) / n + z * z / 4)
    return (center - half) / (n + z * z), (center + half) / (n + z * z)
