"""A training run: accelerator, number of steps, validations, checkpoints and stopping.

Text and images share it: `text/train.py` and `image/train.py` consume `fit`.
"""

import copy
import logging
import os
import shutil
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import islice, pairwise
from pathlib import Path
from statistics import fmean, median
from typing import Any, Generic, TypeVar

from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list
from transformers import PreTrainedModel

from textdiff.config import RunConfig, UserError
from textdiff.device import choose_precision, compiles, is_accelerated, own_device, set_threads
from textdiff.distributed import ProcessInfo, from_main_process
from textdiff.memory import returning_unused_memory
from textdiff.training.batching import MicroBatch
from textdiff.training.checkpoint import reraise_write_errors
from textdiff.training.logger import Logger, ValidationReport
from textdiff.training.run_dir import RunDir
from textdiff.training.signals import StopSignals
from textdiff.training.trainer import Trainer, TrainStep

log = logging.getLogger("textdiff")

TIMEOUT = timedelta(hours=24)  # of waiting while the main process prepares the data
TRIAL_STEPS = 24

M = TypeVar("M", bound=PreTrainedModel)
R = TypeVar("R", bound=RunConfig)


def new_accelerator(config: R, run_dir: RunDir[R]) -> tuple[Accelerator, R]:
    """The accelerator, and the configuration with the precision that was chosen.

    A resumed run keeps its precision, unless another one is asked for.
    """
    config = _with_own_sharding(config)
    # the CPU by name, or accelerate would not see that there are several processes on one
    state = PartialState(cpu=not is_accelerated(), timeout=TIMEOUT)
    asked = config.train.precision
    if asked == "auto" and run_dir.saved:
        asked = run_dir.saved.train.precision
    set_threads()
    process = ProcessInfo(state.process_index, state.num_processes)
    precision = from_main_process(
        lambda: choose_precision(asked, own_device(), config.model.matmul_width), process
    )
    compiles(config.train.compile, own_device())  # fails here if it is impossible
    config = _with_train_options(config, precision=precision)
    AcceleratorState._reset_state()  # another run of this process may have another precision
    accelerator = Accelerator(
        mixed_precision=precision,
        cpu=not is_accelerated(),
        log_with=config.train.tracker_names or None,
        project_dir=config.run,
    )
    if config.train.shard and accelerator.num_processes == 1:
        log.info("train.shard has no effect on a single process")
    on_cpu = os.environ.get("ACCELERATE_USE_CPU") == "True" and "MASTER_ADDR" in os.environ
    if on_cpu and accelerator.num_processes == 1:
        log.warning(
            "accelerate launch --cpu started one process, for it needs MPI to start more: "
            "use torchrun --nproc_per_node N -- SCRIPT"
        )
    return accelerator, config


def with_measured_steps(
    config: R,
    model: M,
    batches: Callable[[int], Iterator[list[MicroBatch]]],
    accelerator: Accelerator,
) -> R:
    """Sets `train.steps` so that the run takes `train.minutes` on this machine.

    A copy of the model trains for a few steps and is thrown away.

    Args:
        batches: The micro-batches of each step, from the given step on.
    """
    if config.train.minutes is None:
        return config
    trial = Trainer(
        copy.deepcopy(model), config.train, Path(config.run) / "state", accelerator
    ).train(batches(0))
    next(trial)  # the first step is slower
    times = [time.perf_counter(), *(time.perf_counter() for _ in islice(trial, TRIAL_STEPS))]
    seconds = [after - before for before, after in pairwise(times)]
    # a compiled model compiles again for each length, which makes a few steps slow
    compiled = compiles(config.train.compile, accelerator.device)
    per_step = median(seconds) if compiled else fmean(seconds)
    accelerator.free_memory()
    (steps,) = broadcast_object_list([max(1, round(60 * config.train.minutes / per_step))])
    if accelerator.is_main_process:
        fit_into = f"fit into train.minutes = {config.train.minutes:g}"
        log.info("%s steps of %.3g seconds %s", f"{steps:,}", per_step, fit_into)
    return _with_train_options(config, steps=steps, minutes=None)


@dataclass(frozen=True)
class Validation(Generic[M]):
    """A validation after `step`: the losses and the averaged model.

    A consumer logs it with `report`, inside of `interruptible()`, which a signal to stop ends at
    once.
    """

    step: int
    losses: dict[str, float]
    model: M
    logger: Logger
    signals: StopSignals

    def interruptible(self) -> AbstractContextManager[None]:
        """A block that a signal to stop leaves at once."""
        return self.signals.interruptible()

    def report(self, report: ValidationReport) -> None:
        """Logs the losses together with figures and samples of the model."""
        self.logger.validation(self.losses, report)


@dataclass(frozen=True)
class Export:
    """Saved weights in model/ after `step`. A consumer writes their model card."""

    step: int


def fit(
    trainer: Trainer[M],
    batches: Iterator[list[MicroBatch]],
    held_out: Sequence[MicroBatch],
    config: RunConfig,
    unit: str,
) -> Generator[TrainStep | Validation[M] | Export, None, None]:
    """Trains to the last step: logs, validates, saves. Yields steps, validations and exports.

    Only steps are yielded on all processes. All processes must consume all events.

    Args:
        batches: This process's micro-batches of each step, from `trainer.step` on.
        held_out: This process's part of the validation examples.
        unit: Unit of the sizes of micro-batches, `tokens` or `images`.

    Raises:
        KeyboardInterrupt: If a signal stopped the run, after its state was saved.
    """
    logger, signals = Logger(trainer, config, unit), StopSignals(trainer.accelerator)
    with signals:
        for done in returning_unused_memory(trainer.train(logger.measured(batches))):
            logger.step(done)
            yield done
            last = done.step == config.train.steps
            if done.step % config.train.valid_every == 0 or last:
                losses = trainer.validate(_until_stopped(held_out, trainer, signals))
                if not signals.received_anywhere():
                    averaged = trainer.averaged()
                    if trainer.accelerator.is_main_process:
                        yield Validation(done.step, losses, averaged, logger, signals)
            stopped = signals.received_anywhere()
            if done.step % config.train.save_every == 0 or last or stopped:
                trainer.save()
                yield from _export(trainer, Path(config.run) / "model")
            if stopped and not last:
                logger.close()
                log.warning("stopped after step %d; continue with --resume", done.step)
                raise KeyboardInterrupt
    logger.close()


def _until_stopped(
    held_out: Sequence[MicroBatch], trainer: Trainer[M], signals: StopSignals
) -> Iterator[MicroBatch]:
    """Validation batches until a signal arrives, at least one.

    Sharded weights are gathered by all processes, so all of them stop after the same batch.
    """
    for number, batch in enumerate(held_out):
        stopped = signals.received_anywhere() if trainer.sharded else signals.received
        if number and stopped:
            return
        yield batch


def _export(trainer: Trainer[Any], folder: Path) -> Iterator[Export]:
    """Replaces weights and configuration in `folder`. All processes must consume it.

    Other files in the folder are not changed. Yields an export on the main process.
    """
    model = trainer.averaged()
    if not trainer.accelerator.is_main_process:
        return
    partial = folder.with_name("model.partial")
    shutil.rmtree(partial, ignore_errors=True)
    with reraise_write_errors("the model", folder):
        model.save_pretrained(partial)
        for path in partial.iterdir():
            path.replace(folder / path.name)
        partial.rmdir()
    yield Export(trainer.step)


def _with_train_options(config: R, **changes: Any) -> R:
    """A copy of the configuration with other options of training."""
    changed: Any = config
    return replace(changed, train=replace(config.train, **changes))


def _with_own_sharding(config: R) -> R:
    """The configuration, with `train.shard` if accelerate is configured for FSDP.

    Raises:
        UserError: If accelerate is configured for another way of dividing a model.
    """
    for name in ("DeepSpeed", "Megatron_LM", "parallelism_config"):
        if _accelerate_uses(name):
            way_out = "run accelerate config again, and shard the model with --train.shard true"
            raise UserError(f"{name} of accelerate is not supported: {way_out}")
    if not _accelerate_uses("FSDP"):
        return config
    log.info("accelerate is configured for FSDP: this means --train.shard true here")
    os.environ["ACCELERATE_USE_FSDP"] = "false"  # else accelerate would wrap the model itself
    return _with_train_options(config, shard=True)


def _accelerate_uses(name: str) -> bool:
    """Whether `accelerate launch` is configured for a feature."""
    value = os.environ.get(f"ACCELERATE_USE_{name.upper()}", "")
    return value.lower() in ("1", "true", "yes")
