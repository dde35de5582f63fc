"""The law of devices, for images: what a GPU or MPS would refuse, on a pretended device."""

from collections.abc import Iterable
from itertools import pairwise, product

import pytest
import torch
from accelerate.state import PartialState
from pretended_device import DEVICE, pretended_device

from image.likelihood import negative_elbo, ode_negative_elbo
from image.metrics import Classifier, features, probabilities
from image.sampling import (
    edit_request,
    generate,
    in_order,
    inpaint_request,
    interpolate_request,
    sample_request,
)
from textdiff.config import SamplingConfig, TrainConfig
from textdiff.diffusion.samplers import SAMPLERS
from textdiff.training.batching import MicroBatch
from textdiff.training.trainer import Trainer

IMAGE = torch.zeros(1, 8, 8, dtype=torch.uint8)
UNKNOWN = torch.arange(8).expand(8, 8) < 4
LABEL = torch.zeros(4, dtype=torch.long)
REQUESTS = {  # all but the last guided
    "sample": lambda model: sample_request(model, 4, 0, None, 2.0),
    "edit": lambda model: edit_request(model, IMAGE, 4, 0, 0.5, LABEL, 2.0),
    "inpaint": lambda model: inpaint_request(model, IMAGE, UNKNOWN, 4, 0, LABEL, 2.0),
    "interpolate": lambda model: interpolate_request(model, IMAGE, IMAGE, 4, 0, 0.5, LABEL, 2.0),
    "order": lambda model: in_order(model, sample_request(model, 4, 0), "random", 3),
}
every_kind_of_int64 = pytest.mark.parametrize("exact_int64", [True, False])


@pytest.fixture
def trainer(new_image_model, accelerator, tmp_path) -> Trainer:
    accelerator.state.device = PartialState().device = DEVICE
    model = new_image_model(classes=["a", "b"], dropout=0.1).to(DEVICE)
    config = TrainConfig(steps=3, batch_size=6, precision="no", optimizer="adamw")
    return Trainer(model, config, tmp_path, accelerator)


@pytest.fixture
def steps(pixels) -> list[list[MicroBatch]]:
    label = torch.zeros(6, dtype=torch.long)
    tensors = {"pixels": pixels, "index": torch.arange(6), "label": label}
    return [[MicroBatch(tensors, 0.5, 6)] * 2] * 3


def most_waits(iterator: Iterable[object], waits: list[str]) -> int:
    """The largest number of waits between two items."""
    counts = [len(waits) for _ in iterator]
    assert len(counts) > 1
    return max(after - before for before, after in pairwise(counts))


def test_training_step_waits_once(trainer, steps):
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


@pytest.mark.parametrize(
    ("request_name", "sampler"), [*product(["sample"], SAMPLERS), *product(REQUESTS, ["ddpm"])][1:]
)
def test_sampling_waits_at_most_once_per_step(new_image_model, request_name, sampler):
    model = new_image_model(classes=["a", "b"]).to(DEVICE)
    config = SamplingConfig(steps=4, sampler=sampler)
    with pretended_device() as waits:
        batches = generate(model, REQUESTS[request_name](model), config)
        assert most_waits(batches, waits) <= 1, waits


def test_sampling_needs_no_float64_or_exact_int64(new_image_model):
    model = new_image_model().to(DEVICE)
    with pretended_device(exact_int64=False):
        request, config = sample_request(model, 4, seed=0), SamplingConfig(steps=2)
        batches = list(generate(model, request, config))
    devices = [image.device.type for batch in batches for image in batch.samples]
    assert devices == ["cpu"] * 4 * 2


@every_kind_of_int64
def test_likelihood_needs_no_float64_or_exact_int64(new_image_model, pixels, exact_int64):
    model = new_image_model(classes=["a", "b"]).to(DEVICE)
    label, key = torch.zeros(6, dtype=torch.long), torch.arange(6)
    with pretended_device(exact_int64):
        assert negative_elbo(model, pixels, label, key, steps=10, draws=2).device.type == "cpu"
        assert ode_negative_elbo(model, pixels, label, key, steps=2).device.type == "cpu"


def test_classifier_results_come_to_the_cpu(pixels):
    classifier = Classifier(1, 2).to(DEVICE).eval()
    with pretended_device():
        for function in (probabilities, features):
            assert function(classifier, pixels).device.type == "cpu"
