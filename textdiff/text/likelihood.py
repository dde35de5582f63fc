"""Likelihood of sentences under a text diffusion model: two bounds, in nats.

-log p(sentence) = -log p(length) - log p(words | length). Padding is neither coded nor counted.

A model of pairs has -log p(target | source) instead: the words of the source are given at the clean
end of the schedule, as in training, and only those of the target are coded.
"""

import math
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from textdiff.diffusion.gaussian import Denoiser, Prediction, diffuse, from_x0
from textdiff.diffusion.likelihood import ode_nats, prior_and_diffusion_loss, prior_kl
from textdiff.diffusion.paths import Path
from textdiff.diffusion.schedules import Schedule
from textdiff.prng import Noise, likelihood_noise, normal, stratified_offsets
from textdiff.text.functional import cross_entropy, project
from textdiff.text.lengths import given_positions, length_nats
from textdiff.text.orders import order_path
from textdiff.text.predictor import WordPredictor
from textdiff.text.transformer import NoisyText


@torch.no_grad()
def word_nats(
    model: WordPredictor,
    ids: Int[Tensor, "b l"],
    mask: Bool[Tensor, "b l"],
    key: Int[Tensor, " b"],
    *,
    steps: int = 100_000,
    draws: int = 16,
    order: str = "parallel",
    window: int = 1,
) -> Float[Tensor, "b l"]:
    """Negative evidence lower bound of each word in nats, without the length.

    It is 0 at padding and at the words of sources.

    It is an unbiased estimate in float32. With window 1 and objective ce it is the chain rule. With
    a Markov prior, the Markov text is a control variate: its bound at the same random numbers is
    compared with its likelihood, which is exact. The words of a sentence share the difference.

    Args:
        key: Keys from which the randomness of each sentence is derived.
        steps: Steps of the reverse process.
        draws: Stratified draws of the step. Each is one evaluation of the denoiser. The chain rule
            needs one per word instead.
        order: Order in which the words lose their noise.
        window: Number of words that move at the same time, if not parallel.

    Raises:
        UserError: If the model has sources and a sequence has none.
    """
    path: Path = _schedule(model)
    if order != "parallel" or model.config.has_sources:
        start = (~given_positions(model, ids)).to(torch.get_default_dtype())
        path = order_path(_schedule(model), start, mask, key, order, window)
    if order != "parallel" and window == 1 and model.config.objective == "ce":
        return _chain_rule_nats(model, ids, mask, path, likelihood_noise(key))
    return _path_nats(model, ids, mask, path, key, steps, draws)


def negative_elbo(
    model: WordPredictor,
    ids: Int[Tensor, "b l"],
    mask: Bool[Tensor, "b l"],
    key: Int[Tensor, " b"],
    **options: Any,
) -> Float[Tensor, " b"]:
    """Negative evidence lower bound of each sentence: `word_nats`, and the nats of the length.

    Args:
        key: Keys from which the randomness of each sentence is derived.
        options: `steps`, `draws`, `order` and `window` of `word_nats`.

    Raises:
        UserError: If the model has sources and a sequence has none.
    """
    return word_nats(model, ids, mask, key, **options).sum(1) + length_nats(model, ids, mask)


def ode_negative_elbo(
    model: WordPredictor,
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

    Raises:
        UserError: If the model has sources and a sequence has none.
    """
    coded = mask & ~given_positions(model, ids)
    with torch.no_grad():
        x0 = model.words.embeddings[ids]
        eps = normal(key, x0.shape, stream=22)

    def probe(x: Tensor) -> Tensor:
        return normal(key, x.shape, stream=23).sign() * coded.unsqueeze(-1)

    denoise = _denoiser(model, mask)
    if model.config.has_sources:
        denoise = _with_sources(denoise, ~coded, x0, eps, model.logsnr_range[1])
    nats = ode_nats(denoise, x0, eps, model.logsnr_range, probe, steps).sum(2)
    words = nats.where(coded, 0) + _rounding_nats(model, ids, mask, eps)
    return words.sum(1) + length_nats(model, ids, mask)


def _schedule(model: WordPredictor) -> Schedule:
    """A schedule whose log SNR has a logistic distribution around that at which words are decided.

    There the signal's share of the norm, d exp(log SNR), is about 12. The bound of parallel and
    one-by-one orders does not depend on the schedule, but its variance does. The tails of a fitted
    schedule fall so fast that a rare large loss gets a huge weight.
    """
    center = 2.5 - math.log(model.config.embed_dim)
    noisy, clean = (1 / (1 + math.exp(end - center)) for end in model.logsnr_range)
    return lambda t: center - (clean + (noisy - clean) * t).logit()


def _predict(model: WordPredictor, text: NoisyText) -> tuple[Prediction, Float[Tensor, "b l v"]]:
    """The model's prediction and logits; with self-conditioning, the model is called twice."""
    found = model.predict(text)
    if model.config.self_cond_prob:
        found = model.predict(text._replace(self_cond=project(found[0].x0)))
    return found


def _denoiser(model: WordPredictor, mask: Tensor) -> Denoiser:
    def denoise(x_t: Tensor, logsnr: Tensor) -> Prediction:
        prediction, _ = _predict(model, NoisyText(x_t, logsnr, mask))
        return from_x0(x_t, prediction.x0, logsnr)

    return denoise


def _with_sources(
    denoise: Denoiser, given: Tensor, x0: Tensor, eps: Tensor, clean: float
) -> Denoiser:
    """The denoiser with given words at the clean end, whatever x_t is there."""
    given_x = diffuse(x0, eps, torch.full_like(x0[:, 0, 0], clean))

    def conditional(x_t: Tensor, logsnr: Tensor) -> Prediction:
        x_t = torch.where(given.unsqueeze(2), given_x, x_t)
        return denoise(x_t, torch.where(given, clean, logsnr.unsqueeze(1)))

    return conditional


def _path_nats(
    model: WordPredictor, ids: Tensor, mask: Tensor, path: Path, key: Tensor, steps: int, draws: int
) -> Float[Tensor, "b l"]:
    """The bound from random draws along a path."""
    x0, offsets = model.words.embeddings[ids], stratified_offsets(key, draws)
    coded, eps = mask & ~given_positions(model, ids), normal(key, x0.shape, stream=22)

    def loss(denoise: Denoiser) -> Float[Tensor, "b l"]:
        noise = likelihood_noise(key)
        nats = prior_and_diffusion_loss(denoise, x0, path, offsets, noise, steps)
        return nats.sum(2).where(coded, 0)

    nats = loss(_denoiser(model, mask)) + _rounding_nats(model, ids, mask, eps)
    if model.markov:
        noisy, clean = (_markov_nats(model, ids, mask, eps, end) for end in model.logsnr_range)
        prior = prior_kl(x0, path(torch.ones_like(offsets[:, 0]))).sum(2).where(coded, 0).sum(1)
        control = noisy + prior - loss(_markov_denoiser(model, mask)).sum(1) - clean
        nats = nats + coded * (control / coded.sum(1)).unsqueeze(1)
    return nats


def _chain_rule_nats(
    model: WordPredictor, ids: Tensor, mask: Tensor, path: Path, noise: Noise
) -> Float[Tensor, "b l"]:
    """-log p(word | words before it in the order) of each word, at the start of its own path.

    It is the bound of a process that reveals each word in one step: the earlier words are clean,
    and the others are noise. The expected diffusion loss of a word with Bayes' rule is the same.
    """
    coded = mask & ~given_positions(model, ids)
    x0, sizes = model.words.embeddings[ids], coded.sum(1)
    nats = torch.zeros_like(mask, dtype=x0.dtype)
    for number in range(int(sizes.max())):
        logsnr, after = (path((1 - n / sizes).clamp(min=0)) for n in (number, number + 1))
        logits = _predict(model, NoisyText(diffuse(x0, noise(x0), logsnr), logsnr, mask))[1]
        nats = torch.where(coded & (after > logsnr + 1), cross_entropy(logits, ids), nats)
    return nats


def _markov_denoiser(model: WordPredictor, mask: Tensor) -> Denoiser:
    """Bayes' rule under the Markov prior, without the network."""

    def denoise(x_t: Tensor, logsnr: Tensor) -> Prediction:
        evidence = model.evidence(NoisyText(x_t, logsnr, mask))
        assert evidence is not None
        return from_x0(x_t, evidence.estimate, logsnr)

    return denoise


def _markov_nats(
    model: WordPredictor, ids: Tensor, mask: Tensor, eps: Tensor, end: float
) -> Float[Tensor, " b"]:
    """-log p(words | x at one end) under the Markov prior.

    Between two log SNRs it falls, in expectation over x given the words, by exactly the diffusion
    loss of Bayes' rule: the derivative of KL(q(x | words) || q(x)) is half the squared error
    (Guo, Shamai & Verdu, arXiv:cs/0412108; Verdu, arXiv:1005.3280).
    """
    assert model.markov
    given, clean = given_positions(model, ids), model.logsnr_range[1]
    logsnr = torch.full(ids.shape, end, device=ids.device).masked_fill(given, clean)
    x = diffuse(model.words.embeddings[ids], eps, logsnr)
    return model.markov.chain().nats(model.words.log_likelihood(x, logsnr), ids, mask)


@torch.no_grad()
def _rounding_nats(
    model: WordPredictor, ids: Tensor, mask: Tensor, eps: Tensor
) -> Float[Tensor, "b l"]:
    """-log p(word | x at the clean end) of each word."""
    logsnr = torch.full((len(ids),), model.logsnr_range[1], device=ids.device)
    x = diffuse(model.words.embeddings[ids], eps, logsnr)
    _, logits = model.predict(NoisyText(x, logsnr, mask))
    return cross_entropy(logits, ids).where(mask & ~given_positions(model, ids), 0)
