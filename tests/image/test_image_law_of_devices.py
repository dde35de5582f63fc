"""The law of devices, for images: what a GPU or MPS would refuse, on a pretended device."""

from itertools import pairwise, product

import pytest
import torch
from accelerate.state import PartialState
from pretended_device import DEVICE, pretended_device

from image.config import Sampling
from image.generate import editing, from_noise, generate, inpainting, interpolating
from image.metrics import Classifier, bound, features, ode_bound, probabilities
from textdiff.batches import MicroBatch
from textdiff.config import Train
from textdiff.diffusion.samplers import SAMPLERS
from textdiff.trainer import Trainer

IMAGE = torch.zeros(1, 8, 8, dtype=torch.uint8)
TASKS = {
    "sample": lambda model: from_noise(model, 4, seed=0),
    "edit": lambda model: editing(model, IMAGE, 4, seed=0, strength=0.5),
    "inpaint": lambda model: inpainting(model, IMAGE, torch.ones(8, 8, dtype=torch.bool), 4, seed=0),
    "interpolate": lambda model: interpolating(model, IMAGE, IMAGE, 4, seed=0, strength=0.5),
}
every_kind_of_int64 = pytest.mark.parametrize("exact_int64", [True, False])


@pytest.fixture
def trainer(new_image_model, accelerator, tmp_path) -> Trainer:
    accelerator.state.device = PartialState().device = DEVICE
    model = new_image_model(classes=["a", "b"], dropout=0.1).to(DEVICE)
    return Trainer(model, Train(steps=3, batch_size=6, precision="no", optimizer="adamw"), tmp_path, accelerator)


@pytest.fixture
def steps(pixels) -> list[list[MicroBatch]]:
    tensors = {"pixels": pixels, "index": torch.arange(6), "label": torch.zeros(6, dtype=torch.long)}
    return [[MicroBatch(tensors, 0.5, 6)] * 2] * 3


def most_waits(iterator, waits) -> int:
    counts = [len(waits) for _ in iterator]
    assert len(counts) > 1
    return max(after - before for before, after in pairwise(counts))


def test_a_training_step_waits_once(trainer, steps):
    with pretended_device() as waits:
        assert most_waits(trainer.train(steps), waits) == 1, waits


@pytest.mark.parametrize("objective", ["eps", "x0", "v"])
@every_kind_of_int64
def test_forward_and_backward_never_wait(new_image_model, pixels, objective, exact_int64):
    model = new_image_model(objective=objective, dropout=0.1).to(DEVICE).train()
    pixels, index = pixels.to(DEVICE), torch.arange(6, device=DEVICE)
    with pretended_device(exact_int64) as waits:
        sum(model(pixels, index).values()).backward()
    assert not waits or not exact_int64


def test_validation_waits_once(trainer, steps):
    with pretended_device() as waits:
        trainer.validate(step[0] for step in steps)
    assert len(waits) == 1


@pytest.mark.parametrize(("task", "sampler"), [*product(["sample"], SAMPLERS), *product(TASKS, ["ddpm"])][1:])
def test_generation_waits_at_most_once_a_step(new_image_model, task, sampler):
    model = new_image_model(classes=["a", "b"]).to(DEVICE)
    with pretended_device() as waits:
        drafts = generate(model, TASKS[task](model), Sampling(steps=4, sampler=sampler, guidance=2.0))
        assert most_waits(drafts, waits) <= 1, waits


def test_generation_needs_neither_float64_nor_exact_integers(new_image_model):
    model = new_image_model().to(DEVICE)
    with pretended_device(exact_int64=False):
        assert [draft.pixels.device.type for draft in generate(model, from_noise(model, 4, seed=0), Sampling(steps=2))] == ["cpu"] * 2


@every_kind_of_int64
def test_bounds_need_neither_float64_nor_exact_integers(new_image_model, pixels, exact_int64):
    model = new_image_model(classes=["a", "b"]).to(DEVICE)
    label, key = torch.zeros(6, dtype=torch.long), torch.arange(6)
    with pretended_device(exact_int64):
        assert bound(model, pixels, label, key, steps=10, draws=2).device.type == "cpu"
        assert ode_bound(model, pixels, label, key, steps=2).device.type == "cpu"


def test_the_classifier_judges_there(pixels):
    classifier = Classifier(1, 2).to(DEVICE).eval()
    with pretended_device():
        assert probabilities(classifier, pixels).device.type == features(classifier, pixels).device.type == "cpu"
