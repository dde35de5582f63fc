from itertools import islice

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from textdiff import grammar
from textdiff.batches import first_number
from textdiff.config import Data, InputError, Train, Vocabulary
from textdiff.data import Corpus, batched, collate, examples, in_turn, padding_multiple, streamed
from textdiff.vocab import train_tokenizer

LINES = [f"{sentence} {i}" for i, sentence in enumerate(grammar.corpus(30, seed=5))]  # no two alike


def warnings(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "textdiff"]


# --- examples


def test_sentences_that_are_too_long_are_left_out_and_counted(tokenizer, caplog):
    texts = ["the king sleeps ."] * 3 + ["the king sees the queen and the dog ."] * 2
    assert len(list(examples(texts, tokenizer, Data(length=5)))) == 3
    assert warnings(caplog) == ["2 of 5 examples are longer than data.length = 5 tokens and were left out"]


def test_a_text_of_which_nothing_fits_is_refused_with_the_way_out(tokenizer):
    with pytest.raises(InputError, match=r"--data\.pack"):
        list(examples(LINES, tokenizer, Data(length=2)))


# --- packing


@pytest.mark.parametrize("length", [2, 7, 64])
def test_packing_cuts_all_text_into_blocks_of_one_length(tokenizer, length):
    assert {len(block) for block in examples(LINES, tokenizer, Data(length=length, pack=True))} == {length}


@pytest.mark.parametrize("length", [2, 7, 64])
def test_packing_keeps_the_text_in_order_but_for_less_than_a_block(tokenizer, length):
    whole = [i for line in LINES for i in tokenizer.encode(line).ids]
    packed = [i for block in examples(LINES, tokenizer, Data(length=length, pack=True)) for i in block]
    assert packed == whole[: len(packed)]
    assert len(whole) - len(packed) < length


def test_a_text_shorter_than_a_block_is_refused(tokenizer):
    with pytest.raises(InputError, match="does not fill one block"):
        list(examples(LINES[:2], tokenizer, Data(length=1000, pack=True)))


def test_packed_lines_stay_apart_where_the_tokenizer_sees_their_ends():
    tokenizer = train_tokenizer(["ab cd"], Vocabulary(kind="bpe", min_count=1))
    assert tokenizer.decode(next(examples(["ab", "cd"] * 9, tokenizer, Data(length=6, pack=True)))).startswith("ab\ncd")


# --- batches


def rows_of(steps: list) -> list[list]:
    """Each step's sentences and their numbers, all micro-batches together."""
    micros = [[micro.tensors for micro in step] for step in steps]
    return [[(ids[mask].tolist(), int(i)) for t in step for ids, mask, i in zip(t["ids"], t["mask"], t["index"], strict=True)] for step in micros]


def test_a_corpus_gives_back_its_examples():
    lists = [[1, 2, 3], [4], [], [5, 6]]
    assert [ids.tolist() for ids in Corpus.of(lists)] == lists


def test_the_head_of_a_corpus_is_its_first_examples(corpus):
    assert [ids.tolist() for ids in corpus.head(5)] == [corpus[i].tolist() for i in range(5)]


def test_collating_pads_to_the_longest_and_masks_the_padding():
    tensors = collate([np.array([5, 6, 7]), np.array([8])], np.array([3, 9]))
    assert tensors["ids"].tolist() == [[5, 6, 7], [8, 0, 0]]
    assert tensors["mask"].tolist() == [[True, True, True], [True, False, False]]
    assert tensors["index"].tolist() == [3, 9]


def test_micro_batches_are_the_examples_of_the_plan(corpus):
    (step,) = islice(batched(corpus, Train(batch_size=8, accumulate=2), 0, rank=0, world=1), 1)
    assert len(step) == 2
    assert {tuple(ids) for ids, _ in rows_of([step])[0]} <= {tuple(ids.tolist()) for ids in corpus}


def test_resuming_a_corpus_goes_on_where_it_was(corpus):
    whole = rows_of(list(islice(batched(corpus, Train(batch_size=64), 0, 0, 1), 12)))
    assert rows_of(list(islice(batched(corpus, Train(batch_size=64), 7, 0, 1), 5))) == whole[7:]


def streamed_rows(texts, tokenizer, first_step: int, n: int, accumulate: int = 1) -> list[list]:
    train = Train(batch_size=4, accumulate=accumulate)
    return rows_of(list(islice(streamed(texts, tokenizer, Data(streaming=True), train, first_step, 0, 1), n)))


@pytest.mark.parametrize("first_step", [1, 31, 32, 50])
def test_resuming_a_stream_goes_on_where_it_was(tokenizer, first_step):
    whole = streamed_rows(lambda: LINES, tokenizer, 0, first_step + 3)
    assert streamed_rows(lambda: LINES, tokenizer, first_step, 3) == whole[first_step:]


@pytest.mark.parametrize("first_step", [0, 1, 31, 32])
def test_a_streams_examples_are_numbered_in_the_order_of_the_steps(tokenizer, first_step):
    steps = streamed_rows(lambda: LINES, tokenizer, first_step, 2)
    first = first_number(seed=0, step=first_step, batch_size=4)
    assert [number for step in steps for _, number in step] == list(range(first, first + 8))


def test_a_stream_without_end_holds_every_text_equally_often(tokenizer):
    steps = streamed_rows(lambda: LINES, tokenizer, 0, 64)
    drawn = [tuple(ids) for step in steps for ids, _ in step]
    times = [drawn.count(tuple(tokenizer.encode(line).ids)) for line in LINES[:5]]
    assert max(times) - min(times) <= len(drawn) / len(LINES)


def test_a_streams_batches_do_not_depend_on_accumulation(tokenizer):
    whole, cut = (streamed_rows(lambda: LINES, tokenizer, 0, 3, accumulate=n) for n in (1, 2))
    assert [sorted(step) for step in whole] == [sorted(step) for step in cut]


def apart(tokenizer, first_step: int, n: int, world: int, accumulate: int = 1) -> list[list]:
    """Of every process, which has texts of its own, the steps' micro-batches."""
    train = Train(batch_size=8, accumulate=accumulate)
    return [
        list(islice(streamed(lambda rank=rank: LINES[rank::world], tokenizer, Data(streaming=True), train, first_step, rank, world, True), n))
        for rank in range(world)
    ]


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("world", [2, 3])
def test_processes_with_files_of_their_own_make_one_batch_without_a_gap(tokenizer, world, accumulate):
    for number, parts in enumerate(zip(*apart(tokenizer, 0, 40, world, accumulate), strict=True)):
        micros = [micro for part in parts for micro in part]
        first = first_number(seed=0, step=number, batch_size=8)
        assert sorted(i for micro in micros for i in micro.tensors["index"].tolist()) == list(range(first, first + 8))
        assert_close(sum(micro.share for micro in micros), 1.0, atol=1e-9, rtol=0)


@pytest.mark.parametrize("first_step", [1, 32, 45])
def test_processes_with_files_of_their_own_go_on_where_they_were(tokenizer, first_step):
    whole, later = apart(tokenizer, 0, first_step + 3, 2), apart(tokenizer, first_step, 3, 2)
    assert [rows_of(steps)[first_step:] for steps in whole] == [rows_of(steps) for steps in later]


@pytest.mark.parametrize("world", [1, 3])
def test_validation_goes_once_through_the_corpus_with_shares_that_sum_to_one(corpus, world):
    micros = [micro for rank in range(world) for micro in in_turn(corpus, 16, rank, world)]
    seen = [i for micro in micros if micro.share for i in micro.tensors["index"].tolist()]
    assert sorted(seen) == list(range(len(corpus)))
    assert_close(sum(micro.share for micro in micros), 1.0, atol=1e-9, rtol=0)


def test_batches_of_a_compiled_step_have_few_lengths_and_the_same_words(corpus):
    few, many = (list(islice(batched(corpus, Train(batch_size=4), 0, 0, 1, multiple), 60)) for multiple in (padding_multiple(20), 1))
    assert {micro.tensors["ids"].shape[1] for (micro,) in few} <= {8, 16, 24}
    for (padded,), (short,) in zip(few, many, strict=True):
        assert torch.equal(padded.tensors["ids"][padded.tensors["mask"]], short.tensors["ids"][short.tensors["mask"]])


@pytest.mark.parametrize("length", [2, 24, 64, 100, 512])
def test_a_compiled_step_has_at_most_four_lengths(length):
    multiple = padding_multiple(length)
    assert len({-(-size // multiple) for size in range(1, length + 1)}) <= 4
