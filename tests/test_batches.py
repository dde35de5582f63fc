from itertools import islice

import numpy as np
import pytest

from textdiff.batches import POOL, endless, first_number, parts, shuffled

SIZES = np.random.default_rng(0).integers(1, 50, 1000)
SPLITS = [(1, 1), (1, 4), (4, 1), (3, 2), (8, 3)]


def everyone(batch: np.ndarray, world: int, accumulate: int) -> list:
    return [part for rank in range(world) for part in parts(batch, 700, SIZES, rank, world, accumulate)]


def flat(steps: list) -> list[tuple]:
    return [(part.examples.tolist(), part.numbers.tolist(), part.share) for step in steps for part in step]


@pytest.mark.parametrize(("n", "batch_size"), [(1000, 16), (1000, 1), (1000, 999), (7, 3), (5, 8)])
def test_an_epoch_holds_every_example_at_most_once(n, batch_size):
    chosen = np.concatenate([*shuffled(SIZES[:n], batch_size, seed=0, epoch=0)])
    assert len(chosen) == len(np.unique(chosen))


@pytest.mark.parametrize(("n", "batch_size"), [(1000, 16), (1000, 1), (1000, 999), (7, 3)])
def test_an_epoch_is_of_full_batches_and_leaves_out_less_than_one(n, batch_size):
    assert [len(batch) for batch in shuffled(SIZES[:n], batch_size, seed=0, epoch=0)] == [batch_size] * (n // batch_size)


def test_fewer_examples_than_a_batch_are_one_batch():
    (batch,) = shuffled(SIZES[:5], batch_size=8, seed=0, epoch=0)
    assert sorted(batch) == [0, 1, 2, 3, 4]


def test_the_order_is_a_function_of_seed_and_epoch():
    np.testing.assert_array_equal([*shuffled(SIZES, 10, seed=3, epoch=2)], [*shuffled(SIZES, 10, seed=3, epoch=2)])


@pytest.mark.parametrize("other", [{"seed": 4, "epoch": 2}, {"seed": 3, "epoch": 1}, {"seed": 2, "epoch": 3}])
def test_another_seed_or_epoch_is_another_order(other):
    assert not np.array_equal([*shuffled(SIZES, 10, seed=3, epoch=2)], [*shuffled(SIZES, 10, **other)])


@pytest.mark.parametrize("skipped", [1, 7, 8, 30])
def test_starting_at_a_step_is_dropping_the_steps_before_it(skipped):
    whole = flat(list(islice(endless(SIZES, 120, seed=0), 40))[skipped:])
    assert flat(list(islice(endless(SIZES, 120, seed=0, first_step=skipped), 40 - skipped))) == whole


def test_no_number_is_drawn_twice_in_a_run():
    drawn = [number for step in islice(endless(SIZES, 120, seed=0, accumulate=4), 40) for part in step for number in part.numbers]
    first = first_number(seed=0, step=0, batch_size=120)
    assert sorted(drawn) == list(range(first, first + 40 * 120))


def test_another_seed_numbers_its_examples_otherwise():
    ranges = [first_number(seed, 0, 120) for seed in range(20)]
    assert len(set(ranges)) == 20
    assert all(first % 2**40 == 0 for first in ranges)


@pytest.mark.parametrize(("world", "accumulate"), SPLITS)
def test_the_parts_of_all_processes_are_exactly_the_batch_numbered_in_its_order(world, accumulate):
    batch = np.arange(100, 200)[::-1]
    divided = [pair for part in everyone(batch, world, accumulate) for pair in zip(part.numbers, part.examples, strict=True)]
    assert sorted(divided) == list(zip(range(700, 800), batch, strict=True))


@pytest.mark.parametrize(("world", "accumulate"), SPLITS)
def test_a_parts_share_is_its_share_of_the_tokens(world, accumulate):
    batch = np.arange(100, 200)
    divided = everyone(batch, world, accumulate)
    expected = [SIZES[part.examples].sum() / SIZES[batch].sum() for part in divided]
    np.testing.assert_allclose([part.share for part in divided], expected, atol=1e-12)


@pytest.mark.parametrize("n", [1, 3, 4, 11, 100])
@pytest.mark.parametrize(("world", "accumulate"), SPLITS)
def test_the_shares_of_all_parts_sum_to_one(n, world, accumulate):
    assert sum(part.share for part in everyone(np.arange(n), world, accumulate)) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(("world", "accumulate"), SPLITS)
def test_a_batch_smaller_than_the_parts_gives_each_part_an_example(world, accumulate):
    divided = everyone(np.arange(3), world, accumulate)
    assert len(divided) == world * accumulate
    assert all(len(part.examples) for part in divided)


def test_a_part_that_repeats_an_example_has_no_share():
    divided = everyone(np.arange(3), world=4, accumulate=2)
    assert [part.share > 0 for part in divided] == [True] * 3 + [False] * 5


def test_a_batch_holds_examples_of_similar_size():
    spread = [np.ptp(SIZES[batch]) for batch in shuffled(SIZES, 20, seed=0, epoch=0)]
    assert np.mean(spread) < 0.1 * np.ptp(SIZES)


def test_a_long_epoch_is_not_sorted_by_size():
    sizes = np.arange(3 * POOL * 4)
    means = [sizes[batch].mean() for batch in shuffled(sizes, 4, seed=0, epoch=0)]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.3
