"""Laws of the token cache: it gives the examples, is found again and is never trusted blindly."""

import json
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
from text_files import log_messages

from textdiff.config import TrainConfig, UserError
from textdiff.text import dataset, grammar, token_cache
from textdiff.text.config import DataConfig, TokenizerConfig
from textdiff.text.dataset import Corpus, examples, training_batches
from textdiff.text.tokenizer import train_tokenizer
from textdiff.training import checkpoint

TEXTS = grammar.corpus(300, seed=5)
SHORT = DataConfig(length=20)


def prepared(folder: Path, tokenizer, texts=TEXTS, options: DataConfig = SHORT) -> Path:
    return token_cache.prepare(folder, "train", texts, tokenizer, options)


def lists(corpus: Corpus) -> list[list[int]]:
    return [ids.tolist() for ids in corpus]


def inodes_and_times(path: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of writing of each file."""
    return {file.name: (file.stat().st_ino, file.stat().st_mtime_ns) for file in path.iterdir()}


# --- content


@pytest.mark.parametrize("pack", [False, True])
def test_cache_gives_back_the_examples(pack, tokenizer, tmp_path):
    options = DataConfig(length=20, pack=pack)
    corpus = token_cache.load(prepared(tmp_path, tokenizer, options=options))
    assert lists(corpus) == list(examples(TEXTS, tokenizer, options))
    assert corpus.sizes.tolist() == [len(ids) for ids in corpus]


def test_cache_does_not_depend_on_chunk_size(tokenizer, tmp_path, monkeypatch):
    whole = lists(token_cache.load(prepared(tmp_path / "whole", tokenizer)))
    monkeypatch.setattr(token_cache, "CHUNK", 7)
    monkeypatch.setattr(dataset, "CHUNK", 100)
    assert lists(token_cache.load(prepared(tmp_path / "chunks", tokenizer))) == whole


def test_fingerprint_is_sha256_of_tokens_and_starts(tokenizer, tmp_path):
    """Checkpoints hold this number, so it must not change."""
    path = prepared(tmp_path, tokenizer)
    corpus = Corpus.of(examples(TEXTS, tokenizer, SHORT))
    ids, starts = corpus.tokens.astype(np.int32), corpus.starts.astype(np.int64)
    assert token_cache.fingerprint(path) == checkpoint.sha256(ids.tobytes(), starts.tobytes())


def test_processes_divide_batches_of_the_cache(tokenizer, tmp_path):
    corpus, options = token_cache.load(prepared(tmp_path, tokenizer)), TrainConfig(batch_size=16)
    whole, *parts_of = (
        list(islice(training_batches(corpus, options, 0, rank, world), 30))
        for rank, world in ((0, 1), (0, 2), (1, 2))
    )
    for (batch,), *parts in zip(whole, *parts_of, strict=True):
        indices = [i for (part,) in parts for i in part.tensors["index"].tolist()]
        assert sorted(indices) == batch.tensors["index"].tolist()
        assert sum(part.size for (part,) in parts) == batch.size


# --- reuse


def test_same_text_and_tokenizer_reuse_the_cache(tokenizer, tmp_path):
    path = prepared(tmp_path, tokenizer)
    before = inodes_and_times(path)
    assert prepared(tmp_path, tokenizer, list(TEXTS)) == path
    assert inodes_and_times(path) == before


CHANGES = {
    "another text": {"texts": [*TEXTS[:-1], "the king sleeps ."]},
    "another order": {"texts": TEXTS[::-1]},
    "lines divided elsewhere": {"texts": [" ".join(pair) for pair in pairwise(TEXTS)]},
    "another length": {"options": DataConfig(length=19)},
    "packed": {"options": DataConfig(length=20, pack=True)},
    "another tokenizer": {"tokenizer": train_tokenizer(TEXTS, TokenizerConfig(size=20))},
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_gives_another_cache(change, tokenizer, tmp_path):
    path = prepared(tmp_path, tokenizer)
    assert prepared(tmp_path, **({"tokenizer": tokenizer} | CHANGES[change])) != path


# --- caches that cannot be used


def truncate(path: Path) -> None:
    (path / "tokens.bin").write_bytes((path / "tokens.bin").read_bytes()[:-40])


def flip_a_bit(path: Path) -> None:
    content = bytearray((path / "sizes.bin").read_bytes())
    content[9] ^= 4
    (path / "sizes.bin").write_bytes(content)


def delete_a_file(path: Path) -> None:
    (path / "starts.bin").unlink()


def change_facts(path: Path, **facts: object) -> None:
    """Writes other facts with a manifest that fits them."""
    old = json.loads((path / "facts.json").read_text(encoding="utf-8"))
    (path / "facts.json").write_text(json.dumps(old | facts), encoding="utf-8")
    (path / checkpoint.MANIFEST).unlink()
    aside = path.rename(path.with_name("aside"))
    checkpoint.finalize(aside, path)


OTHER_FORMAT = f"format 99, this version reads {token_cache.FORMAT}"
DEFECTS = {
    "truncated": (truncate, "tokens.bin has changed"),
    "bit flipped": (flip_a_bit, "sizes.bin has changed"),
    "file missing": (delete_a_file, "does not list the files"),
    "other format": (lambda path: change_facts(path, format=99), OTHER_FORMAT),
    "other text": (lambda path: change_facts(path, key="0" * 64), "another text"),
    "other sizes": (lambda path: change_facts(path, tokens=7), "tokens.bin is not as long as"),
    "without facts": (lambda path: change_facts(path, examples=None), "cannot be read"),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_damaged_cache_is_reported_and_rewritten(defect, tokenizer, tmp_path, caplog):
    path = prepared(tmp_path, tokenizer)
    whole, (damage, reason) = lists(token_cache.load(path)), DEFECTS[defect]
    damage(path)
    assert prepared(tmp_path, tokenizer) == path
    (warning,) = log_messages(caplog)
    assert reason in warning
    assert str(path) in warning
    assert lists(token_cache.load(path)) == whole


def test_partial_cache_of_a_killed_run_is_replaced(tokenizer, tmp_path):
    path = prepared(tmp_path, tokenizer)
    whole = lists(token_cache.load(path))
    partial = path.rename(tmp_path / f".{path.name}.partial")
    (partial / "sizes.bin").write_bytes(b"")
    assert lists(token_cache.load(prepared(tmp_path, tokenizer))) == whole
    assert {file.name for file in tmp_path.iterdir()} <= {path.name, ".lock"}


def test_failed_preparation_leaves_no_files(tokenizer, tmp_path):
    with pytest.raises(UserError, match=r"--data\.pack"):
        prepared(tmp_path, tokenizer, options=DataConfig(length=2))
    assert {file.name for file in tmp_path.iterdir()} <= {".lock"}


def test_failed_write_is_a_user_error(tokenizer, tmp_path):
    (tmp_path / "tokens").write_text("a file", encoding="utf-8")
    with pytest.raises(UserError, match="could not be written"):
        prepared(tmp_path / "tokens", tokenizer)


def test_missing_cache_is_refused_by_name(tmp_path):
    with pytest.raises(UserError, match=r"train-0 does not exist"):
        token_cache.load(tmp_path / "train-0")


def test_pruning_deletes_only_caches(tmp_path):
    for name in ("my-notes", "train-0123456789abcdef", "valid-0123456789abcdef"):
        (tmp_path / name).mkdir()
    token_cache.prune(tmp_path, [tmp_path / "valid-0123456789abcdef"])
    assert {path.name for path in tmp_path.iterdir()} == {"my-notes", "valid-0123456789abcdef"}
