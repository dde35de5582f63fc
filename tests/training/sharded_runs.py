"""Tiny trainings for test_sharding.py, which calls them on one process and runs this file on two.

`torchrun --nproc_per_node 2 -- tests/training/sharded_runs.py FOLDER` writes checkpoints and, for
each process, facts-N.json. With `killed` after it, there is only a run that kills itself.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn

from image.data import training_batches as image_batches
from image.data import validation_batches as image_validation
from image.model import ImageDiffusionConfig, ImageDiffusionModel
from image.sources import digits
from textdiff.cli.main import main
from textdiff.config import TrainConfig, UserError
from textdiff.text import grammar
from textdiff.text.autoregressive import Autoregressive, AutoregressiveConfig
from textdiff.text.config import DataConfig, TokenizerConfig
from textdiff.text.dataset import Corpus, examples, training_batches, validation_batches
from textdiff.text.model import DiffusionLM, DiffusionLMConfig
from textdiff.text.tokenizer import train_tokenizer
from textdiff.training.sharding import local_tensor
from textdiff.training.trainer import Trainer

KINDS = ("muon", "adamw", "autoregressive", "images")
STEPS = 4
SHAPE = {"length": 16, "width": 16, "depth": 2, "heads": 2}
TRAIN = {"steps": STEPS, "batch_size": 12, "accumulation": 2, "lr": 1e-4, "warmup": 2, "ema": 0.5}
TRAIN |= {"precision": "no"}
COMMAND = ["--model.width", "16", "--model.heads", "2", "--model.depth", "2", "--data.length", "24"]
COMMAND += ["--train.batch_size", "8", "--train.precision", "no", "--train.steps", "6"]
COMMAND += ["--train.save_every", "2", "--train.valid_every", "6", "--train.shard", "true"]


def command(folder: Path, name: str) -> list[str]:
    """Command line of a sharded run on folder/text.txt."""
    run, text = str(folder / name), str(folder / "text.txt")
    return ["train", "--run", run, "--data.train", text, *COMMAND]


def new_model(kind: str, vocab_size: int) -> nn.Module:
    """A model with dropout and no weight that is 0."""
    torch.manual_seed(0)
    if kind == "images":
        small = {"width": 4, "channel_multipliers": (1, 2), "res_blocks": 1, "dropout": 0.1}
        model: nn.Module = ImageDiffusionModel(
            ImageDiffusionConfig(classes=digits().classes, **small)
        )
    elif kind == "autoregressive":  # its first and last weights are tied
        model = Autoregressive(AutoregressiveConfig(vocab_size=vocab_size, **SHAPE))
    else:
        options = SHAPE | {"embed_dim": 8, "dropout": 0.1}
        model = DiffusionLM(DiffusionLMConfig(vocab_size=vocab_size, **options))
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape)
    return model


class Training:
    """A trainer of one kind with the batches of this process."""

    def __init__(self, kind: str, folder: Path, accelerator: Accelerator, **options: Any) -> None:
        self.process = accelerator.process_index, accelerator.num_processes
        optimizer = "adamw" if kind == "adamw" else "muon"
        self.config = TrainConfig(**TRAIN | {"optimizer": optimizer} | options)
        sentences = grammar.corpus(100, seed=0)
        tokenizer = train_tokenizer(sentences, TokenizerConfig())
        self.corpus = Corpus.of(examples(sentences, tokenizer, DataConfig(length=16)))
        self.images = digits() if kind == "images" else None
        model = new_model(kind, tokenizer.get_vocab_size())
        self.trainer = Trainer(model, self.config, folder / "state", accelerator)

    def steps(self, n: int) -> list[dict[str, float]]:
        """The losses and the gradient's norm of each of the next n steps."""
        where = self.config, self.trainer.step, *self.process
        of_text = training_batches(self.corpus, *where)
        batches = image_batches(self.images, True, *where) if self.images else of_text
        done = islice(self.trainer.train(batches), n)
        terms = [step.losses | {"norm": step.grad_norm} for step in done]
        return [{name: float(value) for name, value in each.items()} for each in terms]

    def validate(self) -> dict[str, float]:
        if self.images:
            return self.trainer.validate(image_validation(self.images[:20], 8, *self.process))
        return self.trainer.validate(validation_batches(self.corpus.head(20), 8, *self.process))


def trained(
    kind: str,
    folder: Path,
    accelerator: Accelerator,
    shard: bool,
    n: int = STEPS,
    **options: Any,
) -> dict[str, Any]:
    """Trains for n more steps, validates and saves. Returns the losses."""
    training = Training(kind, folder, accelerator, shard=shard, **options)
    training.trainer.resume()
    losses = {"steps": training.steps(n), "valid": training.validate()}
    training.trainer.save()
    return losses


def interrupted(kind: str, folder: Path, accelerator: Accelerator) -> dict[str, Any]:
    """A sharded training whose third step is lost and repeated. Returns facts after two steps.

    It saves the averaged model too. It also makes a weight infinite, after which nothing may be
    saved.
    """
    training = Training(kind, folder, accelerator, shard=True)
    trainer, main_process = training.trainer, accelerator.is_main_process
    training.steps(STEPS // 2)
    trainer.save()
    found: dict[str, Any] = {"bytes": memory(trainer)}
    model = trainer.averaged()
    found["averaged on"] = sorted({p.device.type for p in model.parameters()})
    if main_process:
        torch.save(model.state_dict(), folder / "averaged.pt")
    training.steps(1)
    if accelerator.process_index == 1:
        local_tensor(next(p for p in trainer.raw.parameters() if p.ndim)).data.fill_(torch.inf)
    try:
        trainer.save()
    except UserError as error:
        found["refused"] = str(error)
    trained(kind, folder, accelerator, shard=True)
    return found


def memory(trainer: Trainer) -> tuple[int, int]:
    """Bytes of weights, averaged weights and optimizer state: on this process, and unsharded."""
    entries = [entry for o in trainer.optimizers for entry in o.state_dict()["state"].values()]
    state = [tensor for entry in entries for tensor in entry.values()]
    tensors = [*trainer.raw.parameters(), *trainer.ema.parameters(), *state]
    storages = {
        s.data_ptr(): s.nbytes() for s in (local_tensor(t).untyped_storage() for t in tensors)
    }
    return sum(storages.values()), sum(t.nbytes for t in tensors)


def float32_runs(folder: Path) -> Iterator[tuple[str, Any]]:
    """Names and results of all runs in float32."""
    accelerator = Accelerator(cpu=True)
    for kind in KINDS:
        for shard in (False, True):
            name = f"{kind}-{'sharded' if shard else 'two'}"
            yield name, trained(kind, folder / name, accelerator, shard)
        yield f"{kind}-moved", trained(kind, folder / f"{kind}-moved", accelerator, True, n=1)
    for kind in ("muon", "images"):
        name = f"{kind}-interrupted"
        yield name, interrupted(kind, folder / name, accelerator)


def bf16_runs(folder: Path) -> Iterator[tuple[str, Any]]:
    """The same with autocast. They run last, since a process has one precision in accelerate."""
    accelerator = Accelerator(cpu=True, mixed_precision="bf16")
    for shard in (False, True):
        name = f"bf16-{'sharded' if shard else 'two'}"
        options = {"precision": "bf16", "lr": 1e-6, "accumulation": 1}
        yield name, trained("muon", folder / name, accelerator, shard, **options)


def die_after(checkpoint: Path) -> None:
    """Kills this process as soon as the checkpoint exists."""
    while not checkpoint.exists():
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGKILL)


def killed_run(folder: Path, rank: int) -> None:
    """A run whose second process kills itself."""
    if rank == 1:
        watch = [folder / "killed" / "state" / "step-00000002"]
        threading.Thread(target=die_after, args=watch, daemon=True).start()
    main(command(folder, "killed"))


def all_runs(folder: Path, rank: int) -> None:
    """All other runs."""
    found = dict(float32_runs(folder))
    main(command(folder, "whole"))
    AcceleratorState._reset_state()
    found |= dict(bf16_runs(folder))
    (folder / f"facts-{rank}.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    runs = killed_run if "killed" in sys.argv[2:] else all_runs
    runs(Path(sys.argv[1]), int(os.environ["RANK"]))
