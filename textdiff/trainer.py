"""The training loop, as an iterator of steps: accelerate, bf16, accumulation, clipping, warm-up and cosine, averaged weights, resume.

A model is a module whose `forward(**tensors, progress=...)` returns named loss terms, each a mean over its batch; their sum is minimized.
Knows neither text nor image nor diffusion. Progress bars, logs, samples and when to save are up to whoever consumes the steps.
"""

import copy
import logging
import math
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
from transformers.pytorch_utils import Conv1D

from textdiff import checkpoint, sharding
from textdiff.batches import MicroBatch
from textdiff.config import InputError, Train
from textdiff.device import compiles, matmul_dtype, pins_memory
from textdiff.muon import Muon
from textdiff.state import load_module, load_optimizer, module_state, optimizer_state

log = logging.getLogger("textdiff")

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class TrainStep:
    """After optimizer step `step`: the loss terms over the global batch, the gradient's norm before clipping, the learning rate."""

    step: int
    losses: dict[str, Tensor]
    grad_norm: Tensor
    lr: float


class Trainer(Generic[M]):
    """Holds the model, its optimizer and its average `ema`, sharded with `config.shard`.

    Args:
        folder: Where checkpoints go.
        identity: Hashes, by name, of what must be the same when a run goes on.
    """

    def __init__(self, model: M, config: Train, folder: Path, accelerator: Accelerator, identity: dict[str, str] | None = None) -> None:
        self.config, self.folder, self.accelerator, self.identity = config, folder, accelerator, identity or {}
        self.step, self.skipped = 0, 0
        self.sharded = config.shard and accelerator.num_processes > 1
        if self.sharded:
            sharding.broadcast_from_main(model, accelerator.device)
        # not torch's AveragedModel, which would copy a sharded model: it must be copied before
        self.ema: M = copy.deepcopy(model).requires_grad_(False).eval()
        self.raw = model
        if compiles(config.compile, accelerator.device):
            # in place, so that names stay; block by block if weights are gathered between the blocks
            for part in sharding.repeated_blocks(model) if self.sharded else [model]:
                part.compile(dynamic=False)
        self.model: nn.Module = model
        self.optimizers: list[torch.optim.Optimizer]
        if self.sharded:
            self._hollow = sharding.hollow(self.ema)
            for module in (model, self.ema):
                sharding.shard(module, accelerator.device)
            self.optimizers = _optimizers(model, config, accelerator.device)  # accelerate would wrap the model in DDP
        else:
            self.ema.to(accelerator.device)
            self.model, *self.optimizers = accelerator.prepare(model, *_optimizers(model, config, accelerator.device))

    def train(self, batches: Iterable[list[MicroBatch]]) -> Iterator[TrainStep]:
        """Steps until `config.steps`. `batches` holds each step's micro-batches from `self.step` on."""
        self.model.train()
        for micro_batches in batches:
            if self.step >= self.config.steps:
                return
            yield self._one_step(micro_batches)

    def _one_step(self, micro_batches: list[MicroBatch]) -> TrainStep:
        totals: dict[str, Tensor] = {}
        for last, micro in zip([*[False] * (len(micro_batches) - 1), True], micro_batches, strict=True):
            with self._exchange(last):
                terms = self._forward(self.model, micro.tensors)
                loss = sum(terms.values()) * micro.share * self.accelerator.num_processes  # processes average their gradients
                self.accelerator.backward(loss)
            for name, term in terms.items():
                totals[name] = totals.get(name, 0) + term.detach() * micro.share
        if self.sharded:
            sharding.average_scalar_grads(self.raw)
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.clip)
        grad_norm = sharding.unsharded(norm)
        losses = self._summed(totals)
        finite = bool(torch.stack([grad_norm, *losses.values()]).isfinite().all())  # on all processes alike; the step's only wait for the device
        lr = self._update() if finite else self._left_out(micro_batches, totals)
        self.step += 1
        if finite:
            self._average()
        return TrainStep(self.step, losses, grad_norm, lr)

    def _exchange(self, last: bool) -> AbstractContextManager[object]:
        """For a backward pass: gradients are exchanged once a step, with the last micro-batch."""
        if self.sharded:
            assert isinstance(self.raw, FSDPModule)
            self.raw.set_requires_gradient_sync(last)
        return nullcontext() if last or self.sharded else self.accelerator.no_sync(self.model)

    def _update(self) -> float:
        """The optimizers' step, and its learning rate."""
        lr = learning_rate(self.step, self.config)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.step()
            optimizer.zero_grad()
        return lr

    def _left_out(self, micro_batches: list[MicroBatch], totals: dict[str, Tensor]) -> float:
        """Weights stay as they are. Raises InputError unless the step may be left out."""
        finite = torch.stack([total.isfinite().all() for total in totals.values()]).all()
        losses = self.accelerator.gather(finite.reshape(1).float())
        ranks = [rank for rank, fine in enumerate(losses.tolist()) if not fine]
        numbers = torch.cat([micro.tensors["index"] for micro in micro_batches]) if "index" in micro_batches[0].tensors else torch.zeros(0)
        what = f"the loss of process {', '.join(map(str, ranks))} is" if ranks else "the losses are finite, but the gradient is"
        place = f", examples {int(numbers.min()) % 2**40:,} to {int(numbers.max()) % 2**40:,} of the run" if len(numbers) else ""
        where = f"step {self.step + 1}{place}"
        message = f"{where}: {what} not finite"
        self.skipped += 1
        if self.config.on_nonfinite == "stop":
            raise InputError(f"{message}; the weights were left as they were: lower --train.lr, or --train.on_nonfinite skip, or begin anew")
        if self.skipped > self.config.skip_limit:
            raise InputError(
                f"{message}, and {self.config.skip_limit} steps, as many as train.skip_limit allows, were left out before: lower --train.lr"
            )
        log.warning("%s; left out, the weights stay as they are (%d of at most %d)", message, self.skipped, self.config.skip_limit)
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        return 0.0

    @torch.no_grad()
    def validate(self, batches: Iterable[MicroBatch]) -> dict[str, float]:
        """Mean loss terms of the averaged weights over `batches`, whose shares, over all processes, add up to 1."""
        totals: dict[str, Tensor] = {}
        for micro in batches:
            terms = self._forward(self.ema, micro.tensors)
            for name, term in terms.items():
                totals[name] = totals.get(name, 0) + term * micro.share
        return {name: float(total) for name, total in self._summed(totals).items()}

    def averaged(self) -> M:
        """The averaged model, whole, on the main process. Every process must call it.

        Of a sharded model the others get a copy without weights.
        """
        if not self.sharded:
            return self.ema
        return sharding.filled(self._hollow, self.ema, keep=self.accelerator.is_main_process)

    def save(self) -> None:
        """Saves a checkpoint of everything, from the main process. Every process must call it."""
        finite = [sharding.local(p).isfinite().all() for p in self.raw.parameters()]
        everywhere = self.accelerator.gather(torch.stack(finite).all().reshape(1).float())
        if not everywhere.all():
            what = f"step {self.step}: the weights are not finite, so they are not saved"
            raise InputError(f"{what}: begin anew with a lower --train.lr")
        groups = {"model": module_state(self.raw), "ema": module_state(self.ema)}
        for number, optimizer in enumerate(self.optimizers):
            groups[f"optimizer{number}"] = optimizer_state(optimizer)
        main = self.accelerator.is_main_process
        groups = {name: sharding.gathered(group, keep=main) for name, group in groups.items()}
        if main:
            facts: dict[str, Any] = {"step": self.step, "optimizer": self.config.optimizer, "skipped": self.skipped}
            facts |= {"identity": self.identity, "torch": torch.__version__}
            checkpoint.save(self.folder, self.step, checkpoint.Checkpoint(groups, facts))
        self.accelerator.wait_for_everyone()

    def resume(self) -> bool:
        """Goes on from the newest whole checkpoint, if there is one. Raises InputError if it is of another model or optimizer."""
        saved = checkpoint.newest(self.folder)
        if saved is None:
            return False
        try:
            load_module(self.raw, saved.tensors["model"])
            load_module(self.ema, saved.tensors["ema"])
        except RuntimeError as error:
            raise InputError(f"the checkpoint in {self.folder} is of another model: {' '.join(str(error).split())[:300]}") from error
        if saved.facts["optimizer"] != self.config.optimizer:
            raise InputError(f"the checkpoint in {self.folder} was trained with --train.optimizer {saved.facts['optimizer']}")
        for number, optimizer in enumerate(self.optimizers):
            load_optimizer(optimizer, saved.tensors[f"optimizer{number}"])
        changed = [name for name, value in self.identity.items() if saved.facts.get("identity", {}).get(name, value) != value]
        if changed:
            raise InputError(f"{' and '.join(changed)} changed since the checkpoint in {self.folder} was written: bring back what was, or begin anew")
        self.step, self.skipped = saved.facts["step"], saved.facts.get("skipped", 0)
        return True

    def _forward(self, model: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        device = self.accelerator.device
        tensors = tensors | {"progress": torch.tensor(self.step / self.config.steps)}  # a number would be compiled into the step
        if pins_memory(device):
            tensors = {name: tensor.pin_memory() for name, tensor in tensors.items()}
        cache = AutocastKwargs(cache_enabled=not self.sharded)  # why: see sharding.shard
        with self.accelerator.autocast(cache):
            return model(**{name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()})

    def _summed(self, totals: dict[str, Tensor]) -> dict[str, Tensor]:
        """Over all processes."""
        values = self.accelerator.reduce(torch.stack(list(totals.values())), reduction="sum")
        return dict(zip(totals, values, strict=True))

    @torch.no_grad()
    def _average(self) -> None:
        """Weights move towards the model's, faster at first (min(decay, (1 + step) / (10 + step))); buffers are copied."""
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.ema.parameters()), list(self.raw.parameters()), 1 - decay)
        for mine, new in zip(self.ema.buffers(), self.raw.buffers(), strict=True):
            mine.copy_(new)


def learning_rate(step: int, config: Train) -> float:
    """Linear warm-up, then half a cosine down to 0."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def _optimizers(model: nn.Module, config: Train, device: torch.device) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the repeated blocks (linear layers in a ModuleList, GPT-2's Conv1D too), AdamW for all else; or AdamW alone."""
    layers = {id(m.weight): m.weight for m in model.modules() if isinstance(m, nn.Linear | Conv1D | nn.Conv2d)}
    inner = [b for blocks in model.modules() if isinstance(blocks, nn.ModuleList) for b in blocks.modules() if isinstance(b, nn.Linear | Conv1D)]
    muon = {id(layer.weight): layer.weight for layer in inner} if config.optimizer == "muon" else {}
    rest = [p for p in model.parameters() if id(p) not in muon]
    groups = [
        {"params": [p for p in rest if id(p) in layers], "weight_decay": config.weight_decay},
        {"params": [p for p in rest if id(p) not in layers], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.99), fused=True)
    if not muon:
        return [adamw]
    dtype = matmul_dtype(config.precision, device)
    return [Muon(muon.values(), lr=config.lr, weight_decay=config.weight_decay, dtype=dtype), adamw]
