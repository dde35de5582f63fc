"""Examples of token ids, and the batches of training and validation."""

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count, islice, pairwise

import numpy as np
import torch
from tokenizers import Tokenizer

from textdiff.config import TrainConfig, UserError
from textdiff.text.config import DataConfig
from textdiff.training import batching
from textdiff.training.batching import BatchPart, MicroBatch

log = logging.getLogger("textdiff")

PIECE = 2**20  # tokens of a corpus that are counted at a time
CHUNK = 2**18  # approximate number of characters that are encoded together
STREAM_SAMPLE = 50_000  # texts of a stream for the vocabulary and the length statistics


@dataclass(frozen=True)
class Corpus:
    """Examples of token ids in one array.

    Example i is `tokens[starts[i] : starts[i + 1]]` and has `sizes[i]` tokens.
    """

    tokens: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of(cls, examples: Iterable[list[int]]) -> "Corpus":
        """Builds a corpus of examples."""
        lists = list(examples)
        sizes = np.array([len(ids) for ids in lists], np.int32)
        starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        flat = (token for ids in lists for token in ids)
        return cls(np.fromiter(flat, np.int32, count=int(starts[-1])), starts, sizes)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, i: int | np.integer) -> np.ndarray:
        return self.tokens[self.starts[i] : self.starts[i + 1]]

    def head(self, n: int) -> "Corpus":
        """The first n examples."""
        return Corpus(self.tokens, self.starts[: n + 1], self.sizes[:n])

    def pieces(self, every: int = 1, size: int = PIECE) -> "Iterator[Corpus]":
        """Pieces of about `size` tokens, for counting in a corpus larger than memory.

        Args:
            every: Step between pieces; with 3, every third piece.
        """
        edges = np.searchsorted(self.starts[:-1], range(0, int(self.starts[-1]), size))
        bounds = pairwise([*np.unique(edges).tolist(), len(self)])
        for first, last in [*bounds][::every]:
            begin, end = self.starts[first], self.starts[last]
            starts = self.starts[first : last + 1] - begin
            yield Corpus(self.tokens[begin:end], starts, self.sizes[first:last])


def examples(texts: Iterable[str], tokenizer: Tokenizer, data: DataConfig) -> Iterator[list[int]]:
    """Token ids of each text, or with `data.pack` blocks of `data.length` tokens of all text.

    Texts that are too long are left out and counted.

    Raises:
        UserError: If there is no example.
    """
    if data.pack:
        lines = (text + "\n" for text in texts)  # only bpe encodes the end of the line
        yield from _blocks(_encode(lines, tokenizer), data.length)
        return
    used = too_long = 0
    for ids in _encode(texts, tokenizer):
        if len(ids) > data.length:
            too_long += 1
        elif ids:
            used += 1
            yield ids
    if too_long:
        counts = f"{too_long:,} of {used + too_long:,} examples"
        log.warning("left out %s longer than data.length = %d tokens", counts, data.length)
    if not used:
        way_out = "raise it, or cut long text with --data.pack true"
        raise UserError(f"no example fits into data.length = {data.length} tokens: {way_out}")


def padding_multiple(length: int) -> int:
    """Multiple to which compiled steps pad lengths, so that there are at most four lengths.

    Every length is compiled separately. torch compiles at most eight shapes, and the parts of a
    batch may differ by one example.
    """
    return 8 * math.ceil(length / 32)


def collate(
    rows: list[np.ndarray], indices: np.ndarray, multiple: int = 1
) -> dict[str, torch.Tensor]:
    """Padded batch of examples: the tensors that the model's forward takes.

    Args:
        rows: Token ids of each example.
        indices: Index of each example in the run, from which its randomness is derived.
        multiple: The length is a multiple of this.
    """
    longest = multiple * math.ceil(max(len(row) for row in rows) / multiple)
    ids = np.zeros((len(rows), longest), np.int64)
    mask = np.zeros((len(rows), longest), bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)], mask[i, : len(row)] = row, True
    return {
        "ids": torch.from_numpy(ids),
        "mask": torch.from_numpy(mask),
        "index": torch.from_numpy(indices.astype(np.int64)),
    }


def training_batches(
    corpus: Corpus, train: TrainConfig, first_step: int, rank: int, world: int, multiple: int = 1
) -> Iterator[list[MicroBatch]]:
    """This process's micro-batches of each step, without end.

    Args:
        first_step: Step of the first batch.
        multiple: Lengths are multiples of this.
    """
    plan = batching.batch_stream(
        corpus.sizes,
        train.batch_size,
        train.seed,
        first_step,
        rank=rank,
        world=world,
        accumulation=train.accumulation,
    )
    for parts in plan:
        yield [_micro_batch(corpus, part, multiple) for part in parts]


def streaming_batches(
    texts: Callable[[], Iterable[str]],
    tokenizer: Tokenizer,
    data: DataConfig,
    train: TrainConfig,
    first_step: int,
    rank: int,
    world: int,
    divided: bool = False,
    multiple: int = 1,
) -> Iterator[list[MicroBatch]]:
    """This process's micro-batches of each step from a stream, which is reopened at its end.

    Args:
        texts: Opens the stream.
        divided: Whether `texts` come from files that only this process reads. Each process then
            forms its part of a batch by itself, and all examples have equal weight, because no
            process has the sizes of the others. Otherwise every process reads all texts and takes
            its part of each batch.
    """
    own = len(range(rank, train.batch_size, world)) if divided else train.batch_size
    process = (0, 1) if divided else (rank, world)
    stream = (ids for _ in count() for ids in examples(texts(), tokenizer, data))
    for pool in count():
        corpus = Corpus.of(islice(stream, batching.POOL * own))
        batches = batching.epoch_batches(corpus.sizes, own, train.seed, pool)
        for step, batch in enumerate(batches, pool * batching.POOL):
            if step < first_step:
                continue
            first = batching.first_index(train.seed, step, train.batch_size)
            parts = batching.split_batch(batch, first, corpus.sizes, *process, train.accumulation)
            if divided:
                share = own / train.batch_size
                parts = [
                    batching.interleave_indices(part, first, rank, world, share) for part in parts
                ]
            yield [_micro_batch(corpus, part, multiple) for part in parts]


def validation_batches(
    corpus: Corpus, batch_size: int, rank: int, world: int
) -> Iterator[MicroBatch]:
    """This process's micro-batches of a whole corpus; the weights of all processes sum to 1."""
    order = np.argsort(corpus.sizes, kind="stable")
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        (part,) = batching.split_batch(batch, start, corpus.sizes, rank, world, accumulation=1)
        micro = _micro_batch(corpus, part)
        share = float(corpus.sizes[batch].sum() / corpus.sizes.sum())
        yield micro._replace(weight=micro.weight * share)


def _micro_batch(corpus: Corpus, part: BatchPart, multiple: int = 1) -> MicroBatch:
    rows = [corpus[i] for i in part.examples]
    size = int(corpus.sizes[part.examples].sum())
    return MicroBatch(collate(rows, part.indices, multiple), part.weight, size)


def _encode(texts: Iterable[str], tokenizer: Tokenizer) -> Iterator[list[int]]:
    for chunk in _text_chunks(texts):
        for encoding in tokenizer.encode_batch_fast(chunk, add_special_tokens=False):
            yield encoding.ids


def _text_chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    """Lists of at most 1,000 texts, which end with the text that reaches `CHUNK` characters."""
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


def _blocks(sequences: Iterable[list[int]], length: int) -> Iterator[list[int]]:
    """Blocks of `length` tokens of all sequences, joined end to end."""
    rest: list[int] = []
    empty = True
    for ids in sequences:
        rest += ids
        for start in range(0, len(rest) - length + 1, length):
            empty = False
            yield rest[start : start + length]
        rest = rest[len(rest) - len(rest) % length :]
    if empty:
        raise UserError(f"the text does not fill one block of data.length = {length} tokens")
