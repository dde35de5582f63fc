"""Laws of rows that cannot be used: they are left out, counted and located."""

import logging

import pytest
from text_files import LINES, lines_of, log_messages, open_files, write_txt

from textdiff.text.config import DataConfig
from textdiff.text.dataset import examples


@pytest.mark.parametrize("suffix", [".txt", ".csv", ".jsonl"])
def test_invalid_utf8_is_left_out_and_located(suffix, tmp_path, caplog):
    head, row = {
        ".txt": (b"", b"%s\n"),
        ".csv": (b"text\n", b'"%s"\n'),
        ".jsonl": (b"", b'{"text": "%s"}\n'),
    }[suffix]
    path = tmp_path / f"bad{suffix}"
    lines = (b"good", b"b\xff\xfed", b"fine", b"caf\xc3", b"well")
    path.write_bytes(head + b"".join(row % line for line in lines))
    assert lines_of(path) == ["good", "fine", "well"]
    reason = "are not valid UTF-8 (or hold NUL or U+FFFD)"
    expected = f"{path}: left out rows that {reason}: 2, the first is row 2"
    assert expected in log_messages(caplog)


def test_endless_line_is_left_out_and_located(tmp_path, caplog):
    path = tmp_path / "long.txt"
    write_txt(path, ["good", "fine", "x" * 100_001, "x" * 100_000])
    assert [len(line) for line in lines_of(path)] == [4, 4, 100_000]
    reason = "are longer than 100,000 characters"
    expected = f"{path}: left out rows that {reason}: 1, the first is row 3"
    assert expected in log_messages(caplog)


def test_row_without_text_is_left_out_and_located(tmp_path, caplog):
    path = tmp_path / "gaps.jsonl"
    path.write_text('{"text": "good"}\n{"text": null}\n{"text": "fine"}\n', encoding="utf-8")
    assert lines_of(path) == ["good", "fine"]
    expected = f"{path}: left out rows that hold no text: 1, the first is row 2"
    assert expected in log_messages(caplog)


def test_row_is_located_among_all_files(tmp_path, caplog):
    write_txt(tmp_path / "b.txt", ["x" * 100_001])
    write_txt(tmp_path / "a.txt", ["good", "fine"])
    list(open_files(train=str(tmp_path / "*.txt")).train())
    assert "the first is row 3 of all its files in order of name" in log_messages(caplog)[0]


def test_long_documents_are_packed_whole(tmp_path, tokenizer):
    path = tmp_path / "book.txt"
    write_txt(path, ["the king sleeps . " * 10_000])
    blocks = examples(lines_of(path, pack=True), tokenizer, DataConfig(length=40, pack=True))
    assert len(list(blocks)) == 1000


def test_clean_file_logs_nothing(tmp_path, caplog):
    path = tmp_path / "lines.txt"
    write_txt(path, LINES)
    with caplog.at_level(logging.WARNING, logger="textdiff"):
        list(open_files(train=str(path)).train())
    assert not log_messages(caplog)
