import csv
import gzip
import json
import logging
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from threading import Thread

import datasets
import pyarrow as pa
import pyarrow.parquet
import pytest

from textdiff import grammar, sources
from textdiff.config import Data, InputError
from textdiff.data import examples
from textdiff.sources import open_texts

LINES = [f"{sentence} {i}" for i, sentence in enumerate(grammar.corpus(30, seed=5))]  # no two alike


def txt(path, lines):
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def txt_gz(path, lines):
    path.write_bytes(gzip.compress("".join(line + "\n" for line in lines).encode()))


def csv_(path, lines):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["number", "text"], *([i, line] for i, line in enumerate(lines))])


def json_(path, lines):
    path.write_text(json.dumps([{"text": line} for line in lines]), encoding="utf-8")


def jsonl_gz(path, lines):
    path.write_bytes(gzip.compress("".join(json.dumps({"text": line, "n": 1}) + "\n" for line in lines).encode()))


def parquet(path, lines):
    pyarrow.parquet.write_table(pa.table({"text": lines}), path)


WRITERS = {".txt": txt, ".txt.gz": txt_gz, ".csv": csv_, ".json": json_, ".jsonl.gz": jsonl_gz, ".parquet": parquet}


def texts_of(**options) -> sources.Texts:
    return open_texts(Data(**options))


def warnings(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "textdiff"]


@pytest.fixture
def file(tmp_path):
    txt(tmp_path / "lines.txt", LINES)
    return str(tmp_path / "lines.txt")


@pytest.fixture
def stream(file, monkeypatch):
    """Options for a stream whose first five rows are held out."""
    monkeypatch.setattr(sources, "HELD_OUT", 5)
    return {"train": file, "streaming": True}


# --- reading


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("suffix", WRITERS)
def test_every_format_gives_the_texts_in_their_order(suffix, streaming, tmp_path):
    path = tmp_path / f"lines{suffix}"
    WRITERS[suffix](path, LINES)
    assert list(texts_of(train=str(path), valid=str(path), streaming=streaming).train()) == LINES


def test_a_glob_gives_the_texts_of_all_its_files(tmp_path):
    txt(tmp_path / "a.txt", LINES[:10])
    txt(tmp_path / "b.txt", LINES[10:])
    assert list(texts_of(train=f"{tmp_path}/*.txt", valid=f"{tmp_path}/a.txt").train()) == LINES


@pytest.mark.parametrize("name", ["lines", "lines.text", "lines.gz"])
def test_a_file_of_another_suffix_is_read_as_lines(name, tmp_path):
    WRITERS[".txt.gz" if name.endswith(".gz") else ".txt"](tmp_path / name, LINES)
    path = str(tmp_path / name)
    assert list(texts_of(train=path, valid=path).train()) == LINES


def test_another_field_may_hold_the_text(tmp_path):
    parquet(tmp_path / "lines.parquet", LINES)
    table = pyarrow.parquet.read_table(tmp_path / "lines.parquet").rename_columns(["body"])
    pyarrow.parquet.write_table(table, tmp_path / "lines.parquet")
    path = str(tmp_path / "lines.parquet")
    assert list(texts_of(train=path, valid=path, field="body").train()) == LINES


def test_without_a_source_the_grammar_is_trained_on_and_its_other_share_held_out():
    texts = texts_of()
    assert all(map(grammar.in_training_share, islice(texts.train(), 200)))
    assert not any(map(grammar.in_training_share, texts.valid))


# --- what cannot be read


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("missing.txt", None, "is not a file"),
        ("missing*.txt", None, "as a glob, matches none"),
        ("missing", None, "is not a file"),
        ("empty.txt", "", "no usable text|is empty"),
        ("empty.csv", "", "is empty"),
        ("empty.jsonl", "", "is empty|cannot be read|no usable text"),
        ("blank.txt", "\n \n\t\n", "holds no usable text"),
        ("one.txt", "only one line\n", "too few|leave --data.streaming off"),
        ("other.csv", "number,body\n1,a\n2,b\n", "has no field 'text', it has number, body: .*--data.field"),
        ("numbers.csv", "text\n1\n2\n", "holds no usable text"),
        ("broken.json", '[{"text": ', "cannot be read as json"),
        ("broken.parquet", "PAR1", "cannot be read as parquet"),
    ],
)
@pytest.mark.parametrize("streaming", [False, True])
def test_what_cannot_be_used_is_refused_by_name_and_with_the_reason(name, content, reason, streaming, tmp_path):
    if content is not None:
        (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=reason) as caught:
        texts_of(train=str(tmp_path / name), streaming=streaming)
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize("name", [".", "/", "nobody/", "~/nothing.txt"])
def test_what_names_no_file_is_refused_by_name(name):
    with pytest.raises(InputError, match=f"^{name} "):
        texts_of(train=name)


def test_a_missing_validation_file_is_refused_by_name(file):
    with pytest.raises(InputError, match=r"nowhere\.txt is not a file"):
        texts_of(train=file, valid="nowhere.txt")


def test_a_name_that_is_neither_here_nor_on_the_hub_is_refused_by_name():
    with pytest.raises(InputError, match="nobody/nothing"):
        texts_of(train="nobody/nothing")


def test_a_stream_without_the_field_is_refused_by_name(stream):
    with pytest.raises(InputError, match=stream["train"]):
        texts_of(**stream, field="body")


def test_a_stream_no_longer_than_what_is_held_out_is_refused_by_name(file):
    with pytest.raises(InputError, match=f"{file}.*--data.streaming"):
        texts_of(train=file, streaming=True)


# --- what is left out


@pytest.mark.parametrize("suffix", [".txt", ".csv", ".jsonl"])
def test_invalid_utf8_is_left_out_counted_and_located(suffix, tmp_path, caplog):
    head, row = {".txt": (b"", b"%s\n"), ".csv": (b"text\n", b'"%s"\n'), ".jsonl": (b"", b'{"text": "%s"}\n')}[suffix]
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(head + b"".join(row % line for line in (b"good", b"b\xff\xfed", b"fine", b"caf\xc3", b"well")))
    assert list(texts_of(train=str(path), valid=str(path)).train()) == ["good", "fine", "well"]
    assert f"{path}: left out rows that are not valid UTF-8 (or hold NUL or U+FFFD): 2, the first is row 2" in warnings(caplog)


@pytest.mark.parametrize("suffix", [".txt", ".csv", ".json"])
def test_a_byte_order_mark_is_no_text(suffix, tmp_path):
    path = tmp_path / f"lines{suffix}"
    WRITERS[suffix](path, LINES)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert list(texts_of(train=str(path), valid=str(path)).train()) == LINES


def test_an_endless_line_is_left_out_counted_and_located(tmp_path, caplog):
    txt(tmp_path / "long.txt", ["good", "fine", "x" * 100_001, "x" * 100_000])
    path = str(tmp_path / "long.txt")
    assert [len(line) for line in texts_of(train=path, valid=path).train()] == [4, 4, 100_000]
    assert f"{path}: left out rows that are longer than 100,000 characters: 1, the first is row 3" in warnings(caplog)


def test_a_row_of_several_files_is_located_among_all_their_rows(tmp_path, caplog):
    txt(tmp_path / "b.txt", ["x" * 100_001])
    txt(tmp_path / "a.txt", ["good", "fine"])
    list(texts_of(train=str(tmp_path / "*.txt")).train())
    assert "the first is row 3 of all its files in order of name" in warnings(caplog)[0]


def test_long_documents_are_packed_whole(tmp_path, tokenizer):
    txt(tmp_path / "book.txt", ["the king sleeps . " * 10_000])
    path = str(tmp_path / "book.txt")
    blocks = list(examples(texts_of(train=path, valid=path, pack=True).train(), tokenizer, Data(length=40, pack=True)))
    assert len(blocks) == 1000


def test_a_name_with_brackets_is_a_file_before_it_is_a_glob(tmp_path):
    txt(tmp_path / "my [1].txt", LINES)
    path = str(tmp_path / "my [1].txt")
    assert list(texts_of(train=path, valid=path).train()) == LINES


def test_text_is_read_from_a_url(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    txt(tmp_path / "lines.txt", LINES)
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/lines.txt"
        assert list(texts_of(train=url, valid=url).train()) == LINES
        server.shutdown()


def test_a_row_without_text_is_left_out_counted_and_located(tmp_path, caplog):
    (tmp_path / "gaps.jsonl").write_text('{"text": "good"}\n{"text": null}\n{"text": "fine"}\n', encoding="utf-8")
    path = str(tmp_path / "gaps.jsonl")
    assert list(texts_of(train=path, valid=path).train()) == ["good", "fine"]
    assert f"{path}: left out rows that hold no text: 1, the first is row 2" in warnings(caplog)


# --- holding out


def test_training_and_validation_are_all_texts_and_share_none(file):
    texts = texts_of(train=file, valid_share=0.2)
    assert sorted([*texts.train(), *texts.valid]) == sorted(LINES)


@pytest.mark.parametrize(("share", "held_out"), [(0.2, 6), (0.001, 1)])
def test_the_share_asked_for_is_held_out_and_at_least_one(file, share, held_out):
    assert len(texts_of(train=file, valid_share=share).valid) == held_out


def held_out_rows(texts: sources.Texts) -> list[int]:
    return [LINES.index(line) for line in texts.valid]


def test_of_text_that_is_packed_stretches_are_held_out(file):
    """So that few documents, of many lines, are in both sets."""
    rows = held_out_rows(texts_of(train=file, valid_share=0.4, pack=True))
    assert len(rows) == 12
    assert sum(row + 1 not in rows for row in rows) == 10
    assert sorted([*rows, *map(LINES.index, texts_of(train=file, valid_share=0.4, pack=True).train())]) == [*range(30)]


def test_lines_that_are_not_packed_are_held_out_at_random(file):
    rows = held_out_rows(texts_of(train=file, valid_share=0.2))
    assert sum(row + 1 not in rows for row in rows) > 3


@pytest.mark.parametrize("size", [1, 100, 2**23])
def test_texts_are_the_same_however_many_are_read_at_a_time(size, file, monkeypatch):
    whole = texts_of(train=file)
    expected = [*whole.train(), "", *whole.valid]
    monkeypatch.setattr(sources, "PIECE", size)
    texts = texts_of(train=file)
    assert [*texts.train(), "", *texts.valid] == expected
    assert len(texts.train()) == len(list(texts.train()))


def test_what_is_held_out_is_fixed(file):
    assert list(texts_of(train=file).valid) == list(texts_of(train=file).valid)


def test_with_a_validation_file_nothing_is_held_out(file, tmp_path):
    txt(tmp_path / "valid.txt", ["another sentence"])
    texts = texts_of(train=file, valid=str(tmp_path / "valid.txt"))
    assert (list(texts.train()), list(texts.valid)) == (LINES, ["another sentence"])


def test_the_first_rows_of_a_stream_are_held_out_and_never_trained_on(stream):
    texts = texts_of(**stream)
    assert (texts.valid, list(texts.train())) == (LINES[:5], LINES[5:])


def test_a_stream_can_be_read_again(stream):
    texts = texts_of(**stream)
    assert list(texts.train()) == list(texts.train())


@pytest.fixture
def files(tmp_path):
    """Four files, the first shorter than what a stream holds out."""
    (tmp_path / "files").mkdir()
    for name, (first, last) in {"a": (0, 3), "b": (3, 9), "c": (9, 20), "d": (20, 30)}.items():
        txt(tmp_path / "files" / f"{name}.txt", ["", *LINES[first:last]])
    return f"{tmp_path}/files/*.txt"


@pytest.mark.parametrize("world", [1, 2])
def test_the_files_of_a_stream_are_shared_out_but_for_what_is_held_out(files, world, monkeypatch):
    monkeypatch.setattr(sources, "HELD_OUT", 5)
    texts = texts_of(train=files, streaming=True)
    parts = [list(texts.train(rank, world)) for rank in range(world)]
    assert texts.files == 4
    assert list(texts.valid) == LINES[:5]
    assert sorted(line for part in parts for line in part) == sorted(LINES[5:])


def test_a_process_whose_files_are_all_held_out_is_told_the_way_out(files, monkeypatch):
    monkeypatch.setattr(sources, "HELD_OUT", 5)
    with pytest.raises(InputError, match=r"files of process 0 of 4.*--data\.valid"):
        texts_of(train=files, streaming=True).train(0, 4)


def test_the_first_use_of_the_tests_leaves_the_users_cache_alone():
    import datasets

    assert "textdiff-tests-" in str(datasets.config.HF_DATASETS_CACHE)
    assert datasets.config.HF_HUB_OFFLINE


def test_nothing_is_logged_for_a_clean_file(file, caplog):
    with caplog.at_level(logging.WARNING, logger="textdiff"):
        list(texts_of(train=file).train())
    assert not warnings(caplog)
