"""What helps, and what time buys: `python scripts/study.py ablations` and `python scripts/study.py budgets`, each with `--source.train PATH`.

Every run trains for the same minutes on this machine, or for each of some; all are judged by `textdiff evaluate`, 400 sentences each, with one
teacher. What is done already is kept, so a study can be stopped and started again; what was begun, or done with other options, is done anew.
"""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import auto_cli

CONFIG = "configs/text_e2e.yaml"


@dataclass(frozen=True)
class Source:
    """Where the text comes from, if not from where the configuration says.

    Args:
        train: As `textdiff train --data.train`.
        valid: As `--data.valid`.
        field: As `--data.field`.
    """

    train: str | None = None
    valid: str | None = None
    field: str | None = None

    @property
    def options(self) -> list[str]:
        return [word for name, value in vars(self).items() if value is not None for word in (f"--data.{name}", value)]


def ablations(source: Source, base: str = CONFIG, changes: list[str] | None = None, minutes: float = 8.0, out: str = "runs/ablations") -> None:
    """One change at a time under one budget. Beside the minutes of training, four are for the teacher, once, and about three for judging each run.

    Args:
        source: Of the text.
        base: Configuration that is changed.
        changes: YAML files, each with what differs. Nothing: all of configs/ablations.
        minutes: Of training, for each.
        out: Folder for the runs.
    """
    plain = trained(f"{out}/as_it_is", [base], source, minutes)
    judged = table(plain, ["--baselines", "[]", "--teacher_minutes", "4"])
    teacher = Path(plain, "evaluation", "teacher-240s")
    print(f"{'change':24} nats a token   perplexity, 32 steps   8 steps   entropy   distinct-2   two-sample     (ratios to held-out text)")
    for change in (None, *(changes or sorted(map(str, Path("configs/ablations").glob("*.yaml"))))):
        run = trained(f"{out}/{Path(change).stem}", [base, change], source, minutes) if change else plain
        rows = table(run, ["--baselines", "[]", "--teacher", str(teacher)]) if change else judged
        real, _, few, many = rows.values()
        print(f"{Path(run).name:24} {line(real, few, many)}", flush=True)


def budgets(source: Source, base: str = CONFIG, minutes: list[float] | None = None, out: str = "runs/budgets") -> None:
    """How quality grows with training time, beside an autoregressive model and Diffusion-LM's recipe; draws budgets.png.

    Args:
        source: Of the text.
        base: Configuration of the model.
        minutes: The budgets, as [5,10]. Nothing: 5, 10, 30 and 60.
        out: Folder for the runs and the figure.
    """
    tables: dict[float, dict[str, Any]] = {}
    teacher: list[str] = []
    for budget in sorted(minutes or [5, 10, 30, 60], reverse=True):  # the longest first: its teacher judges all
        run = trained(f"{out}/{budget:g}min", [base], source, budget)
        tables[budget] = table(run, ["--baselines", "[ar,diffusion-lm]", "--minutes", f"{budget:g}", *teacher])
        teacher = teacher or ["--teacher", *map(str, Path(run, "evaluation").glob("teacher-*"))]
        real, _, few, many, *_ = tables[budget].values()
        print(f"{budget:g} minutes  {line(real, few, many)}", flush=True)
    draw(tables, Path(out, "budgets.png"))


def trained(run: str, configs: list[str], source: Source, minutes: float) -> str:
    """A finished run."""
    options = [word for file in configs for word in ("--config", file)]
    once(run, "train", *options, *source.options, "--run", run, "--train.minutes", str(minutes), "--train.save_every", "1000000", "--overwrite")
    return run


def table(run: str, options: list[str]) -> dict[str, dict[str, Any]]:
    """Held-out text, training text, the model at 8 and at 32 steps, and whatever else is asked for."""
    usual = ["--steps", "[8,32]", "--sampler", "dpm_solver", "--n", "400", "--slow_n", "30", "--ode", "0"]
    once(f"{run}/evaluation", "evaluate", run, *usual, *options)
    rows: dict[str, dict[str, Any]] = json.loads(Path(run, "evaluation", "report.json").read_text(encoding="utf-8"))["table"]
    return rows


def once(folder: str, *arguments: str, run: Callable[..., None] | None = None) -> None:
    """Runs a command of textdiff that fills `folder`, unless the same, with configurations of the same content, was done there before."""
    done = Path(folder, "study.json")
    command = json.dumps([arguments, [Path(word).read_text(encoding="utf-8") for word in arguments if word.endswith(".yaml")]])
    if done.exists() and done.read_text(encoding="utf-8") == command:
        return
    done.unlink(missing_ok=True)
    (run or textdiff)(*arguments)
    done.write_text(command, encoding="utf-8")


def line(real: dict[str, Any], few: dict[str, Any], many: dict[str, Any]) -> str:
    perplexity, fast = (row["teacher_perplexity"] / real["teacher_perplexity"] for row in (many, few))
    entropy, distinct = (many[figure] / real[figure] for figure in ("unigram_entropy", "distinct_2"))
    told = many["two_sample_accuracy"] or math.nan  # none: too few different sentences to ask
    return f"{many['nats_per_token']:12.3f} {perplexity:22.2f} {fast:9.2f} {entropy:9.3f} {distinct:12.2f} {told:12.2f}"


def draw(tables: dict[float, dict[str, Any]], path: Path) -> None:
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharex=True)
    for name, label in (("model, 32 steps", "textdiff, 32 steps"), ("ar", "autoregressive"), ("diffusion-lm", "Diffusion-LM's recipe")):
        asked = {minutes: rows for minutes, rows in tables.items() if name in rows}
        ratio = [rows[name]["teacher_perplexity"] / rows["held-out text"]["teacher_perplexity"] for rows in asked.values()]
        left.plot(list(asked), [rows[name]["nats_per_token"] for rows in asked.values()], marker="o", label=label)
        right.plot(list(asked), ratio, marker="o", label=label)
    left.set(title="Bound on held-out text", ylabel="nats a token")
    right.set(title="Perplexity by the teacher", ylabel="ratio to held-out text")
    for axes in (left, right):
        axes.set(xscale="log", yscale="log", xlabel="minutes of training")
        axes.set_xticks(list(tables), [f"{minutes:g}" for minutes in tables], minor=False)
        axes.set_xticks([], minor=True)
        axes.set_yticks([1, 1.5, 2, 3, 5, 10, 20, 30], ["1", "1.5", "2", "3", "5", "10", "20", "30"])
        axes.set_yticks([], minor=True)
        axes.set_ylim(0.9 * axes.dataLim.ymin, 1.1 * axes.dataLim.ymax)
    left.legend()
    figure.savefig(path, dpi=120)


def textdiff(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "textdiff", *arguments], check=False, stdout=subprocess.DEVNULL)
    if done.returncode:
        sys.exit(done.returncode)  # it has said what is wrong


if __name__ == "__main__":
    auto_cli({"ablations": ablations, "budgets": budgets}, as_positional=False)
