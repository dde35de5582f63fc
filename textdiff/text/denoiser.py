"""A text model as a denoiser, which samplers take.

x0 is that of a drawn sentence, or the mean. As p(x_s | x_t) is the mean of q(x_s | x_t, x0) over
x0, a step of any length is exact with a drawn sentence, if the distribution of the sentence is.
"""

from collections.abc import Callable, Iterator
from itertools import repeat
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from textdiff.device import autocast
from textdiff.diffusion.automaton import Automaton
from textdiff.diffusion.gaussian import Denoiser, Prediction, from_x0
from textdiff.diffusion.wrappers import clamped, self_conditioned
from textdiff.text.decoding import Decoding
from textdiff.text.functional import project
from textdiff.text.predictor import Guide, WordPredictor
from textdiff.text.transformer import NoisyText

Uniforms = Callable[[int], Float[Tensor, "b n"]]  # n uniform random numbers for each sentence
ALL: Iterator[None] = repeat(None)  # words move in every step


def build_denoiser(
    model: WordPredictor,
    mask: Bool[Tensor, "b l"],
    banned: Bool[Tensor, "*#b v"],
    decoding: Decoding,
    precision: str,
    uniforms: Uniforms | None = None,
    automaton: Automaton | None = None,
    guide: Guide | None = None,
    source: Bool[Tensor, "b l"] | None = None,
    predicted: list[Tensor] | None = None,
    moving: Iterator[Bool[Tensor, "b l"] | None] = ALL,
) -> Denoiser:
    """The model as a denoiser with self-conditioning and clamping, which never samples `banned`.

    Args:
        uniforms: Random numbers for drawing sentences. If None, x0 is the mean.
        automaton: The set of sentences that may be sampled. If None, all.
        guide: Guidance of the words' logits.
        source: Words of the source, if guidance is towards it.
        predicted: List that holds the probabilities (b l v) of the last call, if they are kept.
        moving: Words that move in each step, if the network predicts these alone in a draw.
    """
    options: Any = {"banned": banned, "source": source, "automaton": automaton, "guide": guide}
    options |= {"temperature": decoding.temperature, "guidance_scale": decoding.guidance_scale}

    def network(x_t: Tensor, logsnr: Tensor, last: Tensor) -> tuple[Prediction, Tensor]:
        text = NoisyText(x_t, logsnr, mask, project(last))
        with autocast(x_t.device, precision):
            if uniforms is None:
                mean, logits = _predict(model, text, **options)
                _keep(predicted, lambda: logits.softmax(-1))
                return from_x0(x_t, mean, logsnr), mean
            words, p = model.draw_words(text, uniforms(mask.shape[1]), next(moving), **options)
        _keep(predicted, lambda: p)
        vectors = model.words.embeddings
        return from_x0(x_t, vectors[words], logsnr), p @ vectors

    end = _nearest_embedding(model, banned) if decoding.clamp else project
    return clamped(self_conditioned(network), end)


def _keep(kept: list[Tensor] | None, value: Callable[[], Tensor]) -> None:
    """Replaces the content of a list, if there is one, by a value."""
    if kept is not None:
        kept[:] = [value()]


def _predict(
    model: WordPredictor,
    text: NoisyText,
    automaton: Automaton | None,
    guide: Guide | None,
    **options: Any,
) -> tuple[Float[Tensor, "b l d"], Float[Tensor, "b l v"]]:
    """The mean of x0 and the logits of the words under control."""
    prediction, logits = model.predict(text, **options)
    if automaton is None and guide is None:
        return prediction.x0, logits
    new = _controlled(logits, text.mask, automaton, guide)
    change = (new.softmax(-1) - logits.softmax(-1)) @ model.words.embeddings
    return prediction.x0 + change, new


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
