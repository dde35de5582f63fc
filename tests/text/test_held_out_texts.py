"""Laws of the texts held out for validation, from files and from streams."""

import pytest
from text_files import LINES, open_files, write_txt

from textdiff.config import UserError
from textdiff.text import files, sources


@pytest.fixture
def file(tmp_path):
    write_txt(tmp_path / "lines.txt", LINES)
    return str(tmp_path / "lines.txt")


@pytest.fixture
def stream(file, monkeypatch):
    """Options for a stream whose first five rows are held out."""
    monkeypatch.setattr(sources, "HELD_OUT", 5)
    return {"train": file, "streaming": True}


def held_out_rows(texts: sources.Texts) -> list[int]:
    return [LINES.index(line) for line in texts.valid]


def test_training_and_validation_divide_all_texts(file):
    texts = open_files(train=file, valid_share=0.2)
    assert sorted([*texts.train(), *texts.valid]) == sorted(LINES)


@pytest.mark.parametrize(("share", "held_out"), [(0.2, 6), (0.001, 1)])
def test_valid_share_is_held_out(file, share, held_out):
    """At least one text is held out."""
    assert len(open_files(train=file, valid_share=share).valid) == held_out


def test_stretches_of_packed_text_are_held_out(file):
    """Few documents, of many lines, are then in both sets."""
    texts = open_files(train=file, valid_share=0.4, pack=True)
    rows = held_out_rows(texts)
    assert len(rows) == 12
    assert sum(row + 1 not in rows for row in rows) == 10
    assert sorted([*rows, *map(LINES.index, texts.train())]) == [*range(30)]


def test_unpacked_lines_are_held_out_at_random(file):
    rows = held_out_rows(open_files(train=file, valid_share=0.2))
    assert sum(row + 1 not in rows for row in rows) > 3


@pytest.mark.parametrize("size", [1, 100, 2**23])
def test_texts_do_not_depend_on_read_size(size, file, monkeypatch):
    whole = open_files(train=file)
    expected = [*whole.train(), "", *whole.valid]
    monkeypatch.setattr(files, "READ_BYTES", size)
    texts = open_files(train=file)
    assert [*texts.train(), "", *texts.valid] == expected
    assert len(texts.train()) == len(list(texts.train()))


def test_held_out_texts_are_fixed(file):
    assert list(open_files(train=file).valid) == list(open_files(train=file).valid)


def test_validation_file_replaces_holding_out(file, tmp_path):
    write_txt(tmp_path / "valid.txt", ["another sentence"])
    texts = open_files(train=file, valid=str(tmp_path / "valid.txt"))
    assert (list(texts.train()), list(texts.valid)) == (LINES, ["another sentence"])


def test_first_rows_of_a_stream_are_held_out(stream):
    """They are never trained on."""
    texts = open_files(**stream)
    assert (texts.valid, list(texts.train())) == (LINES[:5], LINES[5:])


def test_stream_can_be_read_again(stream):
    texts = open_files(**stream)
    assert list(texts.train()) == list(texts.train())


@pytest.fixture
def four_files(tmp_path, monkeypatch):
    """A glob of four files, the first shorter than the five rows that a stream holds out."""
    monkeypatch.setattr(sources, "HELD_OUT", 5)
    (tmp_path / "files").mkdir()
    for name, (first, last) in {"a": (0, 3), "b": (3, 9), "c": (9, 20), "d": (20, 30)}.items():
        write_txt(tmp_path / "files" / f"{name}.txt", ["", *LINES[first:last]])
    return f"{tmp_path}/files/*.txt"


@pytest.mark.parametrize("world", [1, 2])
def test_processes_divide_the_files_of_a_stream(four_files, world):
    """All rows but those held out are read, each by one process."""
    texts = open_files(train=four_files, streaming=True)
    parts = [list(texts.train(rank, world)) for rank in range(world)]
    assert texts.files == 4
    assert list(texts.valid) == LINES[:5]
    assert sorted(line for part in parts for line in part) == sorted(LINES[5:])


def test_process_without_training_rows_is_an_error(four_files):
    with pytest.raises(UserError, match=r"files of process 0 of 4.*--data\.valid"):
        open_files(train=four_files, streaming=True).train(0, 4)
