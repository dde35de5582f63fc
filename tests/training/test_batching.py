"""Laws of batches: an epoch's order, and the division of a batch between processes."""

from itertools import islice

import numpy as np
import pytest

from textdiff.training.batching import (
    POOL,
    batch_stream,
    epoch_batches,
    first_index,
    interleave_indices,
    split_batch,
)

SIZES = np.random.default_rng(0).integers(1, 50, 1000)
SPLITS = [(1, 1), (1, 4), (4, 1), (3, 2), (8, 3)]


def all_parts(batch: np.ndarray, world: int, accumulation: int) -> list:
    return [
        part
        for rank in range(world)
        for part in split_batch(batch, 700, SIZES, rank, world, accumulation)
    ]


def flat(steps: list) -> list[tuple]:
    return [
        (part.examples.tolist(), part.indices.tolist(), part.weight)
        for step in steps
        for part in step
    ]


@pytest.mark.parametrize(("n", "batch_size"), [(1000, 16), (1000, 1), (1000, 999), (7, 3), (5, 8)])
def test_epoch_has_each_example_at_most_once(n, batch_size):
    chosen = np.concatenate([*epoch_batches(SIZES[:n], batch_size, seed=0, epoch=0)])
    assert len(chosen) == len(np.unique(chosen))


@pytest.mark.parametrize(("n", "batch_size"), [(1000, 16), (1000, 1), (1000, 999), (7, 3)])
def test_epoch_of_full_batches_omits_less_than_one(n, batch_size):
    assert [len(batch) for batch in epoch_batches(SIZES[:n], batch_size, seed=0, epoch=0)] == [
        batch_size
    ] * (n // batch_size)


def test_fewer_examples_than_a_batch_are_one_batch():
    (batch,) = epoch_batches(SIZES[:5], batch_size=8, seed=0, epoch=0)
    assert sorted(batch) == [0, 1, 2, 3, 4]


def test_order_is_a_function_of_seed_and_epoch():
    np.testing.assert_array_equal(
        [*epoch_batches(SIZES, 10, seed=3, epoch=2)], [*epoch_batches(SIZES, 10, seed=3, epoch=2)]
    )


@pytest.mark.parametrize(
    "other", [{"seed": 4, "epoch": 2}, {"seed": 3, "epoch": 1}, {"seed": 2, "epoch": 3}]
)
def test_another_seed_or_epoch_is_another_order(other):
    assert not np.array_equal(
        [*epoch_batches(SIZES, 10, seed=3, epoch=2)], [*epoch_batches(SIZES, 10, **other)]
    )


@pytest.mark.parametrize("skipped", [1, 7, 8, 30])
def test_starting_later_only_drops_earlier_steps(skipped):
    whole = flat(list(islice(batch_stream(SIZES, 120, seed=0), 40))[skipped:])
    assert (
        flat(list(islice(batch_stream(SIZES, 120, seed=0, first_step=skipped), 40 - skipped)))
        == whole
    )


def test_each_index_is_used_once_in_a_run():
    steps = islice(batch_stream(SIZES, 120, seed=0, accumulation=4), 40)
    drawn = [index for step in steps for part in step for index in part.indices]
    start = first_index(seed=0, step=0, batch_size=120)
    assert sorted(drawn) == list(range(start, start + 40 * 120))


def test_seeds_have_separate_ranges_of_indices():
    ranges = [first_index(seed, 0, 120) for seed in range(20)]
    assert len(set(ranges)) == 20
    assert all(first % 2**40 == 0 for first in ranges)


@pytest.mark.parametrize(("world", "accumulation"), SPLITS)
def test_parts_of_all_processes_are_the_batch(world, accumulation):
    batch = np.arange(100, 200)[::-1]
    parts = [
        pair
        for part in all_parts(batch, world, accumulation)
        for pair in zip(part.indices, part.examples, strict=True)
    ]
    assert sorted(parts) == list(zip(range(700, 800), batch, strict=True))


@pytest.mark.parametrize(("world", "accumulation"), SPLITS)
def test_weight_is_the_share_of_tokens(world, accumulation):
    batch = np.arange(100, 200)
    parts = all_parts(batch, world, accumulation)
    expected = [SIZES[part.examples].sum() / SIZES[batch].sum() for part in parts]
    np.testing.assert_allclose([part.weight for part in parts], expected, atol=1e-12)


@pytest.mark.parametrize("n", [1, 3, 4, 11, 100])
@pytest.mark.parametrize(("world", "accumulation"), SPLITS)
def test_weights_of_all_parts_sum_to_one(n, world, accumulation):
    assert sum(
        part.weight for part in all_parts(np.arange(n), world, accumulation)
    ) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(("world", "accumulation"), SPLITS)
def test_every_part_has_an_example(world, accumulation):
    parts = all_parts(np.arange(3), world, accumulation)
    assert len(parts) == world * accumulation
    assert all(len(part.examples) for part in parts)


def test_repeated_examples_have_weight_zero():
    parts = all_parts(np.arange(3), world=4, accumulation=2)
    assert [part.weight > 0 for part in parts] == [True] * 3 + [False] * 5


def test_examples_of_a_batch_have_similar_sizes():
    spread = [np.ptp(SIZES[batch]) for batch in epoch_batches(SIZES, 20, seed=0, epoch=0)]
    assert np.mean(spread) < 0.1 * np.ptp(SIZES)


def test_long_epoch_is_not_sorted_by_size():
    sizes = np.arange(3 * POOL * 4)
    means = [sizes[batch].mean() for batch in epoch_batches(sizes, 4, seed=0, epoch=0)]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.3


def test_interleaved_indices_are_unique():
    batch, weights, indices = np.arange(10), 0.0, []
    for rank in range(3):
        for part in split_batch(batch, 700, SIZES, rank=0, world=1, accumulation=2):
            own = interleave_indices(part, 700, rank, world=3, weight=1 / 3)
            indices += own.indices.tolist()
            weights += own.weight
    assert sorted(indices) == list(range(700, 730))
    assert weights == pytest.approx(1, abs=1e-12)
