"""Laws of text on an accelerator: few waits, no float64, and all tensors on the device.

`pretended_device` checks them. bf16, compilation and pinned memory are not checked. On MPS random
numbers come from the CPU, so every draw is a wait; there only float64 and integers are checked.
"""

from itertools import pairwise, product

import pytest
import torch
from accelerate.state import PartialState
from pretended_device import DEVICE, pretended_device

from textdiff.config import SamplingConfig, TrainConfig
from textdiff.diffusion.samplers import SAMPLERS
from textdiff.text.autoregressive import Autoregressive, AutoregressiveConfig
from textdiff.text.dataset import training_batches, validation_batches
from textdiff.text.decoding_config import DecodingConfig
from textdiff.text.diagnostics import losses_by_logsnr, token_recovery
from textdiff.text.likelihood import negative_elbo, ode_negative_elbo
from textdiff.text.requests import (
    continue_request,
    infill_request,
    rewrite_request,
    sample_request,
)
from textdiff.text.sampling import generate
from textdiff.text.tokenizer import MASK
from textdiff.training.trainer import Trainer

IDS = [5, 6, 7, 8]
REQUESTS = {
    "sample": lambda model, mask_id: sample_request(model, 4, seed=0),
    "rewrite": lambda model, mask_id: rewrite_request(model, IDS, 4, strength=0.5),
    "infill": lambda model, mask_id: infill_request(model, [5, mask_id, mask_id, 8], 4, mask_id),
    "continue": lambda model, mask_id: continue_request(model, IDS, 4, seed=0),
}
every_kind_of_int64 = pytest.mark.parametrize("exact_int64", [True, False])


@pytest.fixture
def device_batch(batch):
    return {name: tensor.to(DEVICE) for name, tensor in batch.items()}


@pytest.fixture
def gpt(tokenizer) -> Autoregressive:
    sizes = {"vocab_size": tokenizer.get_vocab_size(), "length": 20}
    return Autoregressive(AutoregressiveConfig(**sizes, width=32, depth=1, heads=2)).to(DEVICE)


@pytest.fixture
def device_accelerator(accelerator):
    accelerator.state.device = PartialState().device = DEVICE
    return accelerator


def most_waits(iterator, waits) -> int:
    """Largest number of waits of an item of an iterator, except for the first."""
    counts = [len(waits) for _ in iterator]
    assert len(counts) > 1
    return max(after - before for before, after in pairwise(counts))


# --- training


@every_kind_of_int64
@pytest.mark.parametrize(
    "options",
    [
        {"objective": "ce"},
        {"objective": "ce", "dropout": 0.1, "schedule": "cosine"},
        {"objective": "x0", "schedule": "sqrt"},
        {"objective": "eps", "self_cond_prob": 0.0},
        {"objective": "v", "infill_prob": 0.0},
    ],
)
def test_forward_and_backward_never_wait(new_model, device_batch, options, exact_int64):
    model = new_model(**options).to(DEVICE).train()
    device_batch["progress"] = torch.zeros((), device=DEVICE)
    with pretended_device(exact_int64) as waits:
        sum(model(**device_batch).values()).backward()
    assert all(p.grad is not None for p in model.parameters())
    assert not waits or not exact_int64


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("family", ["diffusion", "autoregressive"])
def test_training_step_waits_once(
    new_model, gpt, corpus, device_accelerator, tmp_path, family, optimizer
):
    model = new_model().to(DEVICE) if family == "diffusion" else gpt
    config = TrainConfig(steps=2, batch_size=8, precision="no", optimizer=optimizer, accumulation=2)
    with pretended_device() as waits:
        trainer = Trainer(model, config, tmp_path, device_accelerator)
        assert (
            most_waits(trainer.train(training_batches(corpus, config, 0, rank=0, world=1)), waits)
            == 1
        ), waits


@every_kind_of_int64
def test_validation_waits_once_per_term(
    new_model, corpus, device_accelerator, tmp_path, exact_int64
):
    trainer = Trainer(
        new_model(objective="x0").to(DEVICE),
        TrainConfig(precision="no"),
        tmp_path,
        device_accelerator,
    )
    with pretended_device(exact_int64) as waits:
        losses = trainer.validate(validation_batches(corpus.head(20), 8, rank=0, world=1))
    assert len(waits) == len(losses) or not exact_int64, waits


# --- sampling


@pytest.mark.parametrize(
    ("kind", "sampler"), [*product(["sample"], SAMPLERS), *product(REQUESTS, ["ddpm"])][1:]
)
def test_sampling_waits_at_most_once_per_step(new_model, tokenizer, kind, sampler):
    model = new_model().to(DEVICE).eval()
    with pretended_device() as waits:
        options = SamplingConfig(steps=3, sampler=sampler, precision="no")
        batches = generate(
            model, tokenizer, REQUESTS[kind](model, tokenizer.token_to_id(MASK)), options
        )
        assert most_waits(batches, waits) <= 1, waits


@pytest.mark.parametrize(
    "options",
    [{"objective": "x0", "schedule": "sqrt"}, {"objective": "eps", "self_cond_prob": 0.0}],
)
def test_clamped_guided_sampling_waits_once_per_step(new_model, tokenizer, options):
    model = new_model(**options).to(DEVICE).eval()
    with pretended_device() as waits:
        batches = generate(
            model,
            tokenizer,
            sample_request(model, 4, seed=0, decoding=DecodingConfig(None, 2.0, clamp=True)),
            SamplingConfig(steps=3),
        )
        assert most_waits(batches, waits) <= 1, waits


@pytest.mark.parametrize("kind", ["sample", "continue"])
def test_autoregressive_sampling_waits_once_per_token(gpt, tokenizer, kind):
    with pretended_device() as waits:
        batches = generate(
            gpt.eval(), tokenizer, REQUESTS[kind](gpt, None), SamplingConfig(precision="no")
        )
        assert most_waits(batches, waits) <= 1, waits


@pytest.mark.parametrize("kind", REQUESTS)
def test_sampling_needs_no_float64_or_int64(new_model, tokenizer, kind):
    model = new_model().to(DEVICE).eval()
    with pretended_device(exact_int64=False):
        batches = generate(
            model,
            tokenizer,
            REQUESTS[kind](model, tokenizer.token_to_id(MASK)),
            SamplingConfig(steps=2),
        )
        assert [batch.samples for batch in batches][-1]


# --- likelihood


@every_kind_of_int64
@pytest.mark.parametrize("options", [{}, {"objective": "x0", "schedule": "sqrt"}])
def test_bounds_do_not_wait(new_model, device_batch, options, exact_int64):
    model, device_batch["key"] = new_model(**options).to(DEVICE).eval(), device_batch.pop("index")
    with pretended_device(exact_int64) as waits:
        negative_elbo(model, **device_batch, steps=2, draws=2)
        ode_negative_elbo(model, **device_batch, steps=1)
        assert not waits or not exact_int64, waits


@every_kind_of_int64
def test_diagnostics_wait_once_per_log_snr(new_model, device_batch, exact_int64):
    model = new_model().to(DEVICE).eval()
    with pretended_device(exact_int64) as waits:
        losses_by_logsnr(model, device_batch["ids"], device_batch["mask"], [0.0, 1.0])
        token_recovery(model, device_batch["ids"], device_batch["mask"], [0.0, 1.0])
    assert len(waits) == 4 or not exact_int64, waits


def test_autoregressive_likelihood_never_waits(gpt, device_batch):
    with pretended_device() as waits:
        gpt.nats(device_batch["ids"], device_batch["mask"])
    assert not waits
