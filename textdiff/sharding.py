"""Fully sharded modules (FSDP): every process holds its rows of each tensor.

Torch's `fully_shard` does the work and gathers whole weights for as long as they are used. This
module adds what it leaves open: which modules are gathered together, scalar parameters, which it
refuses, whole tensors for checkpoints and samples, and work on whole matrices.
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


# --- modules


def repeated_blocks(module: nn.Module) -> list[nn.Module]:
    """The children of every ModuleList, which are sharded, gathered and compiled one at a time."""
    lists = [inner for inner in module.modules() if isinstance(inner, nn.ModuleList)]
    return [block for blocks in lists for block in blocks]


@torch.no_grad()
def broadcast_from_main(module: nn.Module, device: torch.device) -> None:
    """Gives every process the main process's weights and buffers, as DDP does at its start."""
    for tensor in (*module.parameters(), *module.buffers()):
        moved = tensor.to(device)
        dist.broadcast(moved, 0)
        tensor.copy_(moved)


def shard(module: nn.Module, device: torch.device) -> None:
    """Shards a module over all processes, in place, and moves it to the device.

    Repeated blocks are gathered one at a time, the rest as a whole. Scalars stay whole on every
    process; `average_scalar_grads` averages their gradients. Under autocast the cache of weights
    must be off: a block that is first called without gradients leaves its converted weights in
    the cache, whose gradients then arrive after those of the block were exchanged, and are lost.
    """
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))  # for gloo of the CPU
    scalars = {p for p in module.parameters() if p.ndim == 0}
    for scalar in scalars:
        scalar.data = scalar.data.to(device)
    for block in repeated_blocks(module):
        fully_shard(block, mesh=mesh, ignored_params=scalars)
    trained = any(p.requires_grad for p in module.parameters())
    reshard = None if trained else True  # nothing else frees the root's weights then
    fully_shard(module, mesh=mesh, ignored_params=scalars, reshard_after_forward=reshard)
    # of in-place operations on a block's output, of which our networks have none
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view", UserWarning)


@torch.no_grad()
def average_scalar_grads(module: nn.Module) -> None:
    """Averages over all processes the gradients that `fully_shard` does not know of."""
    grads = [p.grad for p in module.parameters() if p.ndim == 0 and p.grad is not None]
    if grads:
        mean = torch.stack(grads) / dist.get_world_size()
        dist.all_reduce(mean)
        torch._foreach_copy_(grads, list(mean.unbind()))


def hollow(module: M) -> M:
    """A copy without weights, for `filled`."""
    empty = {id(p): torch.empty_like(p, device="meta") for p in module.parameters()}
    return copy.deepcopy(module, {name: nn.Parameter(p, False) for name, p in empty.items()})


@torch.no_grad()
def filled(hollow: M, sharded: nn.Module, keep: bool) -> M:
    """A whole copy of a sharded module where `keep` is true, elsewhere its `hollow` copy.

    Every process must call it.
    """
    whole: dict[int, Tensor] = {}
    for empty, weight in zip(hollow.parameters(), sharded.parameters(), strict=True):
        gathered = unsharded(weight)
        if keep:
            whole[id(empty)] = nn.Parameter(gathered.clone(), False)
    whole |= {id(a): b.clone() for a, b in zip(hollow.buffers(), sharded.buffers(), strict=True)}
    return copy.deepcopy(hollow, whole) if keep else hollow


# --- tensors


def local(tensor: Tensor) -> Tensor:
    """This process's rows of a sharded tensor; any other tensor as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def unsharded(tensor: Tensor) -> Tensor:
    """The whole of a sharded tensor, for which every process must call it; any other as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gathered(tensors: dict[str, Tensor], keep: bool) -> dict[str, Tensor]:
    """Whole tensors where `keep` is true, the sharded ones in the CPU's memory; elsewhere nothing.

    They are gathered one at a time. Every process must call it.
    """
    kept = {}
    for name in sorted(tensors):  # states that were loaded are in another order on every process
        tensor, whole = tensors[name], unsharded(tensors[name])
        if keep:
            kept[name] = tensor if whole is tensor else whole.cpu()
    return kept


def sharded_like(tensor: Tensor, like: Tensor) -> Tensor:
    """This process's rows of a tensor that all hold, if `like` is sharded and of the same shape."""
    if not isinstance(like, DTensor) or tensor.shape != like.shape:
        return tensor
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)


# --- work on whole tensors

Work = Callable[[list[Tensor]], list[Tensor]]


def map_whole(work: Work, shards: Sequence[DTensor]) -> list[DTensor]:
    """Applies `work`, which keeps shapes, to whole tensors, and shards the results alike.

    Each tensor is made whole on one process only. So a process receives 2 / world of all rows, in
    two exchanges, and does 1 / world of the work; were all rows gathered on every process, each
    would receive all of them and do all of the work.
    """
    mesh, world = shards[0].device_mesh, shards[0].device_mesh.size()
    owners = _owners([shard.numel() for shard in shards], world)
    order = sorted(range(len(shards)), key=owners.__getitem__)
    rows = [shards[n].to_local() for n in order]
    mine = [shards[n].shape for n in order if owners[n] == mesh.get_local_rank()]

    # how many numbers go to each process, and come from each for every tensor of this one's
    sizes = [(owners[n], part.numel()) for n, part in zip(order, rows, strict=True)]
    sent = [sum(size for owner, size in sizes if owner == other) for other in range(world)]
    parts = [[_size(shape, other, world) for shape in mine] for other in range(world)]
    received = [sum(of_each) for of_each in parts]

    flat = _exchanged(_joined(rows, like=rows[0]), sent, received, mesh.get_group())
    blocks = [b.split(p) for b, p in zip(flat.split(received), parts, strict=True)]
    done = work([torch.cat(b).view(shape) for shape, *b in zip(mine, *blocks, strict=True)])
    cut = [whole.flatten().split(list(p)) for whole, *p in zip(done, *parts, strict=True)]
    back = _joined([part for of_one in zip(*cut, strict=True) for part in of_one], like=rows[0])
    flat = _exchanged(back, received, sent, mesh.get_group())
    results = dict(zip(order, flat.split([size for _, size in sizes]), strict=True))
    return [_with_rows(shard, results[n]) for n, shard in enumerate(shards)]


def _owners(sizes: list[int], world: int) -> list[int]:
    """Assigns tensors to processes, the largest first, each to the process with the least so far."""
    owners, loads = [0] * len(sizes), [0] * world
    for n in sorted(range(len(sizes)), key=lambda n: -sizes[n]):
        owners[n] = loads.index(min(loads))
        loads[owners[n]] += sizes[n]
    return owners


def _size(shape: Size, rank: int, world: int) -> int:
    """How many numbers of a sharded tensor a process holds."""
    most = math.ceil(shape[0] / world)
    return min(max(shape[0] - rank * most, 0), most) * shape[1:].numel()


def _joined(tensors: list[Tensor], like: Tensor) -> Tensor:
    return torch.cat([like.new_empty(0), *(tensor.flatten() for tensor in tensors)])


def _exchanged(
    flat: Tensor,
    sent: list[int],
    received: list[int],
    group: dist.ProcessGroup,
) -> Tensor:
    """Exchanges parts of flat tensors between all processes (all-to-all)."""
    taken = flat.new_empty(sum(received))
    dist.all_to_all_single(taken, flat, received, sent, group)
    return taken


def _with_rows(like: DTensor, rows: Tensor) -> DTensor:
    """A tensor sharded like another, of which this process's rows are these."""
    rows, mesh = rows.view(like.to_local().shape), like.device_mesh
    return DTensor.from_local(rows, mesh, like.placements, shape=like.shape, stride=like.stride())
