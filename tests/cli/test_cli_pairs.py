"""Models of pairs on the command line: train, generate, and what they refuse."""

import json
from pathlib import Path

import pytest
from cli_runs import SIZE, printed, refusal

from textdiff.cli.main import main
from textdiff.text import grammar


@pytest.fixture(scope="module")
def pairs_run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a model of pairs after two steps."""
    folder = tmp_path_factory.mktemp("pairs")
    rows = [{"a": " ".join(text.split()[:2]), "b": text} for text in grammar.corpus(200, seed=0)]
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    data = ["--data.train", str(path), "--data.source", "a", "--data.target", "b"]
    main(["train", "--run", str(folder / "run"), *data, *SIZE.split(), "--train.steps", "2"])
    return str(folder / "run")


def test_targets_of_a_file_are_those_of_each_source(
    pairs_run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, options = tmp_path / "sources.txt", ["--steps", "2", "--precision", "no"]
    path.write_text("the king\n\na small dog\n", encoding="utf-8")
    lines = printed(capsys, "generate", pairs_run, "--source_file", str(path), *options)
    assert len(lines) == 2
    assert printed(capsys, "generate", pairs_run, "--source", "the king", *options) == lines[:1]


def test_candidates_are_reduced_to_n(pairs_run: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["generate", pairs_run, "--source", "the king", "--n", "2", "--steps", "2"]
    chosen = printed(capsys, *command, "--mbr", "3")
    assert len(chosen) == 2
    assert {*chosen} <= {*printed(capsys, *command, "--n", "6")}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--source", "a", "--source_file", "b"], "--source and --source_file are both given"),
        (
            ["--source", "the king", "--length", "3", "--length_quantile", "0.7"],
            "leave one of them",
        ),
        (["--source", " "], "--source must be a text"),
        (["--source_file", "nowhere.txt"], "nowhere.txt"),
        (["--source", "the king", "--mbr", "0"], "--mbr must be at least 1"),
    ],
)
def test_unusable_sources_are_refused(
    pairs_run: str, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert message in refusal(capsys, "generate", pairs_run, *options)


def test_other_tasks_name_generate(pairs_run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "use textdiff generate" in refusal(capsys, "sample", pairs_run)
    assert "--baselines must be [ar]" in refusal(
        capsys, "evaluate", pairs_run, "--baselines", "[bigram]"
    )


def test_sources_need_a_model_of_pairs(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "this model has no sources" in refusal(capsys, "generate", run, "--source", "the king")
