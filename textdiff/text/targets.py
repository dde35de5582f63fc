"""Targets, which models of pairs generate from sources: requests, and their lengths."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from textdiff.config import UserError, check
from textdiff.text.autoregressive import Autoregressive
from textdiff.text.config import DecodingConfig
from textdiff.text.dataset import Corpus
from textdiff.text.lengths import draw_lengths
from textdiff.text.requests import Request, TextModel, continued

SPREAD = 1.0  # tokens; sources of similar length count together


def target_statistics(
    corpus: Corpus, separator: int, longest: int
) -> tuple[Float[Tensor, "n n"], float]:
    """Frequencies of target lengths (columns) after sources of each length (rows).

    The length of a source includes the separator. Sources of similar length have similar
    frequencies.

    Returns:
        The frequencies, and the share of tokens that are in targets.
    """
    counts = np.zeros((longest + 1, longest + 1), np.int64)
    for piece in corpus.pieces():
        ends = np.flatnonzero(piece.tokens == separator) + 1
        sources = ends - piece.starts[:-1]
        np.add.at(counts, (sources, piece.sizes - sources), 1)
    position = torch.arange(longest + 1)
    near = (-(((position - position[:, None]) / SPREAD) ** 2) / 2).exp()
    smooth = near @ torch.from_numpy(counts).float()
    targets = int((counts * np.arange(longest + 1)).sum())
    return smooth / smooth.sum(1, keepdim=True).clamp(min=1e-12), targets / len(corpus.tokens)


def target_request(
    model: TextModel,
    source: list[int],
    n: int,
    seed: int,
    length: int | None = None,
    decoding: DecodingConfig = DecodingConfig(),  # noqa: B008
    first: int = 0,
) -> Request:
    """Request for n targets of a source, which is given before the separator.

    Args:
        length: Number of tokens of each target. If None, drawn from the lengths of the training
            text after sources of this length.
        first: Number of the first sequence, if the request is a part of another.

    Raises:
        UserError: If the model has no sources, or no room for a target.
    """
    if not model.config.has_sources:
        raise UserError("this model has no sources: train one with --data.source and --data.target")
    given, room = [*source, model.config.separator], model.config.length - len(source) - 1
    if room < 1:
        most = f"at most {model.config.length - 2} for this model"
        raise UserError(f"the source has {len(source)} tokens, {most}")
    if length is not None:
        check(1 <= length <= room, "--length", f"between 1 and {room} after this source", length)
        lengths = torch.full((n,), length)
    elif isinstance(model, Autoregressive):
        lengths = torch.full((n,), room)
    else:
        weight = model.target_lengths[len(given), : room + 1]
        lengths = draw_lengths(weight, n, seed, min(decoding.least_tokens, room), first)
    return continued(model, given, lengths + len(given), decoding)
