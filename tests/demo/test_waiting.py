"""Laws of the page that is shown while the default model is trained."""

import json
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

pytest.importorskip("gradio")

from textdiff.demo.page import check_free
from textdiff.demo.waiting import progress, waiting_page

LINES = [
    {"step": 10, "ce": 2.0, "seconds": 5.0},
    {"step": 10, "valid/ce": 2.0, "samples": ["the king"]},
    {"step": 20, "ce": 1.0, "seconds": 8.0},
]


@pytest.fixture
def run(tmp_path):
    """The folder of a run that writes a line."""
    text = "\n".join([*map(json.dumps, LINES), '{"step": 30, "c'])
    (tmp_path / "metrics.jsonl").write_text(text, encoding="utf-8")
    return tmp_path


def test_progress_is_that_of_the_log(run):
    expected = {"step": 20, "steps": 50, "seconds_left": 12.0, "samples": ["the king"]}
    assert progress(run, 50) == expected


def test_runs_without_a_log_have_just_begun(tmp_path):
    assert progress(tmp_path, 50)["step"] == 0


def test_page_shows_progress_and_nothing_else(run):
    with waiting_page("127.0.0.1", 0, run, 50) as address:
        with urlopen(address) as answer:
            assert "is trained first" in answer.read().decode()
        with urlopen(f"{address}/progress") as answer:
            assert json.load(answer) == progress(run, 50)
        with pytest.raises(HTTPError, match="404"):
            urlopen(f"{address}/metrics.jsonl")
        port = int(address.rpartition(":")[2])
    check_free("127.0.0.1", port)
