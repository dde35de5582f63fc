"""Optimizers of a model, the learning rate schedule and the average of the weights."""

import math

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from textdiff.config import TrainConfig
from textdiff.device import matmul_dtype
from textdiff.training.muon import Muon


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then half a cosine down to 0."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def build_optimizers(
    model: nn.Module, config: TrainConfig, device: torch.device
) -> list[torch.optim.Optimizer]:
    """Muon for the weight matrices of repeated blocks and AdamW for the rest, or AdamW alone.

    The matrices for Muon are those of linear layers (GPT-2's Conv1D too) inside a ModuleList.
    """
    layers = (nn.Linear, Conv1D, nn.Conv2d)
    weights = {id(m.weight): m.weight for m in model.modules() if isinstance(m, layers)}
    muon = {}
    if config.optimizer == "muon":
        blocks = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
        inner = [m for block in blocks for m in block.modules()]
        muon = {id(m.weight): m.weight for m in inner if isinstance(m, nn.Linear | Conv1D)}
    rest = [p for p in model.parameters() if id(p) not in muon]
    groups = [
        {
            "params": [p for p in rest if id(p) in weights],
            "weight_decay": config.weight_decay,
        },
        {"params": [p for p in rest if id(p) not in weights], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.99), fused=True)
    if not muon:
        return [adamw]
    dtype = matmul_dtype(config.precision, device)
    return [
        Muon(muon.values(), lr=config.lr, weight_decay=config.weight_decay, dtype=dtype),
        adamw,
    ]


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Exponential moving average (EMA) of a model's weights, updated in place; copies the buffers.

    Args:
        decay: Share of the old average in the new one.
    """
    weights: list[Tensor] = [*average.parameters()]
    torch._foreach_lerp_(weights, [*model.parameters()], 1 - decay)
    for old, new in zip(average.buffers(), model.buffers(), strict=True):
        old.copy_(new)
