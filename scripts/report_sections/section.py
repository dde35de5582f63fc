"""A section of the report, and figures as parts of its page."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from PIL import Image

plt.style.use("tableau-colorblind10")
plt.rcParams.update(
    {
        "figure.dpi": 110,
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
    }
)


@dataclass
class Section:
    """A question of the course notes, with its answer by experiment.

    Args:
        name: Name on the command line.
        title: Title.
        question: The question.
        answer: The answer.
        figures: Captions and data: URLs.
        lines: Preformatted text, shown under the figures.
        numbers: Every number that the answer quotes.
    """

    name: str
    title: str
    question: str
    answer: str = ""
    figures: list[tuple[str, str]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)

    def add_figure(self, caption: str, figure: Figure) -> None:
        """Adds a figure of matplotlib and closes it."""
        buffer = BytesIO()
        figure.savefig(buffer, format="png", bbox_inches="tight")
        plt.close(figure)
        self._add(caption, "png", buffer)

    def add_image(self, caption: str, image: Image.Image) -> None:
        """Adds an image."""
        buffer = BytesIO()
        image.save(buffer, format="png")
        self._add(caption, "png", buffer)

    def add_animation(
        self, caption: str, frames: Sequence[Image.Image], milliseconds: int = 80
    ) -> None:
        """Adds an animated GIF."""
        buffer, (first, *others) = BytesIO(), frames
        options: dict[str, Any] = {"save_all": True, "append_images": others, "loop": 0}
        first.save(buffer, format="gif", duration=milliseconds, **options)
        self._add(caption, "gif", buffer)

    def _add(self, caption: str, kind: str, buffer: BytesIO) -> None:
        content = base64.b64encode(buffer.getvalue()).decode()
        self.figures.append((caption, f"data:image/{kind};base64,{content}"))


def frame(figure: Figure) -> Image.Image:
    """A figure of matplotlib as one frame of an animation. The figure is closed."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    plt.close(figure)
    return Image.open(buffer).convert("P", palette=Image.Palette.ADAPTIVE)
