"""Evaluation of an image model: one table for training images and samples.

All rows have the same columns and are compared with held-out images. No single metric decides.
"""

import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from image.config import EvaluationConfig, ImageConfig
from image.evaluator import build_evaluator
from image.likelihood import bits_per_dimension, negative_elbo, ode_negative_elbo
from image.model import ImageDiffusionModel
from image.report import with_columns, write_report
from image.sampling import generate, in_order, load_model, sample_request
from image.sources import Images, open_images, read_images
from textdiff.config import SamplingConfig, UserError
from textdiff.diffusion.samplers import EVALUATIONS
from textdiff.sampling import collect, with_progress
from textdiff.training.run_dir import load_config_of


def evaluate(name: str, options: EvaluationConfig) -> dict[str, Any]:
    """Evaluates a model and writes evaluation/ into its run folder.

    Args:
        name: A run folder or its model/ folder.

    Returns:
        The content of report.json.

    Raises:
        UserError: If the held-out images cannot be used.
    """
    model, (run, config) = load_model(name), load_config_of(name, ImageConfig)
    training, held_out = open_images(config.data)
    if options.data:
        held_out = read_images(options.data, "--data", model.config.shape)
    if held_out.classes != training.classes:
        found, expected = (", ".join(each.classes) or "(none)" for each in (held_out, training))
        raise UserError(f"--data {options.data} has the classes {found}, the run {expected}")
    evaluator = build_evaluator(training, held_out, options, config.data.train == "dots")
    order = torch.from_numpy(np.random.default_rng(1).permutation(len(training)))
    table = {"training images": evaluator.metrics_of(training[order[: options.n]])}
    likelihood, samples = _likelihood(model, held_out, options), dict[str, Images]()
    for sampler, steps in product(options.sampler_names, options.step_counts):
        row = f"{sampler} {steps}"
        samples[row], cost = _sample(model, sampler, steps, options)
        table[row] = likelihood | evaluator.metrics_of(samples[row]) | cost
        table[row]["nearest_training"] = evaluator.nearest_training(samples[row])
    report = {
        "table": with_columns(table),
        "classifier_accuracy": evaluator.held_out_accuracy(),
        "held_out_images": len(held_out),
    }
    folder = Path(options.out) if options.out else run / "evaluation"
    write_report(report, samples, evaluator, folder, options)
    return report


def _sample(
    model: ImageDiffusionModel, sampler: Any, steps: int, options: EvaluationConfig
) -> tuple[Images, dict[str, Any]]:
    """Samples of all classes in turn, and their cost."""
    request = sample_request(model, options.n, options.seed, None, options.guidance_scale)
    request = in_order(model, request, options.order, options.window)
    sampling = SamplingConfig(steps, sampler, options.seed, 100, options.precision)
    start, count = time.perf_counter(), -(-options.n // sampling.batch_size)
    batches = generate(model, request, sampling)
    shown = with_progress(batches, count, label=f"sampling {sampler} {steps}")
    pixels = torch.stack([*collect(shown)])
    cost = {
        "seconds_per_1000": 1000 * (time.perf_counter() - start) / options.n,
        "evaluations": steps * EVALUATIONS[sampler],
    }
    return Images(pixels, request.label, tuple(model.config.classes)), cost


def _likelihood(
    model: ImageDiffusionModel, held_out: Images, options: EvaluationConfig
) -> dict[str, Any]:
    """Bits per dimension of held-out images, with standard errors."""
    scored, key = held_out[: options.scored], torch.arange(min(options.scored, len(held_out)))
    nats = negative_elbo(model, scored.pixels, scored.labels, key)
    bits, error = bits_per_dimension(nats, scored.pixels)
    found = {"bits_per_dimension": bits, "bits_error": error}
    if options.ode:
        few, key = scored[: options.ode], key[: options.ode]
        nats = ode_negative_elbo(model, few.pixels, few.labels, key)
        found["ode_bits"], found["ode_bits_error"] = bits_per_dimension(nats, few.pixels)
    return found
