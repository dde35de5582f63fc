"""Sampling on several processes, as `accelerate launch` or torchrun start them: each draws its share of the batches, the first one has them all."""

import os
from collections.abc import Callable, Iterable, Iterator
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
T = TypeVar("T")
ALONE = Place(0, 1)


def place() -> Place:
    """This process's; it waits for the others."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ALONE
    from accelerate import PartialState

    from textdiff.device import is_accelerated

    state = PartialState(cpu=not is_accelerated())
    return Place(state.process_index, state.num_processes)


def from_main_process(choose: Callable[[], T], where: Place) -> T:
    """Calls `choose` on the main process and gives its result to every process."""
    if where.world == 1:
        return choose()
    from accelerate.utils import broadcast_object_list

    (chosen,) = broadcast_object_list([choose() if where.rank == 0 else None])
    return chosen


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
