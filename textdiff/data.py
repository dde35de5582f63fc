"""Texts cut into examples of token ids, and examples into the batches of a step. Knows the tokenizer, neither files nor the model."""

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count, islice, pairwise

import numpy as np
import torch
from tokenizers import Tokenizer

from textdiff import batches
from textdiff.batches import MicroBatch
from textdiff.config import Data, InputError, Train

log = logging.getLogger("textdiff")

PIECE = 2**20  # tokens of a corpus counted at a time
CHUNK = 2**18  # characters, and 1,000 texts, at most, that are encoded together
SAMPLE = 50_000  # texts of a stream that the vocabulary and the length statistics are taken from


@dataclass(frozen=True)
class Corpus:
    """Examples of token ids, end to end; example i is `tokens[starts[i] : starts[i + 1]]`."""

    tokens: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of(cls, examples: Iterable[list[int]]) -> "Corpus":
        lists = list(examples)
        sizes = np.array([len(ids) for ids in lists], np.int32)
        starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        return cls(np.fromiter((i for ids in lists for i in ids), np.int32, count=int(starts[-1])), starts, sizes)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, i: int | np.integer) -> np.ndarray:
        return self.tokens[self.starts[i] : self.starts[i + 1]]

    def head(self, n: int) -> "Corpus":
        return Corpus(self.tokens, self.starts[: n + 1], self.sizes[:n])

    def pieces(self, every: int = 1) -> "Iterator[Corpus]":
        """Corpora of about `PIECE` tokens, end to end, or every so-many-th of them: to count in a corpus larger than memory."""
        edges = np.searchsorted(self.starts[:-1], range(0, int(self.starts[-1]), PIECE))
        for first, last in [*pairwise([*np.unique(edges).tolist(), len(self)])][::every]:
            begin, end = self.starts[first], self.starts[last]
            yield Corpus(self.tokens[begin:end], self.starts[first : last + 1] - begin, self.sizes[first:last])


def examples(texts: Iterable[str], tokenizer: Tokenizer, data: Data) -> Iterator[list[int]]:
    """Token ids, one example a text, or blocks of `data.length` of all text end to end. Texts that are too long are left out and counted."""
    if data.pack:
        lines = (text + "\n" for text in texts)  # of which only bpe sees the end
        yield from _blocks(_encoded(lines, tokenizer), data.length)
        return
    kept = too_long = 0
    for ids in _encoded(texts, tokenizer):
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


def _encoded(texts: Iterable[str], tokenizer: Tokenizer) -> Iterator[list[int]]:
    for chunk in _chunks(texts):
        yield from (encoding.ids for encoding in tokenizer.encode_batch_fast(chunk, add_special_tokens=False))


def _chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    chunk: list[str] = []
    size = 0
    for text in texts:
        chunk.append(text)
        size += len(text)
        if size >= CHUNK or len(chunk) == 1000:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


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


def padding_multiple(length: int) -> int:
    """Pads batches of a compiled step to at most four lengths, for each is compiled anew.

    torch compiles for at most eight shapes, and the parts of a batch may differ by one example.
    """
    return 8 * math.ceil(length / 32)


def collate(rows: list[np.ndarray], numbers: np.ndarray, multiple: int = 1) -> dict[str, torch.Tensor]:
    """ids and mask (true on real tokens) padded to the longest row, or the next `multiple`, and each example's number in the run, its
    source of randomness."""
    longest = multiple * math.ceil(max(len(row) for row in rows) / multiple)
    ids = np.zeros((len(rows), longest), np.int64)
    mask = np.zeros((len(rows), longest), bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)], mask[i, : len(row)] = row, True
    return {"ids": torch.from_numpy(ids), "mask": torch.from_numpy(mask), "index": torch.from_numpy(numbers.astype(np.int64))}


def batched(corpus: Corpus, train: Train, first_step: int, rank: int, world: int, multiple: int = 1) -> Iterator[list[MicroBatch]]:
    """A step's micro-batches for this process, from `first_step` on, without end, their length a multiple of `multiple`."""
    plan = batches.endless(corpus.sizes, train.batch_size, train.seed, first_step, rank=rank, world=world, accumulate=train.accumulate)
    for parts in plan:
        yield [_micro(corpus, part, multiple) for part in parts]


def streamed(
    texts: Callable[[], Iterable[str]],
    tokenizer: Tokenizer,
    data: Data,
    train: Train,
    first_step: int,
    rank: int,
    world: int,
    apart: bool = False,
    multiple: int = 1,
) -> Iterator[list[MicroBatch]]:
    """The same from a stream, a pool of batches at a time, the stream opened again at its end.

    Every process reads all and takes its share; or, `apart`, `texts` are of this process's own files and all its own: as
    many examples a step as its share would be, which then count alike, whatever their tokens, for no process knows the others'.
    """
    own = len(range(rank, train.batch_size, world)) if apart else train.batch_size
    where = (0, 1) if apart else (rank, world)
    stream = (ids for _ in count() for ids in examples(texts(), tokenizer, data))
    for number in count():
        corpus = Corpus.of(islice(stream, batches.POOL * own))
        for position, batch in enumerate(batches.shuffled(corpus.sizes, own, train.seed, number), number * batches.POOL):
            if position >= first_step:
                first = batches.first_number(train.seed, position, train.batch_size)
                divided = batches.parts(batch, first, corpus.sizes, *where, train.accumulate)
                if apart:
                    divided = [batches.of_process(part, first, rank, world, own / train.batch_size) for part in divided]
                yield [_micro(corpus, part, multiple) for part in divided]


def in_turn(corpus: Corpus, batch_size: int, rank: int, world: int) -> Iterator[MicroBatch]:
    """Once through a corpus for validation; shares are of all of it."""
    order = np.argsort(corpus.sizes, kind="stable")
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        (part,) = batches.parts(batch, start, corpus.sizes, rank, world, accumulate=1)
        micro = _micro(corpus, part)
        yield micro._replace(share=micro.share * float(corpus.sizes[batch].sum() / corpus.sizes.sum()))


def _micro(corpus: Corpus, part: batches.Part, multiple: int = 1) -> MicroBatch:
    return MicroBatch(collate([corpus[i] for i in part.examples], part.numbers, multiple), part.share, int(corpus.sizes[part.examples].sum()))
