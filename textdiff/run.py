"""A text run, from its configuration to its run folder: config.yaml, metrics.jsonl, state/ (to resume) and model/ (all that sampling needs)."""

import copy
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from tokenizers import Tokenizer

from textdiff.autoregressive import Autoregressive, AutoregressiveConfig
from textdiff.config import Sampling, TextRun
from textdiff.data import SAMPLE, Corpus, MicroBatch, batched, collate, examples, in_turn, streamed
from textdiff.folder import check_folder
from textdiff.generate import finished, from_noise, generate
from textdiff.journal import Journal, Signals
from textdiff.lm import DiffusionLM, DiffusionLMConfig
from textdiff.metrics import complaints, context_gain
from textdiff.sources import Texts, open_texts
from textdiff.spectral import spectral_embedding
from textdiff.trainer import Trainer
from textdiff.vocab import UNK, existing_tokenizer, save_tokenizer, train_tokenizer

log = logging.getLogger("textdiff")

VALID_EXAMPLES = 1024  # at most, for the validation loss while training
LEVELS = (-6.0, -4.0, -3.0, -2.0, -1.0, 0.0)  # log SNRs at which the context gain is shown


def train(config: TextRun, *, resume: bool = False, overwrite: bool = False) -> Path:
    """Trains, with progress on standard error, and returns the run folder. What is wrong with the input is raised before any long work."""
    check_folder(config, resume, overwrite)
    folder = Path(config.run)
    prepared = _prepared(config, folder / "model" if resume else None)
    accelerator, texts, tokenizer, corpus, model = prepared
    valid = Corpus.of(examples(texts.valid, tokenizer, config.data))
    if config.train.minutes and not (resume and (folder / "config.yaml").exists()):
        config = _timed(config, prepared)
    if accelerator.is_main_process:  # nothing was written or replaced until here, where all that can be wrong has been seen
        _prepare_folder(folder, config, tokenizer, overwrite)
    accelerator.wait_for_everyone()
    trainer = Trainer(model, config.train, folder / "state", accelerator)
    if resume:
        log.info("going on from step %d" if trainer.resume() else "nothing to go on from, starting at step %d", trainer.step)
    _watch(trainer, _batches(config, prepared, trainer.step), valid.head(VALID_EXAMPLES), tokenizer, config, folder)
    if accelerator.is_main_process:
        _say_if_sound(trainer.ema, tokenizer, corpus.head(SAMPLE), valid)
    return folder


class Prepared(NamedTuple):
    """What a run starts from; nothing of it is on disk yet."""

    accelerator: Accelerator
    texts: Texts
    tokenizer: Tokenizer
    corpus: Corpus
    model: DiffusionLM | Autoregressive


def _prepared(config: TextRun, existing: Path | None) -> Prepared:
    """`existing` is a model folder whose tokenizer is to be kept."""
    texts, accelerator = open_texts(config.data), _accelerator(config)
    tokenizer = _tokenizer(texts, config, existing, accelerator)
    corpus = Corpus.of(examples(_beginning(texts, config), tokenizer, config.data))
    return Prepared(accelerator, texts, tokenizer, corpus, _model(config, tokenizer, corpus))


def _accelerator(config: TextRun) -> Accelerator:
    """The CPU is asked for by name where there is nothing else, or accelerate would not see that there are several processes."""
    accelerator = Accelerator(
        mixed_precision=config.train.precision,
        cpu=not torch.accelerator.is_available(),
        log_with=config.train.tracker_names or None,
        project_dir=config.run,
    )
    if os.environ.get("ACCELERATE_USE_CPU") == "True" and "MASTER_ADDR" in os.environ and accelerator.num_processes == 1:
        log.warning("accelerate launch --cpu started one process, for it leaves more to MPI: torchrun --nproc_per_node N -- SCRIPT starts N")
    if accelerator.device.type == "cpu" and os.environ.get("OMP_NUM_THREADS") == "1" and "ACCELERATE_MIXED_PRECISION" in os.environ:
        threads = max(1, (os.cpu_count() or 1) // accelerator.num_processes)  # accelerate launch sets 1, whatever the machine has
        torch.set_num_threads(threads)
        log.info("on the CPU with %d threads a process", threads)
    return accelerator


def _watch(trainer: Trainer[Any], batches: Iterator[list[MicroBatch]], valid: Corpus, tokenizer: Tokenizer, config: TextRun, folder: Path) -> None:
    """Consumes the steps: progress bar, metrics.jsonl, validation with samples, checkpoints. A signal to stop is obeyed after the step."""
    journal, signals = Journal(trainer, folder, config), Signals(trainer.accelerator)
    with signals:
        for done in trainer.train(journal.counted(batches)):
            journal.step(done)
            last = done.step == config.train.steps
            if done.step % config.train.valid_every == 0 or last:
                rank, world = trainer.accelerator.process_index, trainer.accelerator.num_processes
                losses = trainer.validate(in_turn(valid, config.train.batch_size, rank, world))
                if trainer.accelerator.is_main_process:
                    journal.validation(losses, _context_gain(trainer.ema, valid), [*map(tokenizer.decode, _samples(trainer.ema, tokenizer))])
            stopped = signals.received()
            if done.step % config.train.save_every == 0 or last or stopped:
                trainer.save()
                if trainer.accelerator.is_main_process:
                    save_model(trainer.ema, folder / "model")
            if stopped and not last:
                journal.close()
                log.warning("stopped after step %d, which is saved: go on with --resume", done.step)
                raise KeyboardInterrupt
    journal.close()


def _timed(config: TextRun, prepared: Prepared, trial: int = 24) -> TextRun:
    """With `train.steps` such that the run takes `train.minutes` on this machine, by a short trial with a copy of the model."""
    assert config.train.minutes is not None
    accelerator = prepared.accelerator
    trainer = Trainer(copy.deepcopy(prepared.model), config.train, Path(config.run) / "state", accelerator)
    steps = trainer.train(_batches(config, prepared, 0))
    next(steps)  # slower than the others
    began = time.perf_counter()
    for _ in islice(steps, trial):
        pass
    each = (time.perf_counter() - began) / trial
    accelerator.free_memory()
    (number,) = broadcast_object_list([max(1, round(60 * config.train.minutes / each))])
    if accelerator.is_main_process:
        log.info("%s steps of %.3g seconds fit into train.minutes = %g", f"{number:,}", each, config.train.minutes)
    return replace(config, train=replace(config.train, steps=number, minutes=None))


def _batches(config: TextRun, prepared: Prepared, first_step: int) -> Iterator[list[MicroBatch]]:
    """This process's, from a step on."""
    rank, world = prepared.accelerator.process_index, prepared.accelerator.num_processes
    if config.data.streaming:
        return streamed(prepared.texts.train, prepared.tokenizer, config.data, config.train, first_step, rank, world)
    return batched(prepared.corpus, config.train, first_step, rank, world)


def save_model(model: DiffusionLM | Autoregressive, folder: Path) -> None:
    """Replaces weights and configuration in `folder`, each file as a whole; the tokenizer is there already."""
    aside = folder.with_name("model.partial")
    shutil.rmtree(aside, ignore_errors=True)
    model.save_pretrained(aside)
    for path in aside.iterdir():
        path.replace(folder / path.name)
    aside.rmdir()


def _model(config: TextRun, tokenizer: Tokenizer, corpus: Corpus) -> DiffusionLM | Autoregressive:
    torch.manual_seed(config.train.seed)
    options: dict[str, Any] = asdict(config.model)
    sizes: dict[str, Any] = {"vocab_size": tokenizer.get_vocab_size(), "length": config.data.length}
    if options.pop("family") == "autoregressive":
        return Autoregressive(AutoregressiveConfig(**sizes, **{name: options[name] for name in ("width", "depth", "heads", "dropout")}))
    start = options.pop("embedding_init")
    model = DiffusionLM(DiffusionLMConfig(**sizes, **options))
    model.schedule()  # an impossible one is refused here, not at the first step
    tokens = np.bincount(corpus.tokens, minlength=model.config.vocab_size)
    lengths = np.bincount(corpus.sizes, minlength=model.config.length + 1)
    model.describe_data(torch.from_numpy(tokens).float(), torch.from_numpy(lengths).float())
    if start == "spectral":
        model.embedding.data = spectral_embedding(corpus, tokenizer.get_vocab_size(), config.model.embed_dim, seed=config.train.seed)
    return model


def _context_gain(model: DiffusionLM | Autoregressive, valid: Corpus) -> dict[float, float]:
    if not isinstance(model, DiffusionLM) or model.config.objective != "ce":
        return {}  # only these logits are probabilities
    rows = [valid[i] for i in range(min(128, len(valid)))]
    tensors = collate(rows, np.arange(len(rows)))
    return context_gain(model, tensors["ids"].to(model.device), tensors["mask"].to(model.device), LEVELS)


def _samples(model: DiffusionLM | Autoregressive, tokenizer: Tokenizer, n: int = 4) -> list[list[int]]:
    return list(finished(generate(model, tokenizer, from_noise(model, n, seed=0), Sampling())))


def _say_if_sound(model: DiffusionLM | Autoregressive, tokenizer: Tokenizer, corpus: Corpus, valid: Corpus) -> None:
    """One line after every training."""
    samples, training = [tuple(ids) for ids in _samples(model, tokenizer, 64)], [tuple(corpus[i].tolist()) for i in range(len(corpus))]
    wrong = complaints(samples, training, tokenizer.token_to_id(UNK))
    if max(_context_gain(model, valid).values(), default=1) < 0.1:
        wrong.append("the context gain is near 0 at every noise level, so that samples are word salad: train longer")
    log.log(logging.WARNING if wrong else logging.INFO, "checked 64 samples: %s", "; ".join(wrong) or "nothing is plainly wrong")


def _beginning(texts: Texts, config: TextRun) -> Iterator[str]:
    """All training texts, or the beginning of a stream."""
    return islice(texts.train(), SAMPLE if config.data.streaming else None)


def _tokenizer(texts: Texts, config: TextRun, existing: Path | None, accelerator: Accelerator) -> Tokenizer:
    """The run's own if it has one, else as configured; the main process makes it for all."""
    made: list[str | None] = [None]
    if accelerator.is_main_process:
        if existing and (existing / "tokenizer.json").exists():
            made = [existing_tokenizer(str(existing)).to_str()]
        else:
            made = [train_tokenizer(_beginning(texts, config), config.tokenizer).to_str()]
    return Tokenizer.from_str(broadcast_object_list(made)[0])


def _prepare_folder(folder: Path, config: TextRun, tokenizer: Tokenizer, overwrite: bool) -> None:
    if overwrite:
        for name in ("state", "model"):
            shutil.rmtree(folder / name, ignore_errors=True)
        (folder / "metrics.jsonl").unlink(missing_ok=True)
    (folder / "model").mkdir(parents=True, exist_ok=True)
    save_tokenizer(tokenizer, folder / "model")
    (folder / "config.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(asdict(config))), sort_keys=False))
