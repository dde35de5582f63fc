"""The states of modules and optimizers as flat dictionaries of tensors, as checkpoints hold them.

The layout is the same whether they are sharded or not, so that either is loaded into the other.
"""

import torch
from torch import Tensor, nn

from textdiff.sharding import sharded_like


def module_state(module: nn.Module) -> dict[str, Tensor]:
    """Weights and buffers by name; a tensor with two names (tied weights) under the first."""
    first: dict[int, str] = {}
    state = module.state_dict(keep_vars=True)
    return {name: t.detach() for name, t in state.items() if first.setdefault(id(t), name) == name}


def load_module(module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Loads a whole `module_state`. Raises RuntimeError if it is of another module."""
    now = module_state(module)
    mine = {name: sharded_like(t, now.get(name, t)) for name, t in tensors.items()}
    module.load_state_dict(mine, strict=tensors.keys() != now.keys())


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of every weight by its number and name, such as `3.exp_avg`."""
    state = optimizer.state_dict()["state"]
    return {f"{number}.{name}": t for number, entry in state.items() for name, t in entry.items()}


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Loads a whole `optimizer_state`."""
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        number, name = key.split(".")
        state.setdefault(int(number), {})[name] = sharded_like(tensor, weights[int(number)])
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
