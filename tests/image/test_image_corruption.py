"""Laws of the log SNRs of training images: shares, given pixels and staggered paths."""

import pytest
import torch

from image.corruption import given_pixels, sample_levels
from textdiff.diffusion.schedules import bounded, cosine, endpoints

SCHEDULE = bounded(cosine, -9.0, 10.0)
SIZE = torch.Size((6, 9))
INDEX = torch.arange(4000)


def levels(infill_prob: float, stagger_prob: float) -> tuple[torch.Tensor, torch.Tensor]:
    found, noisy = sample_levels(INDEX, SIZE, SCHEDULE, infill_prob, stagger_prob)
    return found.flatten(1), noisy.flatten(1)


@pytest.mark.parametrize("prob", [0.0, 0.25, 1.0])
def test_given_pixels_have_their_share(prob):
    """Some masks are empty."""
    some = given_pixels(INDEX, SIZE, prob).flatten(1).any(1).float().mean().item()
    assert prob * 0.93 <= some <= prob + 0.02 * (prob < 1)


def test_about_half_of_the_pixels_are_given():
    given = given_pixels(INDEX, SIZE, 1.0).float()
    assert given.mean().item() == pytest.approx(0.5, abs=0.05)
    assert given.mean(0).min() > 0.4
    assert given.mean(0).max() < 0.6


def test_given_pixels_are_clean_and_others_equal():
    found, noisy = levels(1.0, 0.0)
    clean = endpoints(SCHEDULE)[1]
    assert ((found - clean).abs()[~noisy] < 1e-3).all()
    noisiest = found.amin(1, keepdim=True).expand_as(found)
    assert torch.equal(found[noisy], noisiest[noisy])


def test_staggered_paths_have_their_share():
    found, _ = levels(0.0, 0.4)
    several = (found != found[:, :1]).any(1).float().mean().item()
    assert 0.3 < several <= 0.42  # a window of all pixels may be at one level


def test_images_without_either_have_one_level():
    found, noisy = levels(0.0, 0.0)
    assert torch.equal(found, found[:, :1].expand_as(found))
    assert noisy[1:].all()  # the time of index 0 is 0


def test_levels_are_functions_of_the_index():
    whole, _ = levels(0.5, 0.5)
    part, _ = sample_levels(INDEX[7:9], SIZE, SCHEDULE, 0.5, 0.5)
    assert torch.equal(part.flatten(1), whole[7:9])
