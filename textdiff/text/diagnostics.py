"""Metrics that show during training whether a text model learns, and a check of its samples."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from textdiff.diffusion.gaussian import diffuse
from textdiff.prng import normal
from textdiff.text.functional import cross_entropy, source_positions
from textdiff.text.predictor import WordPredictor
from textdiff.text.transformer import NoisyText

Sentence = tuple[int, ...]


class WordLoss(NamedTuple):
    """Losses of the words at one log SNR.

    Args:
        cross_entropy: Cross-entropy in nats per word.
        context_gain: Nats per word that the context saves, compared with Bayes' rule for each word
            without its context. Around 0 or below, the model denoises words one by one, and its
            samples will be unrelated words.
    """

    cross_entropy: float
    context_gain: float


@torch.no_grad()
def losses_by_logsnr(
    model: WordPredictor,
    ids: Int[Tensor, "b l"],
    mask: Bool[Tensor, "b l"],
    logsnrs: Sequence[float],
) -> dict[float, WordLoss]:
    """Losses of the words at each log SNR. Words of sources are clean and do not count."""
    losses = {}
    targets = mask & ~source_positions(ids, model.config.separator)
    for value in logsnrs:
        x_t, logsnr, logits = _predict(model, ids, mask, value)
        alone = cross_entropy(model.words.context_free_logits(x_t, logsnr), ids)
        loss = cross_entropy(logits, ids)
        losses[value] = WordLoss(*_means([loss, alone - loss], targets))
    return losses


@torch.no_grad()
def token_recovery(
    model: WordPredictor,
    ids: Int[Tensor, "b l"],
    mask: Bool[Tensor, "b l"],
    logsnrs: Sequence[float],
) -> dict[float, float]:
    """Share of words that are the most likely prediction, at each log SNR."""
    shares = {}
    for logsnr in logsnrs:
        logits = _predict(model, ids, mask, logsnr)[-1]
        targets = mask & ~source_positions(ids, model.config.separator)
        (shares[logsnr],) = _means([(logits.argmax(-1) == ids).float()], targets)
    return shares


def unigram_entropy(sentences: Iterable[Sentence]) -> float:
    """Entropy of the word frequencies, in nats."""
    counts = Counter(token for sentence in sentences for token in sentence)
    total = counts.total()
    return -sum(count / total * math.log(count / total) for count in counts.values())


def novelty(sentences: Sequence[Sentence], training: Iterable[Sentence]) -> float:
    """Share of the sentences that are not in the training text."""
    known = set(training)
    return sum(sentence not in known for sentence in sentences) / len(sentences)


def sanity_warnings(
    samples: Sequence[Sentence], training: Sequence[Sentence], unknown: int | None
) -> list[str]:
    """Describes obvious failures of samples or of the training text.

    Args:
        unknown: The token [UNK].
    """
    warnings = []
    if sum(sentence.count(unknown) for sentence in training) > 0.2 * sum(map(len, training)):
        way_out = "raise tokenizer.size or lower tokenizer.min_count"
        warnings.append(f"more than a fifth of the training text is [UNK]: {way_out}")
    few_words = unigram_entropy(samples) < 0.6 * unigram_entropy(training)
    different, expected = (len(set(each)) / len(each) for each in (samples, training))
    if few_words or different < 0.5 * expected:
        warnings.append("the samples have collapsed to a few words")
    if novelty(samples, training) < 0.05:
        warnings.append("the samples are copies of the training text")
    return warnings


def _predict(
    model: WordPredictor, ids: Tensor, mask: Tensor, value: float
) -> tuple[Float[Tensor, "b l d"], Float[Tensor, "b l"], Float[Tensor, "b l v"]]:
    """Noisy embeddings at one log SNR, the log SNR of each word, and the model's logits.

    Sources are clean.
    """
    x0, source = model.words.embeddings[ids], source_positions(ids, model.config.separator)
    clean = model.logsnr_range[1]
    logsnr = torch.full(ids.shape, value, device=ids.device).masked_fill(source, clean)
    index = torch.arange(len(ids), device=ids.device)
    x_t = diffuse(x0, normal(index, x0.shape, stream=10), logsnr)
    _, logits = model.predict(NoisyText(x_t, logsnr, mask))
    return x_t, logsnr, logits


def _means(values: list[Float[Tensor, "b l"]], mask: Bool[Tensor, "b l"]) -> list[float]:
    """Means over the real positions, with one wait for the device."""
    sums = torch.stack([each.where(mask, 0).sum() for each in values])
    return (sums / mask.sum()).tolist()  # type: ignore[no-any-return]
