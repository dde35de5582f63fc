"""What a section of the report is, and how figures become part of a page."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure as Drawing
from PIL import Image

plt.style.use("tableau-colorblind10")
plt.rcParams.update({"figure.dpi": 110, "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})


@dataclass
class Section:
    """A question of the notes, with what was measured; `numbers` holds every number that the answer quotes."""

    name: str
    title: str
    question: str
    answer: str = ""
    figures: list[tuple[str, str]] = field(default_factory=list)  # caption, data: URL
    lines: list[str] = field(default_factory=list)  # shown as they are, under the figures
    numbers: dict[str, Any] = field(default_factory=dict)

    def draw(self, caption: str, drawing: Drawing) -> None:
        buffer = BytesIO()
        drawing.savefig(buffer, format="png", bbox_inches="tight")
        plt.close(drawing)
        self.figures.append((caption, "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()))

    def picture(self, caption: str, image: Image.Image) -> None:
        self.film(caption, [image], "png")

    def film(self, caption: str, frames: Sequence[Image.Image], kind: str = "gif", milliseconds: int = 80) -> None:
        buffer = BytesIO()
        options: dict[str, Any] = {"save_all": True, "append_images": frames[1:], "duration": milliseconds, "loop": 0} if kind == "gif" else {}
        frames[0].save(buffer, format=kind, **options)
        self.figures.append((caption, f"data:image/{kind};base64," + base64.b64encode(buffer.getvalue()).decode()))


def frame(drawing: Drawing) -> Image.Image:
    """A drawing as a picture, for a film."""
    buffer = BytesIO()
    drawing.savefig(buffer, format="png")
    plt.close(drawing)
    return Image.open(buffer).convert("P", palette=Image.Palette.ADAPTIVE)
