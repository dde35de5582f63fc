"""Models that sections of the report share: trained by the command that a reader would type, unless they are there already."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
TEXTDIFF = (sys.executable, "-m", "textdiff")


def text(folder: Path) -> str:
    return trained(folder / "text", *TEXTDIFF, "train", "--config", "configs/text_demo.yaml")


def dots(folder: Path) -> str:
    return trained(folder / "dots", sys.executable, "scripts/train_image.py", "--config", "configs/image_dots.yaml")


def trained(run: Path, *command: str) -> str:
    if not (run / "model" / "model.safetensors").exists():
        done = subprocess.run([*command, "--run", str(run), "--overwrite"], check=False, cwd=ROOT)
        if done.returncode:
            sys.exit(done.returncode)  # it has said why
    return str(run)
