"""A text model as a denoiser, which samplers take."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from textdiff.device import autocast
from textdiff.diffusion.automaton import Automaton
from textdiff.diffusion.gaussian import Denoiser, Prediction, from_x0
from textdiff.diffusion.wrappers import clamped, self_conditioned
from textdiff.text.functional import project
from textdiff.text.predictor import Guide, WordPredictor
from textdiff.text.requests import Decoding
from textdiff.text.transformer import NoisyText

Uniforms = Callable[[int], Float[Tensor, "b n"]]  # n uniform random numbers for each sentence


def build_denoiser(
    model: WordPredictor,
    mask: Bool[Tensor, "b l"],
    banned: Bool[Tensor, "*#b v"],
    decoding: Decoding,
    precision: str,
    uniforms: Uniforms | None = None,
    automaton: Automaton | None = None,
    guide: Guide | None = None,
) -> Denoiser:
    """The model as a denoiser with self-conditioning and clamping.

    Args:
        banned: Tokens that are never sampled, anywhere or at each position.
        uniforms: Random numbers for drawing sentences. If given, x0 is that of a drawn sentence
            instead of the mean. Since p(x_s | x_t) is the mean of q(x_s | x_t, x0) over x0, an
            ancestral step of any length is then exact if the distribution of the sentence is.
        automaton: The set of sentences that may be sampled. If None, all.
        guide: Guidance of the words' logits.
    """
    options: dict[str, Any] = {"banned": banned, "temperature": decoding.temperature}
    options["guidance_scale"] = decoding.guidance_scale

    def network(x_t: Tensor, logsnr: Tensor, last: Tensor) -> tuple[Prediction, Tensor]:
        text = NoisyText(x_t, logsnr, mask, project(last))
        with autocast(x_t.device, precision):
            if uniforms is None:
                prediction, logits = model.predict(text, **options)
                mean = prediction.x0
                if automaton or guide:
                    new = _controlled(logits, mask, automaton, guide)
                    mean = mean + (new.softmax(-1) - logits.softmax(-1)) @ model.words.embeddings
                return from_x0(x_t, mean, logsnr), mean
            control = automaton, guide
            words, mean = model.draw_words(text, uniforms(mask.shape[1]), *control, **options)
        return from_x0(x_t, model.words.embeddings[words], logsnr), mean

    denoise = self_conditioned(network)
    return clamped(denoise, _nearest_embedding(model, banned) if decoding.clamp else project)


def _controlled(
    logits: Float[Tensor, "b l v"],
    mask: Bool[Tensor, "b l"],
    automaton: Automaton | None,
    guide: Guide | None,
) -> Float[Tensor, "b l v"]:
    """Logits of guided words, given that the sentence is in the set."""
    guided = logits + guide(logits.softmax(-1)) if guide else logits
    return automaton.tilt(guided, mask) if automaton else guided


def _nearest_embedding(
    model: WordPredictor, banned: Bool[Tensor, "*#b v"]
) -> Callable[[Float[Tensor, "b l d"]], Float[Tensor, "b l d"]]:
    """Function that replaces vectors by the nearest embeddings of words that are not banned."""

    def nearest(x0: Tensor) -> Tensor:
        logits = model.words.rounding_logits(x0).masked_fill(banned, -torch.inf)
        return model.words.embeddings[logits.argmax(-1)]

    return nearest
