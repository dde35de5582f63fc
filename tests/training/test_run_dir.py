"""Laws of run folders: their configuration, and which runs may write to them."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import yaml

from image.config import ImageConfig
from textdiff.config import UserError
from textdiff.options import load_run_config
from textdiff.text.config import TextConfig
from textdiff.training.run_dir import open_run_dir

KINDS = [TextConfig, ImageConfig]


def written(path: Path, config: object, section: str = "run", **changes: object) -> Path:
    saved = json.loads(json.dumps(asdict(config)))  # type: ignore[call-overload]
    saved[section] = {**saved[section], **changes} if changes else saved[section]
    path.write_text(yaml.safe_dump(saved), encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_configuration_survives_writing_and_reading(kind, tmp_path):
    config = replace(kind(), run="runs/über", train=replace(kind().train, lr=1e-4, trackers=[]))
    assert load_run_config(written(tmp_path / "config.yaml", config), kind) == config


@pytest.mark.parametrize("kind", KINDS)
def test_missing_option_has_its_default(kind, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("run: runs/old\ndata: {}\nmodel: {}\ntrain: {}\n", encoding="utf-8")
    assert load_run_config(path, kind) == kind(run="runs/old")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("section", "changes", "fault"),
    [
        ("train", {"stpes": 4}, "the unknown option train.stpes (did you mean train.steps?)"),
        ("model", {"widht": 64}, "the unknown option model.widht (did you mean model.width?)"),
        ("train", {"steps": "many"}, "train.steps must be a whole number, got many"),
        ("train", {"steps": 0}, "train.steps must be at least 1, got 0"),
    ],
)
def test_wrong_option_is_one_line_with_its_name(kind, section, changes, fault, tmp_path):
    path = written(tmp_path / "config.yaml", kind(), section, **changes)
    with pytest.raises(UserError) as raised:
        load_run_config(path, kind)
    message = str(raised.value)
    assert str(path) in message
    assert fault in message
    assert "\n" not in message


def test_section_must_hold_options(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("run: r\ndata: {}\nmodel: 5\ntrain: {}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"config\.yaml: model must be a section of options, got 5"):
        load_run_config(path, TextConfig)


@pytest.fixture
def config(tmp_path):
    """A run with a folder that holds a run already."""
    config = TextConfig(run=str(tmp_path / "run"))
    open_run_dir(config).begin(config)
    (tmp_path / "run" / "metrics.jsonl").write_text("", encoding="utf-8")
    return config


@pytest.mark.parametrize(
    ("options", "fault"),
    [({}, "already holds a run"), ({"resume": True, "overwrite": True}, "choose one")],
)
def test_folder_with_a_run_needs_one_way_out(config, options, fault):
    with pytest.raises(UserError, match=fault):
        open_run_dir(config, **options)


def test_resumed_run_may_change_only_the_optimization(config):
    other_lr = replace(config, train=replace(config.train, lr=1e-4))
    assert open_run_dir(other_lr, resume=True).saved == config
    other_length = replace(config, data=replace(config.data, length=32))
    with pytest.raises(UserError, match=r"--resume cannot change data\.length from 64 to 32"):
        open_run_dir(other_length, resume=True)


def test_folder_is_locked_for_one_run(config):
    run_dir = open_run_dir(config, resume=True)
    with run_dir.locked():
        with pytest.raises(UserError, match="another run is writing"), run_dir.locked():
            pass
        with run_dir.locked(main_process=False):
            pass


def test_overwriting_deletes_the_old_run(config, tmp_path):
    open_run_dir(config, overwrite=True).begin(config)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    assert (tmp_path / "run" / "config.yaml").exists()
