"""Laws of the arithmetic of costs: it equals what torch counts in a training step."""

from dataclasses import replace

import pytest
import torch
from benchmarks import scaling
from benchmarks.costs import Costs, Gpu, plan
from benchmarks.scaling_point import Measured, Point, batches, new_trainer, random_words
from benchmarks.scaling_point import statistics_of_pairs as pairs_of
from torch.utils.flop_counter import FlopCounterMode

SMALL = Point(length=16, batch=4, width=64, vocab=1024)
CASES = [
    SMALL,
    replace(SMALL, prior="unigram"),
    replace(SMALL, self_cond=1.0),
    replace(SMALL, length=64, width=96, vocab=1536),
]


@pytest.fixture
def new(accelerator, tmp_path):
    def trainer(point):
        words = random_words(point.vocab)
        made = new_trainer(point, pairs_of(words, point.vocab), tmp_path)
        return made, made.train(batches(point, words, 0))

    return trainer


@pytest.mark.parametrize("point", CASES, ids=scaling.name_of)
def test_flops_are_those_that_torch_counts(new, point):
    _, steps = new(point)
    with FlopCounterMode(display=False) as counter:
        next(steps)
    assert scaling.flops_per_step(point) == pytest.approx(counter.get_total_flops(), rel=0.02)


@pytest.mark.parametrize("point", CASES[:2], ids=scaling.name_of)
def test_state_is_that_of_a_trainer(new, point):
    trainer, steps = new(point)
    next(steps)
    grads = [p for p in trainer.raw.parameters() if p.requires_grad]
    entries = [entry for o in trainer.optimizers for entry in o.state_dict()["state"].values()]
    state = [value for entry in entries for value in entry.values() if torch.is_tensor(value)]
    buffers = [*trainer.raw.buffers(), *trainer.ema.buffers()]
    tensors = [*trainer.raw.parameters(), *trainer.ema.parameters(), *grads, *state, *buffers]
    size = sum(tensor.nbytes for tensor in tensors)
    assert Costs(point.config).state_bytes == pytest.approx(size, rel=0.02)


def test_sharding_divides_state_and_sends_more():
    costs = Costs(SMALL.config)
    whole, sharded = (plan(costs, Gpu(), 8, 1e6, 4, shard) for shard in (False, True))
    assert sharded["state, GB per GPU"] == pytest.approx(whole["state, GB per GPU"] / 8)
    assert sharded["exchanged, GB per step"] > whole["exchanged, GB per step"]
    assert costs.exchanged_bytes(1) == costs.exchanged_bytes(1, shard=True) == 0


def test_base_points_are_predicted_exactly():
    """They define the two rates."""
    found = {scaling.PLAIN: Measured(0.3, 1, 1, 0), scaling.BASE: Measured(0.5, 1, 1, 0)}
    rates = scaling.rates_of(found)
    for point, measured in found.items():
        assert scaling.predict(point, rates, 0)[0] == pytest.approx(measured.seconds)
