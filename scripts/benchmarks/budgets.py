"""Training and evaluation of several models under several time budgets, in run folders.

Finished runs are kept, so that a benchmark can be stopped and started again.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from ablate import run_once
from benchmarks.curves import RunResult

from textdiff.evaluation.baselines import autoregressive_config
from textdiff.options import load_run_config
from textdiff.text.config import TextConfig
from textdiff.text.hub import load_model
from textdiff.training.run_dir import training_seconds

EVALUATION_SECONDS = {"grammar": 30.0, "text": 90.0}  # estimates, for the progress bar


@dataclass(frozen=True)
class Evaluation:
    """Sizes of an evaluation.

    Args:
        samples: Number of samples and of scored held-out sentences.
        steps: Sampling steps.
        recipe_steps: Sampling steps of Diffusion-LM's recipe.
    """

    samples: int
    steps: int
    recipe_steps: int

    def options(self, model: str) -> list[str]:
        """Options of `textdiff evaluate`. Diffusion-LM's recipe uses the clamping trick."""
        n = str(self.samples)
        options = ["--n", n, "--scored", n, "--ode", "0", "--baselines", "[]"]
        if model == "diffusion-lm":
            return [*options, "--steps", str(self.recipe_steps), "--clamp", "true"]
        return [*options, "--steps", str(self.steps)]


@dataclass(frozen=True)
class Experiment:
    """A text with the models that are trained on it and their budgets.

    Args:
        name: Name of the text: grammar or text.
        models: Configurations by name.
        minutes: Training times of each model.
        reference_minutes: Training time of the reference model.
    """

    name: str
    models: dict[str, TextConfig]
    minutes: list[float]
    reference_minutes: float

    @property
    def seconds(self) -> float:
        """Estimated time of all training and evaluation."""
        evaluation = EVALUATION_SECONDS[self.name]
        each = sum(60 * minutes + evaluation for minutes in self.minutes)
        return len(self.models) * each + 60 * self.reference_minutes


def run_experiment(
    experiment: Experiment, evaluation: Evaluation, out: Path, bar: Any
) -> Iterator[RunResult]:
    """Trains and evaluates every model for every budget, a result per item."""
    folder = out / experiment.name
    folder.mkdir(parents=True, exist_ok=True)
    reference_lm = folder / f"reference-{experiment.reference_minutes:g}min"
    bar.set_description(f"{experiment.name}, reference model")
    config = autoregressive_config(experiment.models["ours"], seed=1)
    train(reference_lm, config, experiment.reference_minutes, bar)
    for name, config in experiment.models.items():
        for minutes in experiment.minutes:
            run = folder / f"{name}-{minutes:g}min"
            bar.set_description(f"{experiment.name}, {name}, {minutes:g} minutes")
            train(run, config, minutes, bar)
            options = ["--reference_lm", str(reference_lm), *evaluation.options(name)]
            seconds = EVALUATION_SECONDS[experiment.name]
            with timed_command(_beside(run, "log"), seconds, bar) as start:
                run_once(f"{run}/evaluation", "evaluate", str(run), *options, run=start)
            yield read_result(experiment.name, name, run)


def train(run: Path, config: TextConfig, minutes: float, bar: Any) -> None:
    """Trains a run, with its configuration in a file beside it."""
    path = _beside(run, "yaml")
    options = json.loads(json.dumps(asdict(replace(config, run=str(run)))))
    path.write_text(yaml.safe_dump(options, sort_keys=False), encoding="utf-8")
    rarely = [word for name in ("valid", "save") for word in (f"--train.{name}_every", "1000000")]
    changes = ["--train.minutes", str(minutes), *rarely, "--overwrite"]
    with timed_command(_beside(run, "log"), 60 * minutes, bar) as start:
        run_once(str(run), "train", "--config", str(path), *changes, run=start)


@contextmanager
def timed_command(log: Path, seconds: float, bar: Any) -> Iterator[Callable[..., None]]:
    """Yields a function that runs a command of textdiff, with its output in `log`.

    The progress bar moves with the clock up to the estimated `seconds`. It skips them if no command
    is run.
    """
    before, ran = bar.n, []

    def start(*arguments: str) -> None:
        ran.append(arguments)
        command = [sys.executable, "-m", "textdiff", *arguments]
        with log.open("ab") as output:
            child = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
            began = time.monotonic()
            while child.poll() is None:
                time.sleep(0.05)
                bar.update(min(seconds, time.monotonic() - began) - (bar.n - before))
        if child.returncode:
            sys.exit(f"{arguments[0]} failed: {_last_line(log)} (more in {log})")

    yield start
    if ran:
        bar.update(seconds - (bar.n - before))
    else:
        bar.total = max(bar.n, bar.total - seconds)
        bar.refresh()


def read_result(domain: str, name: str, run: Path) -> RunResult:
    """The metrics of a finished run."""
    text = (run / "evaluation" / "report.json").read_text(encoding="utf-8")
    real, _, row = json.loads(text)["table"].values()
    config = load_run_config(run / "config.yaml", TextConfig)
    model, tokenizer = load_model(str(run))
    precision = config.train.precision
    return RunResult(
        domain=domain,
        model=name,
        minutes=training_seconds(run / "metrics.jsonl") / 60,
        steps=config.train.steps,
        nats=row["nats_per_token"],
        nats_error=row["nats_error"],
        perplexity=row["perplexity"] / real["perplexity"],
        grammatical=row.get("grammatical"),
        precision="float32" if precision == "no" else precision,
        parameters=sum(p.numel() for p in model.parameters()),
        vocabulary=tokenizer.get_vocab_size(),
    )


def _beside(run: Path, suffix: str) -> Path:
    return run.with_name(f"{run.name}.{suffix}")


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return lines[-1] if lines else "without any output"
