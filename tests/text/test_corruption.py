"""Laws of the log SNRs and of the given words of training examples."""

import pytest
import torch
from torch.testing import assert_close


def training_logsnr(model, index: torch.Tensor) -> torch.Tensor:
    ids = torch.zeros(len(index), 2, dtype=torch.long)
    return model.train()._corrupt(ids, torch.ones_like(ids, dtype=torch.bool), index).logsnr[:, 0]


def test_infill_prob_zero_gives_no_words(new_model, batch):
    model = new_model(infill_prob=0.0, stagger_prob=0.0).train()
    corrupted = model._corrupt(**batch)
    assert corrupted.has_one_level.all()
    assert torch.equal(corrupted.predicted, batch["mask"])


def test_only_real_words_are_given(new_model, batch):
    corrupted = new_model(infill_prob=1.0, stagger_prob=0.0).train()._corrupt(**batch)
    given = batch["mask"] & ~corrupted.predicted
    assert given.any()
    assert not (corrupted.predicted & ~batch["mask"]).any()
    assert (corrupted.logsnr[given] == 6.0).all()


def test_logsnrs_fill_the_schedule_evenly(new_model):
    options = {"infill_prob": 0.0, "stagger_prob": 0.0, "logsnr_min": -8.0, "logsnr_max": 8.0}
    model = new_model(schedule="cosine", **options)
    logsnr = training_logsnr(model, torch.arange(5000, 6000)).sort().values
    midpoints = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    assert_close(logsnr, model.schedule()(midpoints).float().sort().values, atol=0.2, rtol=0)


def test_logsnrs_stay_within_their_bounds(new_model):
    logsnr = training_logsnr(new_model(uniform_logsnr_prob=0.5), torch.arange(5000))
    assert ((logsnr >= -9) & (logsnr <= 6)).all()


@pytest.mark.parametrize(("infill_prob", "stagger_prob"), [(0.25, 0.1), (0.1, 0.6), (0.0, 1.0)])
def test_loss_is_divided_by_predicted_words(new_model, infill_prob, stagger_prob):
    model = new_model(infill_prob=infill_prob, stagger_prob=stagger_prob).train()
    ids = torch.zeros(4000, 20, dtype=torch.long)
    corrupted = model._corrupt(ids, torch.ones_like(ids, dtype=torch.bool), torch.arange(4000))
    ratio = corrupted.predicted.sum() / model._count(corrupted)
    assert_close(ratio, torch.tensor(1.0), rtol=0.02, atol=0)
