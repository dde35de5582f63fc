"""The processes of a distributed program, and communication between them.

`accelerate launch` and torchrun start several processes. In sampling, each computes its part of the
batches, and the main process collects them all.
"""

import os
from collections.abc import Callable
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class ProcessInfo(NamedTuple):
    """Number of a process and the number of processes."""

    rank: int
    world: int


SINGLE_PROCESS = ProcessInfo(0, 1)


def current_process() -> ProcessInfo:
    """Rank of this process and number of processes. Waits until all of them have started."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return SINGLE_PROCESS
    from accelerate import PartialState

    from textdiff.device import is_accelerated

    state = PartialState(cpu=not is_accelerated())
    return ProcessInfo(state.process_index, state.num_processes)


def from_main_process(choose: Callable[[], T], process: ProcessInfo) -> T:
    """Calls `choose` on the main process and returns its result on all processes."""
    if process.world == 1:
        return choose()
    from accelerate.utils import broadcast_object_list

    (chosen,) = broadcast_object_list([choose() if process.rank == 0 else None])
    return chosen


def gather_to_all(item: T, process: ProcessInfo) -> list[T]:
    """The items of all processes, in the order of their ranks."""
    if process.world == 1:
        return [item]
    from accelerate.utils import gather_object

    return list(gather_object([item]))
