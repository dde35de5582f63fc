import math
import subprocess
import sys
from itertools import islice

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from textdiff.autoregressive import Autoregressive, AutoregressiveConfig
from textdiff.batches import MicroBatch
from textdiff.config import InputError, Train
from textdiff.data import batched, in_turn
from textdiff.trainer import Trainer, learning_rate

every_optimizer = pytest.mark.parametrize("optimizer", ["adamw", "muon"])


class Slope(nn.Module):
    """One weight, whose loss is its square times x: the gradient is 2 x weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor, progress: Tensor) -> dict[str, Tensor]:
        self.seen += x.sum()
        return {"square": (self.weight.square() * x).mean(), "constant": progress.detach()}


def steady(x: float = 1.0) -> list[list[MicroBatch]]:
    return [[MicroBatch({"x": torch.full((4,), x)}, 1.0, 4)]] * 100


@pytest.fixture
def new_trainer(accelerator, tmp_path):
    """`new_trainer(model, lr=..., ...)`: in float32, with few steps and no warm-up."""

    def new(model: nn.Module, **options: object) -> Trainer:
        settings = {"steps": 8, "batch_size": 16, "warmup": 0, "precision": "no", "ema": 0.9} | options
        return Trainer(model, Train(**settings), tmp_path / "state", accelerator)

    return new


def run(trainer: Trainer, corpus, n: int) -> list:
    """The next n steps on a corpus of sentences of different lengths."""
    return list(islice(trainer.train(batched(corpus, trainer.config, trainer.step, rank=0, world=1)), n))


def moments(trainer: Trainer) -> list[dict]:
    """What the optimizers remember."""
    return [optimizer.state_dict()["state"] for optimizer in trainer.optimizers]


def weights(trainer: Trainer) -> dict[str, dict]:
    return {"model": trainer.raw.state_dict(), "ema": trainer.ema.state_dict()}


# --- learning rate


@pytest.mark.parametrize("step", [0, 4, 9])
def test_the_learning_rate_rises_linearly_in_the_warm_up(step):
    assert learning_rate(step, Train(lr=2.0, warmup=10, steps=100)) == pytest.approx(2.0 * (step + 1) / 10, abs=1e-12)


def test_the_learning_rate_peaks_at_the_end_of_the_warm_up():
    rates = [learning_rate(step, Train(lr=2.0, warmup=10, steps=100)) for step in range(101)]
    assert max(rates) == rates[9] == rates[10] == 2.0


def test_the_learning_rate_is_half_its_peak_half_way_down():
    assert learning_rate(55, Train(lr=2.0, warmup=10, steps=100)) == pytest.approx(1.0, abs=1e-12)


def test_the_learning_rate_ends_at_zero():
    assert learning_rate(100, Train(lr=2.0, warmup=10, steps=100)) == pytest.approx(0, abs=1e-12)


def test_a_run_shorter_than_its_warm_up_only_warms_up():
    rates = [learning_rate(step, Train(lr=1.0, warmup=100, steps=10)) for step in range(10)]
    assert rates == pytest.approx([(step + 1) / 100 for step in range(10)], abs=1e-12)


def test_a_step_takes_the_learning_rate_of_its_number(new_trainer):
    trainer = new_trainer(Slope(), steps=5, warmup=2)
    assert [done.lr for done in trainer.train(steady())] == [learning_rate(step, trainer.config) for step in range(5)]


# --- steps


def test_training_ends_after_the_steps_asked_for(new_trainer):
    assert [done.step for done in new_trainer(Slope(), steps=5).train(steady())] == [1, 2, 3, 4, 5]


def test_the_loss_that_is_minimized_is_reported_by_its_terms(new_trainer):
    first, second = islice(new_trainer(Slope(), steps=4).train(steady()), 2)
    assert_close(first.losses, {"square": torch.tensor(1.0), "constant": torch.tensor(0.0)}, atol=1e-6, rtol=0)
    assert second.losses["square"] < first.losses["square"]


def test_a_model_is_told_the_share_of_the_training_that_is_done(new_trainer):
    told = [float(done.losses["constant"]) for done in new_trainer(Slope(), steps=4).train(steady())]
    assert told == [0, 0.25, 0.5, 0.75]


def test_the_gradients_norm_is_that_before_clipping(new_trainer):
    (done,) = islice(new_trainer(Slope(), clip=0.1).train(steady(x=3.0)), 1)
    assert_close(done.grad_norm, torch.tensor(6.0), atol=1e-5, rtol=0)


def test_the_gradient_is_clipped(new_trainer):
    trainer = new_trainer(Slope(), clip=0.1)
    list(islice(trainer.train(steady(x=3.0)), 1))
    assert_close(moments(trainer)[0][0]["exp_avg"], torch.tensor(0.1 * (1 - 0.9)), atol=1e-6, rtol=0)


@every_optimizer
@pytest.mark.parametrize("objective", ["ce", "x0"])
def test_accumulation_does_not_change_a_step(new_trainer, new_model, corpus, objective, optimizer):
    """One batch of all the sentences, short and long."""
    options = {"batch_size": len(corpus), "optimizer": optimizer, "lr": 1e-4}
    whole, cut = (new_trainer(new_model(objective=objective), accumulate=n, **options) for n in (1, 4))
    (one,), (four,) = run(whole, corpus, 1), run(cut, corpus, 1)
    assert_close(four.losses, one.losses, atol=1e-5, rtol=1e-5)
    assert_close(four.grad_norm, one.grad_norm, atol=1e-5, rtol=1e-5)
    assert_close(moments(cut), moments(whole), atol=1e-6, rtol=1e-4)
    assert_close(weights(cut), weights(whole), atol=1e-6, rtol=0)


@pytest.mark.parametrize("x", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_training_and_leaves_the_weights(new_trainer, x):
    trainer = new_trainer(Slope())
    list(islice(trainer.train(steady()), 3))
    before = trainer.raw.weight.item(), trainer.ema.weight.item(), trainer.step
    with pytest.raises(InputError, match=r"step 4: the loss of process 0 is not finite.*--train\.lr"):
        next(trainer.train(steady(x)))
    assert (trainer.raw.weight.item(), trainer.ema.weight.item(), trainer.step) == before


def test_an_infinite_loss_stops_the_training_even_where_its_gradient_is_finite(new_trainer):
    class Endless(Slope):
        def forward(self, **tensors):
            return {**super().forward(**tensors), "endless": torch.tensor(math.inf)}

    trainer = new_trainer(Endless())
    before = trainer.raw.weight.item()
    with pytest.raises(InputError, match="step 1: the loss of process 0 is not finite"):
        next(trainer.train(steady()))
    assert trainer.raw.weight.item() == before


def test_weights_that_are_not_finite_are_not_saved(new_trainer, tmp_path):
    trainer = new_trainer(Slope())
    trainer.raw.weight.data.fill_(math.inf)
    with pytest.raises(InputError, match="weights are not finite"):
        trainer.save()
    assert not list(tmp_path.glob("state/*"))


def test_the_steps_left_out_are_counted_over_a_resumption(new_trainer):
    trainer = new_trainer(Slope(), on_nonfinite="skip", skip_limit=1)
    list(islice(trainer.train([steady(math.nan)[0], *steady()]), 2))
    trainer.save()
    again = new_trainer(Slope(), on_nonfinite="skip", skip_limit=1)
    assert again.resume()
    with pytest.raises(InputError, match=r"as many as train\.skip_limit allows"):
        next(again.train(steady(math.nan)))


def test_a_step_that_is_not_finite_can_be_left_out_but_not_too_often(new_trainer):
    trainer = new_trainer(Slope(), on_nonfinite="skip", skip_limit=2)
    sound, broken = steady()[0], steady(math.nan)[0]
    steps = trainer.train([sound, broken, sound, broken, broken])
    next(steps)
    before = trainer.raw.weight.item(), trainer.ema.weight.item()
    assert next(steps).step == 2
    assert (trainer.raw.weight.item(), trainer.ema.weight.item()) == before
    next(steps)
    assert trainer.raw.weight.item() != before[0]
    next(steps)
    with pytest.raises(InputError, match=r"step 5.*as many as train\.skip_limit allows"):
        next(steps)


@pytest.mark.parametrize("blocks", [nn.Sequential, lambda block: nn.ModuleList([block])], ids=["once", "repeated"])
@every_optimizer
def test_weight_decay_is_on_the_matrices_of_linear_and_convolution_layers_alone(new_trainer, optimizer, blocks):
    linear, convolution = nn.Linear(3, 3), nn.Conv2d(3, 3, 1)
    model = nn.ModuleDict({"blocks": blocks(linear), "rest": nn.Sequential(convolution, nn.Embedding(4, 3), nn.LayerNorm(3), Slope())})
    groups = [group for optimizer in new_trainer(model, weight_decay=0.5, optimizer=optimizer).optimizers for group in optimizer.param_groups]
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert decay == {id(p): 0.5 if p is linear.weight or p is convolution.weight else 0.0 for p in model.parameters()}


def test_muon_is_for_the_matrices_of_repeated_blocks_alone(new_trainer, new_model):
    model = new_model()
    muon, adamw = new_trainer(model, optimizer="muon").optimizers
    matrices = {id(p) for p in model.denoiser.blocks.parameters() if p.ndim == 2}
    assert {id(p) for group in muon.param_groups for p in group["params"]} == matrices
    assert sum(len(group["params"]) for group in adamw.param_groups) == len(list(model.parameters())) - len(matrices)


def test_muon_takes_gpt2s_matrices_too(new_trainer):
    """Its layers are transformers' Conv1D, not torch's Linear."""
    model = Autoregressive(AutoregressiveConfig(vocab_size=5, length=4, width=8, depth=2, heads=2))
    muon, _ = new_trainer(model, optimizer="muon").optimizers
    assert {id(p) for group in muon.param_groups for p in group["params"]} == {id(p) for p in model.gpt.transformer.h.parameters() if p.ndim == 2}


COMPILED = """
import sys
import torch
from textdiff import lm, transformer
for module in (lm, transformer):
    module.wants_static_shapes = lambda _: True  # as on an accelerator
torch.manual_seed(0)
sizes = dict(vocab_size=50, length=12, embed_dim=16, width=32, depth=1, heads=2)
model = lm.DiffusionLM(lm.DiffusionLMConfig(objective=sys.argv[1], **sizes)).train()
batch = dict(ids=torch.randint(50, (8, 12)), mask=torch.arange(12) < torch.arange(5, 13)[:, None], index=torch.arange(8))

def step(progress):
    model.zero_grad()
    losses = torch.stack([*model(**batch, progress=torch.tensor(progress)).values()])
    losses.sum().backward()
    return torch.cat([losses.detach(), *(p.grad.flatten() for p in model.parameters())])

plain = [step(progress) for progress in (0.3, 0.4, 0.5)]
model.compile(dynamic=False)
compiled = [step(progress) for progress in (0.3, 0.4, 0.5)]
torch.testing.assert_close(compiled, plain, atol=1e-5, rtol=1e-4)
counters = torch._dynamo.utils.counters
assert counters["stats"]["unique_graphs"] == 1, counters["stats"]
assert not counters["graph_break"], counters["graph_break"]
"""


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["ce", "x0"])
def test_a_compiled_step_is_the_step_in_one_graph(objective):
    """With shapes that do not depend on data; another step is not compiled anew. In a process of its own, without the tests' type checks."""
    done = subprocess.run([sys.executable, "-c", COMPILED, objective], capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr


# --- averaged weights


def test_the_average_moves_towards_the_weights_faster_at_first(new_trainer):
    trainer = new_trainer(Slope(), ema=0.5, lr=0.1, steps=30)
    average = 1.0
    for done in trainer.train(steady()):
        decay = min(0.5, (1 + done.step) / (10 + done.step))
        average = decay * average + (1 - decay) * trainer.raw.weight.item()
        assert_close(trainer.ema.weight.item(), average, atol=1e-6, rtol=0)


def test_the_average_copies_the_buffers(new_trainer):
    trainer = new_trainer(Slope(), steps=3)
    list(trainer.train(steady()))
    assert trainer.ema.seen.item() == trainer.raw.seen.item() == 12


def test_the_average_is_neither_trained_nor_in_training_mode(new_trainer, new_model):
    trainer = new_trainer(new_model())
    assert not trainer.ema.training
    assert not any(parameter.requires_grad for parameter in trainer.ema.parameters())


def test_validation_is_of_the_averaged_weights_and_changes_nothing(new_trainer, new_model, corpus):
    trainer = new_trainer(new_model(), lr=0.01)
    run(trainer, corpus, 3)
    before = {name: tensor.clone() for name, tensor in trainer.ema.state_dict().items()}
    micro = next(in_turn(corpus.head(16), 16, rank=0, world=1))
    expected = {name: float(term) for name, term in trainer.ema(**micro.tensors).items()}
    assert trainer.validate([micro]) == pytest.approx(expected, abs=1e-6)
    assert_close(trainer.ema.state_dict(), before, atol=0, rtol=0)


def test_validation_does_not_depend_on_the_batch_size(new_trainer, new_model, corpus):
    trainer = new_trainer(new_model(objective="x0", schedule="cosine"))
    whole, cut = (trainer.validate(in_turn(corpus.head(64), size, rank=0, world=1)) for size in (64, 10))
    assert cut == pytest.approx(whole, rel=1e-4)


# --- going on


@every_optimizer
@pytest.mark.parametrize("objective", ["ce", "eps"])
def test_an_interrupted_training_goes_on_as_if_it_had_not_been(new_trainer, new_model, corpus, objective, optimizer):
    whole, interrupted, resumed = (new_trainer(new_model(objective=objective), lr=0.01, optimizer=optimizer) for _ in range(3))
    run(whole, corpus, 8)
    run(interrupted, corpus, 5)
    interrupted.save()
    assert resumed.resume()
    assert [done.step for done in run(resumed, corpus, 8)] == [6, 7, 8]
    assert_close(moments(resumed), moments(whole), atol=0, rtol=0)
    assert_close(weights(resumed), weights(whole), atol=0, rtol=0)


def test_without_a_checkpoint_there_is_nothing_to_resume(new_trainer):
    assert not new_trainer(Slope()).resume()


def test_a_checkpoint_of_another_model_is_refused(new_trainer, new_model):
    new_trainer(new_model()).save()
    with pytest.raises(InputError, match="another model"):
        new_trainer(new_model(width=16)).resume()


def test_a_checkpoint_of_another_objective_is_refused(new_trainer, new_model):
    new_trainer(new_model(objective="x0")).save()
    with pytest.raises(InputError, match="another model"):
        new_trainer(new_model(objective="ce")).resume()


@pytest.mark.parametrize(("before", "after"), [("adamw", "muon"), ("muon", "adamw")])
def test_a_checkpoint_of_another_optimizer_is_refused(new_trainer, new_model, corpus, before, after):
    trainer = new_trainer(new_model(), optimizer=before)
    run(trainer, corpus, 1)
    trainer.save()
    with pytest.raises(InputError, match=f"--train.optimizer {before}"):
        new_trainer(new_model(), optimizer=after).resume()
