"""Laws of sampling, editing, inpainting and interpolating images."""

import pytest
import torch

from image.sampling import (
    Request,
    edit_request,
    generate,
    inpaint_request,
    interpolate_request,
    sample_request,
)
from textdiff.config import SamplingConfig, UserError
from textdiff.diffusion.samplers import SAMPLERS
from textdiff.distributed import ProcessInfo
from textdiff.sampling import collect

every_sampler = pytest.mark.parametrize("sampler", SAMPLERS)


def sampled(model, request: Request, **options) -> torch.Tensor:
    config = SamplingConfig(**{"steps": 4} | options)
    return torch.stack([*collect(generate(model, request, config))])


@every_sampler
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 7, 10)])
def test_samples_have_the_shape_of_the_model(new_image_model, sampler, shape):
    channels, height, width = shape
    model = new_image_model(channels=channels, height=height, image_width=width)
    images = sampled(model, sample_request(model, 5, seed=0), sampler=sampler)
    assert images.shape == (5, *shape)
    assert len(images.unique(dim=0)) == 5


def test_sample_depends_only_on_seed_and_number(new_image_model):
    model = new_image_model()
    five, three, other_seed = (
        sampled(model, sample_request(model, n, seed=seed)) for n, seed in ((5, 0), (3, 0), (5, 1))
    )
    assert torch.equal(five[:3], three)
    assert not torch.equal(five, other_seed)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_batch_size_does_not_change_the_samples(new_image_model, size):
    model = new_image_model()
    request = sample_request(model, 9, seed=0)
    whole, parts = (sampled(model, request, batch_size=each) for each in (64, size))
    assert torch.equal(whole, parts)


def test_processes_divide_the_batches(new_image_model):
    """Together they give the samples of one process."""
    model = new_image_model()
    request, config = sample_request(model, 5, seed=0), SamplingConfig(steps=2, batch_size=2)
    first, second = (
        list(generate(model, request, config, process=ProcessInfo(rank, 2))) for rank in range(2)
    )
    assert {row for batch in first for row in batch.rows} == {0, 1, 4}
    assert {row for batch in second for row in batch.rows} == {2, 3}
    together = torch.stack([*collect([*second, *first])])
    assert torch.equal(together, torch.stack([*collect(generate(model, request, config))]))


def test_every_step_of_every_batch_is_yielded(new_image_model):
    """The last step is the result."""
    model = new_image_model()
    request, config = sample_request(model, 5, seed=0), SamplingConfig(steps=4, batch_size=2)
    batches = list(generate(model, request, config))
    expected = [(rows, step) for rows in ([0, 1], [2, 3], [4]) for step in (1, 2, 3, 4)]
    assert [(batch.rows, batch.step) for batch in batches] == expected
    assert [batch.is_final for batch in batches] == [step == 4 for _, step in expected]


def test_without_label_all_classes_come_in_turn(new_image_model):
    request = sample_request(new_image_model(classes=["a", "b"]), 5, seed=0)
    assert request.label.tolist() == [0, 1, 0, 1, 0]
    assert sample_request(new_image_model(), 5, seed=0).label is None


@every_sampler
def test_inpainting_keeps_known_pixels(new_image_model, pixels, sampler):
    """The other pixels differ between samples."""
    model, unknown = new_image_model(), torch.zeros(8, 8, dtype=torch.bool)
    unknown[:, 4:] = True
    request = inpaint_request(model, pixels[0], unknown, n=3, seed=0)
    images = sampled(model, request, sampler=sampler)
    assert torch.equal(images[:, :, :, :4], pixels[:1, :, :, :4].expand(3, -1, -1, -1))
    assert len(images.unique(dim=0)) == 3


def test_edit_strength_runs_from_image_to_sample(new_image_model, pixels):
    """Strength 0 gives the image, strength 1 a sample."""
    model = new_image_model()
    weakest, strongest = (
        sampled(model, edit_request(model, pixels[0], n=2, seed=3, strength=strength))
        for strength in (0.0, 1.0)
    )
    assert torch.equal(weakest, pixels[:1].expand(2, -1, -1, -1))
    assert torch.equal(strongest, sampled(model, sample_request(model, 2, seed=3)))


@pytest.mark.parametrize("strength", [0.1, 0.3, 0.7])
def test_edits_take_steps_in_proportion(new_image_model, pixels, strength):
    model = new_image_model()
    request = edit_request(model, pixels[0], n=1, seed=0, strength=strength)
    batches = list(generate(model, request, SamplingConfig(steps=10)))
    assert len(batches) == batches[-1].steps == round(10 * strength)


def test_stronger_edits_are_farther_from_the_image(new_image_model, pixels):
    model = new_image_model()
    edits = [
        sampled(model, edit_request(model, pixels[0], n=8, seed=0, strength=strength))
        for strength in (0.2, 0.5, 0.9)
    ]
    near, middle, far = ((edit.float() - pixels[0].float()).abs().mean() for edit in edits)
    assert near < middle < far


def test_interpolation_runs_from_first_to_second(new_image_model, pixels):
    model, (first, second) = new_image_model(), pixels[:2]
    images = sampled(model, interpolate_request(model, first, second, n=5, seed=0, strength=0.0))
    assert torch.equal(images[0], first)
    assert torch.equal(images[-1], second)
    middle = (first.float() + second.float()) / 2
    assert (images[2].float() - middle).abs().max() <= 1


def test_class_and_guidance_change_every_request(new_image_model, pixels):
    model, unknown = new_image_model(classes=["a", "b"]), torch.arange(8).expand(8, 8) < 4
    first, second = pixels[:2]
    requests = (
        lambda *given: sample_request(model, 2, 0, *given),
        lambda *given: edit_request(model, first, 2, 0, 0.9, *given),
        lambda *given: inpaint_request(model, first, unknown, 2, 0, *given),
        lambda *given: interpolate_request(model, first, second, 2, 0, 0.9, *given),
    )
    a, b = (torch.full((2,), number) for number in (0, 1))
    for request in requests:
        plain, other_class, guided = (
            sampled(model, request(*given)) for given in ((a,), (b,), (a, 5.0))
        )
        assert not torch.equal(plain, other_class)
        assert not torch.equal(plain, guided)


def test_ends_of_an_interpolation_are_edits(new_image_model, pixels):
    model, (first, second) = new_image_model(), pixels[:2]
    images = sampled(model, interpolate_request(model, first, second, n=3, seed=0, strength=0.6))
    edits = [
        sampled(model, edit_request(model, image, n=1, seed=0, strength=0.6))
        for image in (first, second)
    ]
    assert torch.equal(images[[0, -1]], torch.cat(edits))


@pytest.mark.parametrize("strength", [-0.1, 1.1])
def test_impossible_strength_is_refused(new_image_model, pixels, strength):
    with pytest.raises(UserError, match="--strength"):
        edit_request(new_image_model(), pixels[0], n=1, seed=0, strength=strength)


def test_black_mask_is_refused(new_image_model, pixels):
    nothing = torch.zeros(8, 8, dtype=torch.bool)
    with pytest.raises(UserError, match="--mask"):
        inpaint_request(new_image_model(), pixels[0], nothing, n=1, seed=0)


def test_image_of_another_shape_is_refused(new_image_model):
    image = torch.zeros(1, 4, 4, dtype=torch.uint8)
    with pytest.raises(UserError, match="1x4x4"):
        edit_request(new_image_model(), image, n=1, seed=0, strength=0.5)
