"""Likelihood of images under a model: two bounds on -log p(bytes | class), in nats per image."""

import math
from functools import partial

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from image.model import ImageDiffusionModel, scaled
from textdiff.diffusion.gaussian import alpha_sigma, diffuse
from textdiff.diffusion.likelihood import discretized_nats, ode_nats, prior_and_diffusion_loss
from textdiff.diffusion.paths import even_in_logsnr
from textdiff.diffusion.schedules import endpoints
from textdiff.prng import likelihood_noise, normal, stratified_offsets

Pixels = UInt8[Tensor, "n c h w"]
Labels = Int[Tensor, " n"]


@torch.no_grad()
def negative_elbo(
    model: ImageDiffusionModel,
    pixels: Pixels,
    label: Labels | None,
    key: Int[Tensor, " n"],
    *,
    steps: int = 1000,
    draws: int = 16,
) -> Float[Tensor, " n"]:
    """Unbiased estimate of the negative evidence lower bound of each image, in float32.

    L_T + sum L_{t-1} + L_0 (DDPM eq. 5, 13), given the class.

    Args:
        key: Keys from which the randomness of each image is derived.
        steps: Steps of the reverse process, of equal length in log SNR.
        draws: Stratified draws of the step.
    """
    pixels, key, label = _to_device(model, pixels, key, label)
    x0, denoise = scaled(pixels), model.denoiser(label)
    offsets, noise = stratified_offsets(key, draws), likelihood_noise(key)
    path = even_in_logsnr(model.schedule())
    nats = prior_and_diffusion_loss(denoise, x0, path, offsets, noise, steps)
    pixel_nats = _pixel_nats(model, x0, label, normal(key, x0.shape, stream=22))
    return (nats + pixel_nats).sum((1, 2, 3)).cpu()


def ode_negative_elbo(
    model: ImageDiffusionModel,
    pixels: Pixels,
    label: Labels | None,
    key: Int[Tensor, " n"],
    *,
    steps: int = 64,
) -> Float[Tensor, " n"]:
    """Unbiased estimate of the bound by the probability-flow ODE, of each image, in float32.

    The ODE gives the density of x at the clean end, whose noise dequantizes the pixels.

    Args:
        key: Keys from which the randomness of each image is derived.
        steps: Steps of Heun's method. The trace is estimated with one Rademacher probe.
    """
    pixels, key, label = _to_device(model, pixels, key, label)
    x0 = scaled(pixels)
    eps = normal(key, x0.shape, stream=22)
    # without clamping to [-1, 1], which would make derivatives 0
    denoise = partial(model.predict, label=label)

    def probe(x: Tensor) -> Tensor:
        return normal(key, x.shape, stream=23).sign()

    nats = ode_nats(denoise, x0, eps, endpoints(model.schedule()), probe, steps)
    return (nats + _pixel_nats(model, x0, label, eps)).sum((1, 2, 3)).cpu()


def bits_per_dimension(nats: Float[Tensor, " n"], pixels: Pixels) -> tuple[float, float]:
    """Mean and standard error of the bits per pixel and channel."""
    bits = to_bits(nats, pixels)
    return float(bits.mean()), float(bits.std() / math.sqrt(len(bits)))


def to_bits(nats: Float[Tensor, " n"], pixels: Pixels) -> Float[Tensor, " n"]:
    """Bits per pixel and channel of each image."""
    return nats / (pixels[0].numel() * math.log(2))


def _to_device(
    model: ImageDiffusionModel, pixels: Tensor, key: Tensor, label: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The tensors on the model's device."""
    device = model.device
    return pixels.to(device), key.to(device), None if label is None else label.to(device)


@torch.no_grad()
def _pixel_nats(
    model: ImageDiffusionModel, x0: Tensor, label: Tensor | None, eps: Tensor
) -> Float[Tensor, "n c h w"]:
    """L_0 = -log p(bytes | x at the clean end), by a discretized Gaussian around the estimate."""
    logsnr = torch.full((len(x0),), endpoints(model.schedule())[1], device=x0.device)
    mean = model.denoiser(label)(diffuse(x0, eps, logsnr), logsnr).x0
    alpha, sigma = alpha_sigma(logsnr, x0)
    return discretized_nats(x0, mean, sigma / alpha).float()
