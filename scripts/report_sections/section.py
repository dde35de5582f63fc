"""A section of the report: a problem of the course notes, its key formulas, and an experiment."""

import base64
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

WIDTH = 4.8  # inches; on a phone, text of 9 points is then 9 pixels high

plt.style.use("tableau-colorblind10")
plt.rcParams.update(
    {
        "savefig.dpi": 160,
        "font.size": 9,
        "axes.titlesize": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        "figure.constrained_layout.h_pad": 0.08,  # inches, between a label and a title below it
    }
)


class Formula(NamedTuple):
    """A line of a derivation: a sentence with $formulas$, and the formula in LaTeX."""

    sentence: str
    latex: str


class TryNext(NamedTuple):
    """A command for the reader, and what to look for in its result."""

    command: str
    look_for: str


class Table(NamedTuple):
    """A table. The first row is its head."""

    caption: str
    rows: list[list[str]]


class Picture(NamedTuple):
    """A picture, as a data: URL."""

    caption: str
    source: str


@dataclass
class Section:
    """A section of the report.

    Args:
        name: Name on the command line.
        title: Title.
        problem: The problem, with its number in the notes.
        derivation: Two or three key lines.
        idea: First paragraph of the explanation: why it is so.
        try_next: What to try next.
        finding: Second paragraph of the explanation: what the experiment measured.
        figures: Figures that the experiment drew.
        tables: Tables that it filled.
        numbers: Every number that the finding quotes.
    """

    name: str
    title: str
    problem: str
    derivation: list[Formula]
    idea: str
    try_next: TryNext
    finding: str = ""
    figures: list[Picture] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)

    @property
    def explanation(self) -> tuple[str, str]:
        """The two paragraphs."""
        return self.idea, self.finding

    def add_figure(self, caption: str, figure: Figure) -> None:
        """Adds a figure of matplotlib and closes it."""
        buffer = BytesIO()
        figure.savefig(buffer, format="png", bbox_inches="tight")
        plt.close(figure)
        content = base64.b64encode(buffer.getvalue()).decode()
        self.figures.append(Picture(caption, f"data:image/png;base64,{content}"))

    def results(self) -> dict[str, Any]:
        """What the experiment added, for JSON."""
        return {
            "finding": self.finding,
            "figures": self.figures,
            "tables": self.tables,
            "numbers": self.numbers,
        }

    def restore(self, results: dict[str, Any]) -> None:
        """Takes results that were read from JSON."""
        self.finding, self.numbers = results["finding"], results["numbers"]
        self.figures = [Picture(*figure) for figure in results["figures"]]
        self.tables = [Table(*table) for table in results["tables"]]

    def _repr_html_(self) -> str:
        """Shows the results in a notebook."""
        from report_sections.page import results_html

        return results_html(self)
