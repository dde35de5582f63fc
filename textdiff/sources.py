"""Texts from files, globs, URLs, the hub or the built-in grammar, through `datasets`.

What cannot be used is counted and located, never passed on silently. Knows no tokenizer.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from glob import escape, glob
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np

from textdiff import grammar
from textdiff.config import Data, InputError
from textdiff.pretrained import looks_local

log = logging.getLogger("textdiff")

FORMATS = {".txt": "text", ".csv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
LONGEST_LINE = 100_000  # characters; longer lines are no sentences
GRAMMAR_SENTENCES = 30_000
HELD_OUT = 1_000  # rows of a stream kept for validation


class Texts(NamedTuple):
    """Training texts, anew at each call, and validation texts."""

    train: Callable[[], Iterable[str]]
    valid: list[str]


def open_texts(data: Data) -> Texts:
    """Both sets. Without a source for validation: the hub's own split, or a held-out share (fixed, whatever the seed)."""
    source = data.train
    if source is None:
        train = grammar.corpus(GRAMMAR_SENTENCES, seed=0)
        return Texts(lambda: train, list(_read(data.valid, data)) if data.valid else grammar.corpus(2_000, seed=1, training=False))
    if data.valid or _has_validation(source):
        valid = list(_read(data.valid or source, data, "train" if data.valid else "validation"))
        texts = None if data.streaming else list(_read(source, data))
        return Texts(lambda: texts or _read(source, data, streaming=True), valid)
    if data.streaming:
        *valid, _ = islice(_read(source, data, streaming=True), HELD_OUT + 1)
        if len(valid) < HELD_OUT:
            raise InputError(f"{source} holds no more than the {HELD_OUT:,} rows kept for validation: leave --data.streaming off")
        return Texts(lambda: islice(_read(source, data, streaming=True), HELD_OUT, None), valid)
    return _split(list(_read(source, data)), data)


def _split(texts: list[str], data: Data) -> Texts:
    if len(texts) < 2:
        raise InputError(f"{data.train} holds one usable line: too few to train and to validate on")
    order = np.random.default_rng(0).permutation(len(texts))
    held_out = max(1, round(data.valid_share * len(texts)))
    train = [texts[i] for i in np.sort(order[held_out:])]
    return Texts(lambda: train, [texts[i] for i in np.sort(order[:held_out])])


def _read(source: str, data: Data, split: str = "train", streaming: bool = False) -> Iterator[str]:
    """The usable texts of a source. Raises InputError for what cannot be read."""
    rows, columns = _open(source, split, streaming)
    if columns and data.field not in columns:
        raise InputError(f"{source} has no field {data.field!r}, it has {', '.join(columns)}: choose one with --data.field")
    several = " of all its files in order of name" if len(_files(source)) > 1 else ""
    limit = None if data.pack else LONGEST_LINE
    return _checked((row.get(data.field) for row in rows) if streaming else rows[data.field], source, limit, several)


def _format(source: str) -> str | None:
    """How to read a file, a glob or a URL: by its suffix, else as lines of text; None for the name of a data set on the hub."""
    name = source
    while name.endswith(COMPRESSED):
        name = name[: name.rindex(".")]
    if kind := FORMATS.get(Path(name).suffix.lower()):
        return kind
    return "text" if "://" in source or _files(source) else None


def _files(source: str) -> list[str]:
    """The files that a path or a glob finds."""
    return [source] if Path(source).is_file() else [path for path in glob(source, recursive=True) if Path(path).is_file()]


def _has_validation(source: str) -> bool:
    if _format(source) or looks_local(source):
        return False
    try:
        return "validation" in datasets.get_dataset_split_names(source)
    except Exception:  # whatever the hub says is said again, properly, when the data are opened
        return False


def _open(source: str, split: str, streaming: bool) -> tuple[Any, list[str]]:
    """The rows and the names of their columns, which a stream tells with its first row: none if it is empty."""
    datasets.disable_progress_bars()
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # or every local file would be announced to a server
    kind = _format(source)
    if "://" not in source and (kind or looks_local(source)) and not _files(source):
        raise InputError(f"{source} is not a file and, as a glob, matches none")
    lenient = {} if kind == "parquet" else {"encoding": "utf-8-sig", "encoding_errors": "replace"}  # json is strict with plain "utf-8"
    try:
        if kind:
            rows = datasets.load_dataset(
                kind, data_files=escape(source) if Path(source).is_file() else source, split="train", streaming=streaming, **lenient
            )
        else:
            rows = datasets.load_dataset(source, split=split, streaming=streaming)
        return rows, rows.column_names or list(next(iter(rows), {}))
    except Exception as error:  # datasets raises many kinds, most of them wrapping the reason
        cause = error.__cause__ or error
        reason = " ".join(str(cause).split())[:200]
        if type(cause).__name__ in ("SchemaInferenceError", "EmptyDataError"):
            raise InputError(f"{source} is empty") from error
        what = f"{source} cannot be read as {kind}" if kind else f"{source} is neither a file nor a data set the hub gives"
        raise InputError(f"{what}: {reason}") from error


def _checked(texts: Iterable[Any], source: str, limit: int | None, several: str) -> Iterator[str]:
    """Leaves out blank rows, and counts and locates rows that are no text, not valid UTF-8, or endless."""
    problems: dict[str, list[int]] = {}
    empty = True
    for number, text in enumerate(texts, start=1):
        if not isinstance(text, str):
            problems.setdefault("hold no text", []).append(number)
        elif "\ufffd" in text or "\0" in text:
            problems.setdefault("are not valid UTF-8 (or hold NUL or U+FFFD)", []).append(number)
        elif limit and len(text) > limit:
            problems.setdefault(f"are longer than {limit:,} characters", []).append(number)
        elif text.strip():
            empty = False
            yield text
    for what, where in problems.items():
        log.warning("%s: left out rows that %s: %s, the first is row %s%s", source, what, f"{len(where):,}", f"{where[0]:,}", several)
    if empty:
        raise InputError(f"{source} holds no usable text")
