"""Tensors in float64 and a comparison with an explicit tolerance, for the tests of the core."""

import torch
from torch.testing import assert_close


def seeded(seed: int = 0) -> torch.Generator:
    """Returns a generator with the given seed."""
    return torch.Generator().manual_seed(seed)


def double(*values) -> torch.Tensor:
    """Returns the values as a tensor in float64."""
    return torch.tensor(values, dtype=torch.float64)


def draws(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Returns standard normal numbers, drawn in float64 and rounded to `dtype`."""
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64).to(dtype)


def linspace(start: float, end: float, count: int) -> torch.Tensor:
    """Returns equally spaced numbers in float64."""
    return torch.linspace(start, end, count, dtype=torch.float64)


def close(actual: torch.Tensor, expected, tolerance: float = 1e-12) -> None:
    """Compares a tensor with a tensor of its dtype, or with numbers."""
    if not isinstance(expected, torch.Tensor):
        expected = torch.as_tensor(expected, dtype=actual.dtype)
    assert_close(actual, expected, rtol=tolerance, atol=tolerance)
