"""What a study takes for done."""

import json
from pathlib import Path

import pytest
import study


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What was run; each command makes its folder."""
    run: list[tuple[str, ...]] = []

    def textdiff(*arguments: str) -> None:
        run.append(arguments)
        Path(arguments[-1]).mkdir(exist_ok=True)

    monkeypatch.setattr(study, "textdiff", textdiff)
    return run


def test_what_is_done_is_not_done_again_unless_its_options_or_its_configuration_change(commands, tmp_path):
    config, folder = tmp_path / "config.yaml", str(tmp_path / "run")
    for text, options in (("a: 1", ["x"]), ("a: 1", ["x"]), ("a: 1", ["y"]), ("a: 2", ["y"]), ("a: 2", ["y"])):
        config.write_text(text, encoding="utf-8")
        study.once(folder, "train", str(config), *options, folder)
    assert [command[2] for command in commands] == ["x", "y", "y"]


def test_what_was_interrupted_is_done_anew(commands, tmp_path, monkeypatch):
    folder, whole = str(tmp_path / "run"), study.textdiff

    def interrupted(*arguments: str) -> None:
        whole(*arguments)
        raise SystemExit(130)

    study.once(folder, "train", "short", folder)
    monkeypatch.setattr(study, "textdiff", interrupted)
    with pytest.raises(SystemExit):
        study.once(folder, "train", "long", folder)
    monkeypatch.setattr(study, "textdiff", whole)
    study.once(folder, "train", "long", folder)
    study.once(folder, "train", "long", folder)
    assert [command[1] for command in commands] == ["short", "long", "long"]
    assert json.loads(Path(folder, "study.json").read_text(encoding="utf-8"))[0][1] == "long"


def test_an_ablation_judges_every_run_once_and_a_second_call_nothing(monkeypatch, tmp_path, capsys):
    figures = dict.fromkeys(("nats_per_token", "teacher_perplexity", "unigram_entropy", "distinct_2"), 1.0) | {"two_sample_accuracy": None}
    run: list[tuple[str, str]] = []

    def textdiff(command: str, *arguments: str) -> None:
        folder = arguments[arguments.index("--run") + 1] if command == "train" else arguments[0]
        run.append((command, Path(folder).name))
        Path(folder, "evaluation").mkdir(parents=True, exist_ok=True)
        Path(folder, "evaluation", "report.json").write_text(
            json.dumps({"table": dict.fromkeys(("real", "training", "few", "many"), figures)}), encoding="utf-8"
        )

    monkeypatch.setattr(study, "textdiff", textdiff)
    for name in ("base", "change"):
        (tmp_path / f"{name}.yaml").write_text("train: {}\n", encoding="utf-8")
    for _ in range(2):
        study.ablations(study.Source(), str(tmp_path / "base.yaml"), [str(tmp_path / "change.yaml")], 1.0, str(tmp_path))
    assert run == [(command, name) for name in ("as_it_is", "change") for command in ("train", "evaluate")]
    assert "nan" in capsys.readouterr().out
