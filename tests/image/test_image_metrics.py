import math

import pytest
import torch
from torch.testing import assert_close

from image import metrics
from image.model import ImageDiffusion, ImageDiffusionConfig
from image.sources import Images, digits
from textdiff.diffusion.gaussian import from_x0


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- two sets of features


def test_the_frechet_distance_of_two_gaussians_is_the_closed_form():
    """Diagonal ones: sum (mean difference)^2 + (std difference)^2."""
    a = draws(200_000, 2) * torch.tensor([1.0, 2.0]) + torch.tensor([0.0, 1.0])
    b = draws(200_000, 2, seed=1) * torch.tensor([3.0, 2.0]) + torch.tensor([1.0, 1.0])
    assert metrics.frechet_distance(a, b) == pytest.approx(1 + 4, rel=0.02)


def test_the_frechet_distance_to_oneself_is_zero_and_symmetric():
    a, b = draws(500, 8), draws(500, 8, seed=1) @ draws(8, 8, seed=2)
    assert metrics.frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    assert metrics.frechet_distance(a, b) == pytest.approx(metrics.frechet_distance(b, a), rel=1e-6)


def test_precision_and_recall_of_oneself_are_one_and_far_away_zero():
    a = draws(100, 4)
    assert metrics.precision_recall(a, a) == (1, 1)
    assert metrics.precision_recall(a, a + 100) == (0, 0)


def test_one_of_two_modes_is_precise_but_recalls_half():
    both = torch.cat([draws(200, 4), draws(200, 4, seed=1) + 100])
    precision, recall = metrics.precision_recall(both, draws(200, 4, seed=2))
    assert precision > 0.9
    assert recall == pytest.approx(0.5, abs=0.06)


# --- pixels


def test_the_nearest_training_image_is_found_with_its_distance():
    training = torch.tensor([0, 100, 255], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 1, 4, 4)
    distance, found = metrics.nearest(torch.full((2, 1, 4, 4), 110, dtype=torch.uint8), training)
    assert found.tolist() == [1, 1]
    assert_close(distance, torch.full((2,), 10 / 255), atol=1e-4, rtol=0)


def test_a_copy_has_no_distance_at_all():
    pixels = digits().pixels[:200]
    distance, found = metrics.nearest(pixels, pixels)
    assert not distance.any()
    assert torch.equal(pixels[found], pixels)


def test_a_classifier_learns_the_digits_and_its_features_follow_the_classes():
    images = digits()
    classifier = metrics.train_classifier(images[:1500], examples=30_000)
    assert metrics.accuracy(classifier, images[1500:]) > 0.9
    assert metrics.features(classifier, images.pixels[:5]).shape == (5, 128)
    assert_close(metrics.probabilities(classifier, images.pixels[:5]).sum(1), torch.ones(5))


def test_training_a_classifier_repeats_and_leaves_the_global_generator_alone():
    images, before = digits()[:256], torch.get_rng_state()
    first, second = (metrics.train_classifier(images, examples=2560) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(metrics.probabilities(first, images.pixels), metrics.probabilities(second, images.pixels))


# --- likelihood


class Exact(ImageDiffusion):
    """A model that knows its images are noise of 256 shades, each pixel alone: the denoiser of uniform bytes in closed form."""

    def predict(self, x_t, logsnr, label=None, index=None):
        shades = torch.linspace(-1, 1, 256)
        alpha, sigma = logsnr.sigmoid().sqrt()[:, None, None, None], (-logsnr).sigmoid().sqrt()[:, None, None, None]
        weight = (-((x_t.unsqueeze(-1) - alpha.unsqueeze(-1) * shades) ** 2) / (2 * sigma.unsqueeze(-1) ** 2)).softmax(-1)
        return from_x0(x_t, logsnr, weight @ shades)


@pytest.fixture(scope="module")
def exact() -> Exact:
    return Exact(ImageDiffusionConfig(width=8, multipliers=(1,), attention=()))


def test_the_bound_of_the_exact_denoiser_lies_just_above_the_truth_of_eight_bits(exact):
    pixels = torch.randint(256, (32, 1, 8, 8), generator=torch.Generator().manual_seed(0)).byte()
    bits, error = metrics.bits_per_dimension(metrics.bound(exact, pixels, None, torch.arange(32), draws=32), pixels)
    assert -4 * error < bits - 8 < 0.2 + 4 * error


def test_the_ode_bound_of_the_exact_denoiser_lies_just_above_the_truth_too(exact):
    pixels = torch.randint(256, (16, 1, 8, 8), generator=torch.Generator().manual_seed(1)).byte()
    bits, error = metrics.bits_per_dimension(metrics.ode_bound(exact, pixels, None, torch.arange(16), steps=256), pixels)
    assert -4 * error < bits - 8 < 0.2 + 4 * error


def test_an_images_bound_does_not_depend_on_its_companions(new_image_model, pixels):
    model, key = new_image_model(), torch.arange(6)
    whole = metrics.bound(model, pixels, None, key, draws=4)
    alone = torch.cat([metrics.bound(model, pixels[i : i + 1], None, key[i : i + 1], draws=4) for i in range(6)])
    assert_close(alone, whole, atol=1e-2, rtol=1e-4)


def test_bits_are_nats_over_ln_2_a_dimension(pixels):
    bits, error = metrics.bits_per_dimension(torch.tensor([64 * math.log(2), 192 * math.log(2)]), pixels[:2])
    assert bits == pytest.approx(2)
    assert error == pytest.approx(1)


def test_images_keep_their_labels_when_chosen():
    chosen = Images(torch.arange(4).byte().view(4, 1, 1, 1), torch.arange(4), ("a", "b", "c", "d"))[torch.tensor([2, 0])]
    assert chosen.labels.tolist() == chosen.pixels.flatten().tolist() == [2, 0]
