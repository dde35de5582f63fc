"""Tests of the ablations: which runs are trained and evaluated again."""

import json
from pathlib import Path

import ablate
import pytest


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The commands that were run. Each creates its folder."""
    run: list[tuple[str, ...]] = []

    def run_textdiff(*arguments: str) -> None:
        run.append(arguments)
        Path(arguments[-1]).mkdir(exist_ok=True)

    monkeypatch.setattr(ablate, "run_textdiff", run_textdiff)
    return run


def test_only_changed_commands_run_again(commands, tmp_path):
    """A command runs again if its options or the content of its configuration change."""
    config, folder = tmp_path / "config.yaml", str(tmp_path / "run")
    calls = [("a: 1", "x"), ("a: 1", "x"), ("a: 1", "y"), ("a: 2", "y"), ("a: 2", "y")]
    for text, option in calls:
        config.write_text(text, encoding="utf-8")
        ablate.run_once(folder, "train", str(config), option, folder)
    assert [command[2] for command in commands] == ["x", "y", "y"]


def test_interrupted_commands_run_again(commands, tmp_path, monkeypatch):
    folder, complete = str(tmp_path / "run"), ablate.run_textdiff

    def interrupted(*arguments: str) -> None:
        complete(*arguments)
        raise SystemExit(130)

    ablate.run_once(folder, "train", "short", folder)
    monkeypatch.setattr(ablate, "run_textdiff", interrupted)
    with pytest.raises(SystemExit):
        ablate.run_once(folder, "train", "long", folder)
    monkeypatch.setattr(ablate, "run_textdiff", complete)
    ablate.run_once(folder, "train", "long", folder)
    ablate.run_once(folder, "train", "long", folder)
    assert [command[1] for command in commands] == ["short", "long", "long"]
    assert json.loads(Path(folder, "command.json").read_text(encoding="utf-8"))[0][1] == "long"


def test_ablation_evaluates_every_run_once(monkeypatch, tmp_path, capsys):
    """A second call trains and evaluates nothing."""
    names = ("nats_per_token", "perplexity", "unigram_entropy", "distinct_2")
    metrics = dict.fromkeys(names, 1.0) | {"two_sample_accuracy": None}
    table = dict.fromkeys(("real", "training", "few", "many"), metrics)
    run: list[tuple[str, str]] = []

    def run_textdiff(command: str, *arguments: str) -> None:
        folder = arguments[arguments.index("--run") + 1] if command == "train" else arguments[0]
        run.append((command, Path(folder).name))
        evaluation = Path(folder, "evaluation")
        evaluation.mkdir(parents=True, exist_ok=True)
        (evaluation / "report.json").write_text(json.dumps({"table": table}), encoding="utf-8")

    monkeypatch.setattr(ablate, "run_textdiff", run_textdiff)
    base, change = tmp_path / "base.yaml", tmp_path / "change.yaml"
    for path in (base, change):
        path.write_text("train: {}\n", encoding="utf-8")
    for _ in range(2):
        ablate.ablations(ablate.Source(), str(base), [str(change)], 1.0, str(tmp_path))
    runs = ("unchanged", "change")
    assert run == [(command, name) for name in runs for command in ("train", "evaluate")]
    assert "nan" in capsys.readouterr().out
