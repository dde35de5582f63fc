"""A trained run for the tests of the command line."""

import shutil
from pathlib import Path

import pytest
from cli_runs import TINY

from textdiff.cli.main import main


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a run of four steps. Tests must not change it."""
    folder = str(tmp_path_factory.mktemp("runs") / "tiny")
    steps = "--train.steps 4 --train.log_every 1 --train.save_every 2"
    main(["train", "--run", folder, *TINY, *steps.split()])
    return folder


@pytest.fixture
def copied(run: str, tmp_path: Path) -> Path:
    """A copy of the run, which a test may change."""
    return shutil.copytree(run, tmp_path / "copied")
