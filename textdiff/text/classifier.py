"""A small classifier of predicted words, whose gradient guides a text model towards a label.

Classifier guidance (arXiv:2105.05233) shifts the score by the gradient of log p(y | x_t). With a
classifier of x0_hat, by Tweedie's formula, this moves x0_hat by Cov[x0 | x_t] g, where g is the
gradient of log p(y | x0_hat) by x0_hat. For words, x0_hat is the mean of their embeddings under
predicted probabilities p. To first order the same shift is that from p to p exp(g), where g is the
gradient of log p(y | p) by p.

The classifier is linear in the probabilities (fastText's, arXiv:1607.01759), because gradients of a
deep one by embeddings point to rare words. It is trained on the predictions of the frozen model at
all noise levels.
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

from textdiff.config import UserError
from textdiff.device import autocast
from textdiff.diffusion.gaussian import diffuse
from textdiff.prng import normal
from textdiff.progress import ProgressBar
from textdiff.sampling import sampling_precision
from textdiff.text.control_config import ClassifierConfig
from textdiff.text.corruption import sample_levels, sample_logsnr
from textdiff.text.dataset import collate
from textdiff.text.files import open_dataset
from textdiff.text.predictor import WordPredictor
from textdiff.text.requests import TextModel
from textdiff.text.transformer import NoisyText, Positions
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
    """Label of texts from the probabilities of their words: a weight for each word and label.

    Args:
        vocab_size: Number of words of the text model.
        labels: Names of the labels.
    """

    def __init__(self, vocab_size: int, labels: Sequence[str]) -> None:
        super().__init__()
        self.labels = [*labels]
        self.weight = nn.Parameter(torch.zeros(vocab_size, len(labels)))
        self.bias = nn.Parameter(torch.zeros(len(labels)))

    def forward(self, p: Float[Tensor, "b l v"], mask: Positions) -> Float[Tensor, "b c"]:
        """Logits of the labels.

        Args:
            p: Predicted probabilities of the words.
            mask: True at real positions.
        """
        return (p * mask.unsqueeze(-1)).sum(1) @ self.weight + self.bias

    def tilt(
        self, p: Float[Tensor, "b l v"], mask: Positions, label: str
    ) -> Float[Tensor, "b l v"]:
        """The amount that guidance of scale 1 adds to the logits of words.

        It is the gradient of log p(label | p), less its mean over the words of each position.
        """
        with torch.enable_grad():
            p = p.detach().requires_grad_()
            log_p = self(p, mask).log_softmax(-1)[:, self.labels.index(label)]
            (gradient,) = torch.autograd.grad(log_p.sum(), p)
        return gradient - (gradient * p.detach()).sum(-1, keepdim=True)


def train_classifier(
    model: TextModel, tokenizer: Tokenizer, config: ClassifierConfig
) -> TextClassifier:
    """Trains a classifier and saves it to `config.out`. The log shows its accuracy.

    Raises:
        UserError: If the data cannot be read, have fewer than two labels or no usable text, if the
            model is no diffusion model or has sources, or if there are files in `config.out`.
    """
    if not isinstance(model, WordPredictor) or model.config.has_sources:
        raise UserError("train-classifier needs a diffusion model without sources")
    if Path(config.out).exists() and any(Path(config.out).iterdir()):
        raise UserError(f"--out: {config.out} has files already: choose another folder")
    tokens, labels, names = _read(tokenizer, model, config)
    classifier = TextClassifier(model.config.vocab_size, names).to(model.device)
    order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(config.seed))
    held_out, train = order.tensor_split([max(1, round(HELD_OUT * len(order)))])
    optimizer = torch.optim.Adam(classifier.parameters(), lr=config.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.lr, config.steps)
    for step in ProgressBar(range(config.steps), desc="classifier", unit="step", leave=False):
        index = torch.arange(step * config.batch_size, (step + 1) * config.batch_size)
        rows = train[index % len(train)]
        p, mask = _predicted(model, [tokens[row] for row in rows.tolist()], index)
        loss = F.cross_entropy(classifier(p, mask), labels[rows].to(model.device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    _log_accuracy(classifier, model, [tokens[row] for row in held_out.tolist()], labels[held_out])
    _save(classifier, model, config)
    return classifier


def load_classifier(folder: str, model: WordPredictor) -> TextClassifier:
    """Loads a classifier of this model's texts to the model's device.

    Raises:
        UserError: If the folder holds none, or one for another model.
    """
    path = Path(folder)
    try:
        options = json.loads((path / "config.json").read_text(encoding="utf-8"))
        if options["model"] != _fingerprint(model):
            way_out = "train one for this model with textdiff train-classifier"
            raise UserError(f"--classifier: {folder} belongs to another model: {way_out}")
        classifier = TextClassifier(model.config.vocab_size, options["labels"])
        classifier.load_state_dict(load_file(path / "model.safetensors"))
    except UserError:
        raise
    except Exception as error:  # json, safetensors and torch raise many kinds
        way_out = "make one with textdiff train-classifier"
        raise UserError(f"--classifier: {folder} holds no classifier: {way_out}") from error
    return classifier.to(model.device).eval()


def _save(classifier: TextClassifier, model: WordPredictor, config: ClassifierConfig) -> None:
    """Writes model.safetensors and config.json."""
    folder = Path(config.out)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(classifier.state_dict(), folder / "model.safetensors")
    facts = {"labels": classifier.labels, "model": _fingerprint(model)}
    options = facts | {"training": asdict(config)}
    atomic_write(folder / "config.json", json.dumps(options, indent=2, ensure_ascii=False) + "\n")


def _fingerprint(model: WordPredictor) -> str:
    """A hash of the embeddings, which belong to one model."""
    weight = model.words.weight.detach().cpu().contiguous()
    return hashlib.sha256(weight.numpy().tobytes()).hexdigest()[:16]


@torch.no_grad()
def _predicted(
    model: WordPredictor, tokens: Sequence[list[int]], index: Tensor, level: float | None = None
) -> tuple[Float[Tensor, "b l v"], Positions]:
    """The model's probabilities at noise levels of the training, or at one, and their mask."""
    batch = collate([np.array(each) for each in tokens], index.numpy())
    ids, mask, keys = (batch[name].to(model.device) for name in ("ids", "mask", "index"))
    if level is None:
        schedule = model.schedule()
        logsnr = sample_logsnr(keys, schedule, model.logsnr_range, uniform_prob=0.5)
        clean = model.logsnr_range[1]
        levels, _ = sample_levels(keys, mask, schedule, logsnr, clean, GIVEN, STAGGER)
    else:
        levels = torch.full(mask.shape, level, device=model.device)
    x0 = model.words.embeddings[ids]
    x_t = diffuse(x0, normal(keys, x0.shape, stream=10), levels)
    with autocast(model.device, sampling_precision(model, "auto")):
        return model.predict(NoisyText(x_t, levels, mask))[1].softmax(-1), mask


def _read(tokenizer: Tokenizer, model: WordPredictor, config: ClassifierConfig) -> LabelledTexts:
    """Labelled texts that the model can have. The others are left out and counted."""
    data = config.data
    rows = open_dataset(data.train, (data.field,), "train", streaming=False)
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
    classifier: TextClassifier,
    model: WordPredictor,
    tokens: Sequence[list[int]],
    labels: Int[Tensor, " n"],
) -> None:
    """Logs the accuracy on held-out texts at some levels of noise."""
    found = []
    for level in LEVELS:
        hits = 0
        for first in range(0, len(tokens), 64):
            part = slice(first, first + 64)
            index = torch.arange(len(tokens))[part]
            p, mask = _predicted(model, tokens[part], index, level)
            hits += int((classifier(p, mask).argmax(1).cpu() == labels[part]).sum())
        found.append(f"{hits / len(tokens):.1%} at log SNR {level:g}")
    log.info("accuracy on %d held-out texts: %s", len(tokens), ", ".join(found))
