"""Time to quality: `python scripts/benchmark.py quality`, with `--source.train PATH` for E2E.

Trains our model, Diffusion-LM's recipe and an autoregressive model on the built-in grammar, and on
a text of the user's, under each of several time budgets. `textdiff evaluate` evaluates all runs.
"""

import importlib.util
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from ablate import Source
from benchmarks.budgets import Evaluation, Experiment, run_experiment
from benchmarks.curves import Goal, RunResult, draw, minutes_to_goals, runs_table

from textdiff.cli.parser import quiet_libraries
from textdiff.config import UserError
from textdiff.device import machine_name, own_device
from textdiff.evaluation.baselines import autoregressive_config, diffusion_lm_config
from textdiff.options import load_run_config
from textdiff.progress import ProgressBar
from textdiff.text.config import TextConfig

BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
MINUTES = {"grammar": [0.5, 1.0, 2.0], "text": [2.0, 5.0, 10.0]}

NOTES = """\
Every row is a finished run. The learning rate falls to 0 over its budget, so a point in the middle
of a longer run would be worse than a run that ends there. Minutes are the measured training time
alone. Between two budgets they are interpolated (the metric linearly in the logarithm of the
minutes), and "<=" means that the shortest budget was enough. Nats are a variational bound for the
diffusion models and exact for ar; +- is a standard error over the held-out sentences.

Diffusion-LM's published bound on E2E is 2.28 nats per token, after 5 hours on an A100
(arXiv:2205.14217). Its bound and ours are not the same quantity. Its tokens are 821 words, which
occur more than 10 times, and all other words are one unknown word. It has 87 million parameters and
200,000 steps in blocks of 64 tokens, and is measured on E2E's own validation file, whose
restaurants are not in the training text. Here every word that occurs twice is a token, and the
held-out sentences are drawn from the training file unless --source.valid names others."""


@dataclass(frozen=True)
class Goals:
    """Values that a model should reach.

    Args:
        grammatical: Shares of grammatical sentences, on the grammar.
        nats: Bounds on held-out text in nats per token, on the text.
        perplexity: Perplexities of samples under the reference model, in multiples of that of
            held-out text.
    """

    grammatical: tuple[float, ...] = (0.9, 0.99)
    nats: tuple[float, ...] = (2.28, 2.0, 1.92)
    perplexity: tuple[float, ...] = (2.0, 1.3)

    def for_text(self, name: str) -> list[Goal]:
        """Goals on the text of this name."""
        shares = [Goal("grammatical", share) for share in self.grammatical]
        bounds = [Goal("nats", nats) for nats in self.nats]
        first = shares if name == "grammar" else bounds
        return first + [Goal("perplexity", ratio) for ratio in self.perplexity]


def quality(
    source: Source,
    goals: Goals,
    minutes: list[float] | None = None,
    reference_minutes: float | None = None,
    samples: int = 200,
    steps: int = 32,
    recipe_steps: int = 200,
    grammar: str = "configs/text_demo.yaml",
    text: str = "configs/text_e2e.yaml",
    out: str = "runs/quality",
) -> None:
    """Measure the minutes of training to given bounds and perplexities, beside other models.

    Args:
        source: A text to train on beside the grammar, such as E2E.
        goals: Values that a model should reach.
        minutes: Budgets, such as [1,2]. If null, 0.5, 1 and 2 on the grammar, and 2, 5 and 10 on
            the text.
        reference_minutes: Training time of the reference model. If null, half of the longest
            budget.
        samples: Number of samples, and of held-out sentences for the bound.
        steps: Sampling steps of our model.
        recipe_steps: Sampling steps of Diffusion-LM's recipe. Its paper has 200 for E2E.
        grammar: Configuration of our model on the grammar.
        text: Configuration of our model on the text.
        out: Folder for runs, quality.json and quality.png. Finished runs in it are kept.
    """
    quiet_libraries()
    given = [*(minutes or []), *([] if reference_minutes is None else [reference_minutes])]
    check_options(source, given, samples)
    bases, folder = {"grammar": grammar, "text": text}, Path(out)
    chosen = list(experiments(source, bases, minutes, reference_minutes))
    evaluation = Evaluation(samples, steps, recipe_steps)
    total = sum(experiment.seconds for experiment in chosen)
    with ProgressBar(total=total, unit="s", smoothing=0, bar_format=BAR) as bar:
        runs = [run for e in chosen for run in run_experiment(e, evaluation, folder, bar)]
    report(
        runs, {experiment.name: goals.for_text(experiment.name) for experiment in chosen}, folder
    )


def check_options(source: Source, budgets: list[float], samples: int) -> None:
    """Ends the program with one line if something is impossible, before any long work."""
    for module in ("matplotlib", "sacrebleu", "sklearn"):
        if importlib.util.find_spec(module) is None:
            sys.exit(f"this needs {module}: pip install 'textdiff[evaluate]'")
    if min(budgets, default=1) <= 0:
        sys.exit(f"--minutes and --reference_minutes must be positive, got {min(budgets):g}")
    if samples < 10:
        sys.exit(f"--samples must be at least 10, got {samples}")
    if source.train is None and (source.valid or source.field):
        sys.exit("--source.valid and --source.field need --source.train")


def experiments(
    source: Source,
    bases: dict[str, str],
    minutes: list[float] | None,
    reference_minutes: float | None,
) -> Iterator[Experiment]:
    """The experiment on the grammar and, if the source names a text, that on the text."""
    given = {name: value for name, value in vars(source).items() if value is not None}
    data: dict[str, dict[str, Any]] = {"grammar": {"train": None, "valid": None}}
    if given:
        data["text"] = given
    for name, changes in data.items():
        try:
            ours = load_run_config(Path(bases[name]), TextConfig)
        except UserError as error:
            sys.exit(str(error))
        ours = replace(ours, data=replace(ours.data, **changes))
        baselines = {"diffusion-lm": diffusion_lm_config(ours), "ar": autoregressive_config(ours)}
        budgets = sorted(minutes or MINUTES[name])
        reference = reference_minutes or budgets[-1] / 2
        yield Experiment(name, {"ours": ours, **baselines}, budgets, reference)


def report(runs: list[RunResult], goals: dict[str, list[Goal]], out: Path) -> None:
    """Prints the tables, and writes quality.json and quality.png."""
    machine = {"device": machine_name(own_device()), "torch": torch.__version__}
    print(f"{machine['device']}, torch {machine['torch']}\n")
    print(*runs_table(runs), "", sep="\n")
    times = {name: minutes_to_goals(runs, name, of_text) for name, of_text in goals.items()}
    for name, rows in times.items():
        if not rows:  # there are no goals
            continue
        print(f"{name + ', minutes to':36}" + "".join(f"{model:>24}" for model in rows[0].by_model))
        for row in rows:
            print(f"{row.goal.text:36}" + "".join(f"{t.text:>24}" for t in row.by_model.values()))
        print()
    print(NOTES)
    results = {
        "machine": machine,
        "runs": [asdict(run) for run in runs],
        "minutes_to": {name: [row.as_text for row in rows] for name, rows in times.items()},
    }
    (out / "quality.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    draw(runs, out / "quality.png")
    print(f"\nwritten to {out / 'quality.json'} and {out / 'quality.png'}")
