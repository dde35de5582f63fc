"""The model card: README.md in model/, from the options, the log and the machine of a run.

What `provenance` names is all that it says about files of this machine.
"""

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from textdiff import __version__
from textdiff.config import RunConfig
from textdiff.device import machine_name, own_device
from textdiff.table import format_value
from textdiff.training.checkpoint import atomic_write
from textdiff.training.provenance import hub_datasets, public_name, reproduce
from textdiff.training.run_dir import training_seconds

NOT_EVALUATED = "There was none yet. The command that evaluates writes its figures here."
SECTION = "### Evaluation\n"
GENERATED = "sentences of textdiff's built-in grammar"
BIASES = (
    "The training data alone decide its style, its opinions and its errors. Their biases and "
    "personal data may come back in what it generates: nothing was filtered out."
)
UNKNOWN = "unknown: ask who published the model before you use it"
LOSSES = {
    "ce": "cross-entropy of a word given its noisy embedding, in nats per word",
    "eps": "squared error of the noise per component",
    "x0": "squared error of the clean vector per component",
    "v": "squared error of v per component",
    "round": "cross-entropy of a word given its nearly clean embedding, in nats",
}

Table = Mapping[str, Mapping[str, Any]]  # figures by the name of their row


@dataclass(frozen=True)
class CardFacts:
    """Facts for a card that are neither in the options nor in the log of a run.

    Args:
        model: What the model is, as a sentence.
        task: The hub's name of the task.
        command: Command that trains such a model.
        training: Number of training examples in words, and more about them.
        held_out: Number of held-out examples in words.
        split: The part of the training data that is held out if there is no data.valid.
        usage: Python code that uses the model, with `{name}` for the model's name.
        widget: Function that makes examples for the hub's widget of the last logged samples.
        limits: Limits and biases, as sentences.
    """

    model: str
    task: str
    command: str
    training: str
    held_out: str
    split: str
    usage: str
    widget: Callable[[list[str]], list[dict[str, Any]]]
    limits: tuple[str, ...]

    def with_limit(self, limit: str) -> "CardFacts":
        """The same facts with another limit."""
        return replace(self, limits=(*self.limits, limit[:1].upper() + limit[1:] + "."))


def write_card(config: RunConfig, facts: CardFacts, step: int) -> None:
    """Writes the card of a run's model/ folder.

    Args:
        step: Number of steps that the model was trained.

    Raises:
        UserError: If writing fails.
    """
    run, data, license_ = Path(config.run), config.data, config.train.license
    path, name = run / "metrics.jsonl", run.resolve().name
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    reports = [line for line in map(json.loads, lines) if "samples" in line]
    validation: dict[str, Any] = reports[-1] if reports else {}
    options, defaults = (asdict(each) for each in (config, type(config)()))  # type: ignore
    text = CARD.format(
        metadata=_metadata(config, name, facts, validation.get("samples", [])).to_yaml(),
        name=name,
        model=facts.model,
        usage=facts.usage.replace("{name}", name if run.is_absolute() else run.as_posix()),
        training=f"{public_name(data.train) if data.train else GENERATED}: {facts.training}",
        held_out=f"{public_name(data.valid) if data.valid else facts.split}: {facts.held_out}",
        rows=_training(config, path, step),
        command=reproduce(facts.command, options, defaults),
        losses=_losses(validation),
        section=SECTION,
        evaluation=NOT_EVALUATED,
        limits="\n".join(f"- {limit}" for limit in (BIASES, *facts.limits)),
        license=UNKNOWN if license_ == "unknown" else license_,
    )
    atomic_write(run / "model" / "README.md", text)


def _training(config: RunConfig, path: Path, step: int) -> str:
    """Table of the training.

    Args:
        path: metrics.jsonl of the run.
    """
    minutes = training_seconds(path) / 60 if path.exists() else 0.0
    count = PartialState().num_processes
    machine = f"{machine_name(own_device())}, {count} process" + "es" * (count > 1)
    precision = {"bf16": "bfloat16", "no": "float32"}
    rows = {
        "training": "",
        "steps": f"{step:,} of {config.train.steps:,}",
        "minutes": f"{minutes:.1f}" if minutes >= 1 else f"{minutes:.2g}",
        "seed": str(config.train.seed),
        "precision": precision.get(config.train.precision, "auto"),
        "hardware": machine,
        "software": f"textdiff {__version__}, torch {torch.__version__}",
    }
    return _table(rows)


def _metadata(config: RunConfig, name: str, facts: CardFacts, samples: list[str]) -> ModelCardData:
    """What the hub reads at the beginning of a card."""
    return ModelCardData(
        license=config.train.license,
        library_name="textdiff",
        pipeline_tag=facts.task,
        tags=["textdiff", "diffusion"],
        datasets=hub_datasets(config.data.train, config.data.valid) or None,
        model_name=name,
        widget=facts.widget(samples) or None,
    )


def add_evaluation(
    model: str, table: Table, own: Collection[str], command: str, options: Any
) -> None:
    """Adds an evaluation to a model's card: the table to its text, its own rows to the metadata.

    It replaces an earlier one. A model without a card is not changed.

    Args:
        model: A run folder or its model/ folder.
        table: Figures by the name of their row.
        own: Names of the rows of the model itself.
        command: Command that evaluates, without its options.
        options: The options of the evaluation.
    """
    folders = (Path(model) / "model", Path(model))
    path = next((each / "README.md" for each in folders if (each / "README.md").exists()), None)
    if path is None:
        return
    card = ModelCard.load(path)
    task = card.data.pipeline_tag
    data = public_name(options.data) if options.data else "held-out examples of the training data"
    card.data.eval_results = [
        EvalResult(
            task, "held-out", data, name, float(f"{value:.4g}"), metric_name=f"{name} ({row})"
        )
        for row in own
        for name, value in table[row].items()
        if isinstance(value, int | float)
    ]
    names = next(iter(table.values()))
    cells = {name: " | ".join(format_value(row[name]) for row in table.values()) for name in names}
    shown = _table({f"on {data}": " | ".join(table), **cells}, columns=len(table))
    command = reproduce(
        f"{command} {card.data.model_name}", asdict(options), asdict(type(options)())
    )
    section = f"{SECTION}\n{shown}\n\n```\n{command}\n```\n\n"
    pattern = re.compile(re.escape(SECTION) + r".*?(?=^## )", re.DOTALL | re.MULTILINE)
    card.text = pattern.sub(lambda _: section, card.text)
    card.save(path)


def _losses(validation: dict[str, Any]) -> str:
    """Table of the losses of the last validation."""
    prefix = "valid/"
    names = [name.removeprefix(prefix) for name in validation if name.startswith(prefix)]
    if not names:
        return "There was no validation yet."
    values = {LOSSES.get(name, name): format_value(validation[prefix + name]) for name in names}
    return _table({f"held-out examples, step {validation['step']:,}": "loss", **values})


def _table(rows: Mapping[str, str], columns: int = 1) -> str:
    """A Markdown table, whose first row is its head."""
    head, *lines = (f"| {name} | {value} |" for name, value in rows.items())
    return "\n".join([head, "| --- |" + " --- |" * columns, *lines])


CARD = """---
{metadata}
---

# {name}

{model}

## Use

```python
{usage}
```

`from_pretrained` takes this folder, or its name on the Hugging Face hub.

## Data

- Training: {training}
- Held out: {held_out}

## Training

{rows}

```
{command}
```

## Figures

Losses of the averaged weights, by the command above:

{losses}

{section}
{evaluation}

## Limits and biases

{limits}

## License

{license}
"""
