"""Likelihood of texts under a trained model: exact if it is autoregressive, otherwise a bound."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from tokenizers import Tokenizer
from torch import Tensor

from textdiff.config import Precision, UserError, check
from textdiff.device import autocast
from textdiff.prng import sample_keys
from textdiff.sampling import sampling_precision
from textdiff.text.autoregressive import Autoregressive
from textdiff.text.likelihood import negative_elbo
from textdiff.text.requests import TextModel
from textdiff.text.targets import need_sources
from textdiff.text.tokenizer import encode

ROWS = 64  # sequences computed together; fixed, so that no score depends on an option
KEYS = 4  # independent estimates of a bound, whose differences give its standard error
RANKING_DRAWS = 16


@dataclass(frozen=True)
class TextLikelihood:
    """-log p of each text and of its length.

    Args:
        nats: Nats of each text: the exact value, or an unbiased estimate of an upper bound.
        errors: Standard error of each estimate in nats. It is 0 if the value is exact.
        tokens: Number of tokens of each text, without those of its source.
    """

    nats: list[float]
    errors: list[float]
    tokens: list[int]


def encode_whole(
    model: TextModel, tokenizer: Tokenizer, text: str, source: str | None = None
) -> list[int]:
    """Tokens of a text, after its source if the model has sources.

    Raises:
        UserError: If the model has no room for them, or the source is missing or too much.
    """
    if model.config.has_sources and source is None:
        raise UserError("a target of this model has a likelihood given its source: give source")
    given: list[int] = []
    if source is not None:
        need_sources(model)
        given = [*encode(tokenizer, source), model.config.separator]
    ids, longest = encode(tokenizer, text), model.config.length
    room = f"1 to {longest - len(given)} tokens for this model"
    check(1 <= len(ids) <= longest - len(given), "the text", room, len(ids))
    return given + ids


def text_likelihood(
    model: TextModel, sequences: Sequence[list[int]], draws: int, seed: int
) -> TextLikelihood:
    """Likelihood of sequences of tokens, in float32.

    Args:
        draws: Noise levels drawn for each text, over all of the four independent estimates.

    Raises:
        UserError: If there are fewer draws than estimates.
    """
    check(draws >= KEYS, "draws", f"at least {KEYS}", draws)
    exact = isinstance(model, Autoregressive)
    keys = sample_keys(seed, 1 if exact else KEYS)
    nats = torch.stack([sequence_nats(model, sequences, key, draws // KEYS) for key in keys])
    errors = nats.new_zeros(len(sequences)) if exact else nats.std(0) / KEYS**0.5
    sizes = [_coded(ids, model.config.separator) for ids in sequences]
    return TextLikelihood(nats.mean(0).tolist(), errors.tolist(), sizes)


def _coded(ids: list[int], separator: int) -> int:
    """Number of tokens after the source."""
    return len(ids) - ids.index(separator) - 1 if separator in ids else len(ids)


@torch.no_grad()
def sequence_nats(
    model: TextModel,
    sequences: Sequence[list[int]],
    key: Int[Tensor, ""],
    draws: int = RANKING_DRAWS,
    precision: Precision = "no",
    order: str = "parallel",
) -> Float[Tensor, " n"]:
    """Nats of each sequence, all estimated with the same random numbers, in float64.

    Differences between sequences are therefore more precise than the values.

    Args:
        key: Key of the random numbers.
        draws: Noise levels drawn for each sequence. The chain rule needs none.
        precision: Precision of the network.
        order: Order in which words lose their noise: parallel for the bound, another for the chain
            rule.
    """
    sizes = torch.tensor([*map(len, sequences)])
    nats = torch.zeros(len(sequences), dtype=torch.float64)
    for rows in sizes.argsort(stable=True).split(ROWS):
        ids, mask = (each.to(model.device) for each in padded([sequences[i] for i in rows]))
        with autocast(model.device, sampling_precision(model, precision)):
            if isinstance(model, Autoregressive):
                found = model.nats(ids, mask).sum(1)
            else:
                keys = key.to(model.device).expand(len(ids))
                found = negative_elbo(model, ids, mask, keys, draws=draws, order=order)
        nats[rows] = found.double().cpu()
    return nats


def ranking_order(model: TextModel) -> str:
    """Order in which sequences are compared: one word at a time, if the model was trained for it.

    The chain rule has a smaller random error than the parallel bound.
    """
    config = model.config
    one_by_one = config.objective == "ce" and config.stagger_prob > 0
    return "left-to-right" if one_by_one else "parallel"


def padded(sequences: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
    """Sequences as a tensor of tokens, and a mask that is True at their positions."""
    rows = [torch.tensor(ids) for ids in sequences]
    mask = [torch.ones(len(ids), dtype=torch.bool) for ids in sequences]
    pad = torch.nn.utils.rnn.pad_sequence
    return pad(rows, batch_first=True), pad(mask, batch_first=True)
