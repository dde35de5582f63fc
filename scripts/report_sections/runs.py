"""Models that sections share. They are trained by the usual commands, unless they exist."""

import subprocess
import sys
from pathlib import Path

from textdiff import TextDiffusion
from textdiff.text.task import TextOutput

ROOT = Path(__file__).parents[2]
TEXTDIFF = (sys.executable, "-m", "textdiff")
TRAIN_IMAGE = (sys.executable, "scripts/train_image.py")


def text_run(folder: Path) -> str:
    """Run folder of a text model of the built-in grammar."""
    options = ("--config", "configs/text_demo.yaml", "--train.steps", "1000")
    return _train(folder / "text", *TEXTDIFF, "train", *options)


def dots_run(folder: Path) -> str:
    """Run folder of an image model of the built-in dots."""
    options = ("--config", "configs/image_dots.yaml", "--train.steps", "400")
    return _train(folder / "dots", *TRAIN_IMAGE, *options)


def sentences(pipe: TextDiffusion, output: TextOutput) -> list[str]:
    """The texts with a space before the full stop as well, as the grammar needs them."""
    return [" ".join(map(pipe.tokenizer.id_to_token, ids)) for ids in output.sequences]


def _train(run: Path, *command: str) -> str:
    if not (run / "model" / "model.safetensors").exists():
        options = ("--run", str(run), "--overwrite")
        finished = subprocess.run([*command, *options], check=False, cwd=ROOT)
        if finished.returncode:
            sys.exit(finished.returncode)  # it has printed its error
    return str(run)
