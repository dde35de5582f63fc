"""Training and validation texts from files, the hub or the built-in grammar.

Rows that cannot be used are counted and located in a warning.
"""

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import chain, compress, islice
from typing import Any, NamedTuple

import datasets
import numpy as np
from datasets.distributed import split_dataset_by_node

from textdiff.config import UserError, check
from textdiff.text import grammar
from textdiff.text.config import DataConfig
from textdiff.text.files import find_files, has_validation_split, open_dataset, text_chunks
from textdiff.text.special_tokens import SEPARATOR

log = logging.getLogger("textdiff")

LONGEST_LINE = 100_000  # characters; longer lines are not sentences
GRAMMAR_SENTENCES = 30_000
HELD_OUT = 1_000  # rows of a stream kept for validation
BLANK = "are blank"


class Texts(NamedTuple):
    """Training and validation texts.

    Args:
        train: Returns the training texts, from the start at each call. For a stream,
            `train(rank, world)` returns the texts in the files of one of `world` processes, if
            `files` is a multiple of `world`.
        valid: Validation texts.
        files: Number of files of a stream.
    """

    train: Callable[..., Iterable[str]]
    valid: Collection[str]
    files: int = 0


class Rows(Collection[str]):
    """Selected rows of a memory-mapped arrow table, in order.

    Args:
        table: The table.
        fields: Columns of the texts.
        selected: True for every selected row of the table.
    """

    def __init__(
        self, table: datasets.Dataset, fields: tuple[str, ...], selected: np.ndarray
    ) -> None:
        self.table, self.fields, self.selected = table, fields, selected

    def __len__(self) -> int:
        return int(self.selected.sum())

    def __iter__(self) -> Iterator[str]:
        first = 0
        for texts in text_chunks(self.table, self.fields):
            yield from compress(texts, self.selected[first : first + len(texts)])
            first += len(texts)

    def __contains__(self, text: object) -> bool:
        return any(text == other for other in self)

    def select(self, selected: np.ndarray) -> "Rows":
        """Selects some of these rows.

        Args:
            selected: True for every row that is selected, one value for each of these rows.
        """
        rows = self.selected.copy()
        rows[self.selected] = selected
        return Rows(self.table, self.fields, rows)


def open_texts(data: DataConfig) -> Texts:
    """Opens the training and validation texts.

    Without a source for validation, the hub's validation split is used, or a share of the training
    text is held out, which is the same for every seed.

    Raises:
        UserError: If a source cannot be read or holds too little.
    """
    source = data.train
    if source is None:
        check(data.source is None, "data.source", "null without data.train", data.source)
        train = grammar.corpus(GRAMMAR_SENTENCES, seed=0)
        held_out = grammar.corpus(2_000, seed=1, training=False) if data.valid is None else []
        return Texts(lambda: train, _read(data.valid, data) if data.valid else held_out)
    if data.valid or has_validation_split(source):
        valid = _read(data.valid or source, data, "train" if data.valid else "validation")
        if data.streaming:
            return _stream(source, data, valid)
        rows = _read(source, data)
        return Texts(lambda: rows, valid)
    return _stream(source, data, None) if data.streaming else _split(_read(source, data), data)


def _read(source: str, data: DataConfig, split: str = "train") -> Rows:
    """The usable texts of a source."""
    table = open_dataset(source, data.fields, split, streaming=False)
    usable = [usable for _, usable in _checked_chunks(table, source, data)]
    return Rows(table, data.fields, np.concatenate(usable))


def _split(rows: Rows, data: DataConfig) -> Texts:
    """Holds out `data.valid_share` of the rows: at random, or in stretches with `data.pack`."""
    n = len(rows)
    if n < 2:
        too_few = "too few to train and to validate on without --data.valid"
        raise UserError(f"{data.train} holds one usable line: {too_few}")
    count = max(1, round(data.valid_share * n))
    held_out = np.zeros(n, bool)
    if data.pack:
        held_out[_stretches(n, count)] = True
    else:
        held_out[np.random.default_rng(0).permutation(n)[:count]] = True
    train, valid = rows.select(~held_out), rows.select(held_out)
    return Texts(lambda: train, valid)


def _stretches(n: int, count: int) -> np.ndarray:
    """`count` of n rows, at the ends of ten equal parts, so that few documents are divided."""
    parts = min(10, count)
    stretches = []
    for i in range(1, parts + 1):
        end = i * n // parts
        size = i * count // parts - (i - 1) * count // parts
        stretches.append(np.arange(end - size, end))
    return np.concatenate(stretches)


def _stream(source: str, data: DataConfig, valid: Collection[str] | None) -> Texts:
    """Texts of a stream. Without validation texts, its first rows are held out."""
    rows = open_dataset(source, data.fields, "train", streaming=True)
    skipped = 0
    if valid is None:
        *valid, _ = islice(_usable_texts(rows, source, data), HELD_OUT + 1)
        skipped = HELD_OUT
        if len(valid) < skipped:
            few = f"no more than the {HELD_OUT:,} rows kept for validation"
            raise UserError(f"{source} holds {few}: leave --data.streaming off")

    def train(rank: int = 0, world: int = 1) -> Iterator[str]:
        part = open_dataset(source, data.fields, "train", streaming=True)
        if world == 1:
            return islice(_usable_texts(part, source, data), skipped, None)
        skipped_here = _count_in_own_files(skipped, part, data, rank, world)
        where = f" of the files of process {rank} of {world}"
        own = split_dataset_by_node(part, rank, world)
        texts = islice(_usable_texts(own, source, data, where), skipped_here, None)
        for text in texts:
            return chain([text], texts)
        way_out = "give --data.valid, or start fewer processes"
        raise UserError(f"{source}: all rows{where} are kept for validation: {way_out}")

    return Texts(train, valid, rows.num_shards)


def _count_in_own_files(
    n: int, rows: datasets.IterableDataset, data: DataConfig, rank: int, world: int
) -> int:
    """Number of the first n usable rows that lie in the files of a process.

    These are every world-th file from the rank-th on.
    """
    own = 0
    for file in range(rows.num_shards):
        texts = chain.from_iterable(text_chunks(rows.shard(rows.num_shards, file), data.fields))
        usable = (text for text in texts if not _problem(text, data))
        found = sum(1 for _ in islice(usable, n))
        n -= found
        own += found * (file % world == rank)
        if not n:
            break
    return own


def _usable_texts(
    rows: datasets.IterableDataset, source: str, data: DataConfig, where: str = ""
) -> Iterator[str]:
    checked = _checked_chunks(rows, source, data, where)
    return chain.from_iterable(compress(texts, usable) for texts, usable in checked)


def _checked_chunks(
    rows: Any, source: str, data: DataConfig, where: str = ""
) -> Iterator[tuple[list[Any], np.ndarray]]:
    """Texts and which of them are usable. Logs the others, except blank ones.

    Raises:
        UserError: If no text is usable.
    """
    counts, first_row = Counter[str](), dict[str, int]()
    row, any_usable = 1, False
    for texts in text_chunks(rows, data.fields):
        problems = [_problem(text, data) for text in texts]
        for problem in filter(None, dict.fromkeys(problems)):
            counts[problem] += problems.count(problem)
            first_row.setdefault(problem, row + problems.index(problem))
        usable = np.array([problem is None for problem in problems])
        yield texts, usable
        row += len(texts)
        any_usable = any_usable or bool(usable.any())
    if len(find_files(source)) > 1:
        where = where or " of all its files in order of name"
    for problem in sorted(counts.keys() - {BLANK}, key=first_row.__getitem__):
        rows_found = f"{counts[problem]:,}, the first is row {first_row[problem]:,}{where}"
        log.warning("%s: left out rows that %s: %s", source, problem, rows_found)
    if not any_usable:
        raise UserError(f"{source} holds no usable text")


def _problem(text: Any, data: DataConfig) -> str | None:
    """Reason why a row cannot be used, or None."""
    if not isinstance(text, str):
        return "hold no text"
    if "\ufffd" in text or "\0" in text:
        return "are not valid UTF-8 (or hold NUL or U+FFFD)"
    if data.source and text.count(SEPARATOR) > 1:
        return f"hold {SEPARATOR}"
    if not data.pack and len(text) > LONGEST_LINE:
        return f"are longer than {LONGEST_LINE:,} characters"
    return None if text.strip() else BLANK
