"""Options of tiny runs, and functions that run commands and read their output."""

import json
import sys
import tempfile
from pathlib import Path

import pytest

from textdiff.cli.main import main
from textdiff.text import grammar

FOLDER = tempfile.TemporaryDirectory(prefix="textdiff-tests-")
TEXT = Path(FOLDER.name) / "text.txt"
TEXT.write_text("\n".join(grammar.corpus(400, seed=0)) + "\n", encoding="utf-8")
SIZE = (
    "--model.heads 2 --model.width 32 --model.depth 1 --data.length 24 --train.batch_size 16 "
    "--train.precision no"
)
TINY = ["--data.train", str(TEXT), *SIZE.split()]
TRAIN_SCRIPT = [sys.executable, "scripts/train_text.py"]


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """Runs a command and returns the lines of its standard output."""
    capsys.readouterr()
    main(arguments)
    return capsys.readouterr().out.splitlines()


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Runs a command that must fail, and returns its only line of error."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    (error,) = (line for line in lines if line.startswith("textdiff: error:"))
    return error


def read_log(run: str | Path) -> list[dict]:
    """The lines of metrics.jsonl."""
    text = (Path(run) / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def logged_steps(run: str | Path) -> list[int]:
    """The steps with a loss in metrics.jsonl."""
    return [line["step"] for line in read_log(run) if "ce" in line]
