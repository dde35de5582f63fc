"""The report of an image evaluation: a table, grids of samples, nearest neighbors, and a figure."""

import json
from pathlib import Path
from typing import Any

import torch

from image import metrics
from image.config import EvaluationConfig
from image.evaluator import SEARCHED, Evaluator
from image.grid import grid
from image.sources import Images

COLUMNS = (
    "bits_per_dimension",
    "bits_error",
    "ode_bits",
    "ode_bits_error",
    "frechet_distance",
    "precision",
    "recall",
    "confidence",
    "agreement",
    "class_balance",
    "accuracy_score",
    "nearest_training",
    "single_dots",
    "uniform_p",
    "seconds_per_1000",
    "evaluations",
    "images",
    "compared",
)
MOST_SIMILAR = 12  # samples in nearest.png

Table = dict[str, dict[str, Any]]


def with_columns(table: Table) -> Table:
    """The table with the same columns in every row; columns without any value are left out."""
    found = {key for row in table.values() for key, value in row.items() if value is not None}
    columns = [key for key in COLUMNS if key in found]
    return {name: {key: row.get(key) for key in columns} for name, row in table.items()}


def write_report(
    report: dict[str, Any],
    samples: dict[str, Images],
    evaluator: Evaluator,
    folder: Path,
    options: EvaluationConfig,
) -> None:
    """Writes report.json, a grid of samples per row, nearest.png and steps.png.

    nearest.png shows the samples that are most similar to a training image, above that image.
    steps.png shows the Fréchet distance against the number of steps, if there are several numbers.

    Args:
        samples: Sampled images by the name of their row.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    for name, images in samples.items():
        grid(images.pixels[:64]).save(folder / f"samples-{name.replace(' ', '-')}.png")
    last, training = [*samples.values()][-1].pixels[:SEARCHED], evaluator.training.pixels
    distance, neighbors = metrics.nearest(last, training)
    closest = distance.argsort()[:MOST_SIMILAR]
    pairs = torch.cat([last[closest], training[neighbors[closest]]])
    grid(pairs, columns=len(closest)).save(folder / "nearest.png")
    if len(options.step_counts) > 1 and evaluator.extract:
        _draw_steps(report["table"], options, folder / "steps.png")


def _draw_steps(table: Table, options: EvaluationConfig, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    steps, real = options.step_counts, table["training images"]["frechet_distance"]
    figure, axes = plt.subplots(figsize=(5, 3.6), layout="constrained")
    for sampler in options.sampler_names:
        distances = [table[f"{sampler} {count}"]["frechet_distance"] for count in steps]
        axes.plot(steps, distances, "o-", label=sampler)
    axes.axhline(real, color="grey", linestyle=":", label="training images")
    axes.set(xscale="log", xlabel="steps")
    axes.set(yscale="log", ylabel="Fréchet distance to held-out images")
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)
