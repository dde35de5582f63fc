"""Laws of the loss terms of a training step of the text model."""

import pytest
import torch
from torch.nn.functional import pad
from torch.testing import assert_close

from textdiff.diffusion.schedules import SCHEDULES

OBJECTIVES = {"ce": {"ce"}, "x0": {"x0", "round"}, "eps": {"eps", "round"}}
every_objective = pytest.mark.parametrize("objective", OBJECTIVES)


@pytest.fixture
def all_words_given(monkeypatch):
    """All words of all training examples are given."""
    monkeypatch.setattr("textdiff.text.corruption.infill_mask", lambda index, mask, prob: mask)


def padded(batch: dict, n: int, with_id: int = 0) -> dict:
    ids, mask = pad(batch["ids"], (0, n), value=with_id), pad(batch["mask"], (0, n), value=False)
    return batch | {"ids": ids, "mask": mask}


@every_objective
@pytest.mark.parametrize("schedule", ["adaptive", *SCHEDULES])
def test_loss_terms_are_named_and_finite(new_model, batch, objective, schedule):
    terms = new_model(objective=objective, schedule=schedule, logsnr_max=4.0)(**batch)
    of_schedule = {"schedule"} if schedule == "adaptive" else set()
    assert terms.keys() == OBJECTIVES[objective] | of_schedule
    assert all(term.isfinite() for term in terms.values())


@every_objective
@pytest.mark.parametrize("schedule", ["adaptive", "cosine"])
@pytest.mark.parametrize("prob", [0.0, 1.0])
def test_every_parameter_gets_a_gradient(new_model, batch, objective, schedule, prob):
    """With and without self-conditioning and given words."""
    model = new_model(objective=objective, schedule=schedule, self_cond_prob=prob, infill_prob=prob)
    sum(model(**batch).values()).backward()
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@every_objective
def test_padding_does_not_change_the_loss(new_model, batch, objective):
    model = new_model(objective=objective).eval()
    with torch.no_grad():
        assert_close(model(**padded(batch, 3)), model(**batch), atol=1e-5, rtol=1e-5)


def test_tokens_under_the_padding_do_not_matter(model, batch):
    with torch.no_grad():
        zeros, sevens = model(**padded(batch, 3)), model(**padded(batch, 3, with_id=7))
    assert_close(sevens, zeros, atol=1e-5, rtol=1e-5)


@every_objective
def test_example_loss_does_not_depend_on_batch(new_model, batch, objective):
    """Terms of a batch are means of the examples' own terms, weighted by number of tokens."""
    model = new_model(objective=objective).eval()
    with torch.no_grad():
        together = model(**batch)
        singles = [
            model(**{name: tensor[[i]] for name, tensor in batch.items()})
            for i in range(len(batch["ids"]))
        ]
    weight = batch["mask"].sum(1) / batch["mask"].sum()
    expected = {
        name: sum(w * terms[name] for w, terms in zip(weight, singles, strict=True))
        for name in together
    }
    assert_close(together, expected, atol=1e-5, rtol=1e-5)


def test_loss_depends_only_on_example_indices(new_model, batch):
    """There is no other source of randomness."""
    model = new_model().eval()
    with torch.no_grad():
        first, shifted = model(**batch), model(**batch | {"index": batch["index"] + 100})
        assert_close(model(**batch), first, atol=0, rtol=0)
    assert first["ce"] != shifted["ce"]


def test_dropout_depends_on_example_indices_and_mode(new_model, batch):
    """It is reproducible in training and off in evaluation."""
    options = {"objective": "x0", "self_cond_prob": 0.0}
    with_dropout, without = (new_model(dropout=rate, **options) for rate in (0.5, 0.0))
    first, second, plain = (
        model.train()(**batch)["x0"].item() for model in (with_dropout, with_dropout, without)
    )
    assert first == second
    assert first != plain
    assert torch.equal(with_dropout.eval()(**batch)["x0"], without.eval()(**batch)["x0"])


@every_objective
@pytest.mark.usefixtures("all_words_given")
def test_given_words_carry_no_loss(new_model, batch, objective):
    with torch.no_grad():
        terms = new_model(objective=objective).train()(**batch)
    assert all(term == 0 for term in terms.values())


@every_objective
def test_head_runs_only_on_words_to_predict(new_model, batch, objective, monkeypatch):
    model, shapes = new_model(objective=objective, prior="unigram", stagger_prob=0.0), []
    given = torch.arange(batch["mask"].shape[1]) < batch["mask"].sum(1, keepdim=True) // 2
    monkeypatch.setattr("textdiff.text.corruption.infill_mask", lambda *_: given)
    model.head.register_forward_hook(lambda _, inputs, __: shapes.append(inputs[0].shape))
    model(**batch)
    assert shapes[-1] == (int((batch["mask"] & ~given).sum()), model.config.width)


@every_objective
@pytest.mark.usefixtures("all_words_given")
def test_batch_without_targets_has_zero_gradients(new_model, batch, objective):
    model = new_model(objective=objective)
    sum(model(**batch).values()).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert not gradients.pop("words.weight").isnan().any()
    assert all(not grad.any() for grad in gradients.values() if grad is not None)


def test_prior_weight_rises_during_the_warmup(new_model, batch):
    model = new_model(prior_warmup=(0.2, 0.6)).train()
    weights = []
    for progress in (0.0, 0.2, 0.4, 0.6, 1.0):
        model(**batch, progress=progress)
        weights.append(model.prior_weight.item())
    assert weights == pytest.approx([0, 0, 0.5, 1, 1], abs=1e-6)


@every_objective
def test_training_lowers_the_loss(new_model, batch, objective):
    model = new_model(objective=objective).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    totals = []
    for _ in range(40):
        loss = sum(model(**batch).values())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        totals.append(loss.item())
    assert totals[-1] < 0.8 * totals[0]


@every_objective
@pytest.mark.parametrize("training", [True, False])
def test_static_shapes_change_no_loss_or_gradient(
    new_model, batch, objective, training, monkeypatch
):
    def losses_and_gradients() -> tuple[dict, list]:
        model = new_model(objective=objective).train(training)
        terms = model(**batch)
        sum(terms.values()).backward()
        return terms, [parameter.grad for parameter in model.parameters()]

    dynamic = losses_and_gradients()
    for module in ("model", "corruption", "transformer"):
        monkeypatch.setattr(f"textdiff.text.{module}.wants_static_shapes", lambda _: True)
    assert_close(losses_and_gradients(), dynamic, atol=1e-5, rtol=1e-5)
