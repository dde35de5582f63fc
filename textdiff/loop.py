"""A run of any model, from its first step to its run folder: how long it is, what is seen of it, when it is saved, how it stops.

Knows neither text nor images: a `Work` says what is trained on what.
"""

import copy
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from itertools import islice, pairwise
from pathlib import Path
from statistics import fmean, median
from typing import Any, Generic, TypeVar

import yaml
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list
from filelock import FileLock, Timeout
from transformers import PreTrainedModel

from textdiff.batches import MicroBatch
from textdiff.checkpoint import telling, write_whole
from textdiff.config import InputError, Run
from textdiff.device import choose_precision, compiles, is_accelerated, own_device, set_threads
from textdiff.folder import saved_config
from textdiff.journal import Journal, Seen, Signals
from textdiff.processes import Place, from_main_process
from textdiff.trainer import Trainer

log = logging.getLogger("textdiff")

PATIENCE = timedelta(hours=24)  # for the main process, which may prepare much text while the others wait

M = TypeVar("M", bound=PreTrainedModel)
R = TypeVar("R", bound=Run)


@dataclass(frozen=True)
class Work(Generic[M]):
    """What a run is about.

    Args:
        batches: this process's, a step's micro-batches after the other, from a step on.
        valid: this process's share of the held-out examples, once.
        see: figures and samples of the averaged weights after a step, for people to look at.
        unit: what the sizes of the micro-batches count.
        identity: hashes, by name, of what a run that goes on must find as it was.
    """

    model: M
    batches: Callable[[int], Iterator[list[MicroBatch]]]
    valid: Callable[[], Iterator[MicroBatch]]
    see: Callable[[M, int], Seen]
    unit: str
    identity: dict[str, str]


def new_accelerator(config: R, *, resume: bool = False) -> tuple[Accelerator, R]:
    """The accelerator, and the configuration with the precision that was chosen. A resumed run keeps its own, unless asked for another."""
    config = _own_sharding(config)
    # the CPU by name, or accelerate would not see that there are several processes on one
    state = PartialState(cpu=not is_accelerated(), timeout=PATIENCE)
    asked = config.train.precision
    if asked == "auto" and resume and (Path(config.run) / "config.yaml").exists():
        asked = saved_config(config.run, type(config))[1].train.precision
    set_threads()
    where = Place(state.process_index, state.num_processes)
    precision = from_main_process(lambda: choose_precision(asked, own_device(), config.width), where)
    changed: Any = config
    config = replace(changed, train=replace(config.train, precision=precision))
    AcceleratorState._reset_state()  # another run of this process may have computed in another precision
    accelerator = Accelerator(
        mixed_precision=precision,
        cpu=not is_accelerated(),
        log_with=config.train.tracker_names or None,
        project_dir=config.run,
    )
    if config.train.shard and accelerator.num_processes == 1:
        log.info("train.shard: there is one process, which keeps everything whole")
    if os.environ.get("ACCELERATE_USE_CPU") == "True" and "MASTER_ADDR" in os.environ and accelerator.num_processes == 1:
        log.warning("accelerate launch --cpu started one process, for it leaves more to MPI: torchrun --nproc_per_node N -- SCRIPT starts N")
    return accelerator, config


def _own_sharding(config: R) -> R:
    """The configuration, with `train.shard` if accelerate is configured for FSDP.

    Raises InputError for the other ways in which accelerate can divide a model.
    """
    for name in ("DeepSpeed", "Megatron_LM", "parallelism_config"):
        if _asks_for(name):
            way_out = "run accelerate config again, and shard the model with --train.shard true"
            raise InputError(f"{name} of accelerate is not supported: {way_out}")
    if not _asks_for("FSDP"):
        return config
    log.info("accelerate asks for FSDP: taken as --train.shard true, other settings are not used")
    os.environ["ACCELERATE_USE_FSDP"] = "false"  # on accelerators it would wrap the model itself
    changed: Any = config
    return replace(changed, train=replace(config.train, shard=True))


def _asks_for(name: str) -> bool:
    """Whether `accelerate launch` is configured for it."""
    asked = os.environ.get(f"ACCELERATE_USE_{name.upper()}", "")
    return asked.lower() in ("1", "true", "yes")


def run(work: Work[M], config: Run, accelerator: Accelerator, *, resume: bool, overwrite: bool, begin: Callable[[], object] = lambda: None) -> M:
    """Trains to the end and returns the averaged model. Nothing on disk is written or replaced before all that can be wrong has been seen;
    `begin` may then add to the new model/ folder."""
    folder = Path(config.run)
    lock = _locked(folder) if accelerator.is_main_process else nullcontext()
    if config.train.minutes and not (resume and (folder / "config.yaml").exists()):
        config = _timed(work, config, accelerator)
    with lock:
        if accelerator.is_main_process:
            _prepare_folder(folder, config, overwrite)
            begin()
        accelerator.wait_for_everyone()
        trainer = Trainer(work.model, config.train, folder / "state", accelerator, work.identity)
        if resume:
            log.info("going on from step %d" if trainer.resume() else "nothing to go on from, starting at step %d", trainer.step)
        _watch(work, trainer, config, folder)
    return trainer.averaged()


def _locked(folder: Path) -> AbstractContextManager[object]:
    """Of this run alone, until it ends, however it ends. Raises InputError if another run has the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        return lock.acquire()
    except Timeout as error:
        raise InputError(f"another run is writing to {folder}: wait until it has ended, or choose another --run") from error


def _watch(work: Work[M], trainer: Trainer[M], config: Run, folder: Path) -> None:
    """Consumes the steps: progress bar, metrics.jsonl, validation with samples, checkpoints. A signal to stop is obeyed after the step."""
    journal, signals = Journal(trainer, folder, config, work.unit), Signals(trainer.accelerator)
    with signals:
        for done in trainer.train(journal.counted(work.batches(trainer.step))):
            journal.step(done)
            last, stopped = done.step == config.train.steps, False
            if done.step % config.train.valid_every == 0 or last:
                # sharded weights are gathered by all processes, so all stop after the same batch
                told = signals.received if trainer.sharded else lambda: signals.told
                losses = trainer.validate(_until_told(work.valid(), told))
                stopped = signals.received()
                averaged = trainer.ema if stopped else trainer.averaged()
                if trainer.accelerator.is_main_process and not stopped:
                    with signals.interrupting():
                        journal.validation(losses, work.see(averaged, done.step))
            stopped = stopped or signals.received()
            if done.step % config.train.save_every == 0 or last or stopped:
                trainer.save()
                averaged = trainer.averaged()
                if trainer.accelerator.is_main_process:
                    _save_model(averaged, folder / "model")
            if stopped and not last:
                journal.close()
                log.warning("stopped after step %d, which is saved: go on with --resume", done.step)
                raise KeyboardInterrupt
    journal.close()


def _until_told(batches: Iterator[MicroBatch], told: Callable[[], bool]) -> Iterator[MicroBatch]:
    """At least one, so that all processes have something to add up."""
    for number, batch in enumerate(batches):
        if number and told():
            return
        yield batch


def _timed(work: Work[M], config: Any, accelerator: Accelerator, trial: int = 24) -> Run:
    """With `train.steps` such that the run takes `train.minutes` on this machine, by a short trial with a copy of the model."""
    steps = Trainer(copy.deepcopy(work.model), config.train, Path(config.run) / "state", accelerator).train(work.batches(0))
    next(steps)  # slower than the others
    marks = [time.perf_counter(), *(time.perf_counter() for _ in islice(steps, trial))]
    seconds = [after - before for before, after in pairwise(marks)]
    # a few steps of a compiled model are slow, for its other lengths are compiled then
    each = median(seconds) if compiles(config.train.compile, accelerator.device) else fmean(seconds)
    accelerator.free_memory()
    (number,) = broadcast_object_list([max(1, round(60 * config.train.minutes / each))])
    if accelerator.is_main_process:
        log.info("%s steps of %.3g seconds fit into train.minutes = %g", f"{number:,}", each, config.train.minutes)
    timed: Run = replace(config, train=replace(config.train, steps=number, minutes=None))
    return timed


def _prepare_folder(folder: Path, config: Any, overwrite: bool) -> None:
    if overwrite:
        for name in ("state", "model", "samples", "evaluation"):
            shutil.rmtree(folder / name, ignore_errors=True)
        (folder / "metrics.jsonl").unlink(missing_ok=True)
    (folder / "model").mkdir(parents=True, exist_ok=True)
    write_whole(folder / "config.yaml", yaml.safe_dump(json.loads(json.dumps(asdict(config))), sort_keys=False))


def _save_model(model: PreTrainedModel, folder: Path) -> None:
    """Replaces weights and configuration in `folder`, each file as a whole; what else is there stays."""
    aside = folder.with_name("model.partial")
    shutil.rmtree(aside, ignore_errors=True)
    with telling("the model", folder):
        model.save_pretrained(aside)
        for path in aside.iterdir():
            path.replace(folder / path.name)
        aside.rmdir()
