"""One table in which training images and a model's samples have the same columns, all compared with held-out images; no figure is trusted alone."""

import json
import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from image import metrics
from image.config import Evaluation, ImageRun, Sampling
from image.dots import judge as judge_dots
from image.generate import finished, from_noise, generate, load, watched
from image.metrics import Classifier, Features, Pixels
from image.model import ImageDiffusion
from image.picture import grid
from image.sources import Images, images_of, open_images
from textdiff.config import InputError
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
    "compared",
)
LEAST = 20  # images that can be compared at all


class Judge(NamedTuple):
    """All that images are measured against. Without classes there is no classifier, and without both it and Inception there are no features.

    Args:
        reference: features of held-out images, with which as many of each row are compared.
        dots: whether these are the built-in dots, which can be counted.
    """

    training: Images
    held_out: Images
    classifier: Classifier | None
    featured: Callable[[Pixels], Features] | None
    reference: Features | None
    dots: bool


def evaluate(name: str, options: Evaluation) -> dict[str, Any]:
    """Writes report.json, grids of samples, nearest.png and, for several numbers of steps, steps.png to evaluation/ beside the model; returns what
    report.json holds."""
    model, (home, config) = load(name), saved_config(name, ImageRun)
    training, held_out = open_images(config.data)
    if options.data:
        held_out = images_of(options.data, "--data", model.config.shape)
    if held_out.classes != training.classes:
        raise InputError(f"--data {options.data} has the classes {', '.join(held_out.classes) or '(none)'}, not those of the run")
    judge = _judge(training, held_out, options, config.data.train == "dots")
    real = training[torch.from_numpy(np.random.default_rng(1).permutation(len(training)))[: options.n]]
    table, own, drawn = {"training images": _figures(real, judge)}, _likelihood(model, held_out, options), dict[str, Images]()
    for sampler in options.names_of_samplers:
        for steps in options.numbers_of_steps:
            label = f"{sampler} {steps}"
            drawn[label], cost = _samples(model, sampler, steps, options)
            nearest = {"nearest_training": float(metrics.nearest(drawn[label].pixels[:500], training.pixels)[0].mean())}
            table[label] = own | _figures(drawn[label], judge) | nearest | cost
    table = {name: {key: row.get(key) for key in COLUMNS if any(r.get(key) is not None for r in table.values())} for name, row in table.items()}
    accuracy = judge.classifier and metrics.accuracy(judge.classifier, held_out)
    report = {"table": table, "classifier_accuracy": accuracy, "held_out_images": len(held_out)}
    _write(report, drawn, judge, Path(options.out) if options.out else home / "evaluation", options)
    return report


def _judge(training: Images, held_out: Images, options: Evaluation, dots: bool) -> Judge:
    compared = held_out.pixels[: min(options.n, len(training))]
    if len(compared) < LEAST:
        raise InputError(f"{len(compared)} held-out images are too few to compare with, {LEAST} are needed: give --data, or train with more of them")
    classifier = metrics.train_classifier(training) if training.labels is not None else None
    featured = _inception() if options.inception else partial(metrics.features, classifier) if classifier else None
    if featured is None:
        log.warning("these images have no classes: no classifier can be trained to compare them in its features (--inception for photographs)")
    return Judge(training, held_out, classifier, featured, featured(compared) if featured else None, dots)


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


def _figures(images: Images, judge: Judge) -> dict[str, Any]:
    """What can be said of images, real or not."""
    figures: dict[str, Any] = {"images": len(images)}
    if judge.featured and judge.reference is not None:
        seen = judge.featured(images.pixels[: len(judge.reference)])
        figures |= {"compared": len(seen), "frechet_distance": metrics.frechet_distance(judge.reference[: len(seen)], seen)}
        figures["precision"], figures["recall"] = metrics.precision_recall(judge.reference[: len(seen)], seen)
    if judge.classifier is not None:
        sure, named = metrics.probabilities(judge.classifier, images.pixels).max(-1)
        counts = torch.bincount(named, minlength=len(images.classes))
        figures |= {"confidence": float(sure.mean()), "class_balance": float(counts.max() / counts.min().clamp(min=1))}
        figures["agreement"] = float(named.eq(torch.as_tensor(images.labels)).float().mean())
        taught = metrics.train_classifier(images, examples=min(120_000, 100 * len(images)))
        figures["accuracy_score"] = metrics.accuracy(taught, judge.held_out)
    if judge.dots:
        figures["single_dots"], figures["uniform_p"] = judge_dots(images.pixels)
    return figures


def _samples(model: ImageDiffusion, sampler: Any, steps: int, options: Evaluation) -> tuple[Images, dict[str, Any]]:
    """Samples of all classes alike, and what they cost."""
    task, sampling = from_noise(model, options.n, options.seed), Sampling(steps, sampler, options.guidance, options.seed, 100, options.precision)
    began = time.perf_counter()
    pixels = finished(watched(generate(model, task, sampling), options.n, sampling, f"sampling {sampler} {steps}"))
    cost = {"seconds_per_1000": 1000 * (time.perf_counter() - began) / options.n, "evaluations": steps * (2 if sampler == "heun" else 1)}
    return Images(pixels, task.label, tuple(model.config.classes)), cost


def _likelihood(model: ImageDiffusion, held_out: Images, options: Evaluation) -> dict[str, Any]:
    scored, key = held_out[: options.scored], torch.arange(min(options.scored, len(held_out)))
    bits, error = metrics.bits_per_dimension(metrics.bound(model, scored.pixels, scored.labels, key), scored.pixels)
    figures: dict[str, Any] = {"bits_per_dimension": bits, "bits_error": error}
    if options.ode > 1:
        few, key = scored[: options.ode], key[: options.ode]
        figures["ode_bits"], figures["ode_bits_error"] = metrics.bits_per_dimension(metrics.ode_bound(model, few.pixels, few.labels, key), few.pixels)
    return figures


def _write(report: dict[str, Any], drawn: dict[str, Images], judge: Judge, folder: Path, options: Evaluation) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    for name, images in drawn.items():
        grid(images.pixels[:64]).save(folder / f"samples-{name.replace(' ', '-')}.png")
    last = [*drawn.values()][-1].pixels[:500]
    distance, found = metrics.nearest(last, judge.training.pixels)
    closest = distance.argsort()[:12]  # those that look most like copies, above the training images they are like
    grid(torch.cat([last[closest], judge.training.pixels[found[closest]]]), columns=len(closest)).save(folder / "nearest.png")
    if len(options.numbers_of_steps) > 1 and judge.featured:
        _draw(report["table"], options, folder / "steps.png")


def _draw(table: dict[str, dict[str, Any]], options: Evaluation, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 3.6), layout="constrained")
    for sampler in options.names_of_samplers:
        distances = [table[f"{sampler} {steps}"]["frechet_distance"] for steps in options.numbers_of_steps]
        axes.plot(options.numbers_of_steps, distances, "o-", label=sampler)
    axes.axhline(table["training images"]["frechet_distance"], color="grey", linestyle=":", label="training images")
    axes.set(xscale="log", yscale="log", xlabel="steps", ylabel="Fréchet distance to held-out images")
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)
