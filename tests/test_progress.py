"""Laws of progress in files: few plain lines."""

import io

import pytest

from textdiff.progress import ProgressBar


@pytest.fixture
def file() -> io.StringIO:
    return io.StringIO()


def test_short_work_is_one_line(file) -> None:
    for _ in ProgressBar(range(200), "reading", unit="text", file=file, mininterval=0):
        pass
    (line,) = file.getvalue().splitlines()
    assert line.startswith("reading: 100%| 200 of 200 [")


def test_bars_that_vanish_leave_nothing(file) -> None:
    for _ in ProgressBar(range(200), file=file, mininterval=0, leave=False):
        pass
    assert file.getvalue() == ""


def test_long_work_is_plain_lines(file, monkeypatch) -> None:
    """Also around other messages."""
    monkeypatch.setattr(ProgressBar, "seconds", 0)
    with ProgressBar(total=3, file=file, mininterval=0) as bar:
        for i in range(3):
            bar.update()
            ProgressBar.write(f"message {i}", file=bar.fp)
    assert "\r" not in file.getvalue()
    lines = file.getvalue().splitlines()
    assert all(lines)
    assert [line for line in lines if "message" in line] == [f"message {i}" for i in range(3)]
    assert lines[-1].startswith("100%| 3 of 3 [")


def test_lines_have_thirty_seconds_between_them(file, monkeypatch) -> None:
    clock = iter(range(10**6))
    monkeypatch.setattr("textdiff.progress.time.monotonic", lambda: next(clock))
    for _ in ProgressBar(range(100), file=file, mininterval=0, leave=False):
        pass
    assert len(file.getvalue().splitlines()) == 3


def test_terminal_has_a_bar(file, monkeypatch) -> None:
    monkeypatch.setattr(file, "isatty", lambda: True)
    for _ in ProgressBar(range(3), file=file, mininterval=0):
        pass
    assert "\r" in file.getvalue()
