"""Requests for text: generate, rewrite, infill, continue.

They differ only in the known words and in the amount of noise at which sampling starts.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from textdiff.config import UserError
from textdiff.prng import sample_keys, uniform
from textdiff.text.autoregressive import Autoregressive
from textdiff.text.config import DecodingConfig
from textdiff.text.model import DiffusionLM
from textdiff.text.tokenizer import MASK

TextModel = DiffusionLM | Autoregressive


@dataclass(frozen=True)
class Decoding:
    """Values of a `DecodingConfig`, in which the model's own replace null."""

    temperature: float = 1.0
    guidance_scale: float = 1.0
    clamp: bool = False
    x0: str = "auto"


@dataclass(frozen=True)
class Request:
    """A request for n sequences.

    Args:
        ids: Given tokens. Elsewhere they have no meaning, unless `strength` is below 1.
        mask: True at the positions of each sequence.
        known: True where the tokens of `ids` are kept.
        strength: Time of the noise schedule at which sampling starts. 1 is pure noise.
        decoding: Temperature, guidance scale, clamping, and what stands for x0.
    """

    ids: Int[Tensor, "n l"]
    mask: Bool[Tensor, "n l"]
    known: Bool[Tensor, "n l"]
    strength: float = 1.0
    decoding: Decoding = Decoding()


def resolve_decoding(model: TextModel, config: DecodingConfig) -> Decoding:
    """Takes temperature and guidance scale from the model where the configuration has none.

    Raises:
        UserError: If the configuration asks for something that the model does not have.
    """
    if isinstance(model, Autoregressive):
        if config.guidance_scale is not None:
            raise UserError("--guidance_scale needs a diffusion model, this one is autoregressive")
        if config.x0 == "joint":
            raise UserError("--x0 joint needs a diffusion model, this one is autoregressive")
        return Decoding(config.temperature or 1.0)
    if config.temperature is not None and model.config.objective != "ce":
        trained = f"this one has {model.config.objective}"
        raise UserError(f"--temperature needs a model trained with objective ce, {trained}")
    if config.x0 == "joint" and not model.markov:
        raise UserError("--x0 joint needs a model with a Markov prior (model.prior markov)")
    guidance_scale = config.guidance_scale
    if guidance_scale is None:
        guidance_scale = model.config.sampling_guidance_scale
    temperature = config.temperature or model.config.sampling_temperature
    return Decoding(temperature, guidance_scale, config.clamp, config.x0)


def sample_request(
    model: TextModel,
    n: int,
    seed: int,
    length: int | None = None,
    decoding: DecodingConfig = DecodingConfig(),  # noqa: B008
) -> Request:
    """Request for n sequences from pure noise.

    Args:
        length: Number of tokens of each. If None, drawn from the lengths of the training text.
    """
    lengths = _lengths(model, n, seed, length, at_least=1)
    mask = torch.arange(int(lengths.max())) < lengths.unsqueeze(1)
    ids, known = torch.zeros(mask.shape, dtype=torch.long), torch.zeros_like(mask)
    return Request(ids, mask, known, decoding=resolve_decoding(model, decoding))


def rewrite_request(
    model: TextModel,
    ids: list[int],
    n: int,
    strength: float,
    decoding: DecodingConfig = DecodingConfig(),  # noqa: B008
) -> Request:
    """Request for n variations of a sentence, of as many tokens: noise is added, then removed.

    Args:
        strength: Amount of noise, from 0 (the sentence itself) to 1 (only its length is kept).
    """
    if not 0 <= strength <= 1:
        rule = "between 0 (the text itself) and 1 (only its length is kept)"
        raise UserError(f"--strength must be {rule}, got {strength}")
    given = _repeated(model, ids, n)
    everywhere = torch.ones_like(given, dtype=torch.bool)
    return Request(given, everywhere, ~everywhere, strength, resolve_decoding(model, decoding))


def infill_request(
    model: TextModel,
    ids: list[int],
    n: int,
    mask_id: int | None,
    decoding: DecodingConfig = DecodingConfig(),  # noqa: B008
) -> Request:
    """Request for n ways to fill the positions that hold `mask_id`.

    Raises:
        UserError: If there are none.
    """
    if mask_id not in ids:
        raise UserError(f"--text has no {MASK} to fill: write one for each missing token")
    given = _repeated(model, ids, n)
    everywhere = torch.ones_like(given, dtype=torch.bool)
    known = given != mask_id
    return Request(given, everywhere, known, decoding=resolve_decoding(model, decoding))


def continue_request(
    model: TextModel,
    ids: list[int],
    n: int,
    seed: int,
    length: int | None = None,
    decoding: DecodingConfig = DecodingConfig(),  # noqa: B008
) -> Request:
    """Request for n sequences that begin with `ids`.

    Args:
        length: Number of tokens of each, `ids` included. If None, drawn as in `sample_request`.
    """
    lengths = _lengths(model, n, seed, length, at_least=len(ids) + 1)
    positions = torch.arange(int(lengths.max()))
    start = torch.zeros(len(positions), dtype=torch.long)
    start[: len(ids)] = torch.tensor(ids, dtype=torch.long)
    mask = positions < lengths.unsqueeze(1)
    known = (positions < len(ids)).expand_as(mask)
    given = start.expand(mask.shape)
    return Request(given, mask, known, decoding=resolve_decoding(model, decoding))


def _lengths(
    model: TextModel, n: int, seed: int, length: int | None, at_least: int
) -> Int[Tensor, " n"]:
    """Number of tokens of each sequence. Raises UserError if the model cannot have it."""
    longest = model.config.length
    trained = f"{longest}, the longest that this model was trained for"
    if at_least > longest:
        raise UserError(f"the text of {at_least - 1} tokens leaves no room: at most {trained}")
    if length is not None:
        if not at_least <= length <= longest:
            raise UserError(f"--length must be between {at_least} and {trained}, got {length}")
        return torch.full((n,), length)
    if isinstance(model, Autoregressive):
        return torch.full((n,), longest)  # at most: the model ends its sentences itself
    weight = model.lengths.cpu().double().clone()
    weight[:at_least] = 0
    weight = weight if weight.sum() > 0 else torch.arange(longest + 1).ge(at_least).double()
    drawn = uniform(sample_keys(seed, n), stream=0).double() * weight.sum()
    return torch.searchsorted(weight.cumsum(0), drawn)


def _repeated(model: TextModel, ids: list[int], n: int) -> Int[Tensor, "n l"]:
    """The tokens n times. Raises UserError if the model cannot take so many."""
    longest = model.config.length
    if not 1 <= len(ids) <= longest:
        rule = f"1 to {longest} tokens for this model"
        raise UserError(f"the text must have {rule}, got {len(ids)}")
    return torch.tensor(ids).expand(n, -1)
