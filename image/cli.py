"""The command lines of images: `main("train")`, `main("sample")` and `main("evaluate")`.

This module imports nothing heavy.
"""

import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import Namespace

from image.config import (
    SAMPLER,
    SAMPLING_STEPS,
    EvaluationConfig,
    ImageConfig,
    Order,
    check_guidance_scale,
)
from textdiff.cli.parser import (
    Command,
    Commands,
    add_train_options,
    quiet_libraries,
    run_command_line,
)
from textdiff.config import SamplingConfig, UserError, check
from textdiff.distributed import current_process
from textdiff.options import OptionParser, from_options
from textdiff.training.run_dir import open_run_dir

if TYPE_CHECKING:
    from torch import Tensor

    from image.model import ImageDiffusion
    from image.sampling import Request

MODEL_HELP = "Run folder, its model/ folder, or a model on the Hugging Face hub."


def main(command: str, argv: Sequence[str] | None = None) -> None:
    """Runs a command.

    Args:
        command: Name in `COMMANDS`.
        argv: Arguments, by default those of this process.
    """
    prog = Path(sys.argv[0]).name if argv is None else f"{command}_image.py"
    chosen = COMMANDS[command]
    run_command_line({command: chosen}, argv, prog=prog, description=chosen.summary)


def add_train(parser: OptionParser) -> None:
    """Train a U-Net on digits, dots, an idx file, a folder or .zip of images, or the hub."""
    add_train_options(parser, ImageConfig)


def train(options: Namespace) -> None:
    """Trains an image model."""
    config = from_options(ImageConfig, options)
    run_dir = open_run_dir(config, resume=options.resume, overwrite=options.overwrite)
    _need_pillow()
    quiet_libraries()
    from image.train import train

    train(config, run_dir)


def add_sample(parser: OptionParser) -> None:
    """Sample images: new ones, or by inpainting, editing or interpolating images."""
    add = parser.add_argument
    add("model", type=str, help=MODEL_HELP)
    add("--n", type=int, default=64, help="Number of images.")
    parser.add_class_arguments(SamplingConfig)
    parser.set_defaults(steps=SAMPLING_STEPS, sampler=SAMPLER)
    help_ = "Scale of classifier-free guidance towards the class. 1 is no guidance."
    add("--guidance_scale", type=float, default=1.0, help=help_)
    help_ = "Name or number of the class. If null, all classes in turn."
    add("--class", type=str | None, dest="label", help=help_)
    help_ = "Keep this image where --mask is black."
    add("--inpaint", type=str | None, metavar="IMAGE", help=help_)
    help_ = "White where --inpaint is to be painted."
    add("--mask", type=str | None, metavar="IMAGE", help=help_)
    help_ = "Add noise to this image and resample it."
    add("--edit", type=str | None, metavar="IMAGE", help=help_)
    help_ = "Interpolate from image A to image B."
    add("--interpolate", type=str, nargs=2, metavar=("A", "B"), help=help_)
    help_ = "Noise of --edit and --interpolate, from 0 (none) to 1 (nothing of the image is left)."
    add("--strength", type=float, default=0.5, help=help_)
    help_ = "Order in which pixels lose their noise, for a model with model.stagger_prob above 0."
    add("--order", type=Order, default="parallel", help=help_)
    help_ = "Number of pixels that lose their noise at the same time in other orders. If null, 1."
    add("--window", type=int | None, help=help_)
    add("--out", type=str, default="grid.png", help="File for a grid of all images.")
    help_ = "Also write each image to a file in this folder."
    add("--files", type=str | None, metavar="FOLDER", help=help_)
    add("--gif", type=str | None, metavar="FILE", help="Also write an animation of the steps.")


def sample(options: Namespace) -> None:
    """Samples images and writes them to files."""
    check(1 <= options.n <= 10**6, "--n", "between 1 and 1,000,000", options.n)
    check_guidance_scale(options.guidance_scale)
    _check_task(options)
    _need_pillow()
    quiet_libraries()
    _check_outputs(options)
    from image.grid import animation, grid, to_image
    from image.inputs import read_request
    from image.sampling import in_order, load_model

    model = load_model(options.model)
    if options.guidance_scale != 1 and not model.config.classes:
        raise UserError("--guidance_scale: this model was trained without classes")
    request = in_order(model, read_request(model, options), options.order, options.window)
    pixels, frames = _generate(model, request, options)
    if current_process().rank > 0:
        return
    grid(pixels).save(options.out)
    if options.gif:
        animation(frames, Path(options.gif))
    if options.files:
        for i, image in enumerate(pixels):
            to_image(image).save(Path(options.files, f"{i:05d}.png"))
    print(options.out)


def _check_task(options: Namespace) -> None:
    """Raises UserError if options contradict each other or need another one."""
    tasks = [f"--{name}" for name in ("inpaint", "edit", "interpolate") if options[name]]
    if len(tasks) > 1:
        raise UserError(f"{' and '.join(tasks)} cannot be combined: give one of them")
    for given, other in (("inpaint", "mask"), ("mask", "inpaint")):
        if options[given] and not options[other]:
            raise UserError(f"--{given} needs --{other}")
    if tasks and options.guidance_scale != 1 and options.label is None:
        raise UserError(f"{tasks[0]} with --guidance_scale needs --class")


def add_evaluate(parser: OptionParser) -> None:
    """Compare samples of a model with training images and held-out images."""
    parser.add_argument("model", type=str, help="Run folder.")
    parser.add_class_arguments(EvaluationConfig)


def evaluate(options: Namespace) -> None:
    """Evaluates an image model and prints the table."""
    for module in ("matplotlib", "sklearn"):
        if importlib.util.find_spec(module) is None:
            raise UserError(f"this needs {module}: pip install 'textdiff[image,evaluate]'")
    _need_pillow()
    quiet_libraries()
    from image.evaluate import evaluate
    from textdiff.table import table_lines

    report = evaluate(options.model, from_options(EvaluationConfig, options))
    print("\n".join(table_lines(report["table"])))
    if accuracy := report["classifier_accuracy"]:
        trained = "a classifier trained on all training images"
        print(f"{trained} has an accuracy of {accuracy:.2%} on held-out images")


def _check_outputs(options: Namespace) -> None:
    """Raises UserError if the output files cannot be written, before anything is sampled."""
    from image.sources import SUFFIXES

    suffix = Path(options.out).suffix.lower()
    check(suffix in SUFFIXES, "--out", "an image file such as grid.png", options.out)
    is_gif = not options.gif or Path(options.gif).suffix.lower() == ".gif"
    check(is_gif, "--gif", "a .gif file", options.gif)
    for path in filter(None, (options.out, options.gif)):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    if options.files:
        check(not Path(options.files).is_file(), "--files", "a folder", options.files)
        Path(options.files).mkdir(parents=True, exist_ok=True)


def _generate(
    model: "ImageDiffusion", request: "Request", options: Namespace
) -> "tuple[Tensor, list[Tensor]]":
    """All images, and those of the first batch after every step."""
    import torch

    from image.sampling import generate
    from textdiff.sampling import collect, gather_batches, sampling_precision, with_progress

    process, config = current_process(), from_options(SamplingConfig, options)
    config = replace(config, precision=sampling_precision(model, config.precision, process))
    count = -(-options.n // (config.batch_size * process.world))
    batches = generate(model, request, config, process)
    shown = with_progress(batches, count, hide=process.rank > 0)
    done = list(gather_batches(shown, process))
    frames = [torch.stack([*batch.samples]) for batch in done if batch.rows[0] == 0]
    return torch.stack([*collect(done)]), frames


def _need_pillow() -> None:
    if importlib.util.find_spec("PIL") is None:
        raise UserError("this needs Pillow: pip install 'textdiff[image]'")


COMMANDS: Commands = {
    "train": Command(add_train, train),
    "sample": Command(add_sample, sample),
    "evaluate": Command(add_evaluate, evaluate),
}
