"""Laws of the pretended device: it refuses what a device refuses, and records every wait."""

import pytest
import torch
from pretended_device import DEVICE, Refused, pretended_device

from textdiff.nn import LogSNREmbedding


def test_buffer_on_the_cpu_is_refused():
    embedding = LogSNREmbedding(8).to(DEVICE)
    embedding.frequency = torch.ones(64)
    with pretended_device(), pytest.raises(Refused, match="a CPU tensor among"):
        embedding(torch.zeros(3, device=DEVICE))


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: x.double(),
        lambda x: torch.linspace(0, 1, 3, dtype=torch.float64, device=DEVICE),
        lambda x: torch.ones(3, dtype=torch.float64).to(DEVICE),
        lambda x: x.to("cpu", torch.float64),
    ],
)
def test_float64_on_the_device_is_refused(operation):
    with pretended_device(), pytest.raises(Refused, match="float64"):
        operation(torch.zeros(3, device=DEVICE))


def test_cpu_index_of_a_device_tensor_is_refused():
    with pretended_device(), pytest.raises(Refused):
        torch.zeros(3, device=DEVICE)[torch.tensor([0, 1])]


@pytest.mark.parametrize(
    "operation",
    [lambda x: bool(x.any()), lambda x: x.sum().item(), lambda x: x.tolist(), lambda x: x.cpu()],
)
def test_fetching_a_value_is_a_wait(operation):
    with pretended_device() as waits:
        operation(torch.zeros(3, device=DEVICE))
    assert len(waits) == 1


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: torch.tensor([1.0], device=DEVICE),
        lambda x: x.new_tensor(1.0),
        lambda x: x[[0, 1]],
    ],
)
def test_copying_python_numbers_is_a_wait(operation):
    with pretended_device() as waits:
        operation(torch.zeros(3, device=DEVICE))
    assert len(waits) == 1


@pytest.mark.parametrize(
    "operation", [lambda x: x.nonzero(), lambda x: x[x > 0], lambda x: x.masked_select(x > 0)]
)
def test_data_dependent_shape_is_refused(operation):
    with pretended_device(), pytest.raises(NotImplementedError):
        operation(torch.zeros(3, device=DEVICE))


def test_inexact_integer_product_is_refused():
    with pretended_device(exact_int64=False), pytest.raises(Refused, match="64-bit"):
        torch.arange(3, device=DEVICE) * 3
