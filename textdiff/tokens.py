"""Token ids of texts on disk: prepared once, memory-mapped by every process of a run.

The name of a cache is a hash of the text, the tokenizer and the options that cut the text. A cache
is used if its files have the SHA-256 of its manifest and its format is ours; otherwise it is made
anew. Knows neither files of text nor the model.
"""

import hashlib
import json
import logging
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from filelock import FileLock
from tokenizers import Tokenizer
from tqdm import tqdm

from textdiff.checkpoint import damage, publish, telling
from textdiff.config import Data, InputError
from textdiff.data import Corpus, examples

log = logging.getLogger("textdiff")

T = TypeVar("T")

FORMAT = 1
FACTS = "facts.json"
INT, LONG = np.dtype("<i4"), np.dtype("<i8")  # little-endian wherever a folder is carried
ARRAYS: dict[str, np.dtype[Any]] = {"tokens": INT, "starts": LONG, "sizes": INT}
CHUNK = 10_000  # texts hashed, and examples written, at a time


def prepare(
    folder: Path,
    name: str,
    texts: Iterable[str],
    tokenizer: Tokenizer,
    data: Data,
) -> Path:
    """Returns the cache of the examples of `texts` in `folder`, made unless it is there and whole.

    Raises InputError if there is no example, or no room.
    """
    key = _key(texts, tokenizer, data)
    path = folder / f"{name}-{key[:16]}"
    if _reason_against(path, key) is None:
        return path
    with telling("the tokens of the text", folder):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):  # another run, or another machine, may be at it
            reason = _reason_against(path, key)
            if reason is not None:
                if path.exists():
                    log.warning("%s cannot be used (%s) and is made anew", path, reason)
                bar = _bar(texts, f"tokens of {name}")
                _make(path, key, lambda aside: _write(aside, examples(bar, tokenizer, data), bar))
    return path


def load(path: Path) -> Corpus:
    """Memory-maps a cache that `prepare` returned. Raises InputError if it is not there."""
    if not path.exists():
        raise InputError(f"{path} is not there: every machine of a run must have the same text")
    return Corpus(**{name: _array(path, name) for name in ARRAYS})


def identity(path: Path) -> str:
    """SHA-256 of a cache's tokens (int32) and starts (int64)."""
    return str(json.loads((path / FACTS).read_text(encoding="utf-8"))["identity"])


def prune(folder: Path, keep: Collection[Path]) -> None:
    """Deletes the caches in `folder` of other texts or tokenizers."""
    for path in folder.glob("*-*"):
        if path not in keep and re.fullmatch(r"(train|valid)-[0-9a-f]{16}", path.name):
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def all_cores() -> Iterator[None]:
    """Lets `tokenizers` use as many threads as there are cores, or RAYON_NUM_THREADS."""
    before = os.environ.get("TOKENIZERS_PARALLELISM")  # off elsewhere, or a later fork would warn
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = before


def _key(texts: Iterable[str], tokenizer: Tokenizer, data: Data) -> str:
    """Hash of all that decides the tokens.

    It is of the text itself, for files may change under old names and dates.
    """
    options = [FORMAT, tokenizer.to_str(), data.length, data.pack]
    key = hashlib.sha256(json.dumps(options).encode())
    for some in _chunks(texts):
        key.update("".join(text + "\0" for text in some).encode())  # no usable text holds NUL
    return key.hexdigest()


def _reason_against(path: Path, key: str) -> str | None:
    """Why a cache cannot be used, or None."""
    if not path.exists():
        return "it is not there"
    if reason := damage(path):
        return reason
    try:
        facts = json.loads((path / FACTS).read_text(encoding="utf-8"))
        if facts["format"] != FORMAT:
            return f"it has format {facts['format']!r}, this version reads {FORMAT}"
        if facts["key"] != key:
            return "it is of another text or tokenizer"
        lengths = [facts["tokens"], facts["examples"] + 1, facts["examples"]]
        for (name, kind), length in zip(ARRAYS.items(), lengths, strict=True):
            if (path / f"{name}.bin").stat().st_size != length * kind.itemsize:
                return f"{name}.bin is not as long as {FACTS} says"
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        return f"{FACTS} or a file it describes cannot be read: {error!r}"
    return None


def _make(path: Path, key: str, write: Callable[[Path], None]) -> None:
    """Writes a cache aside and renames it when it is whole."""
    aside = path.with_name(f".{path.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)  # of a run that was killed
    aside.mkdir()
    try:
        write(aside)
        facts = {
            "format": FORMAT,
            "key": key,
            "tokens": len(_array(aside, "tokens")),
            "examples": len(_array(aside, "sizes")),
            "identity": _sha256(aside / "tokens.bin", aside / "starts.bin"),
        }
        (aside / FACTS).write_text(json.dumps(facts, indent=2), encoding="utf-8")
        publish(aside, path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _bar(texts: Iterable[str], title: str) -> tqdm:
    rest = 0.1 if sys.stderr.isatty() else 10  # seconds between updates; a log file needs few
    return tqdm(texts, title, unit="text", delay=2, mininterval=rest, dynamic_ncols=True)


def _write(folder: Path, rows: Iterable[list[int]], bar: tqdm) -> None:
    """Writes the arrays of the examples as they come; the bar of the texts tells the speed."""
    total, began = 0, time.perf_counter()
    with (
        open(folder / "tokens.bin", "wb") as tokens,
        open(folder / "starts.bin", "wb") as starts,
        open(folder / "sizes.bin", "wb") as sizes,
    ):
        starts.write(np.zeros(1, ARRAYS["starts"]).tobytes())
        for some in _chunks(rows):
            size = np.fromiter(map(len, some), ARRAYS["sizes"], len(some))
            ends = total + np.cumsum(size, dtype=ARRAYS["starts"])
            ids = np.fromiter(chain.from_iterable(some), ARRAYS["tokens"], int(size.sum()))
            for file, array in ((tokens, ids), (starts, ends), (sizes, size)):
                file.write(array.data)
            total = int(ends[-1])
            speed = total / (time.perf_counter() - began)
            bar.set_postfix_str(f"{speed:,.0f} tokens/s", refresh=False)
    bar.close()


def _chunks(items: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(items)
    while some := list(islice(iterator, CHUNK)):
        yield some


def _array(path: Path, name: str) -> np.ndarray:
    return np.asarray(np.memmap(path / f"{name}.bin", ARRAYS[name], "r"))


def _sha256(*paths: Path) -> str:
    """SHA-256 of the files, end to end."""
    whole = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while part := file.read(2**24):
                whole.update(part)
    return whole.hexdigest()
