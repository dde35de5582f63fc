"""Time to quality: `python scripts/benchmark.py quality`, with `--source.train PATH` for E2E.

Trains our model, Diffusion-LM's recipe and an autoregressive model on the built-in grammar, and on
a text of the user's, for each of several budgets; `textdiff evaluate` judges every run.
"""

import importlib.util
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from benchmarks.ladder import Judging, Subject, climbed, expected
from benchmarks.rungs import Goal, Rung, draw, minutes_to_goals, rungs_table
from study import Source
from tqdm import tqdm

from textdiff.baselines import autoregressive, diffusion_lm
from textdiff.config import InputError, TextRun
from textdiff.device import machine_name, own_device
from textdiff.folder import load_config
from textdiff.parser import hush_libraries

BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
MINUTES = {"grammar": [0.5, 1.0, 2.0], "text": [2.0, 5.0, 10.0]}

NOTES = """\
Every row is a finished run: the learning rate falls to 0 over its budget, so that a point in the
middle of a longer run would be worse than a run that ends there. Minutes are of training alone, as
measured; between two budgets they are interpolated (the figure linearly in the logarithm of the
minutes), and "<=" means that the shortest budget was enough. Nats are a variational bound for the
diffusion models and exact for ar; +- is a standard error over the held-out sentences.

Diffusion-LM's published bound on E2E is 2.28 nats a token, after 5 hours of an A100
(arXiv:2205.14217). Its bound and ours are not the same quantity: its tokens are 821 words, those
seen more than 10 times, and all others are one unknown word; it has 87 million parameters and
200,000 steps in blocks of 64 tokens, and is measured on E2E's own validation file, whose
restaurants are not in the training text. Here every word seen twice is a token, and the held-out
sentences are drawn from the training file unless --source.valid names others."""


@dataclass(frozen=True)
class Goals:
    """What is asked of a model.

    Args:
        grammatical: Shares of grammatical sentences, on the grammar.
        nats: Bounds on held-out text in nats a token, on the text.
        perplexity: Perplexities of samples by the reference model, in multiples of held-out text's.
    """

    grammatical: tuple[float, ...] = (0.9, 0.99)
    nats: tuple[float, ...] = (2.5, 2.28, 2.0)
    perplexity: tuple[float, ...] = (2.0, 1.5)

    def of(self, name: str) -> list[Goal]:
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
    """Minutes of training to stated bounds and perplexities, beside other models.

    Args:
        source: Of a text to train on beside the grammar, such as E2E.
        goals: What is asked of a model.
        minutes: Budgets, as [1,2]. Nothing: 0.5, 1 and 2 on the grammar, 2, 5 and 10 on the text.
        reference_minutes: Training of the reference model. Nothing: half of the longest budget.
        samples: Sentences that are generated, and held-out sentences of the bound.
        steps: Sampling steps of our model.
        recipe_steps: Sampling steps of Diffusion-LM's recipe, whose paper has 200 for E2E.
        grammar: Configuration of our model on the grammar.
        text: Configuration of our model on the text.
        out: Folder for runs, quality.json and quality.png. What is done there is kept.
    """
    hush_libraries()
    asked = [*(minutes or []), *([] if reference_minutes is None else [reference_minutes])]
    check_all(source, asked, samples)
    chosen = list(subjects(source, {"grammar": grammar, "text": text}, minutes, reference_minutes))
    judging = Judging(samples, steps, recipe_steps)
    with tqdm(total=sum(map(expected, chosen)), unit="s", smoothing=0, dynamic_ncols=True, bar_format=BAR) as bar:
        rungs = [rung for subject in chosen for rung in climbed(subject, judging, Path(out), bar)]
    report(rungs, {subject.name: goals.of(subject.name) for subject in chosen}, Path(out))


def check_all(source: Source, budgets: list[float], samples: int) -> None:
    """Ends the program with one line where something is impossible, before any long work."""
    for module in ("matplotlib", "sacrebleu", "sklearn"):
        if importlib.util.find_spec(module) is None:
            sys.exit(f"this needs {module}: pip install 'textdiff[evaluate]'")
    if min(budgets, default=1) <= 0:
        sys.exit(f"--minutes and --reference_minutes must be positive, got {min(budgets):g}")
    if samples < 10:
        sys.exit(f"--samples must be at least 10, got {samples}")
    if source.train is None and (source.valid or source.field):
        sys.exit("--source.valid and --source.field need --source.train")


def subjects(
    source: Source,
    bases: dict[str, str],
    minutes: list[float] | None,
    reference_minutes: float | None,
) -> Iterator[Subject]:
    """The grammar and, where the source names one, the text."""
    named = {name: value for name, value in vars(source).items() if value is not None}
    data: dict[str, dict[str, Any]] = {"grammar": {"train": None, "valid": None}}
    if named:
        data["text"] = named
    for name, changes in data.items():
        try:
            ours = load_config(Path(bases[name]), TextRun)
        except InputError as error:
            sys.exit(str(error))
        ours = replace(ours, data=replace(ours.data, **changes))
        models = {"ours": ours, "diffusion-lm": diffusion_lm(ours), "ar": autoregressive(ours)}
        budgets = sorted(minutes or MINUTES[name])
        yield Subject(name, models, budgets, reference_minutes or budgets[-1] / 2)


def report(rungs: list[Rung], goals: dict[str, list[Goal]], out: Path) -> None:
    """Prints the tables, and writes quality.json and quality.png."""
    computer = machine()
    print(f"{computer['device']}, torch {computer['torch']}\n")
    print(*rungs_table(rungs), "", sep="\n")
    times = {name: minutes_to_goals(rungs, name, wanted) for name, wanted in goals.items()}
    for name, rows in times.items():
        if not rows:  # nothing is asked
            continue
        print(f"{name + ', minutes to':36}" + "".join(f"{model:>24}" for model in rows[0].by_model))
        for row in rows:
            print(f"{row.goal.text:36}" + "".join(f"{t.text:>24}" for t in row.by_model.values()))
        print()
    print(NOTES)
    figures = {
        "machine": computer,
        "rungs": [asdict(rung) for rung in rungs],
        "minutes_to": {name: [row.figures for row in rows] for name, rows in times.items()},
    }
    (out / "quality.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    draw(rungs, out / "quality.png")
    print(f"\nwritten to {out / 'quality.json'} and {out / 'quality.png'}")


def machine() -> dict[str, str]:
    return {
        "device": machine_name(own_device()),
        "torch": torch.__version__,
    }
