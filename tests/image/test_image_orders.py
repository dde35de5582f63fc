"""Laws of orders of pixels, and of models in which each pixel has a log SNR of its own."""

import pytest
import torch
from torch.testing import assert_close

from image.model import scaled
from image.orders import order_path, priority
from image.sampling import edit_request, generate, in_order, inpaint_request, sample_request
from textdiff.config import SamplingConfig, UserError
from textdiff.diffusion.samplers import SAMPLERS
from textdiff.sampling import collect

KEYS = torch.arange(3)
LEFT = torch.arange(8).expand(8, 8) < 4
ORDERS = ("raster", "coarse-to-fine", "random")
every_order = pytest.mark.parametrize("order", ORDERS)


def sampled(model, request, **options) -> torch.Tensor:
    config = SamplingConfig(**{"steps": 6} | options)
    return torch.stack([*collect(generate(model, request, config))])


@every_order
def test_orders_contain_every_pixel_once(order):
    ranks = priority(order, KEYS, torch.Size((5, 6))).argsort(1).argsort(1)
    assert torch.equal(ranks.sort(1).values, torch.arange(30).expand(3, -1))


def test_coarse_grids_come_before_fine_ones():
    rank = priority("coarse-to-fine", KEYS, torch.Size((8, 8)))[0].view(8, 8)
    for spacing in (8, 4, 2):
        count = (8 // spacing) ** 2
        assert set(rank[::spacing, ::spacing].flatten().tolist()) == set(range(count))


def test_raster_is_line_by_line():
    assert torch.equal(priority("raster", KEYS, torch.Size((2, 3)))[0], torch.arange(6.0))


@every_order
def test_window_is_the_number_of_moving_pixels(new_image_model, order):
    start = torch.ones(3, 1, 8, 8)
    start[:, :, :4] = 0  # half of the pixels are given
    times = order_path(new_image_model().schedule(), start, KEYS, order, 5).times
    moving = [(times(torch.full((3,), tau)) % 1 > 0).sum((1, 2, 3)) for tau in (0.3, 0.5, 0.7)]
    assert all(4 <= count <= 6 for count in torch.cat(moving).tolist())


def test_equal_levels_predict_as_one(new_image_model, pixels):
    model, logsnr = new_image_model(), torch.linspace(-6, 6, 6)
    levels = logsnr.view(-1, 1, 1, 1).expand(-1, 1, 8, 8)
    one, each = (model.predict(scaled(pixels), level) for level in (logsnr, levels))
    assert_close(each, one, atol=1e-6, rtol=1e-6)


def test_prediction_depends_on_levels_of_pixels(new_image_model, pixels):
    model, levels = new_image_model(), torch.zeros(6, 1, 8, 8)
    equal = model.predict(scaled(pixels), levels).x0[:, :, :, 4:]
    levels[:, :, :, :4] = 10
    assert not torch.allclose(model.predict(scaled(pixels), levels).x0[:, :, :, 4:], equal)


def test_given_pixels_have_no_loss(new_image_model, pixels, monkeypatch):
    """The network's output at given pixels changes nothing."""
    model = new_image_model(infill_prob=1.0, stagger_prob=0.0).train()
    index, seen = torch.arange(6), []

    def forward(x_t, logsnr, label, index):
        clean = logsnr > 9.9
        seen.append(clean.float().mean())
        return torch.where(clean, 100.0, 0.0) * torch.ones_like(x_t)

    monkeypatch.setattr(model.unet, "forward", forward)
    assert model(pixels, index)["eps"] < 2
    assert 0.2 < seen[0] < 0.8


def test_level_maps_need_a_network_for_them(new_image_model, pixels):
    model = new_image_model(infill_prob=0.0, stagger_prob=0.0)
    with pytest.raises(ValueError, match="logsnr_range"):
        model.predict(scaled(pixels), torch.zeros(6, 1, 8, 8))


@every_order
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_given_pixels_are_kept_in_orders(new_image_model, pixels, order, sampler):
    model = new_image_model()
    request = in_order(model, inpaint_request(model, pixels[0], LEFT, 3, 0), order, 4)
    images = sampled(model, request, sampler=sampler)
    assert torch.equal(images[..., 4:], pixels[:1, :, :, 4:].expand(3, -1, -1, -1))
    assert len(images.unique(dim=0)) == 3


@every_order
def test_samples_in_order_depend_on_their_key(new_image_model, order):
    model = new_image_model()
    requests = (in_order(model, sample_request(model, n, 0), order, 3) for n in (5, 3))
    five, three = (sampled(model, each, batch_size=2) for each in requests)
    assert torch.equal(five[:3], three)
    assert not torch.equal(three, sampled(model, sample_request(model, 3, 0)))


def test_weak_edits_move_little_in_every_order(new_image_model, pixels):
    model = new_image_model()
    edit = edit_request(model, pixels[0], n=2, seed=0, strength=0.02)
    images = sampled(model, in_order(model, edit, "random", None), steps=100)
    assert (images.float() - pixels[0].float()).abs().mean() < 25


@pytest.mark.parametrize(
    ("order", "window", "message"),
    [
        ("raster", 65, "--window must be between 1 and 64, the pixels, got 65"),
        ("raster", 0, "--window must be at least 1, got 0"),
        ("parallel", 2, "--window must be left out with --order parallel"),
    ],
)
def test_impossible_windows_are_refused(new_image_model, order, window, message):
    model = new_image_model()
    with pytest.raises(UserError, match=message):
        in_order(model, sample_request(model, 2, 0), order, window)


def test_models_with_one_level_refuse(new_image_model, pixels):
    model = new_image_model(infill_prob=0.0, stagger_prob=0.0)
    with pytest.raises(UserError, match="infill_prob above 0"):
        inpaint_request(model, pixels[0], LEFT, 1, 0)
    with pytest.raises(UserError, match="stagger_prob above 0"):
        in_order(model, sample_request(model, 2, 0), "raster", None)
