"""Laws of reading text: every format, glob and URL, and one-line errors."""

from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from threading import Thread

import datasets
import pytest
from text_files import LINES, WRITERS, lines_of, open_files, write_parquet, write_txt

from textdiff.config import UserError
from textdiff.text import grammar, sources


@pytest.fixture
def file(tmp_path):
    write_txt(tmp_path / "lines.txt", LINES)
    return str(tmp_path / "lines.txt")


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("suffix", WRITERS)
def test_every_format_gives_texts_in_order(suffix, streaming, tmp_path):
    path = tmp_path / f"lines{suffix}"
    WRITERS[suffix](path, LINES)
    assert lines_of(path, streaming=streaming) == LINES


def test_glob_gives_texts_of_all_files(tmp_path):
    write_txt(tmp_path / "a.txt", LINES[:10])
    write_txt(tmp_path / "b.txt", LINES[10:])
    texts = open_files(train=f"{tmp_path}/*.txt", valid=f"{tmp_path}/a.txt")
    assert list(texts.train()) == LINES


def test_file_name_may_hold_brackets(tmp_path):
    """A name is read as a glob only if it is no file."""
    write_txt(tmp_path / "my [1].txt", LINES)
    assert lines_of(tmp_path / "my [1].txt") == LINES


@pytest.mark.parametrize("name", ["lines", "lines.text", "lines.gz"])
def test_file_of_unknown_suffix_is_lines(name, tmp_path):
    WRITERS[".txt.gz" if name.endswith(".gz") else ".txt"](tmp_path / name, LINES)
    assert lines_of(tmp_path / name) == LINES


def test_field_option_names_the_column(tmp_path):
    write_parquet(tmp_path / "lines.parquet", LINES, field="body")
    assert lines_of(tmp_path / "lines.parquet", field="body") == LINES


@pytest.mark.parametrize("suffix", [".txt", ".csv", ".json"])
def test_byte_order_mark_is_not_text(suffix, tmp_path):
    path = tmp_path / f"lines{suffix}"
    WRITERS[suffix](path, LINES)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert lines_of(path) == LINES


def test_text_is_read_from_a_url(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    write_txt(tmp_path / "lines.txt", LINES)
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        assert lines_of(f"http://127.0.0.1:{server.server_port}/lines.txt") == LINES
        server.shutdown()


def test_default_source_is_the_grammar():
    """Training texts are from its training share, validation texts from the rest."""
    texts = open_files()
    assert all(map(grammar.in_training_share, islice(texts.train(), 200)))
    assert not any(map(grammar.in_training_share, texts.valid))


def test_tests_do_not_use_the_users_cache():
    assert "textdiff-tests-" in str(datasets.config.HF_DATASETS_CACHE)
    assert datasets.config.HF_HUB_OFFLINE


# --- sources that cannot be read

NO_FIELD = "has no field 'text', it has number, body: .*--data.field"


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
        ("other.csv", "number,body\n1,a\n2,b\n", NO_FIELD),
        ("numbers.csv", "text\n1\n2\n", "holds no usable text"),
        ("broken.json", '[{"text": ', "cannot be read as json"),
        ("broken.parquet", "PAR1", "cannot be read as parquet"),
    ],
)
@pytest.mark.parametrize("streaming", [False, True])
def test_unusable_file_is_refused_with_the_reason(name, content, reason, streaming, tmp_path):
    if content is not None:
        (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=reason) as caught:
        open_files(train=str(tmp_path / name), streaming=streaming)
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize("name", [".", "/", "nobody/", "~/nothing.txt"])
def test_name_of_no_file_is_refused(name):
    with pytest.raises(UserError, match=f"^{name} "):
        open_files(train=name)


def test_missing_validation_file_is_refused(file):
    with pytest.raises(UserError, match=r"nowhere\.txt is not a file"):
        open_files(train=file, valid="nowhere.txt")


def test_unknown_hub_name_is_refused():
    with pytest.raises(UserError, match="nobody/nothing"):
        open_files(train="nobody/nothing")


def test_stream_without_the_field_is_refused(file, monkeypatch):
    monkeypatch.setattr(sources, "HELD_OUT", 5)
    with pytest.raises(UserError, match=file):
        open_files(train=file, streaming=True, field="body")


def test_stream_shorter_than_held_out_rows_is_refused(file):
    with pytest.raises(UserError, match=f"{file}.*--data.streaming"):
        open_files(train=file, streaming=True)
