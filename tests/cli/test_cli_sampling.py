"""Sampling from the command line."""

import json
from pathlib import Path

import pytest
from cli_runs import TINY, printed

from textdiff.cli.main import main


def test_samples_do_not_depend_on_n(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Sentence i depends only on the seed and on i."""
    options = ["--steps", "3", "--precision", "no"]
    five = printed(capsys, "sample", run, "--n", "5", *options)
    assert five[:2] == printed(capsys, "sample", run, "--n", "2", "--batch-size", "1", *options)
    assert five != printed(capsys, "sample", run, "--n", "5", "--seed", "1", *options)


def test_jsonl_has_the_same_sentences(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["sample", run, "--n", "2", "--steps", "3"]
    lines = printed(capsys, *command, "--format", "jsonl")
    assert [json.loads(line)["text"] for line in lines] == printed(capsys, *command)


def test_rewrite_at_strength_zero_returns_text(
    run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "The  unheard-of Queen, sings !"
    lines = printed(capsys, "rewrite", run, "--text", text, "--strength", "0", "--n", "2")
    assert lines == [text, text]


def test_infill_keeps_given_characters(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = "The  Queen [MASK] zebra."
    (line,) = printed(capsys, "infill", run, "--text", text, "--n", "1", "--steps", "3")
    assert line.startswith("The  Queen")
    assert line.endswith(" zebra.")
    assert "[MASK]" not in line


@pytest.mark.parametrize("text", ["The Queen", "--well-known king"])
def test_continue_keeps_beginning(run: str, capsys: pytest.CaptureFixture[str], text: str) -> None:
    """A text may begin with dashes."""
    lines = printed(capsys, "continue", run, "--text", text, "--n", "3", "--steps", "3")
    assert all(line.startswith(text) and len(line) > len(text) for line in lines)
    assert len(lines) == 3


def test_show_steps_prints_every_step(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    main(["sample", run, "--n", "2", "--steps", "3", "--show-steps"])
    lines = capsys.readouterr().err.splitlines()
    assert sum(line.startswith("step") for line in lines) == 6


def test_words_printed_one_by_one_are_the_text(
    run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["continue", run, "--text", "the king", "--n", "1", "--order", "left-to-right"]
    (line,) = printed(capsys, *command, "--format", "jsonl")
    assert printed(capsys, *command) == [json.loads(line)["text"]]


def test_documents_are_longer_than_training_texts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Words are printed while the text is written, and the same text comes out at once."""
    run = str(tmp_path / "run")
    options = ["--run", run, "--data.pack", "true", "--train.steps", "2", "--train.warmup", "1"]
    main(["train", *TINY, *options])
    command = ["sample", run, "--n", "1", "--length", "70", "--steps", "2"]
    (line,) = printed(capsys, *command)
    assert 50 < len(line.split()) <= 70
    (entry,) = printed(capsys, *command, "--format", "jsonl")
    assert json.loads(entry)["text"] == line
    ending = printed(capsys, "continue", run, "--text", line, "--n", "1", "--steps", "2")
    assert ending[0].startswith(line)
    assert len(ending[0]) > len(line)
