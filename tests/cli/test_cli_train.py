"""Training from the command line."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from cli_runs import TINY, logged_steps, read_log, refusal

from textdiff.cli.main import main

IMPOSSIBLE = ["--model.schedule", "sqrt", "--model.logsnr_min", "5"]


def test_run_folder_has_all_files(run: str) -> None:
    names = {path.name for path in Path(run).iterdir()}
    assert {"config.yaml", "metrics.jsonl", "state", "model"} <= names
    model = {path.name for path in (Path(run) / "model").iterdir()}
    files = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"}
    assert files <= model
    assert logged_steps(run) == [1, 2, 3, 4]
    assert any("context_gain/-3" in line and line["samples"] for line in read_log(run))


def test_minutes_replace_steps(tmp_path: Path) -> None:
    start, folder = time.perf_counter(), tmp_path / "timed"
    main(["train", "--run", str(folder), *TINY, "--train.minutes", "0.05"])
    options = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["train"]
    assert options["minutes"] is None
    assert options["steps"] == read_log(folder)[-1]["step"]
    assert time.perf_counter() - start > 1.5  # half of the three seconds


def test_untrained_model_gets_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = [*TINY, "--model.prior", "unigram", "--train.steps", "1"]
    main(["train", "--run", str(tmp_path / "run"), *options])
    assert "unrelated words" in caplog.messages[-1]


def test_run_is_checked_before_heavy_imports(run: str) -> None:
    call = f"main(['train', '--run', {run!r}])"
    code = f"import sys; from textdiff.cli.main import main\ntry: {call}\n"
    code += "finally: assert 'torch' not in sys.modules"
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert (result.returncode, "already holds a run" in result.stderr) == (2, True), result.stderr


def test_run_is_not_replaced_by_default(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--resume" in refusal(capsys, "train", "--run", run, *TINY)


def test_failed_overwrite_keeps_run(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    command = ["train", "--run", str(copied), *TINY, "--overwrite", *IMPOSSIBLE]
    assert "model.schedule" in refusal(capsys, *command)
    assert {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()} == before


def test_failed_start_does_not_block_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "--run", str(tmp_path / "run"), *TINY, "--train.steps", "1"]
    refusal(capsys, *command, *IMPOSSIBLE)
    main(command)
