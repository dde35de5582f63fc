"""A run's config.yaml, read back as the configuration that it was written from."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import yaml

from image.config import ImageRun
from textdiff.config import InputError, TextRun
from textdiff.folder import load_config

KINDS = [TextRun, ImageRun]


def written(path: Path, config: object, section: str = "run", **changes: object) -> Path:
    saved = json.loads(json.dumps(asdict(config)))  # type: ignore[call-overload]
    saved[section] = {**saved[section], **changes} if changes else saved[section]
    path.write_text(yaml.safe_dump(saved), encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_a_configuration_is_read_as_it_was_written(kind, tmp_path):
    config = replace(kind(), run="runs/über", train=replace(kind().train, lr=1e-4, trackers=[]))
    assert load_config(written(tmp_path / "config.yaml", config), kind) == config


@pytest.mark.parametrize("kind", KINDS)
def test_an_option_that_the_file_lacks_has_its_default(kind, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("run: runs/old\ndata: {}\nmodel: {}\ntrain: {}\n", encoding="utf-8")
    assert load_config(path, kind) == kind(run="runs/old")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("section", "changes", "complaint"),
    [
        ("train", {"stpes": 4}, "the unknown option train.stpes (did you mean train.steps?)"),
        ("model", {"widht": 64}, "the unknown option model.widht (did you mean model.width?)"),
        ("train", {"steps": "many"}, "train.steps must be a whole number, got many"),
        ("train", {"steps": 0}, "train.steps must be at least 1, got 0"),
    ],
)
def test_a_wrong_option_is_one_line_with_file_and_key(kind, section, changes, complaint, tmp_path):
    path = written(tmp_path / "config.yaml", kind(), section, **changes)
    with pytest.raises(InputError) as raised:
        load_config(path, kind)
    message = str(raised.value)
    assert str(path) in message
    assert complaint in message
    assert "\n" not in message


def test_a_section_without_options_is_refused(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("run: r\ndata: {}\nmodel: 5\ntrain: {}\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"config\.yaml has the unknown option model"):
        load_config(path, TextRun)
