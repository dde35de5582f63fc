"""Messages about losses and gradients that are NaN or infinite."""

from collections.abc import Sequence

import torch
from accelerate import Accelerator
from torch import Tensor

from textdiff.training.batching import INDICES, MicroBatch


def describe_nonfinite(
    accelerator: Accelerator,
    step: int,
    micro_batches: Sequence[MicroBatch],
    losses: dict[str, Tensor],
) -> str:
    """Names the step, the examples and the processes whose loss is not finite.

    All processes must call it.

    Args:
        losses: Loss terms of this process.
    """
    finite = torch.stack([loss.isfinite().all() for loss in losses.values()]).all()
    on_ranks = accelerator.gather(finite.reshape(1).float()).tolist()
    ranks = [str(rank) for rank, is_finite in enumerate(on_ranks) if not is_finite]
    what = "the losses are finite, but the gradient is"
    if ranks:
        what = f"the loss of process {', '.join(ranks)} is"
    examples = ""
    if "index" in micro_batches[0].tensors:
        index = torch.cat([micro.tensors["index"] for micro in micro_batches]) % INDICES
        examples = f", examples {int(index.min()):,} to {int(index.max()):,} of the run"
    return f"step {step}{examples}: {what} not finite"
