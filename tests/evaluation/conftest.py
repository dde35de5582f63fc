"""Fixtures of the evaluation: a tiny run."""

from pathlib import Path

import pytest

from textdiff.cli.main import main
from textdiff.text import grammar

TINY = (
    "--model.width 32 --model.heads 2 --model.depth 1 --data.length 24 --train.batch_size 16 "
    "--train.precision no --train.steps 4"
)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a run of four steps."""
    folder: Path = tmp_path_factory.mktemp("runs")
    text = folder / "text.txt"
    text.write_text("\n".join(grammar.corpus(400, seed=0)) + "\n", encoding="utf-8")
    path = str(folder / "tiny")
    main(["train", "--run", path, "--data.train", str(text), *TINY.split()])
    return path
