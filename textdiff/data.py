"""Text from files, the hub or the built-in grammar (all through `datasets`), cut into examples of token ids and batched.

What cannot be used is counted and located, never passed on silently. Knows the tokenizer, not the model.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from glob import iglob
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
import torch
from tokenizers import Tokenizer

from textdiff import batches, grammar
from textdiff.config import Data, InputError, Train

log = logging.getLogger("textdiff")

FORMATS = {".txt": "text", ".csv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
LONGEST_LINE = 100_000  # characters; longer lines are no sentences
SAMPLE = 50_000  # rows of a stream that the vocabulary and the length statistics are taken from
GRAMMAR_SENTENCES = 30_000
HELD_OUT = 1_000  # rows of a stream kept for validation


class MicroBatch(NamedTuple):
    """Tensors for the model's forward, and the share of the step's global batch that they are."""

    tensors: dict[str, torch.Tensor]
    share: float


@dataclass(frozen=True)
class Corpus:
    """Examples of token ids, end to end; example i is `tokens[starts[i] : starts[i + 1]]`."""

    tokens: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, examples: Iterable[list[int]]) -> "Corpus":
        lists = list(examples)
        starts = np.concatenate([[0], np.cumsum([len(ids) for ids in lists], dtype=np.int64)])
        return cls(np.fromiter((i for ids in lists for i in ids), np.int32, count=int(starts[-1])), starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, i: int | np.integer) -> np.ndarray:
        return self.tokens[self.starts[i] : self.starts[i + 1]]

    @property
    def sizes(self) -> np.ndarray:
        return np.diff(self.starts)

    def head(self, n: int) -> "Corpus":
        return Corpus(self.tokens, self.starts[: n + 1])


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
    return _checked((row.get(data.field) for row in rows) if streaming else rows[data.field], source)


def _format(source: str) -> str | None:
    """How to read a file, a glob or a URL: by its suffix, else as lines of text; None for the name of a data set on the hub."""
    name = source
    while name.endswith(COMPRESSED):
        name = name[: name.rindex(".")]
    if kind := FORMATS.get(Path(name).suffix.lower()):
        return kind
    return "text" if "://" in source or _matches(source) else None


def _matches(source: str) -> bool:
    """Whether a path or a glob finds a file."""
    return any(Path(path).is_file() for path in iglob(source, recursive=True))


def _looks_local(source: str) -> bool:
    """Whether a name can only be meant as a path, for the hub's have one slash at most."""
    return source.startswith((".", "/", "~")) or source.count("/") > 1


def _has_validation(source: str) -> bool:
    if _format(source) or _looks_local(source):
        return False
    try:
        return "validation" in datasets.get_dataset_split_names(source)
    except Exception:  # whatever the hub says is said again, properly, when the data are opened
        return False


def _open(source: str, split: str, streaming: bool) -> tuple[Any, list[str]]:
    """The rows and the names of their columns, which a stream tells with its first row: none if it is empty."""
    datasets.disable_progress_bars()
    kind = _format(source)
    if "://" not in source and (kind or _looks_local(source)) and not _matches(source):
        raise InputError(f"{source} is not a file and, as a glob, matches none")
    lenient = {} if kind == "parquet" else {"encoding": "utf-8-sig", "encoding_errors": "replace"}  # json is strict with plain "utf-8"
    try:
        if kind:
            rows = datasets.load_dataset(kind, data_files=source, split="train", streaming=streaming, **lenient)
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


def _checked(texts: Iterable[Any], source: str) -> Iterator[str]:
    """Leaves out blank rows, and counts and locates rows that are no text, not valid UTF-8, or endless."""
    problems: dict[str, list[int]] = {}
    empty = True
    for number, text in enumerate(texts, start=1):
        if not isinstance(text, str):
            problems.setdefault("hold no text", []).append(number)
        elif "\ufffd" in text or "\0" in text:
            problems.setdefault("are not valid UTF-8", []).append(number)
        elif len(text) > LONGEST_LINE:
            problems.setdefault(f"are longer than {LONGEST_LINE:,} characters", []).append(number)
        elif text.strip():
            empty = False
            yield text
    for what, where in problems.items():
        log.warning("%s: %s rows %s and were left out, the first is row %s", source, f"{len(where):,}", what, f"{where[0]:,}")
    if empty:
        raise InputError(f"{source} holds no usable text")


def examples(texts: Iterable[str], tokenizer: Tokenizer, data: Data) -> Iterator[list[int]]:
    """Token ids, one example a text, or blocks of `data.length` of all text end to end. Texts that are too long are left out and counted."""
    encoded = (e.ids for chunk in _chunks(texts, 1000) for e in tokenizer.encode_batch(chunk, add_special_tokens=False))
    if data.pack:
        yield from _blocks(encoded, data.length)
        return
    kept = too_long = 0
    for ids in encoded:
        if len(ids) > data.length:
            too_long += 1
        elif ids:
            kept += 1
            yield ids
    if too_long:
        log.warning(
            "%s of %s examples are longer than data.length = %d tokens and were left out", f"{too_long:,}", f"{kept + too_long:,}", data.length
        )
    if not kept:
        raise InputError(f"no example fits into data.length = {data.length} tokens: raise it, or cut long text with --data.pack true")


def _blocks(encoded: Iterable[list[int]], length: int) -> Iterator[list[int]]:
    rest: list[int] = []
    none = True
    for ids in encoded:
        rest += ids
        for start in range(0, len(rest) - length + 1, length):
            none = False
            yield rest[start : start + length]
        rest = rest[len(rest) - len(rest) % length :]
    if none:
        raise InputError(f"the text does not fill one block of data.length = {length} tokens")


def _chunks(items: Iterable[str], n: int) -> Iterator[list[str]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, n)):
        yield chunk


def collate(rows: list[np.ndarray], numbers: np.ndarray) -> dict[str, torch.Tensor]:
    """ids and mask (true on real tokens) padded to the longest row, and each example's number in the run, its source of randomness."""
    longest = max(len(row) for row in rows)
    ids = np.zeros((len(rows), longest), np.int64)
    mask = np.zeros((len(rows), longest), bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)], mask[i, : len(row)] = row, True
    return {"ids": torch.from_numpy(ids), "mask": torch.from_numpy(mask), "index": torch.from_numpy(numbers.astype(np.int64))}


def batched(corpus: Corpus, train: Train, first_step: int, rank: int, world: int) -> Iterator[list[MicroBatch]]:
    """A step's micro-batches for this process, from `first_step` on, without end."""
    plan = batches.endless(corpus.sizes, train.batch_size, train.seed, first_step, rank=rank, world=world, accumulate=train.accumulate)
    for parts in plan:
        yield [_micro(corpus, part) for part in parts]


def streamed(
    texts: Callable[[], Iterable[str]], tokenizer: Tokenizer, data: Data, train: Train, first_step: int, rank: int, world: int
) -> Iterator[list[MicroBatch]]:
    """The same from a stream, a pool of batches at a time, the stream opened again at its end. Every process reads all and takes its share."""
    stream = (ids for _ in count() for ids in examples(texts(), tokenizer, data))
    for number in count():
        corpus = Corpus.of(islice(stream, batches.POOL * train.batch_size))
        start = number * batches.POOL
        for position, batch in enumerate(batches.shuffled(corpus.sizes, train.batch_size, train.seed, number), start):
            if position >= first_step:
                divided = batches.parts(batch, position * train.batch_size, corpus.sizes, rank, world, train.accumulate)
                yield [_micro(corpus, part) for part in divided]


def in_turn(corpus: Corpus, batch_size: int, rank: int, world: int) -> Iterator[MicroBatch]:
    """Once through a corpus for validation; shares are of all of it."""
    order = np.argsort(corpus.sizes, kind="stable")
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        (part,) = batches.parts(batch, start, corpus.sizes, rank, world, accumulate=1)
        micro = _micro(corpus, part)
        yield MicroBatch(micro.tensors, micro.share * float(corpus.sizes[batch].sum() / corpus.sizes.sum()))


def _micro(corpus: Corpus, part: batches.Part) -> MicroBatch:
    return MicroBatch(collate([corpus[i] for i in part.examples], part.numbers), part.share)
