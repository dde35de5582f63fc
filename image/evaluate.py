"""One table in which training images, held-out images and a model's samples have the same columns, and nothing is judged by one figure alone."""

import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from image import metrics
from image.config import Data, Evaluation, ImageRun, Model, Sampling
from image.dots import judge as judge_dots
from image.generate import Draft, finished, from_noise, generate, load
from image.metrics import Classifier, Features, Pixels
from image.model import ImageDiffusion
from image.picture import grid
from image.sources import Images, open_images
from textdiff.config import InputError, Train
from textdiff.folder import saved_config

log = logging.getLogger("textdiff")

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
)


class Judge(NamedTuple):
    """All that images are measured against. Without classes there is no classifier, and without both it and Inception there are no features."""

    training: Images
    held_out: Images
    reference: Images
    classifier: Classifier | None
    featured: Callable[[Pixels], Features] | None


def evaluate(name: str, options: Evaluation) -> dict[str, Any]:
    """Writes report.json, samples.png, nearest.png and figures.png to evaluation/ beside the model; returns what report.json holds."""
    model, (home, saved) = load(name), saved_config(name)
    config = ImageRun(saved["run"], Data(**saved["data"]), Model(**saved["model"]), Train(**saved["train"]))
    training, held_out = open_images(replace(config.data, valid=options.data or config.data.valid))
    rows = torch.from_numpy(np.random.default_rng(1).permutation(len(training)))
    judge = _judge(training, held_out, training[rows[: options.n]], options)
    table = {
        "training images": _figures(training[rows[options.n : 2 * options.n]], judge, trains=False),
        "held-out images": _figures(held_out[: options.n], judge, trains=False),
    }
    if judge.classifier is not None:
        table["training images"]["accuracy_score"] = metrics.accuracy(judge.classifier, held_out)
    own, drawn = _likelihood(model, held_out, options), {}
    for sampler in options.names_of_samplers:
        for steps in options.numbers_of_steps:
            label = f"{sampler} {steps}"
            drawn[label], cost = _samples(model, sampler, steps, options)
            table[label] = own | _figures(drawn[label], judge) | cost
    table = {name: {key: row.get(key) for key in COLUMNS if any(r.get(key) is not None for r in table.values())} for name, row in table.items()}
    _write(table, drawn, judge, Path(options.out) if options.out else home / "evaluation", options)
    return {"table": table}


def _judge(training: Images, held_out: Images, reference: Images, options: Evaluation) -> Judge:
    classifier = metrics.train_classifier(training) if training.labels is not None else None
    if options.inception:
        return Judge(training, held_out, reference, classifier, _inception())
    if classifier is None:
        log.warning("these images have no classes: no classifier can be trained to compare them in its features (--inception for photographs)")
        return Judge(training, held_out, reference, None, None)
    return Judge(training, held_out, reference, classifier, lambda pixels: metrics.features(classifier, pixels))


def _inception() -> Callable[[Pixels], Features]:
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise InputError("--inception needs torch-fidelity: pip install 'textdiff[fidelity]'") from error
    network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"]).eval()

    @torch.no_grad()
    def featured(pixels: Pixels) -> Features:
        return torch.cat([network(part.expand(-1, 3, -1, -1))[0] for part in pixels.split(50)])

    return featured


def _figures(images: Images, judge: Judge, trains: bool = True) -> dict[str, Any]:
    """What can be said of images; `trains`: also how well a classifier does that saw nothing else."""
    figures: dict[str, Any] = {"images": len(images)}
    if judge.featured:
        real, seen = judge.featured(judge.reference.pixels), judge.featured(images.pixels)
        figures["frechet_distance"] = metrics.frechet_distance(real, seen)
        figures["precision"], figures["recall"] = metrics.precision_recall(real, seen)
    if judge.classifier is not None:
        sure, named = metrics.probabilities(judge.classifier, images.pixels).max(-1)
        counts = torch.bincount(named, minlength=len(images.classes))
        figures |= {"confidence": float(sure.mean()), "class_balance": float(counts.max() / counts.min().clamp(min=1))}
        if images.labels is not None:
            figures["agreement"] = float((named == images.labels).float().mean())
            if trains:
                taught = metrics.train_classifier(images, examples=min(120_000, 100 * len(images)))
                figures["accuracy_score"] = metrics.accuracy(taught, judge.held_out)
    if trains:
        figures["nearest_training"] = float(metrics.nearest(images.pixels[:500], judge.training.pixels)[0].mean())
    if images.pixels.shape[1] == 1 and float((judge.training.pixels > 127).flatten(1).sum(1).float().mean()) == 1:  # the built-in dots
        figures["single_dots"], figures["uniform_p"] = judge_dots(images.pixels)
    return figures


def _samples(model: ImageDiffusion, sampler: Any, steps: int, options: Evaluation) -> tuple[Images, dict[str, Any]]:
    """Samples of all classes alike, and what they cost."""
    task, sampling = from_noise(model, options.n, options.seed), Sampling(steps, sampler, options.guidance, options.seed, 100, options.precision)
    began, last = time.perf_counter(), list[Draft]()
    with tqdm(desc=f"sampling {sampler} {steps}", unit="step", leave=False) as bar:
        for draft in generate(model, task, sampling):
            bar.total = draft.steps * math.ceil(options.n / sampling.batch_size)
            bar.update()
            if draft.step == draft.steps:
                last.append(draft)
    cost = {"seconds_per_1000": 1000 * (time.perf_counter() - began) / options.n, "evaluations": steps * (2 if sampler == "heun" else 1)}
    return Images(finished(last), task.label, tuple(model.config.classes)), cost


def _likelihood(model: ImageDiffusion, held_out: Images, options: Evaluation) -> dict[str, Any]:
    scored, key = held_out[: options.scored], torch.arange(min(options.scored, len(held_out)))
    bits, error = metrics.bits_per_dimension(metrics.bound(model, scored.pixels, scored.labels, key), scored.pixels)
    figures: dict[str, Any] = {"bits_per_dimension": bits, "bits_error": error}
    if options.ode > 1:
        few, key = scored[: options.ode], key[: options.ode]
        figures["ode_bits"], figures["ode_bits_error"] = metrics.bits_per_dimension(metrics.ode_bound(model, few.pixels, few.labels, key), few.pixels)
    return figures


def _write(table: dict[str, dict[str, Any]], drawn: dict[str, Images], judge: Judge, folder: Path, options: Evaluation) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps({"table": table}, indent=2) + "\n")
    for name, images in drawn.items():
        grid(images.pixels[:64]).save(folder / f"samples-{name.replace(' ', '-')}.png")
    last = [*drawn.values()][-1].pixels[:10]
    _, found = metrics.nearest(last, judge.training.pixels)
    grid(torch.cat([last, judge.training.pixels[found]]), columns=len(last)).save(folder / "nearest.png")
    if len(options.numbers_of_steps) > 1 and judge.featured:
        _draw(table, options, folder / "steps.png")


def _draw(table: dict[str, dict[str, Any]], options: Evaluation, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 3.6), layout="constrained")
    for sampler in options.names_of_samplers:
        distances = [table[f"{sampler} {steps}"]["frechet_distance"] for steps in options.numbers_of_steps]
        axes.plot(options.numbers_of_steps, distances, "o-", label=sampler)
    axes.axhline(table["held-out images"]["frechet_distance"], color="grey", linestyle=":", label="held-out images")
    axes.set(xscale="log", yscale="log", xlabel="steps", ylabel="Fréchet distance to training images")
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)
