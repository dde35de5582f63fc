"""The command lines of images: `main("train")`, `main("sample")`, `main("evaluate")`. Imports nothing heavy, so that `--help` answers at once."""

import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import Namespace

from image.config import Evaluation, ImageRun, Sampling
from textdiff.config import InputError, check
from textdiff.folder import check_folder
from textdiff.parser import Commands, Parser, add_train_options, command_line, hush_libraries
from textdiff.processes import everyones, from_main_process, place

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from image.generate import Task
    from image.model import ImageDiffusion


def main(command: str, argv: Sequence[str] | None = None) -> None:
    """One of `COMMANDS`, with this process's arguments unless others are given."""
    add_options, run = COMMANDS[command]
    prog = Path(sys.argv[0]).name if argv is None else f"{command}_image.py"
    command_line({command: (add_options, run)}, argv, prog=prog, description=(add_options.__doc__ or "").split("\n")[0])


# --- train


def train_options(parser: Parser) -> None:
    """Train a U-Net on digits, dots, an idx file, a folder or .zip of images, or a data set of the hub."""
    add_train_options(parser, ImageRun)


def train(options: Namespace) -> None:
    config = ImageRun(**{field.name: options[field.name] for field in fields(ImageRun)})
    check_folder(config, options.resume, options.overwrite)  # before anything slow is imported
    _need_pillow()
    hush_libraries()
    from image import run

    run.train(config, resume=options.resume, overwrite=options.overwrite)


# --- sample


def sample_options(parser: Parser) -> None:
    """Draw images from a model: from noise, around what is known of an image, near an image, or between two."""
    parser.add_argument("model", type=str, help="A run folder, its model/ folder, or a model's name on the Hugging Face hub.")
    parser.add_argument("--n", type=int, default=64, help="How many images.")
    parser.add_class_arguments(Sampling)
    parser.add_argument("--class", type=str | None, dest="label", help="Only of this class, by name or number. Nothing: of all in turn.")
    parser.add_argument("--inpaint", type=str | None, metavar="IMAGE", help="Keep this image where --mask is black.")
    parser.add_argument("--mask", type=str | None, metavar="IMAGE", help="White where --inpaint is to be painted anew.")
    parser.add_argument("--edit", type=str | None, metavar="IMAGE", help="Add noise to this image and resample it.")
    parser.add_argument("--interpolate", type=str, nargs=2, metavar=("A", "B"), help="Go from image A to image B.")
    parser.add_argument("--strength", type=float, default=0.5, help="Noise of --edit and --interpolate: 0 returns the image, 1 forgets it.")
    parser.add_argument("--out", type=str, default="grid.png", help="Where the picture of all images goes.")
    parser.add_argument("--files", type=str | None, metavar="FOLDER", help="Also write each image to a file of its own.")
    parser.add_argument("--gif", type=str | None, metavar="FILE", help="Also write a film of the steps.")


def sample(options: Namespace) -> None:
    check(options.n >= 1, "--n", "at least 1", options.n)
    asked = [f"--{name}" for name in ("inpaint", "edit", "interpolate") if options[name]]
    check(len(asked) < 2, "what to do", "one of --inpaint, --edit and --interpolate", " and ".join(asked))
    for given, other in (("inpaint", "mask"), ("mask", "inpaint")):
        check(not options[given] or bool(options[other]), f"--{given}", f"given with --{other}", options[given])
    check(
        not asked or options.guidance == 1 or options.label is not None, f"--guidance with {''.join(asked)}", "given with --class", options.guidance
    )
    _need_pillow()
    hush_libraries()
    _check_places(options)
    from image.generate import load
    from image.picture import film, grid, picture

    model = load(options.model)
    if options.guidance != 1 and not model.config.classes:
        raise InputError("--guidance: this model was trained without classes")
    pixels, frames = _drawn(model, _task(model, options), options)
    if place().rank > 0:
        return
    grid(pixels).save(options.out)
    if options.gif:
        film(frames, Path(options.gif))
    if options.files:
        for i, image in enumerate(pixels):
            picture(image).save(Path(options.files, f"{i:05d}.png"))
    print(options.out)


def _check_places(options: Namespace) -> None:
    """Whether what is to be drawn can be written, before it is drawn."""
    from image.sources import SUFFIXES

    check(Path(options.out).suffix.lower() in SUFFIXES, "--out", "a file of a known kind, such as .png", options.out)
    check(not options.gif or Path(options.gif).suffix.lower() == ".gif", "--gif", "a .gif file", options.gif)
    for path in filter(None, (options.out, options.gif)):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    if options.files:
        check(not Path(options.files).is_file(), "--files", "a folder", options.files)
        Path(options.files).mkdir(parents=True, exist_ok=True)


def _task(model: "ImageDiffusion", options: Namespace) -> "Task":
    from image import generate

    label = _label(model, options)
    if options.inpaint:
        image, mask = _opened(options.inpaint), _opened(options.mask)
        check(image.size == mask.size, "--mask", "as large as the image, {}x{}".format(*image.size), "{}x{}".format(*mask.size))
        wanted = _shaped(model, mask, channels=1)[0] > 127
        return generate.inpainting(model, _shaped(model, image), wanted, options.n, options.seed, label)
    if options.edit:
        return generate.editing(model, _shaped(model, _opened(options.edit)), options.n, options.seed, options.strength, label)
    if options.interpolate:
        first, second = (_shaped(model, _opened(path)) for path in options.interpolate)
        return generate.interpolating(model, first, second, options.n, options.seed, options.strength, label)
    return generate.from_noise(model, options.n, options.seed, label)


def _label(model: "ImageDiffusion", options: Namespace) -> "Tensor | None":
    """The class asked for, n times."""
    import torch

    classes = model.config.classes
    if options.label is None:
        return None
    if not classes:
        raise InputError(f"--class {options.label}: this model was trained without classes")
    numbered = options.label.isascii() and options.label.isdecimal() and not any(map(str.isdecimal, classes))
    if options.label not in classes and not (numbered and int(options.label) < len(classes)):
        raise InputError(f"--class must be one of {', '.join(classes)}, got {options.label}")
    return torch.full((options.n,), classes.index(options.label) if options.label in classes else int(options.label))


def _opened(path: str) -> "Image":
    from image.sources import decoded

    try:
        return decoded(Path(path).read_bytes())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or 'is no image that can be read'}") from error
    except Exception as error:  # Pillow raises many kinds for what is broken
        raise InputError(f"{path}: {error}") from error


def _shaped(model: "ImageDiffusion", image: "Image", channels: int | None = None) -> "Tensor":
    """As the model's images are."""
    import torch

    from image.sources import MODES, fitted

    wanted, height, width = model.config.shape
    array = torch.from_numpy(fitted(image, (height, width), MODES[channels or wanted]).copy())
    return array.unsqueeze(0) if array.ndim == 2 else array.permute(2, 0, 1).contiguous()


def _drawn(model: "ImageDiffusion", task: "Task", options: Namespace) -> "tuple[Tensor, list[Tensor]]":
    """All images, and the first batch's after every step."""
    from image.generate import finished, generate, precision_for, watched

    sampling, where = Sampling(**{field.name: options[field.name] for field in fields(Sampling)}), place()
    precision = from_main_process(lambda: precision_for(model, sampling.precision), where)
    sampling = replace(sampling, precision=precision)
    drafts = list(everyones(watched(generate(model, task, sampling, where), options.n, sampling), where))
    return finished(drafts), [draft.pixels for draft in drafts if int(draft.rows[0]) == 0]


# --- evaluate


def evaluate_options(parser: Parser) -> None:
    """Judge a model beside training and held-out images, by many figures together."""
    parser.add_argument("model", type=str, help="A run folder.")
    parser.add_class_arguments(Evaluation)


def evaluate(options: Namespace) -> None:
    for module in ("matplotlib", "sklearn"):
        if importlib.util.find_spec(module) is None:
            raise InputError(f"this needs {module}: pip install 'textdiff[image,evaluate]'")
    _need_pillow()
    hush_libraries()
    from image import evaluate as evaluation
    from textdiff.table import lines

    report = evaluation.evaluate(options.model, Evaluation(**{field.name: options[field.name] for field in fields(Evaluation)}))
    print("\n".join(lines(report["table"])))
    if report["classifier_accuracy"]:
        print(f"the classifier, trained on all training images, names {report['classifier_accuracy']:.2%} of the held-out ones")


def _need_pillow() -> None:
    if importlib.util.find_spec("PIL") is None:
        raise InputError("this needs Pillow: pip install 'textdiff[image]'")


COMMANDS: Commands = {
    "train": (train_options, train),
    "sample": (sample_options, sample),
    "evaluate": (evaluate_options, evaluate),
}
