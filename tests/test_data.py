import csv
import gzip
import json
import logging
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from threading import Thread

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from torch.testing import assert_close

from textdiff import grammar, sources
from textdiff.batches import first_number
from textdiff.config import Data, InputError, Train, Vocabulary
from textdiff.data import Corpus, batched, collate, examples, in_turn, streamed
from textdiff.sources import open_texts
from textdiff.vocab import train_tokenizer

LINES = [f"{sentence} {i}" for i, sentence in enumerate(grammar.corpus(30, seed=5))]  # no two alike


def txt(path, lines):
    path.write_text("".join(line + "\n" for line in lines))


def txt_gz(path, lines):
    path.write_bytes(gzip.compress("".join(line + "\n" for line in lines).encode()))


def csv_(path, lines):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([["number", "text"], *([i, line] for i, line in enumerate(lines))])


def json_(path, lines):
    path.write_text(json.dumps([{"text": line} for line in lines]))


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
        (tmp_path / name).write_text(content)
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


def test_packed_lines_stay_apart_where_the_tokenizer_sees_their_ends():
    tokenizer = train_tokenizer(["ab cd"], Vocabulary(kind="bpe", min_count=1))
    assert tokenizer.decode(next(examples(["ab", "cd"] * 9, tokenizer, Data(length=6, pack=True)))).startswith("ab\ncd")


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
    (tmp_path / "gaps.jsonl").write_text('{"text": "good"}\n{"text": null}\n{"text": "fine"}\n')
    path = str(tmp_path / "gaps.jsonl")
    assert list(texts_of(train=path, valid=path).train()) == ["good", "fine"]
    assert f"{path}: left out rows that hold no text: 1, the first is row 2" in warnings(caplog)


def test_sentences_that_are_too_long_are_left_out_and_counted(tokenizer, caplog):
    texts = ["the king sleeps ."] * 3 + ["the king sees the queen and the dog ."] * 2
    assert len(list(examples(texts, tokenizer, Data(length=5)))) == 3
    assert warnings(caplog) == ["2 of 5 examples are longer than data.length = 5 tokens and were left out"]


def test_a_text_of_which_nothing_fits_is_refused_with_the_way_out(tokenizer):
    with pytest.raises(InputError, match=r"--data\.pack"):
        list(examples(LINES, tokenizer, Data(length=2)))


# --- packing


@pytest.mark.parametrize("length", [2, 7, 64])
def test_packing_cuts_all_text_into_blocks_of_one_length(tokenizer, length):
    assert {len(block) for block in examples(LINES, tokenizer, Data(length=length, pack=True))} == {length}


@pytest.mark.parametrize("length", [2, 7, 64])
def test_packing_keeps_the_text_in_order_but_for_less_than_a_block(tokenizer, length):
    whole = [i for line in LINES for i in tokenizer.encode(line).ids]
    packed = [i for block in examples(LINES, tokenizer, Data(length=length, pack=True)) for i in block]
    assert packed == whole[: len(packed)]
    assert len(whole) - len(packed) < length


def test_a_text_shorter_than_a_block_is_refused(tokenizer):
    with pytest.raises(InputError, match="does not fill one block"):
        list(examples(LINES[:2], tokenizer, Data(length=1000, pack=True)))


# --- holding out


def test_training_and_validation_are_all_texts_and_share_none(file):
    texts = texts_of(train=file, valid_share=0.2)
    assert sorted([*texts.train(), *texts.valid]) == sorted(LINES)


@pytest.mark.parametrize(("share", "held_out"), [(0.2, 6), (0.001, 1)])
def test_the_share_asked_for_is_held_out_and_at_least_one(file, share, held_out):
    assert len(texts_of(train=file, valid_share=share).valid) == held_out


def test_what_is_held_out_is_fixed(file):
    assert texts_of(train=file).valid == texts_of(train=file).valid


def test_with_a_validation_file_nothing_is_held_out(file, tmp_path):
    txt(tmp_path / "valid.txt", ["another sentence"])
    texts = texts_of(train=file, valid=str(tmp_path / "valid.txt"))
    assert (list(texts.train()), texts.valid) == (LINES, ["another sentence"])


def test_the_first_rows_of_a_stream_are_held_out_and_never_trained_on(stream):
    texts = texts_of(**stream)
    assert (texts.valid, list(texts.train())) == (LINES[:5], LINES[5:])


def test_a_stream_can_be_read_again(stream):
    texts = texts_of(**stream)
    assert list(texts.train()) == list(texts.train())


# --- batches


def rows_of(steps: list) -> list[list]:
    """Each step's sentences and their numbers, all micro-batches together."""
    return [[(ids[mask].tolist(), int(i)) for t, _ in step for ids, mask, i in zip(t["ids"], t["mask"], t["index"], strict=True)] for step in steps]


def test_a_corpus_gives_back_its_examples():
    lists = [[1, 2, 3], [4], [], [5, 6]]
    assert [ids.tolist() for ids in Corpus.of(lists)] == lists


def test_the_head_of_a_corpus_is_its_first_examples(corpus):
    assert [ids.tolist() for ids in corpus.head(5)] == [corpus[i].tolist() for i in range(5)]


def test_collating_pads_to_the_longest_and_masks_the_padding():
    tensors = collate([np.array([5, 6, 7]), np.array([8])], np.array([3, 9]))
    assert tensors["ids"].tolist() == [[5, 6, 7], [8, 0, 0]]
    assert tensors["mask"].tolist() == [[True, True, True], [True, False, False]]
    assert tensors["index"].tolist() == [3, 9]


def test_micro_batches_are_the_examples_of_the_plan(corpus):
    (step,) = islice(batched(corpus, Train(batch_size=8, accumulate=2), 0, rank=0, world=1), 1)
    assert len(step) == 2
    assert {tuple(ids) for ids, _ in rows_of([step])[0]} <= {tuple(ids.tolist()) for ids in corpus}


def test_resuming_a_corpus_goes_on_where_it_was(corpus):
    whole = rows_of(list(islice(batched(corpus, Train(batch_size=64), 0, 0, 1), 12)))
    assert rows_of(list(islice(batched(corpus, Train(batch_size=64), 7, 0, 1), 5))) == whole[7:]


def streamed_rows(texts, tokenizer, first_step: int, n: int, accumulate: int = 1) -> list[list]:
    train = Train(batch_size=4, accumulate=accumulate)
    return rows_of(list(islice(streamed(texts, tokenizer, Data(streaming=True), train, first_step, 0, 1), n)))


@pytest.mark.parametrize("first_step", [1, 31, 32, 50])
def test_resuming_a_stream_goes_on_where_it_was(tokenizer, first_step):
    whole = streamed_rows(lambda: LINES, tokenizer, 0, first_step + 3)
    assert streamed_rows(lambda: LINES, tokenizer, first_step, 3) == whole[first_step:]


@pytest.mark.parametrize("first_step", [0, 1, 31, 32])
def test_a_streams_examples_are_numbered_in_the_order_of_the_steps(tokenizer, first_step):
    steps = streamed_rows(lambda: LINES, tokenizer, first_step, 2)
    first = first_number(seed=0, step=first_step, batch_size=4)
    assert [number for step in steps for _, number in step] == list(range(first, first + 8))


def test_a_stream_without_end_holds_every_text_equally_often(tokenizer):
    steps = streamed_rows(lambda: LINES, tokenizer, 0, 64)
    drawn = [tuple(ids) for step in steps for ids, _ in step]
    times = [drawn.count(tuple(tokenizer.encode(line).ids)) for line in LINES[:5]]
    assert max(times) - min(times) <= len(drawn) / len(LINES)


def test_a_streams_batches_do_not_depend_on_accumulation(tokenizer):
    whole, cut = (streamed_rows(lambda: LINES, tokenizer, 0, 3, accumulate=n) for n in (1, 2))
    assert [sorted(step) for step in whole] == [sorted(step) for step in cut]


@pytest.mark.parametrize("world", [1, 3])
def test_validation_goes_once_through_the_corpus_with_shares_that_sum_to_one(corpus, world):
    micros = [micro for rank in range(world) for micro in in_turn(corpus, 16, rank, world)]
    seen = [i for micro in micros if micro.share for i in micro.tensors["index"].tolist()]
    assert sorted(seen) == list(range(len(corpus)))
    assert_close(sum(micro.share for micro in micros), 1.0, atol=1e-9, rtol=0)


def test_the_first_use_of_the_tests_leaves_the_users_cache_alone():
    import datasets

    assert "textdiff-tests-" in str(datasets.config.HF_DATASETS_CACHE)
    assert datasets.config.HF_HUB_OFFLINE


def test_nothing_is_logged_for_a_clean_file(file, caplog):
    with caplog.at_level(logging.WARNING, logger="textdiff"):
        list(texts_of(train=file).train())
    assert not warnings(caplog)
