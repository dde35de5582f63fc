"""Requests for targets, which models of pairs generate from sources."""

import torch

from textdiff.config import UserError, check
from textdiff.text.autoregressive import Autoregressive
from textdiff.text.decoding import Decoding, resolve_decoding
from textdiff.text.decoding_config import DecodingConfig
from textdiff.text.lengths import spread_lengths
from textdiff.text.requests import Request, TextModel, continued


def need_sources(model: TextModel) -> None:
    """Raises UserError for a model whose texts need no source."""
    if not model.config.has_sources:
        raise UserError("this model has no sources: train one with --data.source and --data.target")


def target_request(
    model: TextModel,
    source: list[int],
    n: int,
    length: int | None = None,
    decoding: DecodingConfig | Decoding = DecodingConfig(),  # noqa: B008
) -> Request:
    """Request for n targets of a source, which is given before the separator.

    Args:
        length: Number of tokens of each target. If None, predicted from the source: the quantile
            of the decoding for the first target, and lengths spread evenly over their distribution
            for others.

    Raises:
        UserError: If the model has no sources, or no room for a target.
    """
    need_sources(model)
    decoding = resolve_decoding(model, decoding)
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
        sequence = torch.tensor([given], device=model.device)
        weight = model.target_lengths(sequence, torch.ones_like(sequence, dtype=torch.bool))
        at_least = min(decoding.least_tokens, room)
        lengths = spread_lengths(weight[0, : room + 1], n, at_least, decoding.length_quantile)
    return continued(model, given, lengths + len(given), decoding)
