"""A small classifier of noisy texts, whose gradient guides a text model towards a label.

It is trained on the frozen embeddings of the model at all noise levels, as in Dhariwal & Nichol
(arXiv:2105.05233, sec. 4); Diffusion-LM (arXiv:2205.14217, sec. 5.1) controls text in this way.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from tqdm import trange

from textdiff.config import UserError
from textdiff.diffusion.gaussian import diffuse
from textdiff.nn import upcast
from textdiff.prng import normal
from textdiff.text.control_config import ClassifierConfig
from textdiff.text.corruption import sample_levels, sample_logsnr
from textdiff.text.dataset import collate
from textdiff.text.files import open_dataset
from textdiff.text.model import DiffusionLM
from textdiff.text.requests import TextModel
from textdiff.text.transformer import NoisyText, TextDenoiser
from textdiff.training.checkpoint import atomic_write

log = logging.getLogger("textdiff")

GIVEN, STAGGER = 0.1, 0.3  # shares of examples with given words, and with levels for each word
HELD_OUT = 0.05  # share of the examples, for the accuracies in the log
LEVELS = (-3.0, 0.0, 6.0)  # log SNRs of these accuracies


class LabelledTexts(NamedTuple):
    """Tokens of texts, the number of each one's label, and the names of the labels."""

    tokens: list[list[int]]
    labels: Int[Tensor, " n"]
    names: list[str]


class TextClassifier(nn.Module):
    """Label of noisy texts: a small transformer over their vectors and the words they suggest.

    Args:
        model: The text model. It is frozen and no part of the classifier's weights.
        labels: Names of the labels.
        width: Width of the network, a multiple of 4.
        depth: Number of its blocks.
    """

    def __init__(self, model: DiffusionLM, labels: Sequence[str], width: int, depth: int) -> None:
        super().__init__()
        self.frozen, self.labels = [model], [*labels]  # a list, whose weights are not saved
        c = model.config
        sizes = c.embed_dim, width, depth, 2, c.length, model.logsnr_range
        self.network = TextDenoiser(*sizes, own_levels=True)
        self.head = nn.Linear(width, len(labels))

    def forward(self, text: NoisyText) -> Float[Tensor, "b c"]:
        """Logits of the labels."""
        words = self.frozen[0].words
        own = words.context_free_logits(text.x_t, text.levels)
        h = self.network(text._replace(self_cond=own.softmax(-1) @ words.embeddings))
        real = text.mask.unsqueeze(-1)
        return self.head(upcast(h * real).sum(1) / real.sum(1))

    def log_prob(self, text: NoisyText, label: str) -> Float[Tensor, " b"]:
        """log p(label | x_t) of each text, in nats."""
        return self(text).log_softmax(-1)[:, self.labels.index(label)]


def train_classifier(
    model: TextModel, tokenizer: Tokenizer, config: ClassifierConfig
) -> TextClassifier:
    """Trains a classifier and saves it to `config.out`. The log shows its accuracy.

    Raises:
        UserError: If the data cannot be read, have fewer than two labels or no usable text, or the
            model is no diffusion model.
    """
    if not isinstance(model, DiffusionLM):
        raise UserError("train-classifier needs a diffusion model, this one is autoregressive")
    tokens, labels, names = _read(tokenizer, model, config)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        classifier = TextClassifier(model, names, config.width, config.depth).to(model.device)
        order = torch.randperm(len(tokens))
    held_out, train = order.tensor_split([max(1, round(HELD_OUT * len(order)))])
    model.requires_grad_(False)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=config.lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.lr, config.steps)
    for step in trange(config.steps, desc="classifier", unit="step", leave=False, disable=None):
        index = torch.arange(step * config.batch_size, (step + 1) * config.batch_size)
        rows = train[index % len(train)]
        text = _noisy(model, [tokens[row] for row in rows.tolist()], index)
        loss = F.cross_entropy(classifier(text), labels[rows].to(model.device))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(classifier.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    _log_accuracy(classifier, [tokens[row] for row in held_out.tolist()], labels[held_out])
    _save(classifier, config)
    return classifier


def load_classifier(folder: str, model: DiffusionLM) -> TextClassifier:
    """Loads a classifier of this model's texts to the model's device.

    Raises:
        UserError: If the folder holds none, or one for another model.
    """
    path = Path(folder)
    try:
        options = json.loads((path / "config.json").read_text(encoding="utf-8"))
        labels, sizes = options["labels"], (options["width"], options["depth"])
        if options["model"] != _fingerprint(model):
            way_out = "train one for this model with textdiff train-classifier"
            raise UserError(f"--classifier: {folder} belongs to another model: {way_out}")
        classifier = TextClassifier(model, labels, *sizes)
        classifier.load_state_dict(load_file(path / "model.safetensors"))
    except UserError:
        raise
    except Exception as error:  # json, safetensors and torch raise many kinds
        way_out = "make one with textdiff train-classifier"
        raise UserError(f"--classifier: {folder} holds no classifier: {way_out}") from error
    return classifier.to(model.device).eval()


def _save(classifier: TextClassifier, config: ClassifierConfig) -> None:
    """Writes model.safetensors and config.json."""
    folder, model = Path(config.out), classifier.frozen[0]
    options = {"labels": classifier.labels, "width": config.width, "depth": config.depth}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(classifier.state_dict(), folder / "model.safetensors")
    options |= {"model": _fingerprint(model), "training": asdict(config)}
    atomic_write(folder / "config.json", json.dumps(options, indent=2, ensure_ascii=False) + "\n")


def _fingerprint(model: DiffusionLM) -> str:
    """A hash of the embeddings, which belong to one model."""
    weight = model.words.weight.detach().cpu().contiguous()
    return hashlib.sha256(weight.numpy().tobytes()).hexdigest()[:16]


def _noisy(
    model: DiffusionLM, tokens: Sequence[list[int]], index: Tensor, level: float | None = None
) -> NoisyText:
    """Texts with noise of the training's levels, or of one."""
    batch = collate([np.array(each) for each in tokens], index.numpy())
    ids, mask, keys = (batch[name].to(model.device) for name in ("ids", "mask", "index"))
    if level is None:
        schedule = model.schedule()
        logsnr = sample_logsnr(keys, schedule, model.logsnr_range, uniform_prob=0.3)
        clean = model.logsnr_range[1]
        levels, _ = sample_levels(keys, mask, schedule, logsnr, clean, GIVEN, STAGGER)
    else:
        levels = torch.full(mask.shape, level, device=model.device)
    x0 = model.words.embeddings[ids]
    return NoisyText(diffuse(x0, normal(keys, x0.shape, stream=10), levels), levels, mask)


def _read(tokenizer: Tokenizer, model: DiffusionLM, config: ClassifierConfig) -> LabelledTexts:
    """Labelled texts that the model can have. The others are left out and counted."""
    data = config.data
    rows = open_dataset(data.train, data.field, "train", streaming=False)
    if data.label not in rows.column_names:
        found = f"it has {', '.join(rows.column_names)}: choose one with --data.label"
        raise UserError(f"{data.train} has no field {data.label!r}, {found}")
    pairs = [
        (tokenizer.encode(text, add_special_tokens=False).ids, str(label))
        for text, label in zip(rows[data.field], rows[data.label], strict=True)
        if isinstance(text, str) and label is not None and str(label).strip()
    ]
    usable = [(ids, label) for ids, label in pairs if 0 < len(ids) <= model.config.length]
    if left_out := len(rows) - len(usable):
        log.warning("%s: left out %d rows without text or label, or too long", data.train, left_out)
    names = sorted({label for _, label in usable})
    if len(names) < 2 or len(usable) < 20:
        raise UserError(
            f"{data.train} has {len(usable)} usable texts of {len(names)} labels: "
            "at least 20 texts of two labels are needed"
        )
    tokens, labels = zip(*usable, strict=True)
    return LabelledTexts([*tokens], torch.tensor([names.index(each) for each in labels]), names)


@torch.no_grad()
def _log_accuracy(
    classifier: TextClassifier, tokens: Sequence[list[int]], labels: Int[Tensor, " n"]
) -> None:
    """Logs the accuracy on held-out texts at some levels of noise."""
    found = []
    for level in LEVELS:
        hits = 0
        for first in range(0, len(tokens), 64):
            part = slice(first, first + 64)
            index = torch.arange(len(tokens))[part]
            text = _noisy(classifier.frozen[0], tokens[part], index, level)
            hits += int((classifier(text).argmax(1).cpu() == labels[part]).sum())
        found.append(f"{hits / len(tokens):.1%} at log SNR {level:g}")
    log.info("accuracy on %d held-out texts: %s", len(tokens), ", ".join(found))
