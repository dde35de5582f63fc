"""Laws of a training step, of the averaged weights and of validation."""

import math
import subprocess
import sys
from itertools import islice

import pytest
import torch
from torch.testing import assert_close
from trainers import Slope, constant_batches, moments, run, weights

from textdiff.config import UserError
from textdiff.text.dataset import validation_batches


def values(trainer) -> tuple[float, float, int]:
    """Weight and averaged weight of `Slope`, and the step."""
    return trainer.raw.weight.item(), trainer.ema.weight.item(), trainer.step


# --- steps


def test_training_ends_after_the_requested_steps(new_trainer):
    steps = new_trainer(Slope(), steps=5).train(constant_batches())
    assert [done.step for done in steps] == [1, 2, 3, 4, 5]


def test_minimized_loss_is_reported_by_its_terms(new_trainer):
    first, second = islice(new_trainer(Slope(), steps=4).train(constant_batches()), 2)
    expected = {"square": torch.tensor(1.0), "constant": torch.tensor(0.0)}
    assert_close(first.losses, expected, atol=1e-6, rtol=0)
    assert second.losses["square"] < first.losses["square"]


def test_progress_is_the_share_of_completed_steps(new_trainer):
    steps = new_trainer(Slope(), steps=4).train(constant_batches())
    assert [float(done.losses["constant"]) for done in steps] == [0, 0.25, 0.5, 0.75]


def test_gradient_norm_is_measured_before_clipping(new_trainer):
    (done,) = islice(new_trainer(Slope(), clip=0.1).train(constant_batches(x=3.0)), 1)
    assert_close(done.grad_norm, torch.tensor(6.0), atol=1e-5, rtol=0)


def test_gradient_is_clipped(new_trainer):
    trainer = new_trainer(Slope(), clip=0.1)
    list(islice(trainer.train(constant_batches(x=3.0)), 1))
    expected = torch.tensor(0.1 * (1 - 0.9))
    assert_close(moments(trainer)[0][0]["exp_avg"], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("objective", ["ce", "x0"])
def test_accumulation_does_not_change_a_step(new_trainer, new_model, corpus, objective, optimizer):
    """One batch of all the sentences, short and long."""
    options = {"batch_size": len(corpus), "optimizer": optimizer, "lr": 1e-4}
    whole, split = (
        new_trainer(new_model(objective=objective), accumulation=n, **options) for n in (1, 4)
    )
    (one,), (four,) = run(whole, corpus, 1), run(split, corpus, 1)
    assert_close(four.losses, one.losses, atol=1e-5, rtol=1e-5)
    assert_close(four.grad_norm, one.grad_norm, atol=1e-5, rtol=1e-5)
    assert_close(moments(split), moments(whole), atol=1e-6, rtol=1e-4)
    assert_close(weights(split), weights(whole), atol=1e-6, rtol=0)


# --- losses that are not finite


@pytest.mark.parametrize("x", [math.nan, math.inf])
def test_nonfinite_loss_stops_before_changing_weights(new_trainer, x):
    trainer = new_trainer(Slope())
    list(islice(trainer.train(constant_batches()), 3))
    before = values(trainer)
    message = r"step 4: the loss of process 0 is not finite.*--train\.lr"
    with pytest.raises(UserError, match=message):
        next(trainer.train(constant_batches(x)))
    assert values(trainer) == before


def test_infinite_loss_with_finite_gradient_stops(new_trainer):
    class Endless(Slope):
        def forward(self, **tensors):
            return {**super().forward(**tensors), "endless": torch.tensor(math.inf)}

    trainer = new_trainer(Endless())
    before = values(trainer)
    with pytest.raises(UserError, match="step 1: the loss of process 0 is not finite"):
        next(trainer.train(constant_batches()))
    assert values(trainer) == before


def test_nonfinite_weights_are_not_saved(new_trainer, tmp_path):
    trainer = new_trainer(Slope())
    trainer.raw.weight.data.fill_(math.inf)
    with pytest.raises(UserError, match="weights are not finite"):
        trainer.save()
    assert not list(tmp_path.glob("state/*"))


def test_nonfinite_steps_are_skipped_up_to_limit(new_trainer):
    trainer = new_trainer(Slope(), on_nonfinite="skip", skip_limit=2)
    sound, broken = constant_batches()[0], constant_batches(math.nan)[0]
    steps = trainer.train([sound, broken, sound, broken, broken])
    next(steps)
    before = values(trainer)
    assert next(steps).step == 2
    assert values(trainer)[:2] == before[:2]
    next(steps)
    assert values(trainer)[0] != before[0]
    next(steps)
    message = r"step 5.*train\.skip_limit = 2 steps were skipped before"
    with pytest.raises(UserError, match=message):
        next(steps)


# --- averaged weights


def test_average_moves_faster_at_first(new_trainer):
    trainer = new_trainer(Slope(), ema=0.5, lr=0.1, steps=30)
    average = 1.0
    for done in trainer.train(constant_batches()):
        decay = min(0.5, (1 + done.step) / (10 + done.step))
        average = decay * average + (1 - decay) * trainer.raw.weight.item()
        assert_close(trainer.ema.weight.item(), average, atol=1e-6, rtol=0)


def test_average_copies_the_buffers(new_trainer):
    trainer = new_trainer(Slope(), steps=3)
    list(trainer.train(constant_batches()))
    assert trainer.ema.total.item() == trainer.raw.total.item() == 12


def test_average_is_in_evaluation_mode_without_gradients(new_trainer, new_model):
    trainer = new_trainer(new_model())
    assert not trainer.ema.training
    assert not any(parameter.requires_grad for parameter in trainer.ema.parameters())


def test_validation_of_the_average_changes_nothing(new_trainer, new_model, corpus):
    trainer = new_trainer(new_model(), lr=0.01)
    run(trainer, corpus, 3)
    before = {name: tensor.clone() for name, tensor in trainer.ema.state_dict().items()}
    micro = next(validation_batches(corpus.head(16), 16, rank=0, world=1))
    expected = {name: float(term) for name, term in trainer.ema(**micro.tensors).items()}
    assert trainer.validate([micro]) == pytest.approx(expected, abs=1e-6)
    assert_close(trainer.ema.state_dict(), before, atol=0, rtol=0)


def test_validation_does_not_depend_on_batch_size(new_trainer, new_model, corpus):
    trainer = new_trainer(new_model(objective="x0", schedule="cosine"))
    whole, split = (
        trainer.validate(validation_batches(corpus.head(64), size, rank=0, world=1))
        for size in (64, 10)
    )
    assert split == pytest.approx(whole, rel=1e-4)


# --- compilation

COMPILED = """
import sys
import torch
from textdiff.text import corruption, model, transformer
for module in (corruption, model, transformer):
    module.wants_static_shapes = lambda _: True  # as on an accelerator
torch.manual_seed(0)
sizes = dict(vocab_size=50, length=12, embed_dim=16, width=32, depth=1, heads=2)
net = model.DiffusionLM(model.DiffusionLMConfig(objective=sys.argv[1], **sizes)).train()
mask = torch.arange(12) < torch.arange(5, 13)[:, None]
batch = dict(ids=torch.randint(50, (8, 12)), mask=mask, index=torch.arange(8))

def step(progress):
    net.zero_grad()
    losses = torch.stack([*net(**batch, progress=torch.tensor(progress)).values()])
    losses.sum().backward()
    return torch.cat([losses.detach(), *(p.grad.flatten() for p in net.parameters())])

plain = [step(progress) for progress in (0.3, 0.4, 0.5)]
for part in net.compiled_parts:
    part.compile(dynamic=False)
compiled = [step(progress) for progress in (0.3, 0.4, 0.5)]
torch.testing.assert_close(compiled, plain, atol=1e-5, rtol=1e-4)
counters = torch._dynamo.utils.counters
graphs = 2 if net.markov else 1  # the network alone is also called without gradients
assert counters["stats"]["unique_graphs"] == graphs, counters["stats"]
assert not counters["graph_break"], counters["graph_break"]
"""


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["ce", "x0"])
def test_compiled_step_is_the_step_in_one_graph(objective):
    """Shapes do not depend on data, and another step is not compiled again.

    It runs in a process of its own, without the tests' type checks.
    """
    command = [sys.executable, "-c", COMPILED, objective]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
