"""Texts from files, globs, URLs, the hub or the built-in grammar, through `datasets`.

What cannot be used is counted and located, never passed on silently. Knows no tokenizer.
"""

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from glob import escape, glob
from itertools import chain, compress, islice
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
from datasets.distributed import split_dataset_by_node

from textdiff import grammar
from textdiff.config import Data, InputError
from textdiff.pretrained import looks_local

log = logging.getLogger("textdiff")

FORMATS = {".txt": "text", ".csv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
LONGEST_LINE = 100_000  # characters; longer lines are no sentences
GRAMMAR_SENTENCES = 30_000
HELD_OUT = 1_000  # rows of a stream kept for validation
PIECE = 2**23  # bytes of text, about, that are read at a time
BLANK = "are blank"


class Texts(NamedTuple):
    """Training texts, anew at each call, and validation texts. Of a stream, `train(rank, world)` gives what lies in the files of one
    process of `world`, if the number of `files` is a multiple of that."""

    train: Callable[..., Iterable[str]]
    valid: Collection[str]
    files: int = 0


class Rows(Collection[str]):
    """The rows of an arrow table that are chosen, in order. The table is memory-mapped: texts are read as they are asked for."""

    def __init__(self, table: datasets.Dataset, field: str, chosen: np.ndarray) -> None:
        self.table, self.field, self.chosen = table, field, chosen

    def __len__(self) -> int:
        return int(self.chosen.sum())

    def __iter__(self) -> Iterator[str]:
        first = 0
        for texts in _pieces(self.table, self.field):
            yield from compress(texts, self.chosen[first : first + len(texts)])
            first += len(texts)

    def among(self, chosen: np.ndarray) -> "Rows":
        """Those of these rows that are chosen."""
        all_rows = self.chosen.copy()
        all_rows[self.chosen] = chosen
        return Rows(self.table, self.field, all_rows)

    def __contains__(self, text: object) -> bool:
        return any(text == other for other in self)


def open_texts(data: Data) -> Texts:
    """Both sets. Without a source for validation: the hub's own split, or a held-out share (fixed, whatever the seed)."""
    source = data.train
    if source is None:
        train = grammar.corpus(GRAMMAR_SENTENCES, seed=0)
        return Texts(lambda: train, _rows(data.valid, data) if data.valid else grammar.corpus(2_000, seed=1, training=False))
    if data.valid or _has_validation(source):
        valid = _rows(data.valid or source, data, "train" if data.valid else "validation")
        if data.streaming:
            return _stream(source, data, valid)
        rows = _rows(source, data)
        return Texts(lambda: rows, valid)
    return _stream(source, data, None) if data.streaming else _split(_rows(source, data), data)


def _split(rows: Rows, data: Data) -> Texts:
    n = len(rows)
    if n < 2:
        raise InputError(f"{data.train} holds one usable line: too few to train and to validate on")
    held_out = np.zeros(n, bool)
    held_out[(_stretches if data.pack else _at_random)(n, max(1, round(data.valid_share * n)))] = True
    train, valid = rows.among(~held_out), rows.among(held_out)
    return Texts(lambda: train, valid)


def _at_random(n: int, held_out: int) -> np.ndarray:
    return np.random.default_rng(0).permutation(n)[:held_out]


def _stretches(n: int, held_out: int) -> np.ndarray:
    """Rows of a text whose lines go on from one to the next: the last of each tenth of it, so that few documents are in both sets."""
    parts = min(10, held_out)
    ends = [(i * n // parts, i * held_out // parts - (i - 1) * held_out // parts) for i in range(1, parts + 1)]
    return np.concatenate([np.arange(end - size, end) for end, size in ends])


def _stream(source: str, data: Data, valid: Collection[str] | None) -> Texts:
    """Without validation texts of its own, its first rows are held out."""
    rows = _open(source, data, "train", streaming=True)
    skipped = 0
    if valid is None:
        *valid, _ = islice(_usable(rows, source, data), HELD_OUT + 1)
        skipped = HELD_OUT
        if len(valid) < skipped:
            raise InputError(f"{source} holds no more than the {HELD_OUT:,} rows kept for validation: leave --data.streaming off")

    def train(rank: int = 0, world: int = 1) -> Iterator[str]:
        part = _open(source, data, "train", streaming=True)
        if world == 1:
            return islice(_usable(part, source, data), skipped, None)
        before = _among_the_first(skipped, part, data, rank, world)
        where = f" of the files of process {rank} of {world}"
        texts = islice(_usable(split_dataset_by_node(part, rank, world), source, data, where), before, None)
        for text in texts:
            return chain([text], texts)
        raise InputError(f"{source}: all rows{where} are kept for validation: give --data.valid, or start fewer processes")

    return Texts(train, valid, rows.num_shards)


def _among_the_first(n: int, rows: datasets.IterableDataset, data: Data, rank: int, world: int) -> int:
    """How many of the first n usable rows lie in the files of this process, which are every world-th from the rank-th on."""
    mine = 0
    for number in range(rows.num_shards):
        texts = chain.from_iterable(_pieces(rows.shard(rows.num_shards, number), data.field))
        found = sum(1 for _ in islice((text for text in texts if not _problem(text, data)), n))
        n, mine = n - found, mine + found * (number % world == rank)
        if not n:
            break
    return mine


def _rows(source: str, data: Data, split: str = "train") -> Rows:
    """The usable texts of a source. Raises InputError for what cannot be read."""
    table = _open(source, data, split, streaming=False)
    return Rows(table, data.field, np.concatenate([usable for _, usable in _checked(table, source, data)]))


def _usable(rows: datasets.IterableDataset, source: str, data: Data, where: str = "") -> Iterator[str]:
    return chain.from_iterable(compress(texts, usable) for texts, usable in _checked(rows, source, data, where))


def _pieces(rows: datasets.Dataset | datasets.IterableDataset, field: str) -> Iterator[list[Any]]:
    """A column, some megabytes of a table or some rows of a stream at a time."""
    if isinstance(rows, datasets.IterableDataset):
        texts = (row.get(field) for row in rows)
        while some := list(islice(texts, 100)):
            yield some
    elif len(rows):
        column = rows.select_columns([field]).with_format("arrow")
        for table in column.iter(max(1, min(PIECE * len(rows) // (column.data.nbytes + 1), 10_000))):
            yield table[field].to_pylist()


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


def _open(source: str, data: Data, split: str, streaming: bool) -> Any:
    """The column of the texts. Raises InputError if there is none."""
    rows, columns = _load(source, split, streaming)
    if columns and data.field not in columns:
        raise InputError(f"{source} has no field {data.field!r}, it has {', '.join(columns)}: choose one with --data.field")
    return rows


def _load(source: str, split: str, streaming: bool) -> tuple[Any, list[str]]:
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


def _checked(rows: Any, source: str, data: Data, where: str = "") -> Iterator[tuple[list[Any], np.ndarray]]:
    """Texts, and which of them are usable: not blank, nor what is counted and located here, for it is no text, not valid UTF-8, or endless."""
    counted, first = Counter[str](), dict[str, int]()
    number, empty = 1, True
    for texts in _pieces(rows, data.field):
        problems = [_problem(text, data) for text in texts]
        for problem in filter(None, dict.fromkeys(problems)):
            counted[problem] += problems.count(problem)
            first.setdefault(problem, number + problems.index(problem))
        usable = np.array([problem is None for problem in problems])
        yield texts, usable
        number, empty = number + len(texts), empty and not usable.any()
    where = where or (" of all its files in order of name" if len(_files(source)) > 1 else "")
    for what in sorted(counted.keys() - {BLANK}, key=first.__getitem__):
        log.warning("%s: left out rows that %s: %s, the first is row %s%s", source, what, f"{counted[what]:,}", f"{first[what]:,}", where)
    if empty:
        raise InputError(f"{source} holds no usable text")


def _problem(text: Any, data: Data) -> str | None:
    """Why a row cannot be used."""
    if not isinstance(text, str):
        return "hold no text"
    if "\ufffd" in text or "\0" in text:
        return "are not valid UTF-8 (or hold NUL or U+FFFD)"
    if not data.pack and len(text) > LONGEST_LINE:
        return f"are longer than {LONGEST_LINE:,} characters"
    return None if text.strip() else BLANK
