import pytest
import torch

from image.config import Sampling
from image.generate import editing, finished, from_noise, generate, inpainting, interpolating
from textdiff.config import InputError
from textdiff.diffusion.samplers import SAMPLERS
from textdiff.processes import Place

every_sampler = pytest.mark.parametrize("sampler", SAMPLERS)


def drawn(model, task, **options):
    return finished(generate(model, task, Sampling(**{"steps": 4} | options)))


@every_sampler
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 7, 10)])
def test_every_sampler_draws_images_of_the_models_shape(new_image_model, sampler, shape):
    channels, height, width = shape
    model = new_image_model(channels=channels, height=height, image_width=width)
    images = drawn(model, from_noise(model, 5, seed=0), sampler=sampler)
    assert images.shape == (5, *shape)
    assert len(images.unique(dim=0)) == 5


def test_an_image_is_a_function_of_the_seed_and_its_number(new_image_model):
    model = new_image_model()
    five, three, others = (drawn(model, from_noise(model, n, seed=seed)) for n, seed in ((5, 0), (3, 0), (5, 1)))
    assert torch.equal(five[:3], three)
    assert not torch.equal(five, others)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_the_size_of_a_batch_does_not_change_the_images(new_image_model, size):
    model = new_image_model()
    whole, parts = (drawn(model, from_noise(model, 9, seed=0), batch_size=batch_size) for batch_size in (64, size))
    assert torch.equal(whole, parts)


def test_processes_share_the_batches_and_draw_the_same_images(new_image_model):
    model = new_image_model()
    task, options = from_noise(model, 5, seed=0), Sampling(steps=2, batch_size=2)
    shares = [list(generate(model, task, options, where=Place(rank, 2))) for rank in range(2)]
    assert [sorted({int(row) for draft in share for row in draft.rows}) for share in shares] == [[0, 1, 4], [2, 3]]
    assert torch.equal(finished([*shares[1], *shares[0]]), finished(generate(model, task, options)))


def test_every_step_is_yielded_and_the_last_one_is_the_result(new_image_model):
    model = new_image_model()
    drafts = list(generate(model, from_noise(model, 5, seed=0), Sampling(steps=4, batch_size=2)))
    assert [(draft.rows.tolist(), draft.step) for draft in drafts] == [(rows, step) for rows in ([0, 1], [2, 3], [4]) for step in (1, 2, 3, 4)]


def test_without_a_wish_all_classes_are_drawn_in_turn(new_image_model):
    assert from_noise(new_image_model(classes=["a", "b"]), 5, seed=0).label.tolist() == [0, 1, 0, 1, 0]
    assert from_noise(new_image_model(), 5, seed=0).label is None


@every_sampler
def test_inpainting_keeps_what_is_known_and_paints_the_rest_anew(new_image_model, pixels, sampler):
    model, wanted = new_image_model(), torch.zeros(8, 8, dtype=torch.bool)
    wanted[:, 4:] = True
    images = drawn(model, inpainting(model, pixels[0], wanted, n=3, seed=0), sampler=sampler)
    assert torch.equal(images[:, :, :, :4], pixels[:1, :, :, :4].expand(3, -1, -1, -1))
    assert len(images.unique(dim=0)) == 3


def test_an_edit_of_no_strength_is_the_image_and_of_full_strength_a_sample(new_image_model, pixels):
    model = new_image_model()
    nothing, everything = (drawn(model, editing(model, pixels[0], n=2, seed=3, strength=strength)) for strength in (0.0, 1.0))
    assert torch.equal(nothing, pixels[:1].expand(2, -1, -1, -1))
    assert torch.equal(everything, drawn(model, from_noise(model, 2, seed=3)))


def test_the_stronger_an_edit_the_farther_from_the_image(new_image_model, pixels):
    model = new_image_model()
    edits = [drawn(model, editing(model, pixels[0], n=8, seed=0, strength=strength)) for strength in (0.2, 0.5, 0.9)]
    near, middle, far = ((edit.float() - pixels[0].float()).abs().mean() for edit in edits)
    assert near < middle < far


def test_an_interpolation_runs_from_the_first_image_to_the_second(new_image_model, pixels):
    model = new_image_model()
    way = drawn(model, interpolating(model, pixels[0], pixels[1], n=5, seed=0, strength=0.0))
    assert torch.equal(way[0], pixels[0])
    assert torch.equal(way[-1], pixels[1])
    assert (way[2].float() - (pixels[0].float() + pixels[1].float()) / 2).abs().max() <= 1


def test_a_class_and_its_guidance_change_what_is_drawn_in_every_task(new_image_model, pixels):
    model, wanted = new_image_model(classes=["a", "b"]), torch.ones(8, 8, dtype=torch.bool)
    tasks = (
        lambda label: from_noise(model, 2, 0, label),
        lambda label: editing(model, pixels[0], 2, 0, 0.9, label),
        lambda label: inpainting(model, pixels[0], wanted, 2, 0, label),
        lambda label: interpolating(model, pixels[0], pixels[1], 2, 0, 0.9, label),
    )
    for task in tasks:
        first, second = (drawn(model, task(torch.full((2,), number))) for number in (0, 1))
        assert not torch.equal(first, second)
        assert not torch.equal(first, drawn(model, task(torch.zeros(2, dtype=torch.long)), guidance=5.0))


def test_the_ends_of_an_interpolation_are_edits_of_the_two_images(new_image_model, pixels):
    model = new_image_model()
    way = drawn(model, interpolating(model, pixels[0], pixels[1], n=3, seed=0, strength=0.6))
    first, second = (drawn(model, editing(model, pixels[i], n=1, seed=0, strength=0.6)) for i in (0, 1))
    assert torch.equal(way[[0, -1]], torch.cat([first, second]))


@pytest.mark.parametrize("strength", [-0.1, 1.1])
def test_an_impossible_strength_is_refused(new_image_model, pixels, strength):
    with pytest.raises(InputError, match="--strength"):
        editing(new_image_model(), pixels[0], n=1, seed=0, strength=strength)


def test_a_mask_that_asks_for_nothing_is_refused(new_image_model, pixels):
    with pytest.raises(InputError, match="--mask"):
        inpainting(new_image_model(), pixels[0], torch.zeros(8, 8, dtype=torch.bool), n=1, seed=0)


def test_an_image_of_another_shape_is_refused(new_image_model):
    with pytest.raises(InputError, match="1x4x4"):
        editing(new_image_model(), torch.zeros(1, 4, 4, dtype=torch.uint8), n=1, seed=0, strength=0.5)
