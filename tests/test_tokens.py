import json
import shutil
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

from textdiff import checkpoint, data, grammar, sources, tokens
from textdiff.config import Data, InputError, Model, TextRun, Train, Vocabulary
from textdiff.data import Corpus, batched, examples
from textdiff.run import train
from textdiff.sources import open_texts
from textdiff.spectral import positive_pmi
from textdiff.vocab import train_tokenizer

TEXTS = grammar.corpus(300, seed=5)
SHORT = Data(length=20)


def prepared(folder: Path, tokenizer, texts=TEXTS, options: Data = SHORT) -> Path:
    return tokens.prepare(folder, "train", texts, tokenizer, options)


def lists(corpus: Corpus) -> list[list[int]]:
    return [ids.tolist() for ids in corpus]


def warnings(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "textdiff"]


def written(path: Path) -> dict[str, tuple[int, int]]:
    """Which files there are, and when they were written."""
    return {file.name: (file.stat().st_ino, file.stat().st_mtime_ns) for file in path.iterdir()}


# --- what is prepared


@pytest.mark.parametrize("pack", [False, True])
def test_a_cache_gives_back_the_examples(pack, tokenizer, tmp_path):
    options = Data(length=20, pack=pack)
    corpus = tokens.load(prepared(tmp_path, tokenizer, options=options))
    assert lists(corpus) == list(examples(TEXTS, tokenizer, options))
    assert corpus.sizes.tolist() == [len(ids) for ids in corpus]


def test_many_chunks_are_written_as_one(tokenizer, tmp_path, monkeypatch):
    whole = lists(tokens.load(prepared(tmp_path / "whole", tokenizer)))
    monkeypatch.setattr(tokens, "CHUNK", 7)
    monkeypatch.setattr(data, "CHUNK", 100)
    assert lists(tokens.load(prepared(tmp_path / "cut", tokenizer))) == whole


def test_its_identity_is_what_checkpoints_have_always_held(tokenizer, tmp_path):
    path = prepared(tmp_path, tokenizer)
    corpus = Corpus.of(examples(TEXTS, tokenizer, SHORT))
    ids, starts = corpus.tokens.astype(np.int32), corpus.starts.astype(np.int64)
    assert tokens.identity(path) == checkpoint.digest(ids.tobytes(), starts.tobytes())


def test_every_process_takes_its_share_of_the_same_batches_from_the_cache(tokenizer, tmp_path):
    path, options = prepared(tmp_path, tokenizer), Train(batch_size=16)
    places = ((0, 1), (0, 2), (1, 2))
    plans = [batched(tokens.load(path), options, 0, rank, world) for rank, world in places]
    whole, *shares = (list(islice(plan, 30)) for plan in plans)
    for one, *parts in zip(whole, *shares, strict=True):
        numbers = [i for (part,) in parts for i in part.tensors["index"].tolist()]
        assert sorted(numbers) == one[0].tensors["index"].tolist()
        assert sum(part.size for (part,) in parts) == one[0].size


# --- what is found again


def test_the_same_text_and_tokenizer_find_what_was_prepared(tokenizer, tmp_path):
    path = prepared(tmp_path, tokenizer)
    before = written(path)
    assert prepared(tmp_path, tokenizer, list(TEXTS)) == path
    assert written(path) == before


OTHERS = {
    "another text": {"texts": [*TEXTS[:-1], "the king sleeps ."]},
    "another order": {"texts": TEXTS[::-1]},
    "lines cut elsewhere": {"texts": [" ".join(pair) for pair in pairwise(TEXTS)]},
    "another length": {"options": Data(length=19)},
    "packed": {"options": Data(length=20, pack=True)},
    "another tokenizer": {"tokenizer": train_tokenizer(TEXTS, Vocabulary(size=20))},
}


@pytest.mark.parametrize("other", OTHERS)
def test_another_text_or_tokenizer_or_cut_is_another_cache(other, tokenizer, tmp_path):
    path = prepared(tmp_path, tokenizer)
    assert prepared(tmp_path, **({"tokenizer": tokenizer} | OTHERS[other])) != path


def truncated(path: Path) -> None:
    (path / "tokens.bin").write_bytes((path / "tokens.bin").read_bytes()[:-40])


def flipped(path: Path) -> None:
    content = bytearray((path / "sizes.bin").read_bytes())
    content[9] ^= 4
    (path / "sizes.bin").write_bytes(content)


def incomplete(path: Path) -> None:
    (path / "starts.bin").unlink()


def signed(path: Path, **facts: object) -> None:
    """With facts that its manifest vouches for."""
    old = json.loads((path / "facts.json").read_text(encoding="utf-8"))
    (path / "facts.json").write_text(json.dumps(old | facts), encoding="utf-8")
    (path / checkpoint.MANIFEST).unlink()
    aside = path.rename(path.with_name("aside"))
    checkpoint.publish(aside, path)


FAULTS = {
    "truncated": (truncated, "tokens.bin has changed"),
    "a bit flipped": (flipped, "sizes.bin has changed"),
    "a file missing": (incomplete, "does not list the files"),
    "of another format": (lambda path: signed(path, format=99), "format 99, this version reads 1"),
    "of another text": (lambda path: signed(path, key="0" * 64), "another text"),
    "of other sizes": (lambda path: signed(path, tokens=7), "tokens.bin is not as long as"),
    "without facts": (lambda path: signed(path, examples=None), "cannot be read"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_trusted_is_told_and_made_anew(fault, tokenizer, tmp_path, caplog):
    path = prepared(tmp_path, tokenizer)
    whole, (break_it, reason) = lists(tokens.load(path)), FAULTS[fault]
    break_it(path)
    assert prepared(tmp_path, tokenizer) == path
    (warning,) = warnings(caplog)
    assert reason in warning
    assert str(path) in warning
    assert lists(tokens.load(path)) == whole


def test_what_a_killed_run_left_is_no_cache(tokenizer, tmp_path):
    path = prepared(tmp_path, tokenizer)
    whole = lists(tokens.load(path))
    path.rename(tmp_path / f".{path.name}.partial")
    (tmp_path / f".{path.name}.partial" / "sizes.bin").write_bytes(b"")
    assert lists(tokens.load(prepared(tmp_path, tokenizer))) == whole
    assert {file.name for file in tmp_path.iterdir()} <= {path.name, ".lock"}


def test_a_preparation_that_fails_leaves_nothing(tokenizer, tmp_path):
    with pytest.raises(InputError, match=r"--data\.pack"):
        prepared(tmp_path, tokenizer, options=Data(length=2))
    assert {file.name for file in tmp_path.iterdir()} <= {".lock"}


def test_a_place_without_room_is_told_in_one_line(tokenizer, tmp_path):
    (tmp_path / "tokens").write_text("a file", encoding="utf-8")
    with pytest.raises(InputError, match="could not be written"):
        prepared(tmp_path / "tokens", tokenizer)


def test_a_cache_that_is_not_there_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=r"train-0 is not there"):
        tokens.load(tmp_path / "train-0")


# --- counting in pieces


@pytest.mark.parametrize("size", [1, 7, 50, 10**6])
def test_the_pieces_of_a_corpus_are_the_corpus(size, corpus, monkeypatch):
    monkeypatch.setattr(data, "PIECE", size)
    assert [ids for piece in corpus.pieces() for ids in lists(piece)] == lists(corpus)


def test_words_are_counted_in_pieces_as_in_one(corpus, tokenizer, monkeypatch):
    whole = positive_pmi(corpus, tokenizer.get_vocab_size(), 2)
    monkeypatch.setattr(data, "PIECE", 50)
    assert_close(positive_pmi(corpus, tokenizer.get_vocab_size(), 2), whole, atol=0, rtol=0)


# --- memory


def peak_while_preparing(lines: int, folder: Path) -> int:
    """Most bytes of Python objects and arrays while texts are read, prepared and batched."""
    folder.mkdir()
    words = np.random.default_rng(0).integers(10, 99, lines)
    content = "".join(f"{chr(97 + word % 26) * 150} {word}\n" for word in words)
    (folder / "text.txt").write_text(content, encoding="utf-8")
    options = Data(train=str(folder / "text.txt"))
    tokenizer = train_tokenizer(["10 20 30"], Vocabulary(min_count=1))
    open_texts(options)  # datasets writes its arrow file
    tracemalloc.start()
    texts = open_texts(options)
    corpus = tokens.load(tokens.prepare(folder, "train", texts.train(), tokenizer, options))
    next(batched(corpus, Train(batch_size=8), 0, 0, 1))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def test_memory_grows_by_some_bytes_a_line_and_not_by_the_text(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "PIECE", 2**16)
    monkeypatch.setattr(tokens, "CHUNK", 500)
    peak_while_preparing(500, tmp_path / "warm")
    few, many = 2_000, 12_000
    peak = {lines: peak_while_preparing(lines, tmp_path / str(lines)) for lines in (many, few)}
    assert peak[many] - peak[few] < 30 * (many - few)  # a list of these lines alone takes 200


# --- a run

TINY = TextRun(
    data=Data(length=20),
    model=Model(embed_dim=8, width=16, depth=1, heads=2),
    train=Train(steps=4, batch_size=8, warmup=2, precision="no", valid_every=4, save_every=2),
)


def run(folder: Path, text: Path, steps: int = 4, **options: bool) -> dict:
    data, plan = replace(TINY.data, train=str(text)), replace(TINY.train, steps=steps)
    train(replace(TINY, run=str(folder), data=data, train=plan), **options)
    return load_file(folder / "state" / f"step-{steps:08d}" / "model.safetensors")


def test_a_run_goes_on_byte_for_byte_whatever_became_of_its_cache(tmp_path, caplog):
    text = tmp_path / "text.txt"
    text.write_text("\n".join(TEXTS), encoding="utf-8")
    whole = run(tmp_path / "whole", text, resume=False)
    stopped = tmp_path / "stopped"
    shutil.copytree(tmp_path / "whole", stopped)
    shutil.rmtree(stopped / "state" / "step-00000004")
    for path in (stopped / "tokens").glob("train-*"):
        truncated(path)
    again = run(stopped, text, resume=True)
    assert any("made anew" in warning for warning in warnings(caplog))
    assert again.keys() == whole.keys()
    assert all(again[name].equal(whole[name]) for name in whole)


def test_a_run_that_is_replaced_leaves_no_cache_of_the_text_before(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("\n".join(TEXTS), encoding="utf-8")
    run(tmp_path / "run", text)
    before = {path.name for path in (tmp_path / "run" / "tokens").glob("*-*")}
    text.write_text("\n".join(grammar.corpus(300, seed=6)), encoding="utf-8")
    run(tmp_path / "run", text, overwrite=True)
    after = {path.name for path in (tmp_path / "run" / "tokens").glob("*-*")}
    assert len(after) == 2
    assert not before & after


@pytest.mark.slow
def test_much_text_trains_in_little_memory() -> None:
    """Of 100 MB; with 2,000 it takes a quarter of an hour, and the bound is 1,500."""
    command = [sys.executable, "scripts/memory.py", "--megabytes", "100", "--bound", "600"]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False, cwd=root)
    assert done.returncode == 0, done.stdout + done.stderr


def test_pruning_deletes_nothing_but_caches(tmp_path):
    for name in ("my-notes", "train-0123456789abcdef", "valid-0123456789abcdef"):
        (tmp_path / name).mkdir()
    tokens.prune(tmp_path, [tmp_path / "valid-0123456789abcdef"])
    assert {path.name for path in tmp_path.iterdir()} == {"my-notes", "valid-0123456789abcdef"}
