"""Fixtures of the text tests: noisy embeddings, given tokens and requests."""

from collections.abc import Callable

import pytest
import torch
from tokenizers import Tokenizer

from textdiff.config import SamplingConfig
from textdiff.diffusion.gaussian import diffuse
from textdiff.sampling import collect
from textdiff.text.decoding_config import DecodingConfig
from textdiff.text.model import DiffusionLM
from textdiff.text.requests import (
    Request,
    continue_request,
    infill_request,
    rewrite_request,
    sample_request,
)
from textdiff.text.sampling import generate
from textdiff.text.tokenizer import MASK, encode


@pytest.fixture
def noisy(model: DiffusionLM, batch: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """x_t and log SNRs from almost pure noise to almost clean."""
    x0 = model.words.embeddings[batch["ids"]].detach()
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    logsnr = torch.linspace(-6, 4, len(x0))
    return diffuse(x0, eps, logsnr), logsnr


@pytest.fixture(scope="session")
def ids(tokenizer: Tokenizer) -> list[int]:
    """The tokens of a sentence."""
    return encode(tokenizer, "the king sees a small dog .")


@pytest.fixture(scope="session")
def new_request(model: DiffusionLM, tokenizer: Tokenizer, ids: list[int]) -> Callable[..., Request]:
    """`new_request("infill", temperature=2.0, ...)`: a request of one of four kinds, n = 6."""
    masked = encode(tokenizer, f"the {MASK} sees a {MASK} {MASK} .")
    mask_id = tokenizer.token_to_id(MASK)

    def new(kind: str, **options: object) -> Request:
        decoding = DecodingConfig(**options)
        if kind == "sample":
            return sample_request(model, 6, seed=0, decoding=decoding)
        if kind == "rewrite":
            return rewrite_request(model, ids, 6, strength=0.7, decoding=decoding)
        if kind == "infill":
            return infill_request(model, masked, 6, mask_id, decoding)
        return continue_request(model, ids[:3], 6, seed=0, decoding=decoding)

    return new


@pytest.fixture(scope="session")
def draw(model: DiffusionLM, tokenizer: Tokenizer) -> Callable[..., list[list[int]]]:
    """`draw(request, steps=..., ...)`: the final samples, as lists of tokens."""

    def samples(request: Request, **options: object) -> list[list[int]]:
        config = SamplingConfig(**{"steps": 4} | options)
        return [*collect(generate(model, tokenizer, request, config))]

    return samples
