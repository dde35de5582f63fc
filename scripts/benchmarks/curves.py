"""Learning curves over finished runs: the minutes of training to a goal, as tables and a figure."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

Metric = Literal["nats", "perplexity", "grammatical"]


@dataclass(frozen=True)
class RunResult:
    """Metrics of a finished run.

    Args:
        domain: Name of the text.
        model: Name of the model.
        minutes: Measured training time.
        steps: Number of training steps.
        nats: Nats per token on held-out text: a bound, or exact for an autoregressive model.
        nats_error: Standard error of `nats`.
        perplexity: Perplexity of samples under the reference model, divided by that of held-out
            text.
        grammatical: Share of grammatical samples, if the text is of the built-in grammar.
        precision: Precision of training.
        parameters: Number of parameters.
        vocabulary: Number of tokens in the vocabulary.
    """

    domain: str
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
    """A value that a metric must reach: at least for `grammatical`, at most for the others."""

    metric: Metric
    value: float

    def is_reached(self, value: float) -> bool:
        """Whether this value of the metric is good enough."""
        return value >= self.value if self.metric == "grammatical" else value <= self.value

    @property
    def text(self) -> str:
        """The goal in words."""
        if self.metric == "grammatical":
            return f"{self.value:.0%} grammatical"
        if self.metric == "nats":
            return f"{self.value:g} nats per token"
        return f"{self.value:g} x held-out perplexity"


@dataclass(frozen=True)
class Time:
    """Minutes to a goal.

    Args:
        kind: `<=` if the shortest run reaches the goal, `about` if the time is interpolated between
            two runs, `>` if no run reaches it.
        minutes: Minutes of the shortest run, of the interpolation, or of the longest run.
    """

    kind: Literal["<=", "about", ">"]
    minutes: float

    @property
    def text(self) -> str:
        """The time in words."""
        if self.kind == ">":
            return f"not within {self.minutes:.3g}"
        return f"{'<= ' if self.kind == '<=' else ''}{self.minutes:.3g}"


@dataclass(frozen=True)
class Row:
    """Minutes to one goal for each model."""

    goal: Goal
    by_model: dict[str, Time]

    @property
    def as_text(self) -> dict[str, Any]:
        """The row in words, for JSON."""
        return {"goal": self.goal.text, **{name: t.text for name, t in self.by_model.items()}}


def minutes_to(runs: Sequence[RunResult], goal: Goal) -> Time:
    """Minutes of training at which the runs of one model first reach the goal.

    Between two runs the metric is interpolated linearly in the logarithm of the minutes.
    """
    points = sorted((run.minutes, float(getattr(run, goal.metric))) for run in runs)
    if goal.is_reached(points[0][1]):
        return Time("<=", points[0][0])
    for (shorter, before), (longer, after) in pairwise(points):
        if goal.is_reached(after):
            share = (goal.value - before) / (after - before)
            return Time("about", shorter * (longer / shorter) ** share)
    return Time(">", points[-1][0])


def minutes_to_goals(runs: list[RunResult], domain: str, goals: list[Goal]) -> list[Row]:
    """A row for each goal."""
    curves = by_model([run for run in runs if run.domain == domain])
    return [
        Row(goal, {name: minutes_to(curve, goal) for name, curve in curves.items()})
        for goal in goals
    ]


def by_model(runs: list[RunResult]) -> dict[str, list[RunResult]]:
    """The runs of each model."""
    names = dict.fromkeys(run.model for run in runs)
    return {name: [run for run in runs if run.model == name] for name in names}


def runs_table(runs: list[RunResult]) -> Iterator[str]:
    """A table with a line for each run."""
    yield (
        f"{'text':8} {'model':13} {'parameters':>10} {'words':>6} {'precision':>9} {'minutes':>7} "
        f"{'steps':>6} {'nats per token':>17} {'perplexity ratio':>16} grammatical"
    )
    for r in runs:
        size, nats = f"{r.parameters / 1e6:.1f} M", f"{r.nats:.3f} +- {r.nats_error:.3f}"
        share = "" if r.grammatical is None else f"{r.grammatical:.1%}"
        start = f"{r.domain:8} {r.model:13} {size:>10} {r.vocabulary:6,} {r.precision:>9}"
        yield f"{start} {r.minutes:7.2f} {r.steps:6,} {nats:>17} {r.perplexity:16.2f} {share:>11}"


def draw(runs: list[RunResult], path: Path) -> None:
    """Draws bound, perplexity and, for the grammar, grammatical share of each text."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    domains = list(dict.fromkeys(run.domain for run in runs))
    options = {"figsize": (12, 3.4 * len(domains)), "layout": "constrained", "squeeze": False}
    figure, panels = plt.subplots(len(domains), 3, **options)
    for domain, (left, middle, right) in zip(domains, panels, strict=True):
        for name, curve in by_model([r for r in runs if r.domain == domain]).items():
            minutes = [r.minutes for r in curve]
            nats, errors = [r.nats for r in curve], [r.nats_error for r in curve]
            left.errorbar(minutes, nats, errors, marker="o", capsize=3, label=name)
            middle.plot(minutes, [r.perplexity for r in curve], marker="o", label=name)
            shares = [math.nan if r.grammatical is None else r.grammatical for r in curve]
            right.plot(minutes, shares, marker="o", label=name)
        left.set(title=f"{domain}: held-out text", ylabel="nats per token", yscale="log")
        middle.set(title=f"{domain}: samples", ylabel="perplexity / held-out", yscale="log")
        right.set(title=f"{domain}: samples", ylabel="share grammatical")
        right.set_visible(domain == "grammar")
        left.legend()
        for axes in (left, middle, right):
            axes.set(xscale="log", xlabel="minutes of training")
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_formatter("{x:g}")
                axis.set_minor_formatter("{x:g}")
    figure.savefig(path, dpi=120)
    plt.close(figure)
