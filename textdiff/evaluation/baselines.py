"""Trained baselines: their configurations, and their training under a time budget."""

import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from textdiff.config import TrainConfig, UserError
from textdiff.text.config import ModelConfig, TextConfig
from textdiff.text.hub import load_model
from textdiff.text.requests import TextModel
from textdiff.text.tokenizer import save_tokenizer
from textdiff.text.train import train
from textdiff.training.checkpoint import sha256
from textdiff.training.run_dir import open_run_dir

log = logging.getLogger("textdiff")


def autoregressive_config(config: TextConfig, seed: int = 0) -> TextConfig:
    """Configuration of a GPT-2 of the run's width and depth, with the run's optimizer.

    On E2E it has a lower loss after 600 steps of Muon than after 4,658 steps of AdamW.
    """
    shape = {name: getattr(config.model, name) for name in ("width", "depth", "heads", "dropout")}
    model = ModelConfig("autoregressive", **shape)
    train = replace(config.train, seed=seed, precision="auto")
    return replace(config, model=model, train=train)


def diffusion_lm_config(config: TextConfig) -> TextConfig:
    """Configuration of Diffusion-LM's recipe (arXiv:2205.14217) at the run's width and depth.

    x0 objective with rounding, sqrt schedule, 16-dimensional embeddings, no self-conditioning, no
    guidance. Two things differ from the paper: embeddings have a fixed norm, and AdamW's learning
    rate is 1e-3, because the paper's 1e-4 is meant for 200,000 steps.
    """
    model = replace(
        config.model,
        objective="x0",
        schedule="sqrt",
        embed_dim=16,
        embedding_init="random",
        self_cond_prob=0.0,
        infill_prob=0.0,
        stagger_prob=0.0,
        dropout=0.1,
        sampling_guidance_scale=1.0,
    )
    adamw = replace(config.train, optimizer="adamw", lr=1e-3, weight_decay=0.0, precision="auto")
    return replace(config, model=model, train=adamw)


def train_baseline(
    name: str, config: TextConfig, tokenizer: Tokenizer, folder: Path, seconds: float
) -> TextModel:
    """Trains a baseline with the run's tokenizer and data, or loads the one trained before.

    Args:
        name: Name of the baseline and, with the training time, of its folder.
        config: Configuration of the baseline.
        folder: Folder of the evaluation.
        seconds: Training time.

    Raises:
        UserError: If the folder holds a baseline of another model, text or training.
    """
    path = folder / f"{name}-{seconds:.0f}s"
    options = [config.data, config.model, _options_of_weights(config.train)]
    key = sha256(tokenizer.to_str().encode(), repr(options).encode())
    mark = path / "finished"
    if mark.exists() and mark.read_text(encoding="utf-8") != key:
        other = "was trained for another model, on other text or with other options"
        raise UserError(f"{path} {other}: delete it, or choose another folder with --out")
    if not mark.exists():
        (path / "tokenizer").mkdir(parents=True, exist_ok=True)
        save_tokenizer(tokenizer, path / "tokenizer")
        log.info("training %s for %.0f seconds: %s", name, seconds, path)
        baseline = replace(
            config,
            run=str(path),
            tokenizer=replace(config.tokenizer, name=str(path / "tokenizer")),
            train=replace(config.train, minutes=seconds / 60, valid_every=10**9),
        )
        train(baseline, open_run_dir(baseline, overwrite=True))
        mark.write_text(key, encoding="utf-8")
    return load_model(str(path))[0]


def _options_of_weights(config: TrainConfig) -> dict[str, Any]:
    """Training options that the weights depend on, without the training time."""
    without = {"steps", "minutes", "accumulation", "trackers"}
    without |= {"log_every", "valid_every", "save_every"}
    return {name: value for name, value in asdict(config).items() if name not in without}
