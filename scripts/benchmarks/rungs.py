"""A ladder of finished runs: the minutes at which it reaches a goal, as tables and a figure."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

Figure = Literal["nats", "perplexity", "grammatical"]


@dataclass(frozen=True)
class Rung:
    """A finished run and its figures.

    Args:
        minutes: Of training, as measured.
        nats: Nats a token on held-out text; a bound, or exact for an autoregressive model.
        perplexity: Of samples by the reference model, in multiples of held-out text's.
        grammatical: Share of grammatical samples, on the grammar.
    """

    subject: str
    model: str
    minutes: float
    steps: int
    nats: float
    nats_error: float
    perplexity: float
    grammatical: float | None
    precision: str
    parameters: int
    vocabulary: int


@dataclass(frozen=True)
class Goal:
    """A value that a figure must reach: from below for `grammatical`, from above for others."""

    figure: Figure
    value: float

    def reached(self, value: float) -> bool:
        return value >= self.value if self.figure == "grammatical" else value <= self.value

    @property
    def text(self) -> str:
        if self.figure == "grammatical":
            return f"{self.value:.0%} grammatical"
        if self.figure == "nats":
            return f"{self.value:g} nats a token"
        return f"{self.value:g} x held-out perplexity"


@dataclass(frozen=True)
class Time:
    """Minutes to a goal: "<=" the shortest budget, "about" between two, or "> " the longest."""

    kind: Literal["<=", "about", ">"]
    minutes: float

    @property
    def text(self) -> str:
        if self.kind == ">":
            return f"not within {self.minutes:.3g}"
        return f"{'<= ' if self.kind == '<=' else ''}{self.minutes:.3g}"


@dataclass(frozen=True)
class Row:
    """The minutes of all models to one goal."""

    goal: Goal
    by_model: dict[str, Time]

    @property
    def figures(self) -> dict[str, Any]:
        return {"goal": self.goal.text, **{name: t.text for name, t in self.by_model.items()}}


def minutes_to(rungs: Sequence[Rung], goal: Goal) -> Time:
    """Minutes at which the ladder of one model first reaches the goal.

    Between two rungs the figure is taken as linear in the logarithm of the minutes.
    """
    points = sorted((rung.minutes, float(getattr(rung, goal.figure))) for rung in rungs)
    if goal.reached(points[0][1]):
        return Time("<=", points[0][0])
    for (earlier, before), (later, after) in pairwise(points):
        if goal.reached(after):
            share = (goal.value - before) / (after - before)
            return Time("about", earlier * (later / earlier) ** share)
    return Time(">", points[-1][0])


def minutes_to_goals(rungs: list[Rung], subject: str, goals: list[Goal]) -> list[Row]:
    """A row for every goal."""
    own = by_model([rung for rung in rungs if rung.subject == subject])
    times = [{name: minutes_to(ladder, goal) for name, ladder in own.items()} for goal in goals]
    return [Row(goal, columns) for goal, columns in zip(goals, times, strict=True)]


def by_model(rungs: list[Rung]) -> dict[str, list[Rung]]:
    """The ladders, in order of first appearance."""
    names = dict.fromkeys(rung.model for rung in rungs)
    return {name: [rung for rung in rungs if rung.model == name] for name in names}


def rungs_table(rungs: list[Rung]) -> Iterator[str]:
    """A line for every finished run."""
    yield (
        f"{'text':8} {'model':13} {'parameters':>10} {'words':>6} {'precision':>9} {'minutes':>7} "
        f"{'steps':>6} {'nats a token':>17} {'perplexity ratio':>16} grammatical"
    )
    for r in rungs:
        size, nats = f"{r.parameters / 1e6:.1f} M", f"{r.nats:.3f} +- {r.nats_error:.3f}"
        share = "" if r.grammatical is None else f"{r.grammatical:.1%}"
        start = f"{r.subject:8} {r.model:13} {size:>10} {r.vocabulary:6,} {r.precision:>9}"
        yield f"{start} {r.minutes:7.2f} {r.steps:6,} {nats:>17} {r.perplexity:16.2f} {share:>11}"


def draw(rungs: list[Rung], path: Path) -> None:
    """A row of panels for each text: bound, perplexity and, on the grammar, grammatical share."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    subjects = list(dict.fromkeys(rung.subject for rung in rungs))
    shape = {"figsize": (12, 3.4 * len(subjects)), "layout": "constrained", "squeeze": False}
    figure, panels = plt.subplots(len(subjects), 3, **shape)
    for subject, (left, middle, right) in zip(subjects, panels, strict=True):
        for name, ladder in by_model([r for r in rungs if r.subject == subject]).items():
            minutes = [r.minutes for r in ladder]
            nats, errors = [r.nats for r in ladder], [r.nats_error for r in ladder]
            left.errorbar(minutes, nats, errors, marker="o", capsize=3, label=name)
            middle.plot(minutes, [r.perplexity for r in ladder], marker="o", label=name)
            shares = [math.nan if r.grammatical is None else r.grammatical for r in ladder]
            right.plot(minutes, shares, marker="o", label=name)
        left.set(title=f"{subject}: held-out text", ylabel="nats a token", yscale="log")
        middle.set(title=f"{subject}: samples", ylabel="perplexity / held-out", yscale="log")
        right.set(title=f"{subject}: samples", ylabel="share grammatical")
        right.set_visible(subject == "grammar")
        left.legend()
        for axes in (left, middle, right):
            axes.set(xscale="log", xlabel="minutes of training")
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_formatter("{x:g}")
                axis.set_minor_formatter("{x:g}")
    figure.savefig(path, dpi=120)
    plt.close(figure)
