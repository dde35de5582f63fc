"""Checks and benchmarks of text models for `textdiff doctor`."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from textdiff.device import autocast
from textdiff.diffusion.gaussian import Prediction
from textdiff.diffusion.samplers import SAMPLERS
from textdiff.diffusion.schedules import grid
from textdiff.doctor import ModelKind, TrainingBenchmark
from textdiff.options import load_config
from textdiff.prng import noise_generator, sample_keys
from textdiff.text.config import TextConfig
from textdiff.text.markov_prior import LONGEST
from textdiff.text.model import DiffusionLM, DiffusionLMConfig
from textdiff.text.transformer import NoisyText

# vocabulary size and mean length in tokens of the text of each configuration
TEXTS = {
    "text_demo": (60, 10),
    "text_e2e": (1_591, 26),
    "text_e2e_meaning": (1_595, 64),
    "text_multi30k": (5_000, 14),
    "text_multi30k_de": (6_000, 32),
    "text_shakespeare": (1_024, 64),
    "text_wikitext2": (8_192, 64),
}
SUCCESSORS = 16  # of each word and context in the Markov prior, as in E2E


def subject() -> ModelKind:
    """Text models, for the doctor."""
    batch = _batch(vocab_size=50, length=12, n=8)
    return ModelKind("text", _small, batch, _sample, tuple(TEXTS), _configuration)


def _small() -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        shape: dict[str, Any] = {"embed_dim": 16, "width": 32, "depth": 2, "heads": 2}
        shape |= {"prior_pairs": SUCCESSORS * 60, "prior_contexts": 10}
        model = DiffusionLM(DiffusionLMConfig(vocab_size=50, length=12, **shape))
    return _with_pairs(model)


def _with_pairs(model: DiffusionLM) -> DiffusionLM:
    """The model with arbitrary successors of words and contexts in its Markov prior."""
    if model.markov:
        words, contexts = model.config.vocab_size, model.config.prior_contexts
        number, gap = torch.arange(model.config.prior_pairs), words // SUCCESSORS
        before = number // SUCCESSORS
        model.markov.pairs.copy_(torch.stack([before, number % SUCCESSORS * gap + before % gap]))
        model.markov.values.fill_(0.9 / SUCCESSORS)
        model.markov.backoff_weight[:words] = 0.1
        if contexts:
            model.markov.context_last.copy_(torch.arange(contexts) % words)
            model.markov.context_weight.fill_(0.1)
        model.prior_weight.fill_(1.0)
    return model


def _batch(vocab_size: int, length: int, n: int) -> dict[str, Tensor]:
    """Random sequences of between half of `length` and `length` tokens."""
    generator = torch.Generator().manual_seed(0)
    sizes = length - torch.arange(n).unsqueeze(1) % (length // 2 + 1)
    ids = torch.randint(vocab_size, (n, length), generator=generator)
    return {"ids": ids, "mask": torch.arange(length) < sizes, "index": torch.arange(n)}


def _sample(model: Any, device: torch.device, precision: str) -> Tensor:
    batch = {name: tensor.to(device) for name, tensor in _batch(50, 12, 8).items()}
    noise = noise_generator(sample_keys(0, 8).to(device))

    def denoise(x_t: Tensor, logsnr: Tensor) -> Prediction:
        with autocast(device, precision):
            return model.predict(NoisyText(x_t, logsnr, batch["mask"]))[0]

    with torch.no_grad():
        x = noise(model.words.embeddings[batch["ids"]])
        logsnrs = grid(model.schedule(), 4)
        return next(SAMPLERS["ddpm"](denoise, x, logsnrs, generator=noise)).x0


def _configuration(path: Path) -> TrainingBenchmark:
    config = load_config(path, TextConfig)
    vocab_size, length = TEXTS[path.stem]

    def model() -> PreTrainedModel:
        options = asdict(config.model) | {"length": config.data.length}
        options["prior_contexts"] *= LONGEST - 1  # as many of each length
        options["prior_pairs"] = SUCCESSORS * (vocab_size + options["prior_contexts"])
        return _with_pairs(DiffusionLM(DiffusionLMConfig(vocab_size=vocab_size, **options)))

    batch = _batch(vocab_size, length, config.train.batch_size)
    if config.data.pack:
        batch["mask"].fill_(True)
    size, processes = int(batch["mask"].sum()), 2 if path.stem == "text_demo" else 1
    return TrainingBenchmark(
        f"configs/{path.name}", config, model, batch, size, "tokens", processes
    )
