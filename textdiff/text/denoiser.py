"""A text model as a denoiser, which samplers take."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from textdiff.device import autocast
from textdiff.diffusion.gaussian import Denoiser, Prediction, from_x0
from textdiff.diffusion.wrappers import clamped, infilled, self_conditioned
from textdiff.text.functional import project
from textdiff.text.model import DiffusionLM
from textdiff.text.requests import Decoding

Uniforms = Callable[[int], Float[Tensor, "b n"]]  # n uniform random numbers for each sentence


def build_denoiser(
    model: DiffusionLM,
    x0: Float[Tensor, "b l d"],
    known: Bool[Tensor, "b l"],
    mask: Bool[Tensor, "b l"],
    banned: Bool[Tensor, " v"],
    decoding: Decoding,
    precision: str,
    uniforms: Uniforms | None = None,
) -> Denoiser:
    """The model as a denoiser with self-conditioning, clamping and infilling.

    Args:
        x0: Embeddings of the words where `known` is true.
        banned: Tokens that are never sampled.
        uniforms: Random numbers for drawing sentences. If given, x0 is that of a drawn sentence
            instead of the mean. Since p(x_s | x_t) is the mean of q(x_s | x_t, x0) over x0, an
            ancestral step of any length is then exact if the distribution of the sentence is.
    """
    options: dict[str, Any] = {"banned": banned, "temperature": decoding.temperature}
    options["guidance_scale"] = decoding.guidance_scale
    any_known = bool(known.any())
    # a model that was not trained with known words gets noisy ones
    clean = known if model.config.infill_prob else torch.zeros_like(known)

    def network(x_t: Tensor, logsnr: Tensor, last: Tensor) -> tuple[Prediction, Tensor]:
        x_in = torch.where(clean.unsqueeze(-1), x0, x_t) if any_known else x_t
        inputs = (x_in, logsnr, project(last), clean, mask)
        with autocast(x_t.device, precision):
            if uniforms is None:
                mean = model.predict(*inputs, **options)[0].x0
                return from_x0(x_t, mean, logsnr), mean
            words, mean = model.draw_words(*inputs, uniforms(mask.shape[1]), **options)
        return from_x0(x_t, model.words.embeddings[words], logsnr), mean

    denoise = self_conditioned(network)
    denoise = clamped(denoise, _nearest_embedding(model, banned) if decoding.clamp else project)
    return infilled(denoise, x0, known.unsqueeze(-1)) if any_known else denoise


def _nearest_embedding(
    model: DiffusionLM, banned: Bool[Tensor, " v"]
) -> Callable[[Float[Tensor, "b l d"]], Float[Tensor, "b l d"]]:
    """Function that replaces vectors by the nearest embeddings of words that are not banned."""

    def nearest(x0: Tensor) -> Tensor:
        logits = model.words.rounding_logits(x0).masked_fill(banned, -torch.inf)
        return model.words.embeddings[logits.argmax(-1)]

    return nearest
