"""A text run: a configuration becomes words, a model and batches, and what is seen of the model while it learns."""

import json
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from tokenizers import Tokenizer

from textdiff import tokens
from textdiff.autoregressive import Autoregressive, AutoregressiveConfig
from textdiff.batches import MicroBatch
from textdiff.checkpoint import digest
from textdiff.config import InputError, Sampling, TextRun
from textdiff.data import SAMPLE, Corpus, batched, collate, in_turn, padding_multiple, streamed
from textdiff.device import compiles
from textdiff.folder import check_folder
from textdiff.generate import finished, from_noise, generate
from textdiff.journal import Seen
from textdiff.lm import DiffusionLM, DiffusionLMConfig
from textdiff.loop import Work, new_accelerator, run
from textdiff.metrics import complaints, context_gain
from textdiff.sources import Texts, open_texts
from textdiff.spectral import spectral_embedding
from textdiff.vocab import UNK, existing_tokenizer, save_tokenizer, train_tokenizer

log = logging.getLogger("textdiff")

VALID_EXAMPLES = 1024  # at most, for the validation loss while training
LEVELS = (-6.0, -4.0, -3.0, -2.0, -1.0, 0.0)  # log SNRs at which the context gain is shown


def train(config: TextRun, *, resume: bool = False, overwrite: bool = False) -> Path:
    """Trains, with progress on standard error, and returns the run folder. What is wrong with the input is raised before any long work."""
    check_folder(config, resume, overwrite)
    folder = Path(config.run)
    texts = open_texts(config.data) if os.environ.get("RANK", "0") == "0" else None  # only the first process needs them
    accelerator, config = new_accelerator(config, resume=resume)
    tokenizer, *prepared = _prepared(texts, config, folder / "model" if resume else None, accelerator)
    del texts  # some bytes a row
    corpus, valid = map(tokens.load, prepared)
    rank, world = accelerator.process_index, accelerator.num_processes
    multiple = padding_multiple(config.data.length) if compiles(config.train.compile, accelerator.device) else 1

    def batches(first_step: int) -> Iterator[list[MicroBatch]]:
        if config.data.streaming:
            return _streamed(config, tokenizer, first_step, rank, world, multiple)
        return batched(corpus, config.train, first_step, rank, world, multiple)

    def held_out() -> Iterator[MicroBatch]:
        return in_turn(valid.head(VALID_EXAMPLES), config.train.batch_size, rank, world)

    identity = {
        "the vocabulary": digest(json.dumps(sorted(tokenizer.get_vocab().items())).encode()),
        "the training text": tokens.identity(prepared[0]),
    }

    def begin() -> None:
        save_tokenizer(tokenizer, folder / "model")
        if not resume:  # else what was may still be brought back
            tokens.prune(folder / "tokens", prepared)

    work = Work(_model(config, tokenizer, corpus), batches, held_out, lambda model, _: _seen(model, valid, tokenizer, config), "tokens", identity)
    model = run(work, config, accelerator, resume=resume, overwrite=overwrite, begin=begin)
    if accelerator.is_main_process:
        _say_if_sound(model, tokenizer, corpus.head(SAMPLE), valid, config)
    return folder


def _model(config: TextRun, tokenizer: Tokenizer, corpus: Corpus) -> DiffusionLM | Autoregressive:
    torch.manual_seed(config.train.seed)
    options: dict[str, Any] = asdict(config.model)
    sizes: dict[str, Any] = {"vocab_size": tokenizer.get_vocab_size(), "length": config.data.length}
    if options.pop("family") == "autoregressive":
        return Autoregressive(AutoregressiveConfig(**sizes, **{name: options[name] for name in ("width", "depth", "heads", "dropout")}))
    start = options.pop("embedding_init")
    model = DiffusionLM(DiffusionLMConfig(**sizes, **options))
    words, lengths = np.zeros(model.config.vocab_size, np.int64), np.zeros(model.config.length + 1, np.int64)
    for piece in corpus.pieces():
        words += np.bincount(piece.tokens, minlength=len(words))
        lengths += np.bincount(piece.sizes, minlength=len(lengths))
    model.describe_data(torch.from_numpy(words).float(), torch.from_numpy(lengths).float())
    if start == "spectral":
        model.embedding.data.copy_(spectral_embedding(corpus, tokenizer.get_vocab_size(), config.model.embed_dim, seed=config.train.seed))
    return model


def _seen(model: DiffusionLM | Autoregressive, valid: Corpus, tokenizer: Tokenizer, config: TextRun) -> Seen:
    gain = _context_gain(model, valid)
    told = ["context gain in nats a word, by log SNR  " + "  ".join(f"{level:+.0f}: {value:.2f}" for level, value in gain.items())] if gain else []
    figures = {f"context_gain/{level:g}": value for level, value in gain.items()}
    return Seen(figures, told, [*map(tokenizer.decode, _samples(model, tokenizer, config))])


def _context_gain(model: DiffusionLM | Autoregressive, valid: Corpus) -> dict[float, float]:
    if not isinstance(model, DiffusionLM) or model.config.objective != "ce":
        return {}  # only these logits are probabilities
    rows = [valid[i] for i in range(min(128, len(valid)))]
    tensors = collate(rows, np.arange(len(rows)))
    return context_gain(model, tensors["ids"].to(model.device), tensors["mask"].to(model.device), LEVELS)


def _samples(model: DiffusionLM | Autoregressive, tokenizer: Tokenizer, config: TextRun, n: int = 4) -> list[list[int]]:
    sampling = Sampling(precision=config.train.precision)
    return list(finished(generate(model, tokenizer, from_noise(model, n, seed=0), sampling)))


def _say_if_sound(model: DiffusionLM | Autoregressive, tokenizer: Tokenizer, corpus: Corpus, valid: Corpus, config: TextRun) -> None:
    """One line after every training."""
    samples, training = [tuple(ids) for ids in _samples(model, tokenizer, config, 64)], [tuple(corpus[i].tolist()) for i in range(len(corpus))]
    wrong = complaints(samples, training, tokenizer.token_to_id(UNK))
    if max(_context_gain(model, valid).values(), default=1) < 0.1:
        wrong.append("the context gain is near 0 at every noise level, so that samples are word salad: train longer")
    log.log(logging.WARNING if wrong else logging.INFO, "checked 64 samples: %s", "; ".join(wrong) or "nothing is plainly wrong")


def _prepared(texts: Texts | None, config: TextRun, existing: Path | None, accelerator: Accelerator) -> tuple[Tokenizer, Path, Path]:
    """The tokenizer and the tokens of both sets: made by the main process, which also tells the others what is wrong with the input."""
    made: list[Any] = [None]
    if accelerator.is_main_process:
        try:
            made = [_prepare(texts, config, existing)]
        except InputError as error:
            made = [error]
    (found,) = broadcast_object_list(made)
    if isinstance(found, InputError):
        raise found
    text, *paths = found
    tokenizer = Tokenizer.from_str(text)
    if accelerator.is_local_main_process and not all(path.exists() for path in paths):  # a machine with other disks
        _prepare(None, config, None, tokenizer)
    accelerator.wait_for_everyone()
    return tokenizer, *paths


def _prepare(texts: Texts | None, config: TextRun, existing: Path | None, tokenizer: Tokenizer | None = None) -> tuple[str, Path, Path]:
    """The text is never in memory as a whole; of a stream, only its beginning is prepared."""
    texts = texts or open_texts(config.data)
    training = [*islice(texts.train(), SAMPLE)] if config.data.streaming else texts.train()
    with tokens.all_cores():
        tokenizer = tokenizer or _tokenizer(training, config, existing)
        prepare = partial(tokens.prepare, Path(config.run) / "tokens", tokenizer=tokenizer, data=config.data)
        return tokenizer.to_str(), prepare("train", training), prepare("valid", texts.valid)


def _tokenizer(training: Iterable[str], config: TextRun, existing: Path | None) -> Tokenizer:
    """A run that goes on keeps its own, if it has one."""
    if existing and (existing / "tokenizer.json").exists():
        return existing_tokenizer(str(existing))
    return train_tokenizer(training, config.tokenizer)


def _streamed(config: TextRun, tokenizer: Tokenizer, first_step: int, rank: int, world: int, multiple: int) -> Iterator[list[MicroBatch]]:
    """Batches of a stream, whose files the processes share out if each can have as many."""
    texts = open_texts(config.data)
    apart = world > 1 and texts.files % world == 0 and config.train.batch_size >= world
    train = partial(texts.train, rank, world) if apart else texts.train
    if apart and not rank:
        log.info("each of %d processes reads its own of the %d files of the stream", world, texts.files)
    return streamed(train, tokenizer, config.data, config.train, first_step, rank, world, apart, multiple)
