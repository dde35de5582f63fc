"""Laws of resuming from a checkpoint."""

import math
from itertools import islice

import pytest
from torch.testing import assert_close
from trainers import Slope, constant_batches, moments, run, weights

from textdiff.config import UserError


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("objective", ["ce", "eps"])
def test_resumed_training_equals_uninterrupted_training(
    new_trainer, new_model, corpus, objective, optimizer
):
    whole, interrupted, resumed = (
        new_trainer(new_model(objective=objective), lr=0.01, optimizer=optimizer) for _ in range(3)
    )
    run(whole, corpus, 8)
    run(interrupted, corpus, 5)
    interrupted.save()
    resumed.resume()
    assert [done.step for done in run(resumed, corpus, 8)] == [6, 7, 8]
    assert_close(moments(resumed), moments(whole), atol=0, rtol=0)
    assert_close(weights(resumed), weights(whole), atol=0, rtol=0)


def test_resuming_without_a_checkpoint_starts_at_zero(new_trainer, caplog):
    trainer = new_trainer(Slope())
    with caplog.at_level("INFO", "textdiff"):
        trainer.resume()
    assert trainer.step == 0
    assert caplog.messages == ["no checkpoint found, starting at step 0"]


def test_skipped_steps_are_counted_across_resumption(new_trainer):
    trainer = new_trainer(Slope(), on_nonfinite="skip", skip_limit=1)
    list(islice(trainer.train([constant_batches(math.nan)[0], *constant_batches()]), 2))
    trainer.save()
    again = new_trainer(Slope(), on_nonfinite="skip", skip_limit=1)
    again.resume()
    assert (again.step, again.skipped) == (2, 1)
    with pytest.raises(UserError, match=r"train\.skip_limit = 1 steps were skipped before"):
        next(again.train(constant_batches(math.nan)))


def test_checkpoint_of_another_model_is_refused(new_trainer, new_model):
    new_trainer(new_model()).save()
    with pytest.raises(UserError, match="another model"):
        new_trainer(new_model(width=16)).resume()


def test_checkpoint_of_another_objective_is_refused(new_trainer, new_model):
    new_trainer(new_model(objective="x0")).save()
    with pytest.raises(UserError, match="another model"):
        new_trainer(new_model(objective="ce")).resume()


@pytest.mark.parametrize(("before", "after"), [("adamw", "muon"), ("muon", "adamw")])
def test_checkpoint_of_another_optimizer_is_refused(new_trainer, new_model, corpus, before, after):
    trainer = new_trainer(new_model(), optimizer=before)
    run(trainer, corpus, 1)
    trainer.save()
    with pytest.raises(UserError, match=f"--train.optimizer {before}"):
        new_trainer(new_model(), optimizer=after).resume()


def test_checkpoint_of_another_data_set_is_refused(new_trainer):
    trainer = new_trainer(Slope())
    trainer.fingerprints = {"the training text": "a"}
    trainer.save()
    trainer.fingerprints = {"the training text": "b"}
    with pytest.raises(UserError, match="the training text changed since"):
        trainer.resume()
