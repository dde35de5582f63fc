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
        config.write_text(text)
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
    assert json.loads(Path(folder, "study.json").read_text())[0][1] == "long"
