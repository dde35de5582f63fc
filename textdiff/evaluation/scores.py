"""Held-out sentences under a model: nats of each sentence, and of the words by position.

Under a model of pairs, they are those of targets given their sources.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from textdiff.evaluation.config import EvaluationConfig
from textdiff.evaluation.reference_lm import sentence_batches
from textdiff.prng import fold_in
from textdiff.progress import ProgressBar
from textdiff.text.autoregressive import Autoregressive
from textdiff.text.diagnostics import Sentence, token_recovery
from textdiff.text.functional import source_positions
from textdiff.text.lengths import length_nats
from textdiff.text.likelihood import ode_negative_elbo, word_nats
from textdiff.text.model import DiffusionLM
from textdiff.text.requests import TextModel

LOGSNRS = tuple(float(logsnr) for logsnr in range(-8, 5))  # at which token recovery is measured


class Scores(NamedTuple):
    """Nats of n sentences.

    Args:
        nats: Nats of each sentence.
        words: Nats of each word, without the length or the end; NaN after the last word. The first
            word of a target is at position 0.
        error: Standard error of the sum of `nats` from random draws; 0 for an exact likelihood.
        ode_nats: `nats` by the probability-flow ODE, of the first sentences.
    """

    nats: np.ndarray
    words: np.ndarray | None = None
    error: float = 0.0
    ode_nats: np.ndarray | None = None


def scores_of(
    name: str, model: TextModel, sentences: list[Sentence], options: EvaluationConfig
) -> Scores:
    """Scores of sentences in float32: a bound along the order of `options`, or exact.

    Args:
        name: Name of the model, for the progress bar.
    """
    nats, variances, ode = list[Tensor](), list[Tensor](), list[Tensor]()
    table = np.full((len(sentences), max(map(len, sentences))), np.nan)
    batches = list(sentence_batches(sentences, 50))
    for batch in ProgressBar(batches, desc=f"likelihood of {name}", unit="batch"):
        ids, mask, key = (batch[part].to(model.device) for part in ("ids", "mask", "index"))
        words, rest, variance = _estimate(model, ids, mask, key, options)
        nats.append((words.sum(1) + rest).cpu())
        variances.append(variance.cpu())
        coded = mask & ~source_positions(ids, model.config.separator)
        for row, of_words, own in zip(batch["index"], words.cpu(), coded.cpu(), strict=True):
            table[row, : own.sum()] = of_words[own].numpy()
        if not isinstance(model, Autoregressive) and int(key[0]) < options.ode:
            rows = key < options.ode
            ode.append(ode_negative_elbo(model, ids[rows], mask[rows], key[rows]).cpu())
    found = torch.cat(nats).double().numpy()
    error = math.sqrt(torch.cat(variances).double().sum())
    return Scores(found, table, error, torch.cat(ode).double().numpy() if ode else None)


@torch.no_grad()
def _estimate(
    model: TextModel, ids: Tensor, mask: Tensor, key: Tensor, options: EvaluationConfig
) -> tuple[Float[Tensor, "b l"], Float[Tensor, " b"], Float[Tensor, " b"]]:
    """Nats of the words, those of the length or the end, and the variance of their sum.

    A bound is the mean of two estimates, whose difference shows the variance.
    """
    if isinstance(model, Autoregressive):
        exact = model.nats(ids, mask)
        words = exact[:, :-1].where(mask, 0)
        rest = exact.sum(1) - words.sum(1)
        return words, rest, torch.zeros_like(rest)
    order, window = options.bound_order, options.window or 1
    first, second = (
        word_nats(model, ids, mask, each, draws=options.draws // 2, order=order, window=window)
        for each in (fold_in(key, 32), fold_in(key, 33))
    )
    variance = (first - second).sum(1).square() / 4
    return (first + second) / 2, length_nats(model, ids, mask), variance


def by_position(words: Float[np.ndarray, "n l"]) -> dict[str, list[Any]]:
    """Mean nats of the words at each position, its standard error, and the number of sentences.

    Positions that fewer than two sentences have are left out.

    Args:
        words: As in `Scores`.
    """
    count = (~np.isnan(words)).sum(0)
    words, count = words[:, count >= 2], count[count >= 2]
    error = np.nanstd(words, 0, ddof=1) / np.sqrt(count)
    found = {"nats": np.nanmean(words, 0), "error": error, "sentences": count}
    return {name: values.tolist() for name, values in found.items()}


def likelihood_columns(
    scores: Scores | None, lengths: Sequence[int], words: int
) -> dict[str, float | None]:
    """Nats per token and per word of the held-out sentences, with the standard error.

    A ratio of sums, whose error is that of the residuals. The part of it that comes from random
    draws is `nats_draw_error`. The end of a sentence is coded, but not counted as a token.

    Args:
        lengths: Number of coded tokens of each sentence.
        words: Number of words of all sentences.
    """
    tokens = sum(lengths)
    found: dict[str, float | None] = {"nats_draw_error": scores and scores.error / tokens}
    for name in ("nats", "ode_nats"):
        nats = getattr(scores, name, None)
        columns = (f"{name}_per_token", f"{name}_error", f"{name}_per_word")
        if nats is None:
            found |= dict.fromkeys(columns)
            continue
        sizes = np.array(lengths)[: len(nats)]
        ratio = float(nats.sum() / sizes.sum())
        residuals = nats - ratio * sizes
        error = float(residuals.std() / math.sqrt(len(sizes)) / sizes.mean())
        found |= dict(zip(columns, (ratio, error, ratio * tokens / words), strict=True))
    return found


def recovery_of(model: TextModel, scored: list[Sentence]) -> dict[str, Any]:
    """Token recovery at each log SNR; empty for an autoregressive model."""
    if not isinstance(model, DiffusionLM):
        return {}
    batch = next(sentence_batches(scored, 200))
    ids, mask = batch["ids"].to(model.device), batch["mask"].to(model.device)
    return {"logsnr": LOGSNRS, "share": [*token_recovery(model, ids, mask, LOGSNRS).values()]}
