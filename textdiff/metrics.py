"""Figures that tell whether a text model works. So far: does it use its context, the earliest sign of life."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from torch import Tensor

from textdiff.counter import normal
from textdiff.diffusion.gaussian import diffuse
from textdiff.lm import DiffusionLM


@torch.no_grad()
def context_gain(model: DiffusionLM, ids: Int[Tensor, "b l"], mask: Bool[Tensor, "b l"], levels: Sequence[float]) -> dict[float, float]:
    """Nats a word that the model saves, at each log SNR, over the best guess without context (unigram frequency and the word's own noisy
    vector, Bayes' rule). Around 0 or below: it has learned to denoise words one by one, and its samples will be word salad."""
    gains = {}
    x0 = model.vectors[ids]
    for level in levels:
        logsnr = torch.full((len(ids),), level, device=ids.device)
        x_t = diffuse(x0, logsnr, normal(torch.arange(len(ids), device=ids.device), x0.shape, stream=10))
        alone = model.unigram.log() + model.evidence(x_t, logsnr)
        _, logits = model.predict(x_t, logsnr, torch.zeros_like(x_t), torch.zeros_like(mask), mask)
        gains[level] = float(_cross_entropy(alone, ids, mask) - _cross_entropy(logits, ids, mask))
    return gains


def _cross_entropy(logits: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    return F.cross_entropy(logits[mask].float(), ids[mask])
