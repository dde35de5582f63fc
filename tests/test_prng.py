"""Laws of the random numbers: their distribution, independence and reproducibility."""

import math

import pytest
import torch
from torch.testing import assert_close

from textdiff import prng
from textdiff.prng import dropout, fold_in, low_discrepancy_times, normal, uniform

N = 200_000
KEYS = torch.arange(N)
GAMMA, STREAM = 0x9E3779B97F4A7C15, 0x632BE59BD9B4E019
FIRST, SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
HASHES = [4442667547861771982, -6929603122957602814, 7014469897623101019]
UNIFORMS = [0.2408375, 0.6243454, 0.3802552]
NORMALS = [[-0.2209492, -0.4202501, 0.4948511], [-1.5316809, 1.5368938, -0.4982907]]


def signed(z: int) -> int:
    return (z + 2**63) % 2**64 - 2**63


def splitmix64(state: int) -> int:
    """Steele, Lea & Flood's mix of a state, in Python's unbounded integers."""
    z = state % 2**64
    z = (z ^ z >> 30) * FIRST % 2**64
    z = (z ^ z >> 27) * SECOND % 2**64
    return z ^ z >> 31


def key_of(bits: int) -> torch.Tensor:
    """The key that hashes to these bits in stream 0, by undoing every step of the hash."""
    z = bits
    for shift, factor in ((31, SECOND), (27, FIRST), (30, GAMMA)):
        z = z ^ z >> shift ^ z >> 2 * shift
        z = z * pow(factor, -1, 2**64) % 2**64
    return torch.tensor([signed(z)])


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


def shifted(x: torch.Tensor, by: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Two overlapping parts of a tensor, one shifted against the other along each axis."""
    later = x[tuple(slice(n, None) for n in by)]
    return later, x[tuple(slice(size) for size in later.shape)]


@pytest.mark.parametrize("stream", [0, 1, 2, 10**12])
@pytest.mark.parametrize("key", [0, 1, 2**62, -5])
def test_hash_is_splitmix64(key, stream):
    expected = signed(splitmix64((key + stream * STREAM % 2**63) * GAMMA))
    assert fold_in(torch.tensor(key), stream).item() == expected


def test_numbers_are_the_same_on_every_platform():
    assert fold_in(torch.arange(3), 1).tolist() == HASHES
    assert_close(uniform(torch.arange(3), stream=1), torch.tensor(UNIFORMS), atol=1e-7, rtol=0)
    noise = normal(torch.arange(2), torch.Size((2, 3)), stream=1)
    assert_close(noise, torch.tensor(NORMALS), atol=1e-5, rtol=0)


@pytest.mark.parametrize("bits", [0, 1, 2**63 - 1, 2**63, 2**64 - 1])
def test_uniform_lies_strictly_between_0_and_1(bits):
    assert fold_in(key_of(bits), 0).item() == signed(bits)
    assert 0 < uniform(key_of(bits), stream=0).item() < 1


@pytest.mark.parametrize("power", [1, 2, 3, 4])
def test_uniform_has_the_moments_of_a_uniform(power):
    moment = uniform(KEYS, stream=1).double().pow(power).mean().item()
    assert_close(moment, 1 / (power + 1), atol=0.004, rtol=0)


def test_uniform_has_a_flat_histogram():
    counts = torch.histc(uniform(KEYS, stream=2), bins=100, min=0, max=1)
    assert ((counts - N / 100).abs() < 5 * (N / 100) ** 0.5).all()


@pytest.mark.parametrize(("power", "moment"), [(1, 0), (2, 1), (3, 0), (4, 3)])
def test_normal_has_the_moments_of_a_standard_normal(power, moment):
    draws = normal(torch.arange(1000), torch.Size((1000, 20, 10)), stream=1).double()
    assert_close(draws.pow(power).mean().item(), float(moment), atol=0.05, rtol=0)


def test_neighbouring_keys_are_uncorrelated():
    draws = uniform(KEYS, stream=1)
    assert abs(correlation(draws[1:], draws[:-1])) < 0.01


def test_streams_are_uncorrelated():
    assert abs(correlation(uniform(KEYS, stream=1), uniform(KEYS, stream=2))) < 0.01


@pytest.mark.parametrize("apart", [(1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_neighbouring_elements_of_noise_are_uncorrelated(apart):
    draws = normal(torch.arange(300), torch.Size((300, 20, 10)), stream=1)
    assert abs(correlation(*shifted(draws, apart))) < 0.02


def test_noise_of_two_streams_is_uncorrelated():
    first, second = (
        normal(torch.arange(1000), torch.Size((1000, 50)), stream=stream) for stream in (1, 2)
    )
    assert abs(correlation(first, second)) < 0.02


def test_noise_does_not_depend_on_other_rows():
    together = normal(torch.tensor([5, 9, 2]), torch.Size((3, 4, 6)), stream=1)
    single = normal(torch.tensor([9]), torch.Size((1, 4, 6)), stream=1)
    assert torch.equal(together[1:2], single)


def test_noise_does_not_depend_on_sequence_length():
    short, padded = (
        normal(torch.arange(3), torch.Size((3, length, 6)), stream=1) for length in (4, 9)
    )
    assert torch.equal(padded[:, :4], short)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_has_its_rate_and_keeps_the_mean(rate):
    dropped = dropout(torch.ones(200, 50, 30), torch.arange(200), rate, stream=0)
    assert dropped.unique().tolist() == pytest.approx([0, 1 / (1 - rate)])
    standard_error = (rate * (1 - rate) / dropped.numel()) ** 0.5
    assert abs((dropped == 0).double().mean().item() - rate) < 5 * standard_error


def test_dropout_depends_on_neither_rows_nor_padding():
    together = dropout(torch.ones(3, 9, 6), torch.tensor([5, 9, 2]), 0.5, stream=0)
    single = dropout(torch.ones(1, 4, 6), torch.tensor([9]), 0.5, stream=0)
    assert torch.equal(together[1:2, :4], single)


@pytest.mark.parametrize("apart", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 4)])
def test_neighbouring_elements_are_dropped_independently(apart):
    dropped = dropout(torch.ones(300, 40, 20), torch.arange(300), 0.5, stream=0)
    assert abs(correlation(*shifted(dropped, apart))) < 0.02


def test_streams_drop_independently():
    first, second = (
        dropout(torch.ones(300, 40, 20), torch.arange(300), 0.5, stream=stream) for stream in (0, 1)
    )
    assert abs(correlation(first, second)) < 0.02


# --- low-discrepancy times


@pytest.mark.parametrize("first", [0, 10**6, 3 * 2**40 + 5])
def test_times_are_multiples_of_the_golden_ratio(first):
    """In float64 the product is exact enough here; the sequence restarts at multiples of 2^40."""
    index = first + torch.arange(10_000)
    expected = (index % 2**40).double() * (math.sqrt(5) - 1) / 2
    apart = (low_discrepancy_times(index).double() - expected) % 1
    assert torch.minimum(apart, 1 - apart).max() < 1e-7


@pytest.mark.parametrize("first", [0, 2**39, 5 * 2**40])
@pytest.mark.parametrize("n", [10, 100, 1000, 100_000])
def test_times_have_low_discrepancy(first, n):
    """The star discrepancy grows like log(n) / n; that of random numbers is 1 / sqrt(n)."""
    times = low_discrepancy_times(first + torch.arange(n)).double().sort().values
    assert 0 <= times[0] <= times[-1] < 1
    even = torch.arange(n) / n
    assert torch.maximum(times - even, even + 1 / n - times).max() < (1 + math.log(n)) / n


def test_cpu_replaces_a_device_without_exact_int64(monkeypatch):
    index, shape = torch.arange(5), torch.Size((5, 7))
    draws = {
        "fold_in": lambda: fold_in(index, 3),
        "uniform": lambda: uniform(index, 3),
        "normal": lambda: normal(index, shape, 3),
        "dropout": lambda: dropout(torch.ones(shape), index, 0.3, 3),
        "low_discrepancy_times": lambda: low_discrepancy_times(index),
    }
    exact = {name: draw() for name, draw in draws.items()}
    moved = []
    monkeypatch.setattr(prng, "has_exact_int64", moved.append)  # returns None, which is false
    assert_close({name: draw() for name, draw in draws.items()}, exact, atol=0, rtol=0)
    assert len(moved) > len(draws)
