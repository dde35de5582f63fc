"""Laws of registration: AutoModel knows the models, and importing textdiff stays cheap."""

import subprocess
import sys
from pathlib import Path

import pytest

from image.model import ImageDiffusionConfig, ImageDiffusionModel
from textdiff.text.autoregressive import Autoregressive, AutoregressiveConfig

ROOT = Path(__file__).parents[1]
IMPORTS = [
    "import textdiff, image; from transformers import AutoModel",
    "from transformers import AutoModel; import textdiff, image",
    "import textdiff.hub, image; from transformers import AutoModel",
]


@pytest.fixture(scope="module")
def models(model, tmp_path_factory) -> list[str]:
    """Folders of a model of each kind."""
    folder = tmp_path_factory.mktemp("models")
    small = {"width": 8, "channel_multipliers": [1, 2], "res_blocks": 1}
    shape = AutoregressiveConfig(vocab_size=20, length=12, width=16, heads=2, depth=1)
    kinds = [model, Autoregressive(shape), ImageDiffusionModel(ImageDiffusionConfig(**small))]
    for each in kinds:
        each.save_pretrained(folder / type(each).__name__)
    return [str(folder / type(each).__name__) for each in kinds]


def run(program: str, *arguments: str) -> None:
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr[-2000:]


PROGRAM = """
import sys
from pathlib import Path

imports, *names = sys.argv[1:]
finders = [*sys.meta_path]
for line in imports.splitlines():  # each as in a new process, which would import torch anew
    for module in [*sys.modules]:
        if module.partition(".")[0] in ("textdiff", "image", "transformers"):
            del sys.modules[module]
    sys.meta_path[:] = finders
    scope = {}
    exec(line, scope)
    found = [type(scope["AutoModel"].from_pretrained(name)).__name__ for name in names]
    assert found == [Path(name).name for name in names], line
"""


def test_auto_model_loads_every_kind(models: list[str]) -> None:
    """Whatever was imported first."""
    run(PROGRAM, "\n".join(IMPORTS), *models)


def test_import_loads_no_large_library() -> None:
    run("import sys, textdiff\nassert not {'torch', 'transformers', 'numpy'} & sys.modules.keys()")
