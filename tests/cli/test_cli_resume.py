"""Resuming of runs from the command line."""

import json
from pathlib import Path

import pytest
from cli_runs import TINY, logged_steps, refusal

from textdiff.cli.main import main
from textdiff.text import grammar


def write_corpus(path: Path, seed: int) -> None:
    path.write_text("\n".join(grammar.corpus(300, seed=seed)) + "\n", encoding="utf-8")


def test_resume_of_finished_run_changes_nothing(copied: Path) -> None:
    before = (copied / "model" / "model.safetensors").read_bytes()
    main(["train", "--run", str(copied), *TINY, "--train.steps", "4", "--resume"])
    assert (copied / "model" / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize(("name", "old", "new"), [("width", 32, 64), ("depth", 1, 2)])
def test_resume_with_another_model_is_refused(
    run: str, capsys: pytest.CaptureFixture[str], name: str, old: int, new: int
) -> None:
    before = (Path(run) / "config.yaml").read_bytes()
    line = refusal(capsys, "train", "--run", run, "--resume", f"--model.{name}", str(new))
    assert f"--resume cannot change model.{name} from {old} to {new}: leave it out" in line
    assert (Path(run) / "config.yaml").read_bytes() == before


def test_edited_size_of_the_model_is_named(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copied / "config.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("  width: 32", "  width: 64"), encoding="utf-8")
    line = refusal(capsys, "train", "--run", str(copied), "--resume")
    assert f"{path} has model.width 64, the trained model has 32: write 32 there" in line


def test_text_with_few_pairs_can_be_resumed(tmp_path: Path) -> None:
    """It has fewer pairs and contexts than the options allow."""
    text, folder = tmp_path / "my.txt", tmp_path / "run"
    text.write_text("a dog barks .\nthe dog sleeps .\n" * 60, encoding="utf-8")
    small = ["--data.train", str(text), "--run", str(folder), *TINY, "--model.objective", "ce"]
    main(["train", *small, "--train.steps", "2"])
    config = json.loads((folder / "model" / "config.json").read_text(encoding="utf-8"))
    assert 0 < config["prior_contexts"] < 2000
    main(["train", "--run", str(folder), "--resume", "--train.steps", "3"])
    assert logged_steps(folder)[-1] == 3


def test_resume_takes_saved_options_then_given_ones(copied: Path) -> None:
    main(["train", "--run", str(copied), "--resume", "--train.steps", "6"])
    assert logged_steps(copied) == [1, 2, 3, 4, 5, 6]


def test_resume_finds_run_in_config_file(copied: Path, tmp_path: Path) -> None:
    """A later --run or --config takes precedence, as for all options."""
    path = tmp_path / "options.yaml"
    path.write_text(f"run: {copied}\ntrain:\n  steps: 5\n", encoding="utf-8")
    main(["train", "--resume", "--run", "elsewhere", "--config", str(path)])
    assert logged_steps(copied) == [1, 2, 3, 4, 5]


def test_resume_to_fewer_steps_is_refused(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", "--run", run, "--resume", "--train.steps", "2"]
    assert "at step 4 already" in refusal(capsys, *command)


def test_refused_resume_changes_nothing(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (copied / "config.yaml").read_bytes()
    options = ["--train.optimizer", "adamw", "--train.steps", "6"]
    assert "--train.optimizer muon" in refusal(
        capsys, "train", "--run", str(copied), "--resume", *options
    )
    assert (copied / "config.yaml").read_bytes() == before


def test_resume_without_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refusal(capsys, "train", "--run", str(tmp_path / "none"), "--resume")
    assert f"{tmp_path / 'none'} holds no run to continue" in line


def test_resume_belongs_to_training_only(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "unrecognized arguments: --resume" in refusal(capsys, "sample", run, "--resume")


def test_help_comes_before_resume(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["train", "--resume", "--run", "none", "--help"])
    assert exit_.value.code == 0
    assert "usage: textdiff" in capsys.readouterr().out


def test_resume_removes_incomplete_log_line(copied: Path) -> None:
    log = copied / "metrics.jsonl"
    complete = log.read_text(encoding="utf-8")
    log.write_text(complete + '{"step": 4, "ce"', encoding="utf-8")
    main(["train", "--run", str(copied), "--resume"])
    assert log.read_text(encoding="utf-8") == complete


def test_resume_with_changed_text_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, folder = tmp_path / "text.txt", str(tmp_path / "run")
    write_corpus(text, seed=0)
    main(["train", "--run", folder, *TINY, "--data.train", str(text), "--train.steps", "2"])
    write_corpus(text, seed=1)
    line = refusal(capsys, "train", "--run", folder, "--resume", "--train.steps", "4")
    assert "the training text changed" in line


def test_resume_and_overwrite_exclude_each_other(
    run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refusal(capsys, "train", "--run", run, "--resume", "--overwrite")
    assert "--resume continues a run and --overwrite deletes it" in line
