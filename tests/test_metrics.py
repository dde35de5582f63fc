import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from textdiff.counter import normal
from textdiff.data import collate
from textdiff.diffusion.gaussian import Prediction, diffuse, from_x0
from textdiff.metrics import context_gain

LEVELS = (-6.0, -3.0, 0.0)


@pytest.fixture
def contextless(new_model):
    """No position looks at another, all the evidence is added, and only `describe_data` has been learned from."""
    model = new_model().eval()
    model.prior_weight.fill_(1.0)
    for block in model.denoiser.blocks:
        block.out.weight.data.zero_()
    return model


def gain(model, batch, levels=LEVELS) -> dict[float, float]:
    return context_gain(model, batch["ids"], batch["mask"], levels)


def test_the_gain_is_by_level(model, batch):
    assert tuple(gain(model, batch)) == LEVELS


def test_a_model_that_ignores_its_neighbours_gains_nothing(contextless, corpus):
    """Of enough words that chance does not favour it."""
    rows = np.arange(len(corpus))
    assert max(gain(contextless, collate(list(corpus), rows)).values()) <= 0


def test_the_best_guess_without_context_gains_exactly_nothing(contextless, batch):
    contextless.head.weight.data.zero_()
    assert_close(gain(contextless, batch), dict.fromkeys(LEVELS, 0.0), atol=1e-5, rtol=0)


def test_a_model_that_knows_every_word_gains_all_the_nats_of_the_guess(contextless, batch, monkeypatch):
    def certain(x_t, logsnr, earlier, known, mask) -> tuple[Prediction, torch.Tensor]:
        return from_x0(x_t, logsnr, x_t), 1e4 * F.one_hot(batch["ids"], contextless.config.vocab_size).float()

    monkeypatch.setattr(contextless, "predict", certain)
    x0, logsnr = contextless.vectors[batch["ids"]].detach(), torch.full((len(batch["ids"]),), -3.0)
    x_t = diffuse(x0, logsnr, normal(torch.arange(len(x0)), x0.shape, stream=10))
    surprise = F.cross_entropy((contextless.unigram.log() + contextless.evidence(x_t, logsnr))[batch["mask"]], batch["ids"][batch["mask"]])
    assert_close(gain(contextless, batch, [-3.0])[-3.0], surprise.item(), atol=1e-4, rtol=0)


def test_padding_does_not_change_the_gain(model, batch):
    longer = {name: F.pad(batch[name], (0, 4)) for name in ("ids", "mask")}
    assert_close(gain(model, longer), gain(model, batch), atol=1e-4, rtol=0)
