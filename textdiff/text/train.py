"""Training of a text model: from a configuration to a run folder."""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from tokenizers import Tokenizer

from textdiff.config import SamplingConfig
from textdiff.device import compiles
from textdiff.sampling import collect
from textdiff.text import token_cache
from textdiff.text.autoregressive import Autoregressive, AutoregressiveConfig
from textdiff.text.card import text_facts
from textdiff.text.config import TextConfig
from textdiff.text.dataset import (
    STREAM_SAMPLE,
    Corpus,
    collate,
    padding_multiple,
    streaming_batches,
    training_batches,
    validation_batches,
)
from textdiff.text.diagnostics import WordLoss, losses_by_logsnr, sanity_warnings
from textdiff.text.embedding_init import spectral_embedding
from textdiff.text.generation_config import DiffusionGenerationConfig
from textdiff.text.model import DiffusionLM, DiffusionLMConfig
from textdiff.text.pair_counts import pair_statistics
from textdiff.text.preparation import prepare_data
from textdiff.text.requests import TextModel, joined, sample_request
from textdiff.text.sampling import generate
from textdiff.text.sources import open_texts
from textdiff.text.special_tokens import SEPARATOR
from textdiff.text.target_lengths import target_share
from textdiff.text.targets import target_request
from textdiff.text.tokenizer import UNK, save_tokenizer
from textdiff.training.batching import MicroBatch
from textdiff.training.card import write_card
from textdiff.training.checkpoint import sha256
from textdiff.training.logger import ValidationReport
from textdiff.training.loop import Export, Validation, fit, new_accelerator, with_measured_steps
from textdiff.training.run_dir import RunDir, open_run_dir
from textdiff.training.trainer import Trainer

log = logging.getLogger("textdiff")

VALID_EXAMPLES = 1024  # at most, for the validation loss
LOGSNRS = (-6.0, -4.0, -3.0, -2.0, -1.0, 0.0)  # at which the context gain is logged


def train(config: TextConfig, run_dir: RunDir[TextConfig] | None = None) -> Path:
    """Trains a text model and returns the run folder.

    Args:
        run_dir: The checked run folder, by default that of a new run.

    Raises:
        UserError: If the input cannot be used. It is checked before any long work.
    """
    run_dir = run_dir or open_run_dir(config)
    texts = open_texts(config.data) if os.environ.get("RANK", "0") == "0" else None
    accelerator, config = new_accelerator(config, run_dir)
    tokenizer, *prepared = prepare_data(texts, config, run_dir, accelerator)
    del texts
    corpus, valid = map(token_cache.load, prepared)
    model = build_model(config, tokenizer, corpus)
    batches = partial(_batches, config, corpus, tokenizer, accelerator)
    with run_dir.locked(accelerator.is_main_process):
        if not run_dir.saved:
            config = with_measured_steps(config, model, batches, accelerator)
        state, fingerprints = run_dir.path / "state", _fingerprints(tokenizer, prepared[0])
        trainer = Trainer(model, config.train, state, accelerator, fingerprints)
        if run_dir.resume:
            trainer.resume()  # before anything is written, for it may be refused
        _begin(run_dir, config, tokenizer, prepared, accelerator)
        first, held_out = trainer.step, _validation_batches(config, valid, accelerator)
        facts = text_facts(config, model, tokenizer, len(corpus), valid)
        with closing(fit(trainer, batches(first), held_out, config, "tokens")) as events:
            for event in events:
                if isinstance(event, Validation):
                    with event.interruptible():
                        event.report(_validation_report(event.model, valid, tokenizer, config))
                elif isinstance(event, Export):
                    write_card(config, facts, event.step)
    averaged = trainer.averaged()
    if accelerator.is_main_process:
        found = _sanity_check(averaged, tokenizer, corpus.head(STREAM_SAMPLE), valid, config)
        if trainer.step > first:
            write_card(config, facts.with_limit(found), trainer.step)
    return run_dir.path


def build_model(config: TextConfig, tokenizer: Tokenizer, corpus: Corpus) -> TextModel:
    """Builds a new model for the training text."""
    torch.manual_seed(config.train.seed)
    options = asdict(config.model)
    vocab_size, pairs = tokenizer.get_vocab_size(), None
    options |= {"vocab_size": vocab_size, "length": config.data.length}
    options |= {"prior_pairs": 0, "prior_contexts": 0}
    separator = None
    if config.data.source:
        separator = tokenizer.token_to_id(SEPARATOR)
        assert separator is not None  # preparation adds it
        options |= {"separator": separator, "target_share": target_share(corpus, separator)}
    if config.model.family == "autoregressive":
        return Autoregressive(AutoregressiveConfig(**options))
    if config.model.has_markov_prior:
        most = {"most": config.model.prior_pairs, "contexts": config.model.prior_contexts}
        pairs = pair_statistics(corpus, vocab_size, ends=not config.data.pack, **most)
        options |= pairs.sizes
    model = DiffusionLM(DiffusionLMConfig(**options))
    model.generation_config = DiffusionGenerationConfig.of_tokenizer(tokenizer)
    tokens = np.zeros(model.config.vocab_size, np.int64)
    lengths = np.zeros(model.config.length + 1, np.int64)
    for piece in corpus.pieces():
        tokens += np.bincount(piece.tokens, minlength=len(tokens))
        lengths += np.bincount(piece.sizes, minlength=len(lengths))
    token_counts, length_counts = (torch.from_numpy(each).float() for each in (tokens, lengths))
    model.set_data_statistics(token_counts, length_counts, pairs)
    if separator is not None:
        model.target_lengths.fit(corpus, separator)
    if config.model.embedding_init == "spectral":
        dim, seed = config.model.embed_dim, config.train.seed
        start = spectral_embedding(corpus, vocab_size, dim, seed=seed)
        model.words.weight.data.copy_(start)
    return model


def _begin(
    run_dir: RunDir[TextConfig],
    config: TextConfig,
    tokenizer: Tokenizer,
    caches: list[Path],
    accelerator: Accelerator,
) -> None:
    """Writes the configuration and the tokenizer of a run, while other processes wait."""
    if accelerator.is_main_process:
        run_dir.begin(config)
        save_tokenizer(tokenizer, run_dir.path / "model")
        if not run_dir.resume:  # a resumed run may still need its old tokens
            token_cache.prune(run_dir.path / "tokens", caches)
    accelerator.wait_for_everyone()


def _validation_report(
    model: TextModel, valid: Corpus, tokenizer: Tokenizer, config: TextConfig
) -> ValidationReport:
    """Losses at some log SNRs and a few samples."""
    losses, messages = _losses_by_logsnr(model, valid), []
    if losses:
        gains = "  ".join(f"{at:+.0f}: {loss.context_gain:.2f}" for at, loss in losses.items())
        messages = [f"context gain in nats per word, by log SNR  {gains}"]
    metrics = {f"context_gain/{at:g}": loss.context_gain for at, loss in losses.items()}
    metrics |= {f"cross_entropy/{at:g}": loss.cross_entropy for at, loss in losses.items()}
    samples = _samples(model, tokenizer, config, valid, n=4)
    return ValidationReport(metrics, messages, [tokenizer.decode(ids) for ids in samples])


def _losses_by_logsnr(model: TextModel, valid: Corpus) -> dict[float, WordLoss]:
    """Losses at `LOGSNRS`; empty if the logits are not trained as probabilities."""
    if not isinstance(model, DiffusionLM) or model.config.objective != "ce":
        return {}
    rows = [valid[i] for i in range(min(128, len(valid)))]
    batch = collate(rows, np.arange(len(rows)))
    ids, mask = batch["ids"].to(model.device), batch["mask"].to(model.device)
    return losses_by_logsnr(model, ids, mask, LOGSNRS)


def _samples(
    model: TextModel, tokenizer: Tokenizer, config: TextConfig, valid: Corpus, n: int
) -> list[list[int]]:
    """Samples, or targets of the first held-out sources."""
    sampling = SamplingConfig(precision=config.train.precision)
    if not model.config.has_sources:
        request, sizes = sample_request(model, n, seed=0), [0] * n
    else:
        rows = [valid[i].tolist() for i in range(min(n, len(valid)))]
        sizes = [row.index(model.config.separator) + 1 for row in rows]
        given = [row[: size - 1] for row, size in zip(rows, sizes, strict=True)]
        request = joined([target_request(model, ids, 1) for ids in given])
    found = collect(generate(model, tokenizer, request, sampling))
    return [ids[size:] for ids, size in zip(found, sizes, strict=True)]


def _sanity_check(
    model: TextModel, tokenizer: Tokenizer, corpus: Corpus, valid: Corpus, config: TextConfig
) -> str:
    """Logs whether 64 samples have obvious failures, and returns the line."""
    samples = [tuple(ids) for ids in _samples(model, tokenizer, config, valid, n=64)]
    training = [tuple(_target(corpus[i].tolist(), model)) for i in range(len(corpus))]
    warnings = sanity_warnings(samples, training, tokenizer.token_to_id(UNK))
    gains = [loss.context_gain for loss in _losses_by_logsnr(model, valid).values()]
    if np.median(valid.sizes) > 1 and max(gains, default=1) < 0.1:  # one word has no context
        warnings.append("the context gain is near 0, so samples are unrelated words: train longer")
    line = f"sanity check of 64 samples{': ' if warnings else ' passed'}{'; '.join(warnings)}"
    log.log(logging.WARNING if warnings else logging.INFO, "%s", line)
    return line


def _target(ids: list[int], model: TextModel) -> list[int]:
    """The tokens without those of a source."""
    return ids[ids.index(model.config.separator) + 1 :] if model.config.has_sources else ids


def _batches(
    config: TextConfig,
    corpus: Corpus,
    tokenizer: Tokenizer,
    accelerator: Accelerator,
    first_step: int,
) -> Iterator[list[MicroBatch]]:
    """This process's micro-batches of each step, of the corpus or of the stream."""
    rank, world = accelerator.process_index, accelerator.num_processes
    compiled = compiles(config.train.compile, accelerator.device)
    multiple = padding_multiple(config.data.length) if compiled else 1
    if not config.data.streaming:
        return training_batches(corpus, config.train, first_step, rank, world, multiple)
    texts = open_texts(config.data)
    # the processes divide the files among themselves if all get the same number
    divided = world > 1 and texts.files % world == 0 and config.train.batch_size >= world
    train = partial(texts.train, rank, world) if divided else texts.train
    if divided and not rank:
        log.info("each of %d processes reads its own of the %d files", world, texts.files)
    return streaming_batches(
        train, tokenizer, config.data, config.train, first_step, rank, world, divided, multiple
    )


def _validation_batches(
    config: TextConfig, valid: Corpus, accelerator: Accelerator
) -> list[MicroBatch]:
    rank, world = accelerator.process_index, accelerator.num_processes
    held_out = valid.head(VALID_EXAMPLES)
    return [*validation_batches(held_out, config.train.batch_size, rank, world)]


def _fingerprints(tokenizer: Tokenizer, tokens: Path) -> dict[str, str]:
    """Hashes of what a resumed run needs unchanged."""
    vocabulary = json.dumps(sorted(tokenizer.get_vocab().items()))
    text = token_cache.fingerprint(tokens)
    return {"the vocabulary": sha256(vocabulary.encode()), "the training text": text}
