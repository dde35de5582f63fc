"""Denoiser -> Denoiser: what a sampler is told about the data, without the sampler knowing.

A wrapper that changes x0 derives eps anew, so that `x_t = alpha x0 + sigma eps` still holds.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from textdiff.diffusion.gaussian import Denoiser, Prediction, from_x0

Network = Callable[[Float[Tensor, "b *d"], Float[Tensor, " b"], Float[Tensor, "b *d"]], Prediction]  # (x_t, log SNR, last x0) -> Prediction


def guided(conditional: Denoiser, unconditional: Denoiser, scale: float) -> Denoiser:
    """Classifier-free guidance (arXiv:2207.12598, eq. 6): 1 is the conditional model, 0 the unconditional, more overshoots."""

    def denoise(x_t: Tensor, logsnr: Tensor) -> Prediction:
        with_, without = conditional(x_t, logsnr), unconditional(x_t, logsnr)
        return Prediction(without.x0 + scale * (with_.x0 - without.x0), without.eps + scale * (with_.eps - without.eps))

    return denoise


def clamped(denoise: Denoiser, project: Callable[[Float[Tensor, "b *d"]], Float[Tensor, "b *d"]]) -> Denoiser:
    """x0 is projected onto where data can be: [-1, 1] for pixels, the nearest embedding for words (Diffusion-LM's clamping trick)."""

    def clamped_denoise(x_t: Tensor, logsnr: Tensor) -> Prediction:
        return from_x0(x_t, logsnr, project(denoise(x_t, logsnr).x0))

    return clamped_denoise


def infilled(denoise: Denoiser, x0: Float[Tensor, "b *d"], known: Bool[Tensor, "b *#d"]) -> Denoiser:
    """Where `known` is true the data are those of `x0`: ancestral sampling then draws that part from q(x_s | x_t, x_0), always on the marginal."""

    def infilled_denoise(x_t: Tensor, logsnr: Tensor) -> Prediction:
        return from_x0(x_t, logsnr, torch.where(known, x0, denoise(x_t, logsnr).x0))

    return infilled_denoise


def self_conditioned(network: Network) -> Denoiser:
    """Feeds the network its last estimate of x0, zero at first (Analog Bits, arXiv:2208.04202). Holds state: make one for each run of a sampler."""
    last: list[Tensor] = []

    def denoise(x_t: Tensor, logsnr: Tensor) -> Prediction:
        prediction = network(x_t, logsnr, last[0] if last else torch.zeros_like(x_t))
        last[:] = [prediction.x0]
        return prediction

    return denoise
