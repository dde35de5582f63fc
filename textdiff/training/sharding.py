"""Fully sharded modules (FSDP): every process holds its rows of each tensor.

Torch's `fully_shard` does most of the work and gathers full weights while they are used. This
module adds what it leaves open: which modules are gathered together, scalar parameters (which it
refuses), full tensors for checkpoints and samples, and operations on full matrices.
"""

import copy
import math
import warnings
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Size, Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

M = TypeVar("M", bound=nn.Module)
Operation = Callable[[list[Tensor]], list[Tensor]]


# --- modules


def repeated_blocks(module: nn.Module) -> list[nn.Module]:
    """The children of every ModuleList, which are sharded, gathered and compiled one at a time."""
    lists = [inner for inner in module.modules() if isinstance(inner, nn.ModuleList)]
    return [block for blocks in lists for block in blocks]


@torch.no_grad()
def broadcast_from_main(module: nn.Module, device: torch.device) -> None:
    """Copies the main process's weights and buffers to all processes, as DDP does at its start."""
    for tensor in (*module.parameters(), *module.buffers()):
        moved = tensor.to(device)
        dist.broadcast(moved, 0)
        tensor.copy_(moved)


def shard(module: nn.Module, device: torch.device) -> None:
    """Shards a module over all processes, in place, and moves it to the device.

    Repeated blocks are gathered one at a time, the other weights together. Scalars are not sharded;
    `average_scalar_grads` averages their gradients. Under autocast its cache of weights must be
    off: a block that is first called without gradients leaves its converted weights in the cache,
    and their gradients then arrive after those of the block were exchanged, and are lost.
    """
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))  # uses gloo on the CPU
    scalars = {p for p in module.parameters() if p.ndim == 0}
    for scalar in scalars:
        scalar.data = scalar.data.to(device)
    for block in repeated_blocks(module):
        fully_shard(block, mesh=mesh, ignored_params=scalars)
    trained = any(p.requires_grad for p in module.parameters())
    reshard = None if trained else True  # otherwise the root's weights would never be freed
    fully_shard(module, mesh=mesh, ignored_params=scalars, reshard_after_forward=reshard)
    # about in-place operations on a block's output, which our networks do not use
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view", UserWarning)


@torch.no_grad()
def average_scalar_grads(module: nn.Module) -> None:
    """Averages the gradients of scalars, which are not sharded, over all processes."""
    grads = [p.grad for p in module.parameters() if p.ndim == 0 and p.grad is not None]
    if grads:
        mean = torch.stack(grads) / dist.get_world_size()
        dist.all_reduce(mean)
        torch._foreach_copy_(grads, list(mean.unbind()))


def meta_copy(module: M) -> M:
    """A copy of the module with weights on the meta device, as `full_copy` needs it."""
    empty = {id(p): torch.empty_like(p, device="meta") for p in module.parameters()}
    return copy.deepcopy(module, {name: nn.Parameter(p, False) for name, p in empty.items()})


@torch.no_grad()
def full_copy(template: M, sharded: nn.Module, keep: bool) -> M:
    """An unsharded copy of a sharded module. All processes must call it.

    Args:
        template: The module's `meta_copy`.
        keep: Whether this process needs the copy; otherwise it gets the template.
    """
    full: dict[int, Tensor] = {}
    for empty, weight in zip(template.parameters(), sharded.parameters(), strict=True):
        gathered = full_tensor(weight)
        if keep:
            full[id(empty)] = nn.Parameter(gathered.clone(), False)
    full |= {id(a): b.clone() for a, b in zip(template.buffers(), sharded.buffers(), strict=True)}
    return copy.deepcopy(template, full) if keep else template


# --- tensors


def local_tensor(tensor: Tensor) -> Tensor:
    """This process's rows of a sharded tensor; any other tensor unchanged."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def full_tensor(tensor: Tensor) -> Tensor:
    """All rows of a sharded tensor; any other tensor unchanged. All processes must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gather_full(tensors: dict[str, Tensor], keep: bool) -> dict[str, Tensor]:
    """Full tensors by name, gathered one at a time. All processes must call it.

    Tensors that were sharded are moved to the CPU.

    Args:
        keep: Whether this process needs the tensors; otherwise it gets an empty dictionary.
    """
    result = {}
    for name in sorted(tensors):  # the order of a loaded state differs between processes
        tensor, full = tensors[name], full_tensor(tensors[name])
        if keep:
            result[name] = tensor if full is tensor else full.cpu()
    return result


def shard_like(tensor: Tensor, like: Tensor) -> Tensor:
    """Shards a tensor that all processes hold, if `like` is sharded and has the same shape."""
    if not isinstance(like, DTensor) or tensor.shape != like.shape:
        return tensor
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)


# --- operations on full tensors


def map_full(operation: Operation, shards: Sequence[DTensor]) -> list[DTensor]:
    """Applies an operation that keeps shapes to full tensors, and shards the results alike.

    Each tensor is assembled on one process only, its owner. A process thus receives 2 / world of
    all rows, in two exchanges, and does 1 / world of the work. If all processes gathered all rows,
    each would receive all of them and do all of the work.
    """
    mesh, world = shards[0].device_mesh, shards[0].device_mesh.size()
    owners = _assign_owners([shard.numel() for shard in shards], world)
    order = sorted(range(len(shards)), key=owners.__getitem__)
    rows = [shards[n].to_local() for n in order]
    owned = [shards[n].shape for n in order if owners[n] == mesh.get_local_rank()]

    # number of elements sent to each process, and received from each for every owned tensor
    sizes = [(owners[n], part.numel()) for n, part in zip(order, rows, strict=True)]
    sent = [sum(size for owner, size in sizes if owner == rank) for rank in range(world)]
    parts = [[_local_numel(shape, rank, world) for shape in owned] for rank in range(world)]
    received = [sum(of_rank) for of_rank in parts]

    flat = _all_to_all(_flatten(rows, like=rows[0]), sent, received, mesh.get_group())
    blocks = [b.split(p) for b, p in zip(flat.split(received), parts, strict=True)]
    results = operation([torch.cat(b).view(s) for s, *b in zip(owned, *blocks, strict=True)])
    split = [full.flatten().split(list(p)) for full, *p in zip(results, *parts, strict=True)]
    by_rank = [part for of_rank in zip(*split, strict=True) for part in of_rank]
    flat = _all_to_all(_flatten(by_rank, like=rows[0]), received, sent, mesh.get_group())
    mapped = dict(zip(order, flat.split([size for _, size in sizes]), strict=True))
    return [_from_rows(mapped[n], like=shard) for n, shard in enumerate(shards)]


def _assign_owners(sizes: list[int], world: int) -> list[int]:
    """Owner of each tensor: the largest first, each to the process with the smallest load."""
    owners, loads = [0] * len(sizes), [0] * world
    for n in sorted(range(len(sizes)), key=lambda n: -sizes[n]):
        owners[n] = loads.index(min(loads))
        loads[owners[n]] += sizes[n]
    return owners


def _local_numel(shape: Size, rank: int, world: int) -> int:
    """Number of elements of a sharded tensor on a process."""
    most = math.ceil(shape[0] / world)
    return min(max(shape[0] - rank * most, 0), most) * shape[1:].numel()


def _flatten(tensors: list[Tensor], like: Tensor) -> Tensor:
    return torch.cat([like.new_empty(0), *(tensor.flatten() for tensor in tensors)])


def _all_to_all(
    flat: Tensor, sent: list[int], received: list[int], group: dist.ProcessGroup
) -> Tensor:
    """Exchanges parts of flat tensors between all processes."""
    result = flat.new_empty(sum(received))
    dist.all_to_all_single(result, flat, received, sent, group)
    return result


def _from_rows(rows: Tensor, like: DTensor) -> DTensor:
    """A tensor sharded like another one, from this process's rows."""
    rows, mesh = rows.view(like.to_local().shape), like.device_mesh
    return DTensor.from_local(rows, mesh, like.placements, shape=like.shape, stride=like.stride())
