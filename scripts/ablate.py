"""Compares changes of a configuration, and training times: `python scripts/ablate.py ablations`
and `python scripts/ablate.py budgets`, each with `--source.train PATH`.

Every run of a comparison trains for the same number of minutes on this machine, and
`textdiff evaluate` evaluates all of them with 400 sentences and the same reference model.
Finished runs are kept, so a comparison can be stopped and started again. Unfinished runs, and runs
with other options, are trained again.
"""

import json
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from textdiff.cli.parser import run_script
from textdiff.options import read_yaml

CONFIG = "configs/text_e2e.yaml"
COLUMNS = (
    "nats per token   perplexity, 32 steps   8 steps   entropy   distinct-2   two-sample"
    "     (ratios to held-out text)"
)
Row = dict[str, Any]
Table = dict[str, Row]


@dataclass(frozen=True)
class Source:
    """The text, if it is not that of the configuration.

    Args:
        train: Value of `textdiff train --data.train`.
        valid: Value of `--data.valid`.
        field: Value of `--data.field`.
    """

    train: str | None = None
    valid: str | None = None
    field: str | None = None

    @property
    def options(self) -> list[str]:
        """Options of the command line."""
        given = {name: value for name, value in vars(self).items() if value is not None}
        return [word for name, value in given.items() for word in (f"--data.{name}", value)]


def ablations(
    source: Source,
    base: str = CONFIG,
    changes: list[str] | None = None,
    minutes: float = 8.0,
    out: str = "runs/ablations",
) -> None:
    """Compare single changes of a configuration under one training time.

    Besides the training, the reference model takes four minutes once, and each evaluation about
    three minutes.

    Args:
        source: The text.
        base: Configuration that is changed.
        changes: YAML files with one change each. If null, all files in configs/ablations.
        minutes: Training time of each run.
        out: Folder for the runs.
    """
    unchanged = train_run(f"{out}/unchanged", [base], source, minutes)
    rows = evaluate_run(unchanged, ["--baselines", "[]", "--reference_minutes", "4"])
    reference_lm = str(Path(unchanged, "evaluation", "reference-240s"))
    print(f"{'change':24} {COLUMNS}")
    print(f"{'unchanged':24} {format_row(rows)}", flush=True)
    for change in changes or sorted(map(str, Path("configs/ablations").glob("*.yaml"))):
        run = train_run(f"{out}/{Path(change).stem}", [base, change], source, minutes)
        rows = evaluate_run(run, ["--baselines", "[]", "--reference_lm", reference_lm])
        print(f"{Path(run).name:24} {format_row(rows)}", flush=True)


def budgets(
    source: Source,
    base: str = CONFIG,
    minutes: list[float] | None = None,
    baselines: list[Literal["ar", "diffusion-lm"]] | None = None,
    out: str = "runs/budgets",
) -> None:
    """Measure quality against training time, beside baselines, and draw budgets.png.

    Args:
        source: The text.
        base: Configuration of the model.
        minutes: Training times, such as [5,10]. If null, 5, 10, 30 and 60.
        baselines: Models that are trained for as long: ar (autoregressive) and diffusion-lm
            (Diffusion-LM's recipe). If null, both.
        out: Folder for the runs and the figure.
    """
    names = ",".join(["ar", "diffusion-lm"] if baselines is None else baselines)
    tables: dict[float, Table] = {}
    reference: list[str] = []
    # the longest comes first: its reference model, which trained longest, evaluates all runs
    for budget in sorted(minutes or [5, 10, 30, 60], reverse=True):
        run = train_run(f"{out}/{budget:g}min", [base], source, budget)
        options = ["--baselines", f"[{names}]", "--minutes", f"{budget:g}", *reference]
        tables[budget] = evaluate_run(run, options)
        if not reference:
            (folder,) = Path(run, "evaluation").glob("reference-*")
            reference = ["--reference_lm", str(folder)]
        print(f"{budget:g} minutes  {format_row(tables[budget])}", flush=True)
    draw(tables, Path(out, "budgets.png"))


def train_run(run: str, configs: Sequence[str], source: Source, minutes: float) -> str:
    """Trains a run, unless that was done before, and returns its folder."""
    options = [word for file in configs for word in ("--config", file)]
    options += [*source.options, "--run", run, "--train.minutes", str(minutes)]
    run_once(run, "train", *options, "--train.save_every", "1000000", "--overwrite")
    return run


def evaluate_run(run: str, options: Sequence[str]) -> Table:
    """Table of held-out text, training text, the model at 8 and 32 steps, and the baselines."""
    sizes = ["--steps", "[8,32]", "--n", "400", "--slow_n", "30", "--ode", "0"]
    run_once(f"{run}/evaluation", "evaluate", run, *sizes, *options)
    report = Path(run, "evaluation", "report.json").read_text(encoding="utf-8")
    table: Table = json.loads(report)["table"]
    return table


def run_once(folder: str, *arguments: str, run: Callable[..., None] | None = None) -> None:
    """Runs a command of textdiff that fills `folder`, unless that was done before.

    The command is run again if its arguments or the content of its configurations change.

    Args:
        run: Function that runs the command, by default `run_textdiff`.
    """
    record = Path(folder, "command.json")
    files = [Path(word) for word in arguments if word.endswith(".yaml")]
    command = json.dumps([arguments, [read_yaml(path) for path in files]])
    if record.exists() and record.read_text(encoding="utf-8") == command:
        return
    record.unlink(missing_ok=True)
    (run or run_textdiff)(*arguments)
    record.write_text(command, encoding="utf-8")


def format_row(table: Table) -> str:
    """The model's metrics in the order of `COLUMNS`."""
    real, _, few, many, *_ = table.values()
    perplexity, fast = (row["perplexity"] / real["perplexity"] for row in (many, few))
    entropy, distinct = (many[name] / real[name] for name in ("unigram_entropy", "distinct_2"))
    # None if there are too few different sentences
    accuracy = many["two_sample_accuracy"] or math.nan
    start = f"{many['nats_per_token']:14.3f} {perplexity:22.2f} {fast:9.2f}"
    return f"{start} {entropy:9.3f} {distinct:12.2f} {accuracy:12.2f}"


def draw(tables: dict[float, Table], path: Path) -> None:
    """Draws nats per token and the perplexity ratio against the training time."""
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharex=True)
    names = {"model, 32 steps": "textdiff, 32 steps", "ar": "autoregressive"}
    for name, label in (names | {"diffusion-lm": "Diffusion-LM's recipe"}).items():
        rows = {minutes: table[name] for minutes, table in tables.items() if name in table}
        if not rows:
            continue
        nats = [row["nats_per_token"] for row in rows.values()]
        real = [tables[minutes]["held-out text"]["perplexity"] for minutes in rows]
        ratios = [row["perplexity"] / r for row, r in zip(rows.values(), real, strict=True)]
        left.plot(list(rows), nats, marker="o", label=label)
        right.plot(list(rows), ratios, marker="o", label=label)
    left.set(title="Variational bound on held-out text", ylabel="nats per token")
    right.set(title="Perplexity under the reference model", ylabel="ratio to held-out text")
    ticks = [1, 1.1, 1.2, 1.3, 1.4, 1.6, 1.8, 2, 2.5, 3, 5, 10, 20, 30]
    for axes in (left, right):
        axes.set(xscale="log", yscale="log", xlabel="minutes of training")
        axes.set_xticks(list(tables), [f"{minutes:g}" for minutes in tables], minor=False)
        axes.set_xticks([], minor=True)
        axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_yticks([], minor=True)
        axes.set_ylim(0.9 * axes.dataLim.ymin, 1.1 * axes.dataLim.ymax)
    left.legend()
    figure.savefig(path, dpi=120)


def run_textdiff(*arguments: str) -> None:
    """Runs a command of textdiff. If it fails, this program ends with its exit code."""
    command = [sys.executable, "-m", "textdiff", *arguments]
    finished = subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
    if finished.returncode:
        sys.exit(finished.returncode)  # it has printed its error


if __name__ == "__main__":
    run_script({"ablations": ablations, "budgets": budgets})
