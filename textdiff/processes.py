"""Sampling on several processes, as `accelerate launch` or torchrun start them: each draws its share of the batches, the first one has them all."""

import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable


class Place(NamedTuple):
    """Which of how many processes."""

    rank: int
    world: int


@runtime_checkable
class Draft(Protocol):
    @property
    def step(self) -> int: ...
    @property
    def steps(self) -> int: ...


D = TypeVar("D", bound=Draft)
ALONE = Place(0, 1)


def place() -> Place:
    """This process's; it waits for the others."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ALONE
    import torch
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available())
    return Place(state.process_index, state.num_processes)


def everyones(drafts: Iterable[D], where: Place) -> Iterator[D]:
    """This process's drafts, then what the other ones' batches ended with."""
    last = []
    for draft in drafts:
        yield draft
        if draft.step == draft.steps:
            last.append(draft)
    if where.world > 1:
        from accelerate.utils import gather_object

        for rank, others in gather_object([(where.rank, last)]):
            if rank != where.rank:
                yield from others
