"""Pictures of runs: losses, schedules, word embeddings, and samples over time."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from os.path import relpath
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from textdiff.config import UserError, check
from textdiff.text.hub import load_model
from textdiff.text.model import DiffusionLM

Axes = Any  # of matplotlib, which is optional
Line = dict[str, Any]
NOT_LOSSES = ("step", "lr", "grad_norm", "utilization", "seconds")
HELD_OUT = "valid/"
# figures that are logged at several log SNRs
BY_LOGSNR = {"cross_entropy": "nats per word", "context_gain": "nats per word that context saves"}
LABELS, NEIGHBORS = 90, 5  # words in the map of embeddings, and similar ones in the list


@dataclass(frozen=True)
class Run:
    """A run, as it was logged.

    Args:
        name: Name of the run in pictures.
        folder: The run folder.
        lines: Lines of metrics.jsonl, in the order of their steps.
        model: The trained model if it is a diffusion model of text.
        words: Its vocabulary, from the most frequent word to the rarest, as numbers and spellings.
    """

    name: str
    folder: Path
    lines: list[Line]
    model: DiffusionLM | None
    words: list[tuple[int, str]]

    def values(self, key: str) -> tuple[list[int], list[float]]:
        """Steps, and the values of a figure at them."""
        found = [(line["step"], line[key]) for line in self.lines if key in line]
        return [step for step, _ in found], [value for _, value in found]

    @property
    def losses(self) -> list[str]:
        """Names of the loss terms."""
        keys = {key for line in self.lines for key in line if "/" not in key}
        return sorted(k for k in keys - {*NOT_LOSSES, "samples"} if not k.endswith("_per_second"))

    def by_logsnr(self, figure: str) -> list[tuple[int, list[tuple[float, float]]]]:
        """Steps of the validations, and the log SNRs and values of a figure at each."""
        found, prefix = [], f"{figure}/"
        for line in self.lines:
            keys = [key for key in line if key.startswith(prefix)]
            if keys:
                points = [(float(key.removeprefix(prefix)), line[key]) for key in keys]
                found.append((line["step"], sorted(points)))
        return found


def read_run(folder: Path, name: str) -> Run:
    """Reads a run folder.

    Raises:
        UserError: If it has no metrics.jsonl, or this has no steps yet.
    """
    path = folder / "metrics.jsonl"
    if not path.is_file():
        raise UserError(f"{folder} is not the folder of a run: it has no metrics.jsonl")
    texts = path.read_text(encoding="utf-8").splitlines()
    lines = [json.loads(text) for text in texts if text.endswith("}")]  # the last may be incomplete
    if not lines:
        raise UserError(f"{path} has no steps yet")
    lines.sort(key=lambda line: line["step"])
    model, words = None, list[tuple[int, str]]()
    config = folder / "model" / "config.json"
    if config.is_file() and json.loads(config.read_text(encoding="utf-8"))["model_type"] == (
        DiffusionLM.config_class.model_type
    ):
        loaded, tokenizer = load_model(str(folder))
        assert isinstance(loaded, DiffusionLM)
        model = loaded.cpu().float()
        order = model.words.unigram.argsort(descending=True).tolist()
        words = [(i, tokenizer.decode([i]).strip()) for i in order]  # special tokens are empty
    return Run(name, folder, lines, model, [pair for pair in words if pair[1]])


def plot_runs(folders: Sequence[str], out: Path, suffix: Literal["png", "svg"]) -> Path:
    """Draws the pictures of runs and a page with all of them. Returns the page's path.

    Args:
        out: Folder of the pictures and of index.html.

    Raises:
        UserError: If a folder is not that of a run.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    check(bool(folders), "the runs", "at least one folder", folders)
    names = [Path(folder).resolve().name for folder in folders]
    names = names if len({*names}) == len(names) else [*folders]
    runs = [read_run(Path(each), name) for each, name in zip(folders, names, strict=True)]
    out.mkdir(parents=True, exist_ok=True)
    pictures = list[str]()
    for name, panels in _pictures(runs).items():
        figure, axes = plt.subplots(
            1, len(panels), figsize=(6.5 * len(panels), 4.2), layout="constrained", squeeze=False
        )
        for draw, axis in zip(panels, axes[0], strict=True):
            draw(axis)
        pictures.append(f"{name}.{suffix}")
        figure.savefig(out / pictures[-1], dpi=120)
        plt.close(figure)
    page = out / "index.html"
    page.write_text("\n".join(_page(runs, pictures, out)) + "\n", encoding="utf-8")
    return page


def _pictures(runs: list[Run]) -> dict[str, list[Callable[[Axes], None]]]:
    """The panels of each picture: functions that draw them."""
    texts = [run for run in runs if run.model]
    terms = sorted({term for run in runs for term in run.losses})
    logged = {each: [run for run in runs if run.by_logsnr(each)] for each in BY_LOGSNR}
    fitted = [run for run in texts if hasattr(run.model, "adaptive")]
    found: dict[str, list[Callable[[Axes], None]]] = {
        "losses": [partial(_draw_loss, runs, term) for term in terms],
        "logsnr": [partial(_draw_by_logsnr, some, each) for each, some in logged.items() if some],
        "schedule": [partial(_draw_schedule, texts)] if texts else [],
        "embeddings": [partial(_draw_embeddings, run) for run in texts],
    }
    found["schedule"] += [partial(_draw_fit, fitted)] if fitted else []
    return {name: panels for name, panels in found.items() if panels}


def _draw_loss(runs: list[Run], term: str, axis: Axes) -> None:
    for i, run in enumerate(runs):
        steps, values = run.values(term)
        if not steps:  # the run has another objective
            continue
        axis.plot(steps, values, color=f"C{i}", alpha=0.3, linewidth=1)
        means = np.convolve(values, np.ones(width := min(15, len(values))) / width, "valid")
        axis.plot(steps[width - 1 :], means, color=f"C{i}", label=run.name)
        axis.plot(*run.values(HELD_OUT + term), "o", color=f"C{i}", markersize=4)
    axis.set(title=f"Loss: {term} (dots: held-out data)", xlabel="step", yscale="log")
    for axis_format in (axis.yaxis.set_major_formatter, axis.yaxis.set_minor_formatter):
        axis_format("{x:.2g}")
    axis.legend()


def _draw_by_logsnr(runs: list[Run], figure: str, axis: Axes) -> None:
    from matplotlib import colormaps

    if len(runs) == 1:  # from the first validation (light) to the last (dark)
        validations = runs[0].by_logsnr(figure)
        for i, (step, points) in enumerate(validations):
            color = colormaps["Blues"](0.3 + 0.7 * (i + 1) / len(validations))
            label = f"step {step:,}" if i in (0, len(validations) - 1) else None
            axis.plot(*zip(*points, strict=True), "o-", color=color, label=label)
    else:
        for run in runs:
            step, points = run.by_logsnr(figure)[-1]
            axis.plot(*zip(*points, strict=True), "o-", label=f"{run.name}, step {step:,}")
    title = f"{figure.replace('_', ' ').capitalize()} of held-out text"
    axis.set(title=title, xlabel="log SNR", ylabel=BY_LOGSNR[figure])
    axis.axhline(0, color="gray", linewidth=0.5)
    axis.legend()


def _draw_schedule(runs: list[Run], axis: Axes) -> None:
    t = torch.linspace(0, 1, 200)
    for run in runs:
        assert run.model is not None
        axis.plot(t, run.model.schedule()(t).detach(), label=run.name)
    axis.set(title="Schedule", xlabel="time t (0: clean)", ylabel="log SNR")
    axis.legend()


def _draw_fit(runs: list[Run], axis: Axes) -> None:
    for run in runs:
        assert run.model is not None
        logsnr = torch.linspace(*run.model.logsnr_range, 200)
        axis.plot(logsnr, run.model.adaptive.loss(logsnr).detach(), label=run.name)
    axis.set(title="Fit of the schedule to the loss", xlabel="log SNR", ylabel="nats per word")
    axis.legend()


def _draw_embeddings(run: Run, axis: Axes) -> None:
    """A map of the embeddings of frequent words, in which similar ones are close (t-SNE)."""
    from sklearn.manifold import TSNE

    assert run.model is not None
    shown = [pair for pair in run.words[: 4 * LABELS] if any(map(str.isalpha, pair[1]))][:LABELS]
    vectors = run.model.words.embeddings.detach()[[i for i, _ in shown]]
    perplexity = min(8, (len(shown) - 1) / 3)
    tsne = TSNE(metric="cosine", init="random", perplexity=perplexity, random_state=0)
    places = tsne.fit_transform(vectors)
    axis.scatter(*places.T, s=0)
    for (x, y), (_, word) in zip(places.tolist(), shown, strict=True):
        axis.text(x, y, word, fontsize=6, ha="center", va="center", parse_math=False)
    axis.set(title=f"Embeddings of frequent words: {run.name}", xticks=[], yticks=[])


def _nearest(run: Run, n: int = 20) -> Iterator[tuple[str, list[str]]]:
    """Frequent words, and those of the most similar embeddings."""
    assert run.model is not None
    index = torch.tensor([i for i, _ in run.words])
    vectors = torch.nn.functional.normalize(run.model.words.embeddings.detach()[index], dim=-1)
    for place in [i for i, (_, word) in enumerate(run.words) if word.isalpha()][:n]:
        similar = (vectors @ vectors[place]).topk(NEIGHBORS + 1).indices.tolist()
        yield run.words[place][1], [run.words[i][1] for i in similar if i != place][:NEIGHBORS]


def _page(runs: list[Run], pictures: list[str], out: Path) -> Iterator[str]:
    yield "<!doctype html><html lang=en><meta charset=utf-8><title>Runs</title>"
    yield "<meta name=viewport content='width=device-width'>"
    yield "<style>body{font:16px/1.5 sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}"
    yield "img{max-width:100%}td{padding:.1rem 1rem .1rem 0;vertical-align:top}</style>"
    yield f"<h1>{escape(', '.join(run.name for run in runs))}</h1>"
    for name in pictures:
        yield f"<p><img src='{name}' alt='{Path(name).stem}'></p>"
    for run in runs:
        yield f"<h2>Samples of {escape(run.name)}</h2><table>"
        for line in run.lines:
            shown = [_sample(run, each, out) for each in line.get("samples", ())]
            if shown:
                yield f"<tr><td>step {line['step']:,}<td>{'<br>'.join(shown)}"
        yield "</table>"
        if run.model:
            yield f"<h2>Nearest words of {escape(run.name)}</h2><table>"
            for word, near in _nearest(run):
                yield f"<tr><td>{escape(word)}<td>{escape(', '.join(near))}"
            yield "</table>"


def _sample(run: Run, sample: str, out: Path) -> str:
    """A sampled text, or a picture of the run, which may have been moved."""
    picture = run.folder / "samples" / Path(sample).name
    if picture.suffix == ".png" and picture.is_file():
        return f"<img src='{escape(relpath(picture, out))}' alt='samples'>"
    return escape(sample)
