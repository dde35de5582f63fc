"""Sampling from the command line."""

import json

import pytest
from cli_runs import printed

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


@pytest.mark.parametrize("text", ["The Queen", "--well-known place"])
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
