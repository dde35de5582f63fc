"""The training loop as an iterator of steps, on accelerate.

A model is a module whose `forward(**tensors, progress=...)` returns named loss terms, each a mean
over its batch. The trainer minimizes their sum and works for any such model.
"""

import copy
import logging
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import AutocastKwargs
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from textdiff.config import TrainConfig, UserError
from textdiff.device import compiles, pins_memory
from textdiff.training import checkpoint, sharding
from textdiff.training.batching import MicroBatch
from textdiff.training.nonfinite import describe_nonfinite
from textdiff.training.optimizers import build_optimizers, learning_rate, update_average
from textdiff.training.state import load_training_state, training_state

log = logging.getLogger("textdiff")

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class TrainStep:
    """An optimizer step.

    Args:
        step: Number of steps so far.
        losses: Loss terms over the global batch.
        grad_norm: Gradient norm before clipping.
        lr: Learning rate.
    """

    step: int
    losses: dict[str, Tensor]
    grad_norm: Tensor
    lr: float


class Trainer(Generic[M]):
    """Trains a model and keeps its averaged weights `ema`; saves and resumes both.

    Args:
        folder: Folder of the checkpoints.
        fingerprints: Hashes, by name, of what must be unchanged when a run is resumed.
    """

    def __init__(
        self,
        model: M,
        config: TrainConfig,
        folder: Path,
        accelerator: Accelerator,
        fingerprints: dict[str, str] | None = None,
    ) -> None:
        self.config, self.folder, self.accelerator = config, folder, accelerator
        self.fingerprints = fingerprints or {}
        self.step, self.skipped = 0, 0
        self.sharded = config.shard and accelerator.num_processes > 1
        if self.sharded:
            sharding.broadcast_from_main(model, accelerator.device)
        # torch's AveragedModel would copy a sharded model, which must be copied before
        self.ema: M = copy.deepcopy(model).requires_grad_(False).eval()
        self.raw = model
        if compiles(config.compile, accelerator.device):
            # in place, which keeps the names; block by block if weights are gathered in between
            whole: list[nn.Module] = getattr(model, "compiled_parts", [model])
            for part in sharding.repeated_blocks(model) if self.sharded else whole:
                part.compile(dynamic=False)
        self.model: nn.Module = model
        if self.sharded:
            self._template = sharding.meta_copy(self.ema)
            for module in (model, self.ema):
                sharding.shard(module, accelerator.device)
        else:
            self.ema.to(accelerator.device)
        self.optimizers = build_optimizers(model, config, accelerator.device)
        if not self.sharded:  # accelerate would wrap a sharded model in DDP
            self.model, *self.optimizers = accelerator.prepare(model, *self.optimizers)

    def train(self, batches: Iterable[list[MicroBatch]]) -> Iterator[TrainStep]:
        """Trains to `config.steps`, a step per item.

        Args:
            batches: The micro-batches of each step, from `self.step` on.
        """
        self.model.train()
        for micro_batches in batches:
            if self.step >= self.config.steps:
                return
            yield self._train_step(micro_batches)

    @torch.no_grad()
    def validate(self, batches: Iterable[MicroBatch]) -> dict[str, float]:
        """Mean loss terms of the averaged weights.

        Args:
            batches: Micro-batches whose weights, over all processes, add up to 1.
        """
        totals: dict[str, Tensor] = {}
        for micro in batches:
            for name, term in self.forward(self.ema, micro.tensors).items():
                totals[name] = totals.get(name, 0) + term * micro.weight
        return {name: float(total) for name, total in self._sum_over_processes(totals).items()}

    def averaged(self) -> M:
        """The averaged model, complete on the main process. All processes must call it.

        If the model is sharded, the other processes get a copy without weights.
        """
        if not self.sharded:
            return self.ema
        return sharding.full_copy(self._template, self.ema, keep=self.accelerator.is_main_process)

    def forward(self, model: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Loss terms of a model on this process's device, in the precision of training."""
        device = self.accelerator.device
        # a tensor, because a number would be compiled into the step
        tensors = tensors | {"progress": torch.tensor(self.step / self.config.steps)}
        if pins_memory(device):
            tensors = {name: tensor.pin_memory() for name, tensor in tensors.items()}
        cache = AutocastKwargs(cache_enabled=not self.sharded)  # the reason is in sharding.shard
        with self.accelerator.autocast(cache):
            return model(
                **{name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()}
            )

    def save(self) -> None:
        """Saves a checkpoint on the main process. All processes must call it."""
        weights = [sharding.local_tensor(p) for p in self.raw.parameters()]
        finite = torch.stack([weight.isfinite().all() for weight in weights]).all()
        everywhere = self.accelerator.gather(finite.reshape(1).float())
        if not everywhere.all():
            what = f"step {self.step}: the weights are not finite, so they are not saved"
            raise UserError(f"{what}: start again with a lower --train.lr")
        main = self.accelerator.is_main_process
        groups = training_state(self.raw, self.ema, self.optimizers, keep=main)
        if main:
            facts: dict[str, Any] = {
                "step": self.step,
                "optimizer": self.config.optimizer,
                "skipped": self.skipped,
                "fingerprints": self.fingerprints,
                "torch": torch.__version__,
            }
            checkpoint.save(self.folder, self.step, checkpoint.Checkpoint(groups, facts))
        self.accelerator.wait_for_everyone()

    def resume(self) -> None:
        """Continues from the newest intact checkpoint, or from step 0 if there is none.

        Raises:
            UserError: If it is a checkpoint of another model, optimizer or data set.
        """
        saved = checkpoint.load_latest(self.folder)
        if saved is None:
            log.info("no checkpoint found, starting at step 0")
            return
        where = f"the checkpoint in {self.folder}"
        if saved.facts["optimizer"] != self.config.optimizer:
            trained = f"--train.optimizer {saved.facts['optimizer']}"
            raise UserError(f"{where} was trained with {trained}")
        before = saved.facts.get("fingerprints", {})
        changed = [k for k, value in self.fingerprints.items() if before.get(k, value) != value]
        if changed:
            way_out = "restore the old data, or start again"
            raise UserError(f"{' and '.join(changed)} changed since {where} was written: {way_out}")
        try:
            load_training_state(saved.tensors, self.raw, self.ema, self.optimizers)
        except RuntimeError as error:
            _, first, *_ = f"{error}\n{error}".splitlines()  # the first line is a heading
            raise UserError(f"{where} is of another model: {first.strip()[:300]}") from error
        self.step, self.skipped = saved.facts["step"], saved.facts.get("skipped", 0)
        log.info("resuming from step %d", self.step)

    def _train_step(self, micro_batches: list[MicroBatch]) -> TrainStep:
        totals: dict[str, Tensor] = {}
        for number, micro in enumerate(micro_batches, 1):
            with self._gradient_sync(number == len(micro_batches)):
                terms = self.forward(self.model, micro.tensors)
                # processes average their gradients, so the sum is multiplied by their number
                weight = micro.weight * self.accelerator.num_processes
                self.accelerator.backward(sum(terms.values()) * weight)
            for name, term in terms.items():
                totals[name] = totals.get(name, 0) + term.detach() * micro.weight
        if self.sharded:
            sharding.average_scalar_grads(self.raw)
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.clip)
        grad_norm = sharding.full_tensor(norm)
        losses = self._sum_over_processes(totals)
        # the same on all processes; the only wait for the device in a step
        finite = bool(torch.stack([grad_norm, *losses.values()]).isfinite().all())
        lr = self._update() if finite else self._skip(micro_batches, totals)
        self.step += 1
        if finite:
            decay = min(self.config.ema, (1 + self.step) / (10 + self.step))  # faster at first
            update_average(self.ema, self.raw, decay)
        return TrainStep(self.step, losses, grad_norm, lr)

    def _gradient_sync(self, last: bool) -> AbstractContextManager[object]:
        """Gradients are exchanged once per step, in the backward pass of the last micro-batch."""
        if self.sharded:
            assert isinstance(self.raw, FSDPModule)
            self.raw.set_requires_gradient_sync(last)
        return nullcontext() if last or self.sharded else self.accelerator.no_sync(self.model)

    def _update(self) -> float:
        """Applies the gradients and returns the learning rate."""
        lr = learning_rate(self.step, self.config)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.step()
            optimizer.zero_grad()
        return lr

    def _skip(self, micro_batches: list[MicroBatch], totals: dict[str, Tensor]) -> float:
        """Drops the gradients and returns a learning rate of 0.

        Raises:
            UserError: If the options do not allow another skipped step.
        """
        message = describe_nonfinite(self.accelerator, self.step + 1, micro_batches, totals)
        self.skipped += 1
        if self.config.on_nonfinite == "stop":
            way_out = "lower --train.lr, use --train.on_nonfinite skip, or start again"
            raise UserError(f"{message}; the weights are unchanged: {way_out}")
        limit = self.config.skip_limit
        if self.skipped > limit:
            before = f"and train.skip_limit = {limit} steps were skipped before"
            raise UserError(f"{message}, {before}: lower --train.lr")
        log.warning("%s; skipped, weights unchanged (%d of %d)", message, self.skipped, limit)
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        return 0.0

    def _sum_over_processes(self, totals: dict[str, Tensor]) -> dict[str, Tensor]:
        values = self.accelerator.reduce(torch.stack(list(totals.values())), reduction="sum")
        return dict(zip(totals, values, strict=True))
