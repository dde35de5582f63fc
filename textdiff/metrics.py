"""Figures that tell whether a text model works, each a function of token ids: no one of them is to be trusted alone.

`Sentence` is a tuple of token ids. Knows no files and no command line.
"""

import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from textdiff.counter import normal
from textdiff.diffusion.gaussian import Prediction, diffuse, from_x0
from textdiff.diffusion.likelihood import ode_log_prob
from textdiff.levels import bound_but_last
from textdiff.lm import DiffusionLM, cross_entropy, project

Sentence = tuple[int, ...]

# --- of the text alone


def unigram_entropy(sentences: Iterable[Sentence]) -> float:
    """Nats."""
    counts = Counter(token for sentence in sentences for token in sentence)
    total = counts.total()
    return -sum(count / total * math.log(count / total) for count in counts.values())


def distinct(sentences: Iterable[Sentence], n: int) -> float:
    """Share of the n-grams that are different ones; falls with the number of sentences, so compare equal numbers (Li et al., arXiv:1510.03055)."""
    grams = [gram for sentence in sentences for gram in ngrams(sentence, n)]
    return len(set(grams)) / max(1, len(grams))


def self_bleu(texts: Sequence[str], against: int = 200) -> float:
    """Mean BLEU-4 (0 to 100) of a text against others of the same set: how alike they are (Texygen, arXiv:1802.01886). Needs sacrebleu."""
    from sacrebleu import BLEU

    bleu, texts = BLEU(effective_order=True), texts[: against + 1]
    scores = (bleu.sentence_score(text, [other for j, other in enumerate(texts) if j != i]).score for i, text in enumerate(texts))
    return sum(scores) / len(texts)


def ngrams(sentence: Sentence, n: int) -> list[Sentence]:
    return [sentence[i : i + n] for i in range(len(sentence) - n + 1)]


# --- against the training text


class Copies:
    """What sentences have in common with a training text."""

    def __init__(self, training: Iterable[Sentence], longest: int = 64) -> None:
        self.training = set(training)
        self.longest = longest
        self._grams: dict[int, set[Sentence]] = {}

    def novel(self, sentences: Sequence[Sentence]) -> float:
        """Share of the sentences that are not in the training text."""
        return sum(sentence not in self.training for sentence in sentences) / len(sentences)

    def copied(self, sentences: Iterable[Sentence], n: int = 8) -> float:
        """Share of the n-grams that occur in the training text."""
        grams = [gram for sentence in sentences for gram in ngrams(sentence, n)]
        return sum(gram in self._of(n) for gram in grams) / max(1, len(grams))

    def longest_copied(self, sentence: Sentence) -> int:
        """Length of the longest n-gram that occurs in the training text: 0 if no word of it does."""
        low, high = 0, min(len(sentence), self.longest)
        while low < high:  # a copied n-gram holds copied (n - 1)-grams
            middle = (low + high + 1) // 2
            low, high = (middle, high) if any(gram in self._of(middle) for gram in ngrams(sentence, middle)) else (low, middle - 1)
        return low

    def _of(self, n: int) -> set[Sentence]:
        if n not in self._grams:
            self._grams[n] = {gram for sentence in self.training for gram in ngrams(sentence, n)}
        return self._grams[n]


class Nearest:
    """Finds the training text that a text is most like: cosine of tf-idf vectors of word 1- to 3-grams. Needs scikit-learn."""

    def __init__(self, training: Sequence[str]) -> None:
        self.training, self.vectorizer = training, _tfidf()
        self.vectors = self.vectorizer.fit_transform(training)

    def __call__(self, texts: Sequence[str]) -> list[tuple[float, str]]:
        """(similarity, training text) for each: 1 is a copy, up to the order of far-off words."""
        similarity = (self.vectorizer.transform(texts) @ self.vectors.T).toarray()
        return [(float(row[best]), self.training[best]) for row, best in zip(similarity, similarity.argmax(1), strict=True)]


def complaints(sentences: Sequence[Sentence], training: Sequence[Sentence], unknown: int | None) -> list[str]:
    """What is plainly wrong with samples, or with the training text, of which too much may be `unknown`. Empty where nothing is."""
    found = []
    if sum(sentence.count(unknown) for sentence in training) > 0.2 * sum(map(len, training)):
        found.append("a fifth of the training text is [UNK]: raise tokenizer.size or lower tokenizer.min_count")
    if len(set(sentences)) < len(sentences) / 2 or unigram_entropy(sentences) < 0.6 * unigram_entropy(training):
        found.append("they have collapsed to a few words")
    if Copies(training).novel(sentences) < 0.05:
        found.append("they are copied from the training text")
    return found


# --- against real text


def two_sample_accuracy(
    real: Sequence[str], generated: Sequence[str], features: Sequence[Float[np.ndarray, "n w"]] | None = None
) -> tuple[float, float, float] | None:
    """Held-out accuracy of a classifier that tells generated from real text, and its 95 % interval: 0.5 is perfect text (Lopez-Paz & Oquab,
    arXiv:1610.06545). It sees word n-grams (1 to 3), or the `features` of both. Half of the different sentences train it, so that none is both
    learned and asked, and it asks as many of either kind; so it is blind to repetition, which distinct-n tells. None where there are too few
    different sentences to ask. Needs scikit-learn."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    n, dice = min(len(real), len(generated)), random.Random(0)
    texts, label = [*real[:n], *generated[:n]], np.repeat([0, 1], n)
    different = sorted(set(texts))
    learned = set(dice.sample(different, len(different) // 2))
    seen = np.array([text in learned for text in texts])
    kinds = [np.flatnonzero(~seen & (label == kind)).tolist() for kind in (0, 1)]
    asked = [i for kind in kinds for i in dice.sample(kind, min(map(len, kinds)))]
    if not asked or len(set(label[seen])) < 2:
        return None
    if features is None:
        classifier, shown = make_pipeline(_tfidf(), LogisticRegression(C=10, max_iter=1000, class_weight="balanced")), np.array(texts, object)
    else:
        classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000, class_weight="balanced"))
        shown = np.concatenate([part[:n] for part in features])
    classifier.fit(shown[seen], label[seen])
    right = int((classifier.predict(shown[asked]) == label[asked]).sum())
    return (right / len(asked), *wilson(right, len(asked)))


def _tfidf() -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(ngram_range=(1, 3), token_pattern=r"\S+", sublinear_tf=True)


def mauve(real: Float[np.ndarray, "n w"], generated: Float[np.ndarray, "m w"]) -> float:
    """MAUVE (arXiv:2102.01454), 1 for two samples of one text, of any features. Needs mauve-text."""
    from mauve import compute_mauve

    return float(compute_mauve(p_features=real, q_features=generated, verbose=False, seed=0).mauve)


def wilson(right: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval of a share."""
    middle, half = right + z * z / 2, z * math.sqrt(right * (n - right) / n + z * z / 4)
    return (middle - half) / (n + z * z), (middle + half) / (n + z * z)


# --- of the model, on real text


@torch.no_grad()
def context_gain(model: DiffusionLM, ids: Int[Tensor, "b l"], mask: Bool[Tensor, "b l"], levels: Sequence[float]) -> dict[float, float]:
    """Nats a word that the model saves, at each log SNR, over the best guess without context (unigram frequency and the word's own noisy
    vector, Bayes' rule). Around 0 or below: it has learned to denoise words one by one, and its samples will be word salad."""
    gains = {}
    for level in levels:
        x_t, logsnr = _noisy(model, ids, level)
        _, logits = model.predict(x_t, logsnr, torch.zeros_like(x_t), torch.zeros_like(mask), mask)
        gains[level] = _mean(cross_entropy(model.alone(x_t, logsnr), ids) - cross_entropy(logits, ids), mask)
    return gains


@torch.no_grad()
def recovery(model: DiffusionLM, ids: Int[Tensor, "b l"], mask: Bool[Tensor, "b l"], levels: Sequence[float]) -> dict[float, float]:
    """Share of the words that the model finds again at each log SNR."""
    shares = {}
    for level in levels:
        x_t, logsnr = _noisy(model, ids, level)
        _, logits = model.predict(x_t, logsnr, torch.zeros_like(x_t), torch.zeros_like(mask), mask)
        shares[level] = _mean((logits.argmax(-1) == ids).float(), mask)
    return shares


@torch.no_grad()
def bound(
    model: DiffusionLM, ids: Int[Tensor, "b l"], mask: Bool[Tensor, "b l"], key: Int[Tensor, " b"], *, steps: int = 10_000, draws: int = 16
) -> Float[Tensor, " b"]:
    """Nats a sentence: the variational bound on -log p(sentence) = -log p(length) - log p(words | length), padding neither coded nor counted.

    The reverse process has `steps` steps of equal length in log SNR, of which `draws` are drawn, stratified; an unbiased estimate: more steps
    cost nothing and tighten the bound (VDM, arXiv:2107.00630, sec. 4.1). `key` numbers the sentences, whose randomness is a function of it.
    In float32.
    """
    x0, denoise = model.vectors[ids], _denoiser(model, mask)
    total = bound_but_last(denoise, x0, key, model.schedule(), steps, draws)
    return _sum(total, mask) + _rounding_nats(model, ids, mask, normal(key, x0.shape, stream=22)) + _length_nats(model, mask)


def ode_bound(
    model: DiffusionLM, ids: Int[Tensor, "b l"], mask: Bool[Tensor, "b l"], key: Int[Tensor, " b"], *, steps: int = 64
) -> Float[Tensor, " b"]:
    """Nats a sentence: the same bound with the probability-flow ODE as the model of x at the clean end. Heun steps, one Rademacher probe."""
    noisiest, cleanest = model.ends
    start = torch.full((len(ids),), cleanest, device=ids.device)
    with torch.no_grad():
        eps = normal(key, model.vectors[ids].shape, stream=22)
        x = diffuse(model.vectors[ids], start, eps)
    grid = torch.linspace(cleanest, noisiest, steps + 1, device=ids.device)
    log_p = ode_log_prob(_denoiser(model, mask), x, grid, lambda x: normal(key, x.shape, stream=23).sign() * mask.unsqueeze(-1))
    log_q = -0.5 * (eps**2 + math.log(2 * math.pi)) - 0.5 * F.logsigmoid(-start)[:, None, None]
    return _sum(log_q - log_p, mask) + _rounding_nats(model, ids, mask, eps) + _length_nats(model, mask)


def _denoiser(model: DiffusionLM, mask: Tensor) -> Callable[[Tensor, Tensor], Prediction]:
    """A function of x_t alone: where the model wants an estimate of its own, it makes one first."""

    def denoise(x_t: Tensor, logsnr: Tensor) -> Prediction:
        nothing, known = torch.zeros_like(x_t), torch.zeros_like(mask)
        prediction, _ = model.predict(x_t, logsnr, nothing, known, mask)
        if model.config.self_condition:
            prediction, _ = model.predict(x_t, logsnr, project(prediction.x0), known, mask)
        return from_x0(x_t, logsnr, prediction.x0)

    return denoise


@torch.no_grad()
def _rounding_nats(model: DiffusionLM, ids: Tensor, mask: Tensor, eps: Tensor) -> Float[Tensor, " b"]:
    """-log p(words | x at the clean end)."""
    logsnr = torch.full((len(ids),), model.ends[1], device=ids.device)
    x = diffuse(model.vectors[ids], logsnr, eps)
    _, logits = model.predict(x, logsnr, torch.zeros_like(x), torch.zeros_like(mask), mask)
    return _sum(cross_entropy(logits, ids).unsqueeze(-1), mask)


def _length_nats(model: DiffusionLM, mask: Tensor) -> Float[Tensor, " b"]:
    """-log p(length), by the training text's frequencies with a ten thousandth of all lengths alike, so that none is impossible."""
    return -(0.9999 * model.lengths + 1e-4 / len(model.lengths)).log()[mask.sum(1)]


def _sum(nats: Float[Tensor, "b l _"], mask: Bool[Tensor, "b l"]) -> Float[Tensor, " b"]:
    return (nats * mask.unsqueeze(-1)).sum((1, 2))


def _mean(each: Float[Tensor, "b l"], mask: Bool[Tensor, "b l"]) -> float:
    """Over the real positions, in one wait for the device."""
    return float(each.where(mask, 0).sum() / mask.sum())


def _noisy(model: DiffusionLM, ids: Tensor, level: float) -> tuple[Tensor, Tensor]:
    logsnr = torch.full((len(ids),), level, device=ids.device)
    x0 = model.vectors[ids]
    return diffuse(x0, logsnr, normal(torch.arange(len(ids), device=ids.device), x0.shape, stream=10)), logsnr
