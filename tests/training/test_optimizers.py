"""Laws of the learning rate, and of which weights each optimizer gets."""

import pytest
from torch import nn
from trainers import Slope, constant_batches

from textdiff.config import TrainConfig
from textdiff.text.autoregressive import Autoregressive, AutoregressiveConfig
from textdiff.training.optimizers import learning_rate

CONFIG = TrainConfig(lr=2.0, warmup=10, steps=100)


def optimized(optimizer) -> list[int]:
    """Ids of an optimizer's weights."""
    return [id(p) for group in optimizer.param_groups for p in group["params"]]


@pytest.mark.parametrize("step", [0, 4, 9])
def test_learning_rate_rises_linearly_in_warmup(step):
    assert learning_rate(step, CONFIG) == pytest.approx(2.0 * (step + 1) / 10, abs=1e-12)


def test_learning_rate_peaks_after_warmup():
    rates = [learning_rate(step, CONFIG) for step in range(101)]
    assert max(rates) == rates[9] == rates[10] == 2.0


def test_learning_rate_is_half_its_peak_halfway_down():
    assert learning_rate(55, CONFIG) == pytest.approx(1.0, abs=1e-12)


def test_learning_rate_ends_at_zero():
    assert learning_rate(100, CONFIG) == pytest.approx(0, abs=1e-12)


def test_run_shorter_than_its_warmup_only_warms_up():
    rates = [learning_rate(step, TrainConfig(lr=1.0, warmup=100, steps=10)) for step in range(10)]
    assert rates == pytest.approx([(step + 1) / 100 for step in range(10)], abs=1e-12)


def test_each_step_uses_its_learning_rate(new_trainer):
    trainer = new_trainer(Slope(), steps=5, warmup=2)
    rates = [done.lr for done in trainer.train(constant_batches())]
    assert rates == [learning_rate(step, trainer.config) for step in range(5)]


@pytest.mark.parametrize(
    "blocks", [nn.Sequential, lambda block: nn.ModuleList([block])], ids=["once", "repeated"]
)
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_only_linear_and_convolution_matrices_have_decay(new_trainer, optimizer, blocks):
    linear, convolution = nn.Linear(3, 3), nn.Conv2d(3, 3, 1)
    rest = nn.Sequential(convolution, nn.Embedding(4, 3), nn.LayerNorm(3), Slope())
    model = nn.ModuleDict({"blocks": blocks(linear), "rest": rest})
    trainer = new_trainer(model, weight_decay=0.5, optimizer=optimizer)
    groups = [group for each in trainer.optimizers for group in each.param_groups]
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    matrices = {id(linear.weight), id(convolution.weight)}
    assert decay == {id(p): 0.5 if id(p) in matrices else 0.0 for p in model.parameters()}


def test_muon_gets_only_matrices_of_repeated_blocks(new_trainer, new_model):
    model = new_model()
    muon, adamw = new_trainer(model, optimizer="muon").optimizers
    matrices = {id(p) for p in model.denoiser.blocks.parameters() if p.ndim == 2}
    assert set(optimized(muon)) == matrices
    assert len(optimized(adamw)) == len(list(model.parameters())) - len(matrices)


def test_muon_gets_the_matrices_of_gpt2(new_trainer):
    """Its layers are transformers' Conv1D, not torch's Linear."""
    model = Autoregressive(AutoregressiveConfig(vocab_size=5, length=4, width=8, depth=2, heads=2))
    muon, _ = new_trainer(model, optimizer="muon").optimizers
    blocks = model.gpt.transformer.h
    assert set(optimized(muon)) == {id(p) for p in blocks.parameters() if p.ndim == 2}
