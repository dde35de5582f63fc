"""Requests for text: generate, rewrite, infill, continue.

They differ only in the time of the noise schedule at which each word starts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from textdiff.config import UserError
from textdiff.text.autoregressive import Autoregressive
from textdiff.text.decoding import Decoding, in_parallel, resolve_decoding
from textdiff.text.decoding_config import DecodingConfig
from textdiff.text.lengths import sequence_lengths, writes_documents
from textdiff.text.predictor import WordPredictor
from textdiff.text.tokenizer import MASK

TextModel = WordPredictor | Autoregressive


@dataclass(frozen=True)
class Request:
    """A request for n sequences.

    Args:
        ids: Given tokens. They have no meaning where `start` is 1.
        mask: True at the positions of each sequence.
        start: Time of the noise schedule at which each word starts: 1 is pure noise, 0 keeps the
            token, and between them the noise of a rewritten word.
        decoding: Temperature, guidance scale, clamping, what stands for x0, and the order of words.
    """

    ids: Int[Tensor, "n l"]
    mask: Bool[Tensor, "n l"]
    start: Float[Tensor, "n l"]
    decoding: Decoding = field(default_factory=Decoding)

    @property
    def given(self) -> Bool[Tensor, "n l"]:
        """True where tokens are kept."""
        return self.mask & (self.start == 0)

    @property
    def strength(self) -> float:
        """The latest time at which a word starts."""
        return round(float(self.start.where(self.mask, 0).max()), 6)  # from float32

    @property
    def rewrites(self) -> Bool[Tensor, " n"]:
        """Whether words of a sequence start between noise and data."""
        return (self.mask & (self.start > 0) & (self.start < 1)).any(1)

    def part(self, rows: list[int]) -> "Request":
        """Some of the sequences, without positions that none of them has."""
        longest = int(self.mask[rows].sum(1).max())
        ids, mask, start = (each[rows, :longest] for each in (self.ids, self.mask, self.start))
        return Request(ids, mask, start, self.decoding)


def joined(requests: Sequence[Request]) -> Request:
    """Several requests as one, which is padded to the longest. They must have the same decoding."""
    longest = max(request.mask.shape[1] for request in requests)

    def padded(name: str) -> Tensor:
        parts = (getattr(request, name) for request in requests)
        return torch.cat([F.pad(part, (0, longest - part.shape[1])) for part in parts])

    return Request(padded("ids"), padded("mask"), padded("start"), requests[0].decoding)


def sample_request(
    model: TextModel,
    n: int,
    seed: int,
    length: int | None = None,
    decoding: DecodingConfig | Decoding = DecodingConfig(),  # noqa: B008
) -> Request:
    """Request for n sequences from pure noise.

    Args:
        length: Number of tokens of each. If None, drawn from the lengths of the training text.
    """
    refuse_sources(model)
    lengths = sequence_lengths(model, n, seed, length, 0, decoding.least_tokens)
    mask = torch.arange(int(lengths.max())) < lengths.unsqueeze(1)
    ids = torch.zeros(mask.shape, dtype=torch.long)
    return Request(ids, mask, torch.ones(mask.shape), resolve_decoding(model, decoding))


def rewrite_request(
    model: TextModel,
    ids: list[int],
    n: int,
    strength: float | Sequence[float],
    decoding: DecodingConfig | Decoding = DecodingConfig(),  # noqa: B008
) -> Request:
    """Request for n variations of a sentence, of as many tokens: noise is added, then removed.

    Args:
        strength: Amount of noise, from 0 (the sentence itself) to 1 (only its length is kept), or
            one for each token.
    """
    given = _repeated(model, ids, n)
    strengths = [strength] * len(ids) if isinstance(strength, int | float) else [*strength]
    if len(strengths) != len(ids):
        raise UserError(f"one strength for each of {len(ids)} tokens is needed: {len(strengths)}")
    for each in strengths:
        if not 0 <= each <= 1:
            rule = "between 0 (the text itself) and 1 (only its length is kept)"
            raise UserError(f"--strength must be {rule}, got {each}")
    everywhere = torch.ones_like(given, dtype=torch.bool)
    start = torch.tensor(strengths, dtype=torch.float32).expand(given.shape)
    decoding = resolve_decoding(model, decoding)
    if decoding.order == "auto":
        decoding = in_parallel(decoding)
    return Request(given, everywhere, start, decoding)


def infill_request(
    model: TextModel,
    ids: list[int],
    n: int,
    mask_id: int | None,
    decoding: DecodingConfig | Decoding = DecodingConfig(),  # noqa: B008
) -> Request:
    """Request for n ways to fill the positions that hold `mask_id`.

    Raises:
        UserError: If there are none.
    """
    if mask_id not in ids:
        raise UserError(f"--text has no {MASK} to fill: write one for each missing token")
    given = _repeated(model, ids, n)
    everywhere = torch.ones_like(given, dtype=torch.bool)
    start = (given == mask_id).float()
    return Request(given, everywhere, start, resolve_decoding(model, decoding))


def continue_request(
    model: TextModel,
    ids: list[int],
    n: int,
    seed: int,
    length: int | None = None,
    decoding: DecodingConfig | Decoding = DecodingConfig(),  # noqa: B008
    first: int = 0,
) -> Request:
    """Request for n sequences that begin with `ids`.

    Args:
        length: Number of tokens of each, `ids` included. If None, drawn as in `sample_request`, or
            half a window more than a document that is longer than the model's sequences.
        first: Number of the first sequence, if the request is a part of another.
    """
    refuse_sources(model)
    lengths = sequence_lengths(model, n, seed, length, len(ids), decoding.least_tokens, first)
    return continued(model, ids, lengths, decoding)


def continued(
    model: TextModel,
    ids: list[int],
    lengths: Int[Tensor, " n"],
    decoding: DecodingConfig | Decoding,
) -> Request:
    """Request for sequences of the given lengths that begin with `ids`."""
    positions = torch.arange(int(lengths.max()))
    given = torch.zeros(len(positions), dtype=torch.long)
    given[: len(ids)] = torch.tensor(ids, dtype=torch.long)
    mask = positions < lengths.unsqueeze(1)
    free = (positions >= len(ids)).float().expand(mask.shape)
    return Request(given.expand(mask.shape), mask, free, resolve_decoding(model, decoding))


def refuse_sources(model: TextModel) -> None:
    """Raises UserError for a model of pairs, whose texts need a source."""
    if model.config.has_sources:
        raise UserError("this model generates targets from sources: use textdiff generate")


def _repeated(model: TextModel, ids: list[int], n: int) -> Int[Tensor, "n l"]:
    """The tokens n times. Raises UserError if the model cannot take so many."""
    longest = model.config.length
    refuse_sources(model)
    if not ids or (len(ids) > longest and not writes_documents(model)):
        rule = f"1 to {longest} tokens for this model"
        raise UserError(f"the text must have {rule}, got {len(ids)}")
    return torch.tensor(ids).expand(n, -1)
