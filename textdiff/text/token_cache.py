"""A cache of token ids on disk, written once and memory-mapped by every process of a run.

The name of a cache is a hash of the text, the tokenizer and the options that divide the text. A
cache is used if its format is current and its files have the SHA-256 of its manifest. Otherwise it
is written again.
"""

import hashlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from filelock import FileLock
from tokenizers import Tokenizer

from textdiff.config import UserError
from textdiff.progress import ProgressBar
from textdiff.text.config import DataConfig
from textdiff.text.dataset import Corpus, examples
from textdiff.training.checkpoint import finalize, reraise_write_errors, verify

log = logging.getLogger("textdiff")

T = TypeVar("T")

FORMAT = 2
FACTS = "facts.json"
INT, LONG = np.dtype("<i4"), np.dtype("<i8")  # little-endian on every machine
ARRAYS: dict[str, np.dtype[Any]] = {"tokens": INT, "starts": LONG, "sizes": INT}
CHUNK = 10_000  # texts hashed, and examples written, at a time


def prepare(
    folder: Path,
    name: str,
    texts: Iterable[str],
    tokenizer: Tokenizer,
    data: DataConfig,
) -> Path:
    """Returns the cache of the examples of `texts`, and writes it if it is missing or damaged.

    Args:
        folder: Folder of the caches.
        name: First part of the cache's name: train or valid.

    Raises:
        UserError: If there is no example, or no room on the disk.
    """
    key = _key(texts, tokenizer, data)
    path = folder / f"{name}-{key[:16]}"
    if _defect(path, key) is None:
        return path
    with reraise_write_errors("the tokens of the text", folder):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):  # another run or machine may write the same cache
            defect = _defect(path, key)
            if defect is not None:
                if path.exists():
                    log.warning("%s cannot be used (%s) and is written again", path, defect)
                bar = _progress_bar(texts, f"tokens of {name}")
                rows = examples(bar, tokenizer, data)
                _write_cache(path, key, lambda partial: _write_arrays(partial, rows, bar))
    return path


def load(path: Path) -> Corpus:
    """Memory-maps a cache. Raises UserError if it does not exist.

    Args:
        path: Result of `prepare`.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist: every machine of a run needs the same text")
    return Corpus(**{name: _array(path, name) for name in ARRAYS})


def fingerprint(path: Path) -> str:
    """SHA-256 of a cache's tokens (int32) and starts (int64)."""
    return str(json.loads((path / FACTS).read_text(encoding="utf-8"))["fingerprint"])


def prune(folder: Path, keep: Collection[Path]) -> None:
    """Deletes caches of other texts or tokenizers.

    Args:
        folder: Folder of the caches.
        keep: Caches that are kept.
    """
    for path in folder.glob("*-*"):
        if path not in keep and re.fullmatch(r"(train|valid)-[0-9a-f]{16}", path.name):
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def all_cores() -> Iterator[None]:
    """Allows `tokenizers` one thread per core, or RAYON_NUM_THREADS threads."""
    before = os.environ.get("TOKENIZERS_PARALLELISM")  # off elsewhere, or a later fork would warn
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = before


def _key(texts: Iterable[str], tokenizer: Tokenizer, data: DataConfig) -> str:
    """Hash of everything that decides the tokens.

    It includes the text itself, because files can change under old names and dates.
    """
    options = [FORMAT, tokenizer.to_str(), data.length, data.pack]
    key = hashlib.sha256(json.dumps(options).encode())
    for chunk in _chunks(texts):
        key.update("".join(text + "\0" for text in chunk).encode())  # usable texts have no NUL
    return key.hexdigest()


def _defect(path: Path, key: str) -> str | None:
    """Reason why a cache cannot be used, or None."""
    if not path.exists():
        return "it does not exist"
    if defect := verify(path):
        return defect
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


def _write_cache(path: Path, key: str, write: Callable[[Path], None]) -> None:
    """Writes a cache into a temporary folder and renames it when it is complete."""
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # left by a run that was killed
    partial.mkdir()
    try:
        write(partial)
        facts = {
            "format": FORMAT,
            "key": key,
            "tokens": len(_array(partial, "tokens")),
            "examples": len(_array(partial, "sizes")),
            "fingerprint": _sha256(partial / "tokens.bin", partial / "starts.bin"),
        }
        (partial / FACTS).write_text(json.dumps(facts, indent=2), encoding="utf-8")
        finalize(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _progress_bar(texts: Iterable[str], title: str) -> ProgressBar:
    return ProgressBar(texts, title, unit="text", delay=2)


def _write_arrays(folder: Path, rows: Iterable[list[int]], bar: ProgressBar) -> None:
    """Writes the arrays of the examples, some at a time."""
    total, start = 0, time.perf_counter()
    with (
        open(folder / "tokens.bin", "wb") as tokens,
        open(folder / "starts.bin", "wb") as starts,
        open(folder / "sizes.bin", "wb") as sizes,
    ):
        starts.write(np.zeros(1, ARRAYS["starts"]).tobytes())
        for chunk in _chunks(rows):
            size = np.fromiter(map(len, chunk), ARRAYS["sizes"], len(chunk))
            ends = total + np.cumsum(size, dtype=ARRAYS["starts"])
            ids = np.fromiter(chain.from_iterable(chunk), ARRAYS["tokens"], int(size.sum()))
            for file, array in ((tokens, ids), (starts, ends), (sizes, size)):
                file.write(array.data)
            total = int(ends[-1])
            speed = total / (time.perf_counter() - start)
            bar.set_postfix_str(f"{speed:,.0f} tokens/s", refresh=False)
    bar.close()


def _chunks(items: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, CHUNK)):
        yield chunk


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
