"""Laws of text batches: exact resuming, streams, several processes and padded lengths."""

from itertools import islice

import pytest
import torch
from text_files import LINES
from torch.testing import assert_close

from textdiff.config import TrainConfig
from textdiff.text.config import DataConfig
from textdiff.text.dataset import (
    padding_multiple,
    streaming_batches,
    training_batches,
    validation_batches,
)
from textdiff.training.batching import first_index

STREAMING = DataConfig(streaming=True)


def rows_of(steps: list) -> list[list]:
    """Sentences of each step with their indices, of all its micro-batches together."""

    def rows(ids, mask, index):
        return [(row[m].tolist(), int(i)) for row, m, i in zip(ids, mask, index, strict=True)]

    return [[row for micro in step for row in rows(**micro.tensors)] for step in steps]


def indices_of(micro_batches: list) -> list[int]:
    return [i for micro in micro_batches for i in micro.tensors["index"].tolist()]


# --- a corpus


def steps_of(corpus, first_step: int, n: int, multiple: int = 1, **options: int) -> list[list]:
    train = TrainConfig(**options)
    return [*islice(training_batches(corpus, train, first_step, 0, 1, multiple), n)]


def test_micro_batches_hold_examples_of_the_corpus(corpus):
    (step,) = steps_of(corpus, 0, 1, batch_size=8, accumulation=2)
    assert len(step) == 2
    assert {tuple(ids) for ids, _ in rows_of([step])[0]} <= {tuple(ids.tolist()) for ids in corpus}


def test_resuming_a_corpus_is_exact(corpus):
    whole = rows_of(steps_of(corpus, 0, 12, batch_size=64))
    assert rows_of(steps_of(corpus, 7, 5, batch_size=64)) == whole[7:]


@pytest.mark.parametrize("world", [1, 3])
def test_validation_takes_each_example_once(corpus, world):
    """All weights add up to 1."""
    ranks = range(world)
    micros = [m for rank in ranks for m in validation_batches(corpus, 16, rank, world)]
    assert sorted(indices_of([m for m in micros if m.weight])) == list(range(len(corpus)))
    assert_close(sum(micro.weight for micro in micros), 1.0, atol=1e-9, rtol=0)


def test_compiled_batches_have_few_lengths(corpus):
    """Their words are those of batches that are padded less."""
    padded_steps = steps_of(corpus, 0, 60, padding_multiple(20), batch_size=4)
    short_steps = steps_of(corpus, 0, 60, batch_size=4)
    assert {micro.tensors["ids"].shape[1] for (micro,) in padded_steps} <= {8, 16, 24}
    for steps in zip(padded_steps, short_steps, strict=True):
        padded, short = (micro.tensors["ids"][micro.tensors["mask"]] for (micro,) in steps)
        assert torch.equal(padded, short)


@pytest.mark.parametrize("length", [2, 24, 64, 100, 512])
def test_compiled_step_has_at_most_four_lengths(length):
    multiple = padding_multiple(length)
    assert len({-(-size // multiple) for size in range(1, length + 1)}) <= 4


# --- a stream


def streamed_rows(tokenizer, first_step: int, n: int, accumulation: int = 1) -> list[list]:
    train = TrainConfig(batch_size=4, accumulation=accumulation)
    stream = streaming_batches(lambda: LINES, tokenizer, STREAMING, train, first_step, 0, 1)
    return rows_of(list(islice(stream, n)))


@pytest.mark.parametrize("first_step", [1, 31, 32, 50])
def test_resuming_a_stream_is_exact(tokenizer, first_step):
    whole = streamed_rows(tokenizer, 0, first_step + 3)
    assert streamed_rows(tokenizer, first_step, 3) == whole[first_step:]


@pytest.mark.parametrize("first_step", [0, 1, 31, 32])
def test_stream_examples_are_numbered_by_step(tokenizer, first_step):
    steps = streamed_rows(tokenizer, first_step, 2)
    first = first_index(seed=0, step=first_step, batch_size=4)
    assert [index for step in steps for _, index in step] == list(range(first, first + 8))


def test_repeated_stream_holds_texts_equally_often(tokenizer):
    steps = streamed_rows(tokenizer, 0, 64)
    drawn = [tuple(ids) for step in steps for ids, _ in step]
    times = [drawn.count(tuple(tokenizer.encode(line).ids)) for line in LINES[:5]]
    assert max(times) - min(times) <= len(drawn) / len(LINES)


def test_stream_batches_do_not_depend_on_accumulation(tokenizer):
    whole, divided = (streamed_rows(tokenizer, 0, 3, accumulation=n) for n in (1, 2))
    assert [sorted(step) for step in whole] == [sorted(step) for step in divided]


def steps_by_process(
    tokenizer, first_step: int, n: int, world: int, accumulation: int = 1
) -> list[list]:
    """The steps of each process, which reads its own share of the texts."""
    train = TrainConfig(batch_size=8, accumulation=accumulation)

    def steps(rank: int) -> list[list]:
        options = {"first_step": first_step, "rank": rank, "world": world, "divided": True}
        texts = LINES[rank::world]
        stream = streaming_batches(lambda: texts, tokenizer, STREAMING, train, **options)
        return list(islice(stream, n))

    return [steps(rank) for rank in range(world)]


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("world", [2, 3])
def test_processes_with_own_files_fill_each_batch(tokenizer, world, accumulation):
    """The indices have no gaps, and the weights add up to 1."""
    processes = steps_by_process(tokenizer, 0, 40, world, accumulation)
    for step, parts in enumerate(zip(*processes, strict=True)):
        micros = [micro for part in parts for micro in part]
        first = first_index(seed=0, step=step, batch_size=8)
        assert sorted(indices_of(micros)) == list(range(first, first + 8))
        assert_close(sum(micro.weight for micro in micros), 1.0, atol=1e-9, rtol=0)


@pytest.mark.parametrize("first_step", [1, 32, 45])
def test_resuming_processes_with_own_files_is_exact(tokenizer, first_step):
    whole = steps_by_process(tokenizer, 0, first_step + 3, 2)
    resumed = steps_by_process(tokenizer, first_step, 3, 2)
    assert [rows_of(steps)[first_step:] for steps in whole] == [*map(rows_of, resumed)]
