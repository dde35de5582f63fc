"""The reverse step as a conditional Gaussian VAE, for steps so large that q(z_s | z_t) is no Gaussian (TTIC 31230, quiz 3, problem 3).

A latent e ~ N(0, I) chooses among the ways back: z_s ~ p(z_s | e, z_t). An encoder p(e | z_s, z_t) is trained with the decoder and then thrown away.
Both are functions that return a diagonal `Gaussian`; `logsnr_t` says from which level the step starts.
"""

import math
from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from textdiff.diffusion.gaussian import Gaussian
from textdiff.diffusion.samplers import Generators, randn_like

Encoder = Callable[[Float[Tensor, "b *d"], Float[Tensor, "b *d"], Float[Tensor, " b"]], Gaussian]  # (z_s, z_t, log SNR of z_t) -> e
Decoder = Callable[[Float[Tensor, "b *e"], Float[Tensor, "b *d"], Float[Tensor, " b"]], Gaussian]  # (e, z_t, log SNR of z_t) -> z_s


def vae_loss(
    encode: Encoder, decode: Decoder, z_s: Float[Tensor, "b *d"], z_t: Float[Tensor, "b *d"], logsnr_t: Float[Tensor, " b"], generator: Generators
) -> Float[Tensor, " b"]:
    """KL(p(e | z_s, z_t) || N(0, I)) - log p(z_s | e, z_t), nats a sample: on average at least -log p(z_s | z_t), and equal to it where the encoder
    is the decoder's posterior."""
    code = encode(z_s, z_t, logsnr_t)
    latent = code.mean + code.var.sqrt() * randn_like(code.mean, generator)
    back = decode(latent, z_t, logsnr_t)
    kl = 0.5 * (code.mean**2 + code.var - 1 - code.var.log())
    nats = 0.5 * ((z_s - back.mean) ** 2 / back.var + (2 * math.pi * back.var).log())
    return kl.flatten(1).sum(1) + nats.flatten(1).sum(1)


def vae_step(
    decode: Decoder, latent: Float[Tensor, "b *e"], z_t: Float[Tensor, "b *d"], logsnr_t: Float[Tensor, " b"], *, generator: Generators
) -> Float[Tensor, "b *d"]:
    """A draw of p(z_s | z_t) for a latent drawn from N(0, I)."""
    mean, var = decode(latent, z_t, logsnr_t)
    return mean + var.sqrt() * randn_like(mean, generator)
