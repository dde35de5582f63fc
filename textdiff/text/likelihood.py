"""Likelihood of sentences under a text diffusion model: two bounds, in nats per sentence.

-log p(sentence) = -log p(length) - log p(words | length). Padding is neither coded nor counted.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from textdiff.diffusion.gaussian import Denoiser, Prediction, diffuse, from_x0
from textdiff.diffusion.likelihood import ode_nats, prior_and_diffusion_loss
from textdiff.diffusion.paths import even_in_logsnr
from textdiff.prng import likelihood_noise, normal, stratified_offsets
from textdiff.text.functional import cross_entropy, project
from textdiff.text.model import DiffusionLM
from textdiff.text.orders import order_path
from textdiff.text.transformer import NoisyText


@torch.no_grad()
def negative_elbo(
    model: DiffusionLM,
    ids: Int[Tensor, "b l"],
    mask: Bool[Tensor, "b l"],
    key: Int[Tensor, " b"],
    *,
    steps: int = 10_000,
    draws: int = 16,
    order: str = "parallel",
    window: int = 1,
) -> Float[Tensor, " b"]:
    """Negative evidence lower bound of each sentence, an unbiased estimate in float32.

    Args:
        key: Keys from which the randomness of each sentence is derived.
        steps: Steps of the reverse process. The log SNR of moving words rises evenly.
        draws: Stratified draws of the step. Other orders than parallel need more, because fewer
            words move in each step.
        order: Order in which the words lose their noise.
        window: Number of words that move at the same time.
    """
    x0 = model.words.embeddings[ids]
    offsets, noise = stratified_offsets(key, draws), likelihood_noise(key)
    denoise = _denoiser(model, mask)
    path = even_in_logsnr(model.schedule())
    if order != "parallel":
        start = torch.ones_like(offsets[:, :1]).expand(mask.shape)
        path = order_path(path, start, mask, key, order, window)
    nats = prior_and_diffusion_loss(denoise, x0, path, offsets, noise, steps)
    rounding = _rounding_nats(model, ids, mask, normal(key, x0.shape, stream=22))
    return _sum(nats, mask) + rounding + _length_nats(model, mask)


def ode_negative_elbo(
    model: DiffusionLM,
    ids: Int[Tensor, "b l"],
    mask: Bool[Tensor, "b l"],
    key: Int[Tensor, " b"],
    *,
    steps: int = 64,
) -> Float[Tensor, " b"]:
    """The bound with the probability-flow ODE as the model of x at the clean end.

    Args:
        key: Keys from which the randomness of each sentence is derived.
        steps: Steps of Heun's method. The trace is estimated with one Rademacher probe.
    """
    with torch.no_grad():
        x0 = model.words.embeddings[ids]
        eps = normal(key, x0.shape, stream=22)

    def probe(x: Tensor) -> Tensor:
        return normal(key, x.shape, stream=23).sign() * mask.unsqueeze(-1)

    nats = ode_nats(_denoiser(model, mask), x0, eps, model.logsnr_range, probe, steps)
    rounding = _rounding_nats(model, ids, mask, eps)
    return _sum(nats, mask) + rounding + _length_nats(model, mask)


def _denoiser(model: DiffusionLM, mask: Tensor) -> Denoiser:
    """The model as a denoiser; with self-conditioning, it is called twice."""

    def denoise(x_t: Tensor, logsnr: Tensor) -> Prediction:
        text = NoisyText(x_t, logsnr, mask)
        prediction, _ = model.predict(text)
        if model.config.self_cond_prob:
            prediction, _ = model.predict(text._replace(self_cond=project(prediction.x0)))
        return from_x0(x_t, prediction.x0, logsnr)

    return denoise


@torch.no_grad()
def _rounding_nats(
    model: DiffusionLM, ids: Tensor, mask: Tensor, eps: Tensor
) -> Float[Tensor, " b"]:
    """-log p(words | x at the clean end)."""
    logsnr = torch.full((len(ids),), model.logsnr_range[1], device=ids.device)
    x = diffuse(model.words.embeddings[ids], eps, logsnr)
    _, logits = model.predict(NoisyText(x, logsnr, mask))
    return _sum(cross_entropy(logits, ids).unsqueeze(-1), mask)


def _length_nats(model: DiffusionLM, mask: Tensor) -> Float[Tensor, " b"]:
    """-log p(length): frequencies in the training text, smoothed so that none is zero."""
    smoothed = 0.9999 * model.lengths + 1e-4 / len(model.lengths)
    return -smoothed.log()[mask.sum(1)]


def _sum(nats: Float[Tensor, "b l _"], mask: Bool[Tensor, "b l"]) -> Float[Tensor, " b"]:
    """Sum over the real positions."""
    return (nats * mask.unsqueeze(-1)).sum((1, 2))
