"""The command lines of images: `main(command)` with one of `COMMANDS`.

This module imports nothing heavy.
"""

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import Namespace

from image.config import (
    EvaluationConfig,
    ImageConfig,
    ImageSamplingConfig,
    check_count,
    check_strength,
    need_pillow,
)
from textdiff.cli.parser import (
    Command,
    Commands,
    add_export_options,
    add_train_options,
    quiet_libraries,
    run_command_line,
)
from textdiff.config import UserError, check
from textdiff.options import OptionParser, from_options
from textdiff.training.run_dir import open_run_dir

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
    need_pillow()
    quiet_libraries()
    from image.train import train

    train(config, run_dir)


def add_sample(parser: OptionParser) -> None:
    """Sample images: new ones, or by inpainting, editing or interpolating images."""
    add = parser.add_argument
    add("model", type=str, help=MODEL_HELP)
    add("--n", type=int, default=64, help="Number of images.")
    parser.add_class_arguments(ImageSamplingConfig, skip={"label"})
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
    add("--strength", type=float | None, help=help_ + " If null, 0.5.")
    add("--out", type=str, default="grid.png", help="File for a grid of all images.")
    help_ = "Also write each image to a file in this folder."
    add("--files", type=str | None, metavar="FOLDER", help=help_)
    add("--gif", type=str | None, metavar="FILE", help="Also write an animation of the steps.")


def sample(options: Namespace) -> None:
    """Samples images and writes them to files."""
    _check_task(options)
    need_pillow()
    quiet_libraries()
    _check_outputs(options)
    from image.sampling import load_model
    from image.writer import ImageWriter, do_task, read_images

    images, model = read_images(options), load_model(options.model)
    do_task(ImageWriter(model, options.out, options.files, options.gif), images, options)


def _check_task(options: Namespace) -> None:
    """Raises UserError if options are impossible, contradict each other or need another one."""
    from_options(ImageSamplingConfig, options)
    check_count(options.n)
    check(
        options.n >= 2 or not options.interpolate, "--n of --interpolate", "at least 2", options.n
    )
    tasks = [f"--{name}" for name in ("inpaint", "edit", "interpolate") if options[name]]
    if len(tasks) > 1:
        raise UserError(f"{' and '.join(tasks)} cannot be combined: give one of them")
    if options.strength is not None and not (options.edit or options.interpolate):
        raise UserError("--strength needs --edit or --interpolate")
    options.strength = 0.5 if options.strength is None else options.strength
    check_strength(options.strength)
    for given, other in (("inpaint", "mask"), ("mask", "inpaint")):
        if options[given] and not options[other]:
            raise UserError(f"--{given} needs --{other}")


def add_evaluate(parser: OptionParser) -> None:
    """Compare samples of a model with training images and held-out images."""
    parser.add_argument("model", type=str, help="Run folder.")
    parser.add_class_arguments(EvaluationConfig)


def evaluate(options: Namespace) -> None:
    """Evaluates an image model and prints the table."""
    config = from_options(EvaluationConfig, options)
    for module in ("matplotlib", "sklearn"):
        if importlib.util.find_spec(module) is None:
            raise UserError(f"this needs {module}: pip install 'textdiff[image,evaluate]'")
    need_pillow()
    quiet_libraries()
    from image.evaluate import evaluate
    from textdiff.table import table_lines
    from textdiff.training.card import add_evaluation

    command = "python scripts/evaluate_image.py"
    table = (report := evaluate(options.model, config))["table"]
    own = [row for row in table if row != "training images"]
    add_evaluation(options.model, table, own, command, config)
    print("\n".join(table_lines(table)))
    if accuracy := report["classifier_accuracy"]:
        trained = "a classifier trained on all training images"
        print(f"{trained} has an accuracy of {accuracy:.2%} on held-out images")


def add_export(parser: OptionParser) -> None:
    """Write the U-Net of a model to a file for other programs, and check it there."""
    parser.add_argument("model", type=str, help=MODEL_HELP)
    add_export_options(parser)


def export(options: Namespace) -> None:
    """Writes the U-Net of a model to a file, and prints what it takes and gives."""
    need_pillow()
    quiet_libraries()
    from image.export import image_graph
    from image.sampling import load_model
    from textdiff.export import export_onnx, need_onnx

    need_onnx()
    print(export_onnx(image_graph(load_model(options.model)), Path(options.out)))


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


COMMANDS: Commands = {
    "train": Command(add_train, train),
    "sample": Command(add_sample, sample),
    "evaluate": Command(add_evaluate, evaluate),
    "export": Command(add_export, export),
}
