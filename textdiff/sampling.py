"""Sampling of text and images: the reverse process and batches of samples."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from textdiff.config import Precision
from textdiff.device import choose_precision
from textdiff.diffusion.gaussian import Denoiser, diffuse
from textdiff.diffusion.samplers import SAMPLERS, LogSNRs, Noise, Step
from textdiff.diffusion.schedules import Schedule
from textdiff.distributed import SINGLE_PROCESS, ProcessInfo, from_main_process, gather_to_all
from textdiff.progress import ProgressBar

S = TypeVar("S")


@dataclass(frozen=True)
class SampleBatch(Generic[S]):
    """Samples of a request after one step of the sampler.

    Args:
        rows: Numbers of the samples in the request.
        step: Number of steps so far.
        steps: Number of steps in all. The samples of the last step are the result.
        samples: One sample per row.
        settled: Number of tokens at the beginning of each sample that are final, for text.
        probabilities: Predicted probability of each token of each sample, for text, if asked for.
    """

    rows: list[int]
    step: int
    steps: int
    samples: Sequence[S]
    settled: Sequence[int] = ()
    probabilities: Sequence[list[float]] = ()

    @property
    def is_final(self) -> bool:
        """Whether these samples are the result."""
        return self.step == self.steps


def resample_grid(schedule: Schedule, steps: int, strength: float = 1.0) -> Float[Tensor, " n"]:
    """Log SNRs of a sampler that starts at `strength` of the schedule, noisy end first.

    Args:
        steps: Number of steps from pure noise. Less noise takes fewer of them, in proportion.
        strength: Time in [0, 1] at which sampling starts; 1 is pure noise. At 0 there is one log
            SNR and no step.
    """
    points = max(1, math.ceil(steps * strength)) + 1
    times = torch.linspace(strength, 0, points, dtype=torch.float64)
    return schedule(times).float().unique_consecutive()


def resample(
    denoise: Denoiser,
    x0: Float[Tensor, "b *d"],
    noise: Noise,
    logsnrs: LogSNRs,
    *,
    strength: float | Float[Tensor, "b *n"] = 1.0,
    sampler: str = "ddpm",
) -> Iterator[Step]:
    """Adds noise to x0 and runs the reverse process: the one loop of sampling and editing.

    Args:
        x0: Data to start from. Pure noise (`strength` 1) does not depend on it.
        noise: Standard normal noise of the shape of its argument.
        logsnrs: A `resample_grid` of the same `strength`, or the grid of a noise path.
        strength: Time of the schedule at which sampling starts, or that of each coordinate.
        sampler: Name in `SAMPLERS`.
    """
    if len(logsnrs) == 1:  # no noise is added
        yield Step(0, x0, x0, logsnrs[0])
        return
    start, x = logsnrs[0].to(x0.device), noise(x0)
    start = start.expand(len(x0)) if start.ndim == 0 else start
    strength = torch.as_tensor(strength, device=x0.device)
    is_noise = (strength == 1).view(*strength.shape, *[1] * (x0.ndim - strength.ndim))
    x = torch.where(is_noise, x, diffuse(x0, x, start))
    yield from SAMPLERS[sampler](denoise, x, logsnrs, generator=noise)


@runtime_checkable
class SampledModel(Protocol):
    """A model that can be sampled: it has a device and a configuration."""

    @property
    def device(self) -> torch.device: ...
    @property
    def config(self) -> Any: ...


def sampling_precision(
    model: SampledModel, asked: Precision, process: ProcessInfo = SINGLE_PROCESS
) -> Literal["bf16", "no"]:
    """Precision of the network in sampling, chosen by the main process for all."""
    width = model.config.matmul_width
    return from_main_process(lambda: choose_precision(asked, model.device, width), process)


def gather_batches(
    batches: Iterable[SampleBatch[S]], process: ProcessInfo
) -> Iterator[SampleBatch[S]]:
    """Yields this process's batches, then the final batches of the other processes."""
    final = []
    for batch in batches:
        yield batch
        if batch.is_final:
            final.append(batch)
    for rank, of_rank in enumerate(gather_to_all(final, process)):
        if rank != process.rank:
            yield from of_rank


def collect(batches: Iterable[SampleBatch[S]]) -> Iterator[S]:
    """Yields the results in the order of the request, each as soon as all earlier ones exist."""
    waiting: dict[int, S] = {}
    next_row = 0
    for batch in batches:
        if batch.is_final:
            waiting |= zip(batch.rows, batch.samples, strict=True)
            while next_row in waiting:
                yield waiting.pop(next_row)
                next_row += 1


def with_progress(
    batches: Iterable[SampleBatch[S]], count: int, *, label: str | None = None, hide: bool = False
) -> Iterator[SampleBatch[S]]:
    """Yields the same batches and shows a progress bar of steps.

    Args:
        count: Number of batches.
    """
    with ProgressBar(desc=label, total=0, unit="step", disable=hide, leave=False) as bar:
        for batch in batches:
            bar.total = batch.steps * count
            bar.update()
            yield batch
