"""Laws of the log of a run."""

import json

import pytest

from textdiff.config import TrainConfig
from textdiff.text.config import TextConfig
from textdiff.training import logger
from textdiff.training.logger import Logger


def test_failed_tracker_is_reported_once_and_dropped(caplog: pytest.LogCaptureFixture) -> None:
    log, calls = object.__new__(Logger), list[int]()
    log.config, log.tracking = TextConfig(train=TrainConfig(trackers="wandb")), True
    for _ in range(3):
        log._track(lambda: calls.append(1) or 1 / 0)
    assert calls == [1]
    (message,) = caplog.messages
    assert "wandb failed" in message
    assert "the run continues" in message


def test_lines_of_steps_to_repeat_are_dropped(tmp_path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": step}) for step in (1, 2, 3)]
    path.write_text("\n".join([*lines, '{"step": 2, "lo']), encoding="utf-8")
    logger._drop_lines_after(path, 2)
    assert path.read_text(encoding="utf-8").splitlines() == lines[:2]
