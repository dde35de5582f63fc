"""Tiny trainings for test_sharding.py, which calls them on one process and runs this file on two.

`torchrun --nproc_per_node 2 -- tests/sharded_runs.py FOLDER` writes checkpoints and, for each
process, facts-N.json. Its last run kills itself.
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

from image.data import batched as image_batches
from image.data import in_turn as image_validation
from image.model import ImageDiffusion, ImageDiffusionConfig
from image.sources import digits
from textdiff import grammar
from textdiff.autoregressive import Autoregressive, AutoregressiveConfig
from textdiff.cli import main
from textdiff.config import Data, InputError, Train, Vocabulary
from textdiff.data import Corpus, batched, examples, in_turn
from textdiff.lm import DiffusionLM, DiffusionLMConfig
from textdiff.sharding import local
from textdiff.trainer import Trainer
from textdiff.vocab import train_tokenizer

KINDS = ("muon", "adamw", "autoregressive", "images")
STEPS = 4
SHAPE = {"length": 16, "width": 16, "depth": 2, "heads": 2}
TRAIN = {"steps": STEPS, "batch_size": 12, "accumulate": 2, "lr": 1e-4, "warmup": 2, "ema": 0.5}
TRAIN |= {"precision": "no"}
COMMAND = ["--model.width", "16", "--model.heads", "2", "--model.depth", "2", "--data.length", "24"]
COMMAND += ["--train.batch_size", "8", "--train.precision", "no", "--train.steps", "6"]
COMMAND += ["--train.save_every", "2", "--train.valid_every", "6", "--train.shard", "true"]


def command(folder: Path, name: str) -> list[str]:
    """A sharded run from the command line, of folder/text.txt."""
    run, text = str(folder / name), str(folder / "text.txt")
    return ["train", "--run", run, "--data.train", text, *COMMAND]


def new_model(kind: str, vocab_size: int) -> nn.Module:
    """A model with a dropout of its own numbers, in which nothing is zero."""
    torch.manual_seed(0)
    if kind == "images":
        small = {"width": 4, "multipliers": (1, 2), "blocks": 1, "dropout": 0.1}
        model: nn.Module = ImageDiffusion(ImageDiffusionConfig(classes=digits().classes, **small))
    elif kind == "autoregressive":  # its first and last weights are one
        model = Autoregressive(AutoregressiveConfig(vocab_size=vocab_size, **SHAPE))
    else:
        options = SHAPE | {"embed_dim": 8, "dropout": 0.1}
        model = DiffusionLM(DiffusionLMConfig(vocab_size=vocab_size, **options))
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape)
    return model


class Training:
    """A trainer of one kind with its batches, those of this process."""

    def __init__(self, kind: str, folder: Path, accelerator: Accelerator, **options: Any) -> None:
        self.place = accelerator.process_index, accelerator.num_processes
        optimizer = "adamw" if kind == "adamw" else "muon"
        self.config = Train(**TRAIN | {"optimizer": optimizer} | options)
        sentences = grammar.corpus(100, seed=0)
        tokenizer = train_tokenizer(sentences, Vocabulary())
        self.corpus = Corpus.of(examples(sentences, tokenizer, Data(length=16)))
        self.images = digits() if kind == "images" else None
        model = new_model(kind, tokenizer.get_vocab_size())
        self.trainer = Trainer(model, self.config, folder / "state", accelerator)

    def steps(self, n: int) -> list[dict[str, float]]:
        """The losses and the gradient's norm of each of the next n steps."""
        where = self.config, self.trainer.step, *self.place
        of_text = batched(self.corpus, *where)
        batches = image_batches(self.images, True, *where) if self.images else of_text
        done = islice(self.trainer.train(batches), n)
        seen = [step.losses | {"norm": step.grad_norm} for step in done]
        return [{name: float(value) for name, value in each.items()} for each in seen]

    def validated(self) -> dict[str, float]:
        if self.images:
            return self.trainer.validate(image_validation(self.images[:20], 8, *self.place))
        return self.trainer.validate(in_turn(self.corpus.head(20), 8, *self.place))


def trained(
    kind: str,
    folder: Path,
    accelerator: Accelerator,
    shard: bool,
    n: int = STEPS,
    **options: Any,
) -> dict[str, Any]:
    """Goes on by n steps, validates, saves, and says what was seen."""
    training = Training(kind, folder, accelerator, shard=shard, **options)
    training.trainer.resume()
    seen = {"steps": training.steps(n), "valid": training.validated()}
    training.trainer.save()
    return seen


def interrupted(kind: str, folder: Path, accelerator: Accelerator) -> dict[str, Any]:
    """A sharded training whose third step is lost and taken again, and what is true after two.

    Saves the averaged model too. Of the weights that are made infinite nothing may be saved.
    """
    training = Training(kind, folder, accelerator, shard=True)
    trainer, main_process = training.trainer, accelerator.is_main_process
    training.steps(STEPS // 2)
    trainer.save()
    found: dict[str, Any] = {"bytes": held(trainer)}
    model = trainer.averaged()
    found["averaged on"] = sorted({p.device.type for p in model.parameters()})
    if main_process:
        torch.save(model.state_dict(), folder / "averaged.pt")
    training.steps(1)
    if accelerator.process_index == 1:
        local(next(p for p in trainer.raw.parameters() if p.ndim)).data.fill_(torch.inf)
    try:
        trainer.save()
    except InputError as error:
        found["refused"] = str(error)
    trained(kind, folder, accelerator, shard=True)
    return found


def held(trainer: Trainer) -> tuple[int, int]:
    """Bytes of weights, averaged weights and optimizer state: of this process, and of all."""
    entries = [entry for o in trainer.optimizers for entry in o.state_dict()["state"].values()]
    state = [tensor for entry in entries for tensor in entry.values()]
    tensors = [*trainer.raw.parameters(), *trainer.ema.parameters(), *state]
    storages = {s.data_ptr(): s.nbytes() for s in (local(t).untyped_storage() for t in tensors)}
    return sum(storages.values()), sum(t.nbytes for t in tensors)


def everything(folder: Path) -> Iterator[tuple[str, Any]]:
    accelerator = Accelerator(cpu=True)
    for kind in KINDS:
        for shard in (False, True):
            name = f"{kind}-{'sharded' if shard else 'two'}"
            yield name, trained(kind, folder / name, accelerator, shard)
        yield f"{kind}-moved", trained(kind, folder / f"{kind}-moved", accelerator, True, n=1)
    for kind in ("muon", "images"):
        name = f"{kind}-interrupted"
        yield name, interrupted(kind, folder / name, accelerator)


def bfloat16(folder: Path) -> Iterator[tuple[str, Any]]:
    """The same with autocast, after all else, for accelerate's precision is the process's."""
    accelerator = Accelerator(cpu=True, mixed_precision="bf16")
    for shard in (False, True):
        name = f"bf16-{'sharded' if shard else 'two'}"
        options = {"precision": "bf16", "lr": 1e-6, "accumulate": 1}
        yield name, trained("muon", folder / name, accelerator, shard, **options)


def die_after(checkpoint: Path) -> None:
    """Kills this process as soon as the checkpoint is there."""
    while not checkpoint.exists():
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    torch.set_num_threads(1)
    home, rank = Path(sys.argv[1]), int(os.environ["RANK"])
    found = dict(everything(home))
    main(command(home, "whole"))
    AcceleratorState._reset_state()
    found |= dict(bfloat16(home))
    (home / f"facts-{rank}.json").write_text(json.dumps(found), encoding="utf-8")
    if rank == 1:
        watch = [home / "killed" / "state" / "step-00000002"]
        threading.Thread(target=die_after, args=watch, daemon=True).start()
    main(command(home, "killed"))
