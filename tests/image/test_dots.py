"""Laws of the built-in dots and their metrics."""

import pytest
import torch

from image.dots import dots, judge


def test_dots_are_single_and_uniform():
    found = judge(dots(4000))
    assert found.single == 1
    assert found.uniform_p > 0.01


def test_wrong_images_are_not_counted_as_dots():
    """Images without a dot, with three dots, on grey, or of grey dots; and dots in one corner."""
    pixels = dots(100)
    pixels[:20] = 0
    pixels[20:30, :, 0, :2] = 255
    pixels[20:30, :, 5, 5] = 255
    assert judge(pixels).single == pytest.approx(0.7)
    assert judge(dots(100).clamp(min=80)).single == 0  # on grey
    assert judge(dots(100).clamp(max=150)).single == 0  # grey dots
    corner = torch.zeros(500, 1, 16, 16, dtype=torch.uint8)
    corner[:, :, 0, 0] = 255
    assert judge(corner).uniform_p < 1e-6
