"""Word embeddings with noise: how likely each word is, given a noisy or a clean vector."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from textdiff.diffusion.gaussian import LogSNR, alpha_sigma


class WordEmbedding(nn.Module):
    """Embeddings of norm sqrt(dim).

    Buffer: `unigram`, the frequency of each word in the training text.

    Args:
        rounding_bias: Whether rounding has a bias per word.
    """

    unigram: Tensor

    def __init__(self, vocab_size: int, dim: int, rounding_bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(vocab_size, dim))
        self.rounding_bias = nn.Parameter(torch.zeros(vocab_size)) if rounding_bias else None
        self.register_buffer("unigram", torch.full((vocab_size,), 1 / vocab_size))

    @property
    def embeddings(self) -> Float[Tensor, "v d"]:
        """Embeddings of all words, with variance 1 per component."""
        return F.normalize(self.weight, dim=-1) * math.sqrt(self.weight.shape[1])

    def log_likelihood(
        self, x_t: Float[Tensor, "b *l d"], logsnr: LogSNR
    ) -> Float[Tensor, "b *l v"]:
        """log N(x_t; alpha e_v, sigma^2 I) of each word v, up to a constant.

        Args:
            logsnr: Log SNR of each example, or of each vector.
        """
        alpha, sigma = alpha_sigma(logsnr, x_t)
        return (alpha / sigma**2 * x_t) @ self.embeddings.T

    def context_free_logits(
        self, x_t: Float[Tensor, "b l d"], logsnr: LogSNR
    ) -> Float[Tensor, "b l v"]:
        """Logits of each word given its own noisy vector alone: Bayes' rule with `unigram`."""
        return self.unigram.log() + self.log_likelihood(x_t, logsnr)

    def rounding_logits(self, x0: Float[Tensor, "*b d"]) -> Float[Tensor, "*b v"]:
        """Logits of the words given a clean vector: inner products (Diffusion-LM, sec. 4.2)."""
        logits = x0 @ self.embeddings.T
        return logits if self.rounding_bias is None else logits + self.rounding_bias
