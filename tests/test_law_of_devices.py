"""The law of devices, for text; `tests/image` has it for images.

`pretended_device` says what is refused. Not under the law: bf16 (a pretended device has no
autocast), compilation and pinned memory. On MPS numbers drawn by hashing come from the CPU, so that
every draw is a wait: there the law is of float64 and of integers alone.
"""

from itertools import pairwise, product

import pytest
import torch
from accelerate.state import PartialState
from pretended_device import DEVICE, Refused, pretended_device

from textdiff.autoregressive import Autoregressive, AutoregressiveConfig
from textdiff.config import Sampling, Train
from textdiff.data import batched, in_turn
from textdiff.diffusion.samplers import SAMPLERS
from textdiff.generate import continuing, from_noise, generate, infilling, rewriting
from textdiff.layers import NoiseLevel
from textdiff.metrics import bound, context_gain, ode_bound, recovery
from textdiff.trainer import Trainer
from textdiff.vocab import MASK

IDS = [5, 6, 7, 8]
TASKS = {
    "sample": lambda model, mask_id: from_noise(model, 4, seed=0),
    "rewrite": lambda model, mask_id: rewriting(model, IDS, 4, strength=0.5),
    "infill": lambda model, mask_id: infilling(model, [5, mask_id, mask_id, 8], 4, mask_id),
    "continue": lambda model, mask_id: continuing(model, IDS, 4, seed=0),
}
every_kind_of_int64 = pytest.mark.parametrize("exact_int64", [True, False])


@pytest.fixture
def there(batch):
    return {name: tensor.to(DEVICE) for name, tensor in batch.items()}


@pytest.fixture
def gpt(tokenizer) -> Autoregressive:
    sizes = {"vocab_size": tokenizer.get_vocab_size(), "length": 20}
    return Autoregressive(AutoregressiveConfig(**sizes, width=32, depth=1, heads=2)).to(DEVICE)


@pytest.fixture
def accelerator_there(accelerator):
    accelerator.state.device = PartialState().device = DEVICE
    return accelerator


def most_waits(iterator, waits) -> int:
    """How often an item of an iterator, the first excepted, waits for the device at most."""
    counts = [len(waits) for _ in iterator]
    assert len(counts) > 1
    return max(after - before for before, after in pairwise(counts))


# --- the law can be broken


def test_a_buffer_that_stayed_on_the_cpu_is_refused():
    level = NoiseLevel(8).to(DEVICE)
    level.frequency = torch.ones(64)
    with pretended_device(), pytest.raises(Refused, match="a tensor of the CPU among"):
        level(torch.zeros(3, device=DEVICE))


@pytest.mark.parametrize(
    "broken",
    [
        lambda x: x.double(),
        lambda x: torch.linspace(0, 1, 3, dtype=torch.float64, device=DEVICE),
        lambda x: torch.ones(3, dtype=torch.float64).to(DEVICE),
        lambda x: x.to("cpu", torch.float64),
    ],
)
def test_float64_on_the_device_is_refused(broken):
    with pretended_device(), pytest.raises(Refused, match="float64"):
        broken(torch.zeros(3, device=DEVICE))


def test_a_cpu_index_of_a_tensor_there_is_refused():
    with pretended_device(), pytest.raises(Refused):
        torch.zeros(3, device=DEVICE)[torch.tensor([0, 1])]


@pytest.mark.parametrize("broken", [lambda x: bool(x.any()), lambda x: x.sum().item(), lambda x: x.tolist(), lambda x: x.cpu()])
def test_a_number_that_is_fetched_is_a_wait(broken):
    with pretended_device() as waits:
        broken(torch.zeros(3, device=DEVICE))
    assert len(waits) == 1


@pytest.mark.parametrize("broken", [lambda x: torch.tensor([1.0], device=DEVICE), lambda x: x.new_tensor(1.0), lambda x: x[[0, 1]]])
def test_numbers_of_python_that_go_there_are_a_wait(broken):
    with pretended_device() as waits:
        broken(torch.zeros(3, device=DEVICE))
    assert len(waits) == 1


@pytest.mark.parametrize("broken", [lambda x: x.nonzero(), lambda x: x[x > 0], lambda x: x.masked_select(x > 0)])
def test_a_shape_that_depends_on_numbers_is_refused(broken):
    with pretended_device(), pytest.raises(NotImplementedError):
        broken(torch.zeros(3, device=DEVICE))


def test_a_product_of_large_integers_is_refused_where_it_is_inexact():
    with pretended_device(exact_int64=False), pytest.raises(Refused, match="64-bit"):
        torch.arange(3, device=DEVICE) * 3


# --- training


@every_kind_of_int64
@pytest.mark.parametrize(
    "options",
    [
        {"objective": "ce"},
        {"objective": "ce", "dropout": 0.1, "schedule": "cosine"},
        {"objective": "x0", "schedule": "sqrt"},
        {"objective": "eps", "self_condition": 0.0},
        {"objective": "v", "reveal": 0.0},
    ],
)
def test_forward_and_backward_never_wait(new_model, there, options, exact_int64):
    model = new_model(**options).to(DEVICE).train()
    there["progress"] = torch.zeros((), device=DEVICE)
    with pretended_device(exact_int64) as waits:
        sum(model(**there).values()).backward()
    assert all(p.grad is not None for p in model.parameters())
    assert not waits or not exact_int64


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("family", ["diffusion", "autoregressive"])
def test_a_training_step_waits_once(new_model, gpt, corpus, accelerator_there, tmp_path, family, optimizer):
    model = new_model().to(DEVICE) if family == "diffusion" else gpt
    config = Train(steps=3, batch_size=16, precision="no", optimizer=optimizer, accumulate=2)
    with pretended_device() as waits:
        trainer = Trainer(model, config, tmp_path, accelerator_there)
        assert most_waits(trainer.train(batched(corpus, config, 0, rank=0, world=1)), waits) == 1, waits


@every_kind_of_int64
def test_validation_waits_once_a_term(new_model, corpus, accelerator_there, tmp_path, exact_int64):
    trainer = Trainer(new_model(objective="x0").to(DEVICE), Train(precision="no"), tmp_path, accelerator_there)
    with pretended_device(exact_int64) as waits:
        losses = trainer.validate(in_turn(corpus.head(20), 8, rank=0, world=1))
    assert len(waits) == len(losses) or not exact_int64, waits


# --- sampling


@pytest.mark.parametrize(("task", "sampler"), [*product(["sample"], SAMPLERS), *product(TASKS, ["ddpm"])][1:])
def test_generation_waits_at_most_once_a_step(new_model, tokenizer, task, sampler):
    model = new_model().to(DEVICE).eval()
    with pretended_device() as waits:
        options = Sampling(steps=4, sampler=sampler, precision="no")
        drafts = generate(model, tokenizer, TASKS[task](model, tokenizer.token_to_id(MASK)), options)
        assert most_waits(drafts, waits) <= 1, waits


@pytest.mark.parametrize("options", [{"objective": "x0", "schedule": "sqrt"}, {"objective": "eps", "self_condition": 0.0}])
def test_clamped_and_guided_generation_waits_at_most_once_a_step(new_model, tokenizer, options):
    model = new_model(**options).to(DEVICE).eval()
    with pretended_device() as waits:
        drafts = generate(model, tokenizer, from_noise(model, 4, seed=0), Sampling(steps=3, clamp=True, guidance=2.0))
        assert most_waits(drafts, waits) <= 1, waits


@pytest.mark.parametrize("task", ["sample", "continue"])
def test_an_autoregressive_model_waits_at_most_once_a_token(gpt, tokenizer, task):
    with pretended_device() as waits:
        drafts = generate(gpt.eval(), tokenizer, TASKS[task](gpt, None), Sampling(precision="no"))
        assert most_waits(drafts, waits) <= 1, waits


@pytest.mark.parametrize("task", TASKS)
def test_generation_needs_neither_float64_nor_exact_integers(new_model, tokenizer, task):
    model = new_model().to(DEVICE).eval()
    with pretended_device(exact_int64=False):
        drafts = generate(model, tokenizer, TASKS[task](model, tokenizer.token_to_id(MASK)), Sampling(steps=2))
        assert [draft.ids.device.type for draft in drafts][-1] == "cpu"


# --- likelihood


@every_kind_of_int64
@pytest.mark.parametrize("options", [{}, {"objective": "x0", "schedule": "sqrt"}])
def test_a_bound_waits_for_its_schedule_alone(new_model, there, options, exact_int64):
    model, there["key"] = new_model(**options).to(DEVICE).eval(), there.pop("index")
    with pretended_device(exact_int64) as waits:
        bound(model, **there, steps=10, draws=2)
        fitted = 2 if model.config.schedule == "adaptive" else 0  # its centre and its scale
        assert len(waits) == fitted or not exact_int64, waits
        ode_bound(model, **there, steps=2)
        assert len(waits) == fitted or not exact_int64, waits


@every_kind_of_int64
def test_what_is_watched_in_training_waits_once_a_level(new_model, there, exact_int64):
    model = new_model().to(DEVICE).eval()
    with pretended_device(exact_int64) as waits:
        context_gain(model, there["ids"], there["mask"], [0.0, 1.0])
        recovery(model, there["ids"], there["mask"], [0.0, 1.0])
    assert len(waits) == 4 or not exact_int64, waits


def test_an_autoregressive_likelihood_never_waits(gpt, there):
    with pretended_device() as waits:
        gpt.nats(there["ids"], there["mask"])
    assert not waits
