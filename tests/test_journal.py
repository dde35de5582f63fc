"""What tells of a run does not end it."""

import pytest

from textdiff.config import TextRun, Train
from textdiff.journal import Journal


def test_a_tracker_that_dies_is_told_once_and_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    journal, calls = object.__new__(Journal), list[int]()
    journal.config, journal.tracked = TextRun(train=Train(trackers="wandb")), True
    for _ in range(3):
        journal._tracking(lambda: calls.append(1) or 1 / 0)
    assert calls == [1]
    assert [message for message in caplog.messages if "wandb failed" in message and "goes on" in message] == caplog.messages
