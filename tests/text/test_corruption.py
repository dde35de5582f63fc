"""Laws of the log SNRs and of the given words of training examples."""

import torch
from torch.testing import assert_close


def training_logsnr(model, index: torch.Tensor) -> torch.Tensor:
    ids = torch.zeros(len(index), 2, dtype=torch.long)
    return model.train()._corrupt(ids, torch.ones_like(ids, dtype=torch.bool), index).logsnr


def test_infill_prob_zero_gives_no_words(new_model, batch):
    assert not new_model(infill_prob=0.0).train()._corrupt(**batch).known.any()


def test_only_real_words_are_given(new_model, batch):
    known = new_model(infill_prob=1.0).train()._corrupt(**batch).known
    assert known.any()
    assert not (known & ~batch["mask"]).any()


def test_logsnrs_fill_the_schedule_evenly(new_model):
    model = new_model(schedule="cosine", logsnr_min=-8.0, logsnr_max=8.0)
    logsnr = training_logsnr(model, torch.arange(5000, 6000)).sort().values
    midpoints = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    assert_close(logsnr, model.schedule()(midpoints).float().sort().values, atol=0.2, rtol=0)


def test_logsnrs_stay_within_their_bounds(new_model):
    logsnr = training_logsnr(new_model(uniform_logsnr_prob=0.5), torch.arange(5000))
    assert ((logsnr >= -9) & (logsnr <= 6)).all()
