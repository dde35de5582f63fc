"""Laws of the metrics of images: feature distances, nearest neighbors and the classifier."""

import pytest
import torch
from torch.testing import assert_close

from image import metrics
from image.sources import digits


def normals(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_frechet_distance_matches_closed_form():
    """For diagonal Gaussians it is sum (mean difference)^2 + (std difference)^2."""
    a = normals(200_000, 2) * torch.tensor([1.0, 2.0]) + torch.tensor([0.0, 1.0])
    b = normals(200_000, 2, seed=1) * torch.tensor([3.0, 2.0]) + torch.tensor([1.0, 1.0])
    assert metrics.frechet_distance(a, b) == pytest.approx(1 + 4, rel=0.02)


def test_frechet_distance_is_symmetric_and_zero_to_itself():
    a, b = normals(500, 8), normals(500, 8, seed=1) @ normals(8, 8, seed=2)
    assert metrics.frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    assert metrics.frechet_distance(a, b) == pytest.approx(metrics.frechet_distance(b, a), rel=1e-6)


def test_precision_and_recall_are_one_for_itself():
    """They are 0 for a set that is far away."""
    a = normals(100, 4)
    assert metrics.precision_recall(a, a) == (1, 1)
    assert metrics.precision_recall(a, a + 100) == (0, 0)


def test_recall_of_one_of_two_modes_is_half():
    """Its precision is high."""
    both = torch.cat([normals(200, 4), normals(200, 4, seed=1) + 100])
    precision, recall = metrics.precision_recall(both, normals(200, 4, seed=2))
    assert precision > 0.9
    assert recall == pytest.approx(0.5, abs=0.06)


def test_nearest_training_image_is_found():
    training = torch.tensor([0, 100, 255], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 1, 4, 4)
    distance, found = metrics.nearest(torch.full((2, 1, 4, 4), 110, dtype=torch.uint8), training)
    assert found.tolist() == [1, 1]
    assert_close(distance, torch.full((2,), 10 / 255), atol=1e-4, rtol=0)


def test_copy_has_distance_zero():
    pixels = digits().pixels[:200]
    distance, found = metrics.nearest(pixels, pixels)
    assert not distance.any()
    assert torch.equal(pixels[found], pixels)


def test_classifier_learns_the_digits():
    images = digits()
    classifier = metrics.train_classifier(images[:1500], examples=30_000)
    assert metrics.accuracy(classifier, images[1500:]) > 0.9
    assert metrics.features(classifier, images.pixels[:5]).shape == (5, 128)
    assert_close(metrics.probabilities(classifier, images.pixels[:5]).sum(1), torch.ones(5))


def test_classifier_training_repeats():
    """It leaves torch's global generator unchanged."""
    images, before = digits()[:256], torch.get_rng_state()
    classifiers = [metrics.train_classifier(images, examples=2560) for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), before)
    first, second = (metrics.probabilities(each, images.pixels) for each in classifiers)
    assert torch.equal(first, second)
