"""The reverse step as a conditional Gaussian VAE.

It is meant for steps so large that q(z_s | z_t) is not Gaussian. A latent e ~ N(0, I) selects
one of several reverse steps: z_s ~ p(z_s | e, z_t). The encoder p(e | z_s, z_t) is trained with
the decoder and is not needed for sampling. Both are functions that return a diagonal `Gaussian`;
`logsnr_t` is the log SNR of z_t. Source: TTIC 31230, quiz 3, problem 3.
"""

import math
from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from textdiff.diffusion.gaussian import Gaussian, PerSample, X
from textdiff.diffusion.samplers import Generators, randn_like

Latent = Float[Tensor, "b *e"]
Encoder = Callable[[X, X, PerSample], Gaussian]  # (z_s, z_t, log SNR of z_t) -> e
Decoder = Callable[[Latent, X, PerSample], Gaussian]  # (e, z_t, log SNR of z_t) -> z_s


def vae_loss(
    encode: Encoder, decode: Decoder, z_s: X, z_t: X, logsnr_t: PerSample, generator: Generators
) -> PerSample:
    """KL(p(e | z_s, z_t) || N(0, I)) - log p(z_s | e, z_t) in nats per sample.

    Its mean is at least -log p(z_s | z_t), with equality if the encoder is the decoder's posterior.
    """
    code = encode(z_s, z_t, logsnr_t)
    latent = code.mean + code.var.sqrt() * randn_like(code.mean, generator)
    mean, var = decode(latent, z_t, logsnr_t)
    kl = 0.5 * (code.mean**2 + code.var - 1 - code.var.log())
    nats = 0.5 * ((z_s - mean) ** 2 / var + (2 * math.pi * var).log())
    return kl.flatten(1).sum(1) + nats.flatten(1).sum(1)


def vae_step(
    decode: Decoder, latent: Latent, z_t: X, logsnr_t: PerSample, *, generator: Generators
) -> X:
    """Draws z_s from p(z_s | z_t), given a latent drawn from N(0, I)."""
    mean, var = decode(latent, z_t, logsnr_t)
    return mean + var.sqrt() * randn_like(mean, generator)
