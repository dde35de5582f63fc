"""The examples of docstrings run, in a folder with a text model and an image model."""

import ast
import doctest
import importlib
from collections.abc import Iterator

import pytest
import torch
from pages import ROOT

from image.model import ImageDiffusionConfig, ImageDiffusionModel
from textdiff.text.tokenizer import save_tokenizer

PARSER = doctest.DocTestParser()


def examples() -> Iterator[tuple[str, str, str]]:
    """Module, name and docstring of everything that is documented with examples."""
    for path in sorted([*(ROOT / "textdiff").rglob("*.py"), *(ROOT / "image").rglob("*.py")]):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                docstring = ast.get_docstring(node) or ""
                if PARSER.get_examples(docstring):
                    yield module, getattr(node, "name", module), docstring


EXAMPLES = list(examples())


@pytest.fixture(scope="module")
def runs(model, tokenizer, tmp_path_factory):
    """A folder with runs/text and runs/digits."""
    folder = tmp_path_factory.mktemp("examples")
    model.save_pretrained(folder / "runs/text/model")
    save_tokenizer(tokenizer, folder / "runs/text/model")
    with torch.random.fork_rng():
        small = {"width": 8, "channel_multipliers": [1, 2], "res_blocks": 1}
        images = ImageDiffusionModel(ImageDiffusionConfig(classes=[*"0123456789"], **small))
    images.save_pretrained(folder / "runs/digits/model")
    return folder


@pytest.mark.parametrize(
    ("module", "name", "docstring"), EXAMPLES, ids=[name for _, name, _ in EXAMPLES]
)
def test_examples_of_a_docstring_run(module, name, docstring, runs, monkeypatch):
    monkeypatch.chdir(runs)
    names = vars(importlib.import_module(module)).copy()
    test = PARSER.get_doctest(docstring, names, f"{module}.{name}", None, 0)
    printed: list[str] = []
    assert doctest.DocTestRunner().run(test, out=printed.append).failed == 0, "".join(printed)


def test_pipelines_have_examples():
    assert {"TextDiffusion", "ImageDiffusion", "GenerativePredictor"} <= {n for _, n, _ in EXAMPLES}
