"""States of modules and optimizers as flat dictionaries of tensors, as checkpoints hold them.

The layout does not depend on sharding, so a sharded run can load a checkpoint of an unsharded one
and the other way round.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from textdiff.training.sharding import gather_full, shard_like

Groups = dict[str, dict[str, Tensor]]


def training_state(
    model: nn.Module, ema: nn.Module, optimizers: Sequence[torch.optim.Optimizer], *, keep: bool
) -> Groups:
    """All tensors that resuming needs, by group and name. All processes must call it.

    Args:
        keep: Whether this process needs the tensors; otherwise it gets empty groups.
    """
    groups = {"model": module_state(model), "ema": module_state(ema)}
    for number, optimizer in enumerate(optimizers):
        groups[f"optimizer{number}"] = optimizer_state(optimizer)
    return {name: gather_full(group, keep=keep) for name, group in groups.items()}


def load_training_state(
    groups: Groups, model: nn.Module, ema: nn.Module, optimizers: Sequence[torch.optim.Optimizer]
) -> None:
    """Loads a `training_state`.

    Raises:
        RuntimeError: If it is the state of another model.
    """
    load_module(model, groups["model"])
    load_module(ema, groups["ema"])
    for number, optimizer in enumerate(optimizers):
        load_optimizer(optimizer, groups[f"optimizer{number}"])


def module_state(module: nn.Module) -> dict[str, Tensor]:
    """Weights and buffers by name. Tied weights appear once, under their first name."""
    first: dict[int, str] = {}
    state = module.state_dict(keep_vars=True)
    return {name: t.detach() for name, t in state.items() if first.setdefault(id(t), name) == name}


def load_module(module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Loads an unsharded `module_state`.

    Raises:
        RuntimeError: If it is the state of another module.
    """
    now = module_state(module)
    state = {name: shard_like(t, now.get(name, t)) for name, t in tensors.items()}
    module.load_state_dict(state, strict=tensors.keys() != now.keys())


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """State of every weight, by the number of the weight and the name, such as `3.exp_avg`."""
    state = optimizer.state_dict()["state"]
    return {f"{number}.{name}": t for number, entry in state.items() for name, t in entry.items()}


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Loads an unsharded `optimizer_state`."""
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        number, name = key.split(".")
        state.setdefault(int(number), {})[name] = shard_like(tensor, weights[int(number)])
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
