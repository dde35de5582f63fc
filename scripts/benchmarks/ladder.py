"""Ladders of runs: every model is trained and judged for each of several budgets, in folders.

What is done is kept, so that a benchmark can be stopped and started again.
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
from benchmarks.rungs import Rung
from study import once

from textdiff.baselines import autoregressive
from textdiff.config import TextRun
from textdiff.evaluate import trained_seconds
from textdiff.folder import load_config
from textdiff.generate import load

JUDGING_SECONDS = {"grammar": 30.0, "text": 90.0}  # about, for the time that is left


@dataclass(frozen=True)
class Judging:
    """How a run is judged: with how many sentences, in how many steps."""

    samples: int
    steps: int
    recipe_steps: int

    def options(self, model: str) -> list[str]:
        """Those of `textdiff evaluate`; Diffusion-LM's recipe clamps its estimates to words."""
        n = str(self.samples)
        usual = ["--n", n, "--scored", n, "--ode", "0", "--baselines", "[]"]
        if model == "diffusion-lm":
            return [*usual, "--steps", str(self.recipe_steps), "--clamp", "true"]
        return [*usual, "--steps", str(self.steps)]


@dataclass(frozen=True)
class Subject:
    """A text, the configurations of the models that are trained on it, and their budgets."""

    name: str
    models: dict[str, TextRun]
    minutes: list[float]
    reference_minutes: float


def expected(subject: Subject) -> float:
    """Seconds of all training and evaluation, about."""
    each = sum(60 * minutes + JUDGING_SECONDS[subject.name] for minutes in subject.minutes)
    return len(subject.models) * each + 60 * subject.reference_minutes


def climbed(subject: Subject, judging: Judging, out: Path, bar: Any) -> Iterator[Rung]:
    """A finished and judged run for every model and budget."""
    home = out / subject.name
    home.mkdir(parents=True, exist_ok=True)
    judge = home / f"reference-{subject.reference_minutes:g}min"
    reference = autoregressive(subject.models["ours"], seed=1)
    bar.set_description(f"{subject.name}, reference model")
    train(judge, reference, subject.reference_minutes, bar)
    for name, config in subject.models.items():
        for minutes in subject.minutes:
            run = home / f"{name}-{minutes:g}min"
            bar.set_description(f"{subject.name}, {name}, {minutes:g} minutes")
            train(run, config, minutes, bar)
            how = ["--teacher", str(judge), *judging.options(name)]
            with started(beside(run, "log"), JUDGING_SECONDS[subject.name], bar) as start:
                once(f"{run}/evaluation", "evaluate", str(run), *how, run=start)
            yield rung(subject.name, name, run)


def train(run: Path, config: TextRun, minutes: float, bar: Any) -> None:
    """A finished run, with its configuration beside it."""
    path = beside(run, "yaml")
    saved = json.loads(json.dumps(asdict(replace(config, run=str(run)))))
    path.write_text(yaml.safe_dump(saved, sort_keys=False), encoding="utf-8")
    often = [word for name in ("valid", "save") for word in (f"--train.{name}_every", "1000000")]
    budget = ["--train.minutes", str(minutes), *often, "--overwrite"]
    with started(beside(run, "log"), 60 * minutes, bar) as start:
        once(str(run), "train", "--config", str(path), *budget, run=start)


@contextmanager
def started(log: Path, seconds: float, bar: Any) -> Iterator[Callable[..., None]]:
    """Yields a function that runs a command, with its output in `log`, while the bar moves.

    The bar moves with the clock up to the expected `seconds`, and skips what was done before.
    """
    before, ran = bar.n, []

    def start(*arguments: str) -> None:
        ran.append(arguments)
        command = [sys.executable, "-m", "textdiff", *arguments]
        pipes = {"stdout": log.open("ab"), "stderr": subprocess.STDOUT}
        with pipes["stdout"], subprocess.Popen(command, **pipes) as child:
            began = time.monotonic()
            while child.poll() is None:
                time.sleep(0.05)
                bar.update(min(seconds, time.monotonic() - began) - (bar.n - before))
        if child.returncode:
            sys.exit(f"{arguments[0]} failed: {last_line(log)} (more in {log})")

    yield start
    if ran:
        bar.update(seconds - (bar.n - before))
    else:
        bar.total = max(bar.n, bar.total - seconds)
        bar.refresh()


def last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return lines[-1] if lines else "it said nothing"


def beside(run: Path, kind: str) -> Path:
    return run.with_name(f"{run.name}.{kind}")


def rung(subject: str, name: str, run: Path) -> Rung:
    """The figures of a finished run."""
    text = (run / "evaluation" / "report.json").read_text(encoding="utf-8")
    real, _, row = json.loads(text)["table"].values()
    config, (model, tokenizer) = load_config(run / "config.yaml", TextRun), load(str(run))
    return Rung(
        subject=subject,
        model=name,
        minutes=trained_seconds(run / "metrics.jsonl") / 60,
        steps=config.train.steps,
        nats=row["nats_per_token"],
        nats_error=row["nats_error"],
        perplexity=row["teacher_perplexity"] / real["teacher_perplexity"],
        grammatical=row.get("grammatical"),
        precision={"no": "float32"}.get(config.train.precision, config.train.precision),
        parameters=sum(p.numel() for p in model.parameters()),
        vocabulary=tokenizer.get_vocab_size(),
    )
