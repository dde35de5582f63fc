"""Functions of logits, words and embeddings."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


def cross_entropy(logits: Float[Tensor, "b l v"], ids: Int[Tensor, "b l"]) -> Float[Tensor, "b l"]:
    """Cross-entropy of each word in nats. Computed on (b l, v): torch is slower on (b, v, l)."""
    flat = F.cross_entropy(logits.flatten(0, 1), ids.flatten(), reduction="none")
    return flat.view_as(ids)


def source_positions(ids: Int[Tensor, "b l"], separator: int) -> Bool[Tensor, "b l"]:
    """True at the words of sources, which end with the separator."""
    return (ids == separator).flip(1).cumsum(1).flip(1) > 0


def source_words(ids: Int[Tensor, "b l"], separator: int) -> Bool[Tensor, "b l"]:
    """True at the words of sources, without the separator."""
    return source_positions(ids, separator) & (ids != separator)


def project(x0: Float[Tensor, "b l d"]) -> Float[Tensor, "b l d"]:
    """Shortens vectors to norm sqrt(d), the greatest of embeddings and of their averages."""
    limit = math.sqrt(x0.shape[-1])
    return x0 * (limit / x0.norm(dim=-1, keepdim=True).clamp(min=limit))


def without_banned(
    logits: Float[Tensor, "b l v"], banned: Bool[Tensor, "*#b v"] | None
) -> Float[Tensor, "b l v"]:
    """Logits with those of banned words at minus infinity."""
    return logits if banned is None else logits.masked_fill(banned, -torch.inf)
