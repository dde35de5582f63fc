import math

import pytest
import torch
from torch.distributions import Normal
from torch.testing import assert_close

from textdiff.config import InputError
from textdiff.diffusion.gaussian import diffuse
from textdiff.diffusion.schedule import SCHEDULES
from textdiff.lm import DiffusionLM, project

OBJECTIVES = {"ce": {"ce"}, "x0": {"x0", "round"}, "eps": {"eps", "round"}}
every_objective = pytest.mark.parametrize("objective", OBJECTIVES)
every_schedule = pytest.mark.parametrize("schedule", ["adaptive", *SCHEDULES])


def rows(batch: dict, chosen) -> dict:
    return {name: tensor[chosen] for name, tensor in batch.items()}


def padded(batch: dict, n: int, with_id: int = 0) -> dict:
    return batch | {
        "ids": torch.nn.functional.pad(batch["ids"], (0, n), value=with_id),
        "mask": torch.nn.functional.pad(batch["mask"], (0, n), value=False),
    }


@pytest.fixture
def noisy(model, batch):
    """x_t and log SNRs from almost pure noise to almost clean."""
    x0 = model.vectors[batch["ids"]].detach()
    logsnr = torch.linspace(-6, 4, len(x0))
    return diffuse(x0, logsnr, torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))), logsnr


# --- vectors


def test_every_embedding_has_norm_sqrt_d(model):
    assert_close(model.vectors.norm(dim=-1), torch.full((model.config.vocab_size,), math.sqrt(16)), atol=1e-5, rtol=0)


def test_projecting_leaves_what_is_in_the_ball(model):
    inside = model.vectors[:4].mean(0, keepdim=True).unsqueeze(0).detach()
    assert_close(project(inside), inside, atol=1e-6, rtol=0)


def test_projecting_keeps_the_direction_and_shortens_to_norm_sqrt_d(model):
    vectors = model.vectors.unsqueeze(0).detach()
    assert_close(project(3 * vectors), vectors, atol=1e-5, rtol=0)


@every_objective
def test_a_clean_vector_is_rounded_to_its_own_word(new_model, objective):
    model = new_model(objective=objective)
    assert torch.equal(model.rounding(model.vectors.unsqueeze(0)).argmax(-1)[0], torch.arange(model.config.vocab_size))


def test_evidence_is_the_log_density_of_the_noisy_vector_up_to_a_constant(model, noisy):
    x_t, logsnr = noisy
    alpha, sigma = logsnr.sigmoid().sqrt()[:, None, None, None], (-logsnr).sigmoid().sqrt()[:, None, None, None]
    density = Normal(alpha * model.vectors, sigma).log_prob(x_t.unsqueeze(2)).sum(-1)
    difference = model.evidence(x_t, logsnr) - density
    assert_close(difference, difference[..., :1].expand_as(difference), atol=1e-3, rtol=1e-4)


def test_unigrams_and_evidence_give_bayes_posterior_of_a_word_without_context(model, noisy):
    x_t, logsnr = noisy
    alpha, sigma = logsnr.double().sigmoid().sqrt()[:, None, None, None], (-logsnr.double()).sigmoid().sqrt()[:, None, None, None]
    likelihood = Normal(alpha * model.vectors.double(), sigma).log_prob(x_t.double().unsqueeze(2)).sum(-1)
    joint = model.unigram.double() * (likelihood - likelihood.amax(-1, keepdim=True)).exp()
    posterior = (model.unigram.log() + model.evidence(x_t, logsnr)).softmax(-1)
    assert_close(posterior.double(), joint / joint.sum(-1, keepdim=True), atol=1e-5, rtol=1e-3)


def test_the_unigrams_are_the_texts_frequencies(model, corpus):
    counts = torch.bincount(torch.from_numpy(corpus.tokens).long(), minlength=model.config.vocab_size)
    assert_close(model.unigram, counts / counts.sum(), atol=1e-3, rtol=0)


# --- the training step


@every_objective
@every_schedule
def test_the_loss_terms_are_named_and_finite(new_model, batch, objective, schedule):
    terms = new_model(objective=objective, schedule=schedule, logsnr_max=4.0)(**batch)
    assert terms.keys() == OBJECTIVES[objective] | ({"schedule"} if schedule == "adaptive" else set())
    assert all(term.isfinite() for term in terms.values())


@every_objective
@pytest.mark.parametrize("schedule", ["adaptive", "cosine"])
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_every_parameter_gets_a_gradient(new_model, batch, objective, schedule, share):
    model = new_model(objective=objective, schedule=schedule, self_condition=share, reveal=share)
    sum(model(**batch).values()).backward()
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@every_objective
def test_padding_does_not_change_the_loss(new_model, batch, objective):
    model = new_model(objective=objective).eval()
    with torch.no_grad():
        assert_close(model(**padded(batch, 3)), model(**batch), atol=1e-5, rtol=1e-5)


def test_what_is_under_the_padding_does_not_matter(model, batch):
    with torch.no_grad():
        assert_close(model(**padded(batch, 3, with_id=7)), model(**padded(batch, 3)), atol=1e-5, rtol=1e-5)


@every_objective
def test_an_examples_loss_does_not_depend_on_its_companions(new_model, batch, objective):
    """The batch's terms are the means of the examples' own terms, each weighted by its tokens."""
    model = new_model(objective=objective).eval()
    with torch.no_grad():
        together = model(**batch)
        alone = [model(**rows(batch, [i])) for i in range(len(batch["ids"]))]
    weight = batch["mask"].sum(1) / batch["mask"].sum()
    expected = {name: sum(w * terms[name] for w, terms in zip(weight, alone, strict=True)) for name in together}
    assert_close(together, expected, atol=1e-5, rtol=1e-5)


def test_the_loss_is_a_function_of_the_examples_numbers(new_model, batch):
    model = new_model().eval()
    with torch.no_grad():
        same, other = model(**batch), model(**batch | {"index": batch["index"] + 100})
        assert_close(model(**batch), same, atol=0, rtol=0)
    assert same["ce"] != other["ce"]


def test_dropout_is_a_function_of_the_examples_numbers_and_of_training(new_model, batch):
    dropped, whole = (new_model(dropout=rate, objective="x0", self_condition=0.0) for rate in (0.5, 0.0))
    loss, again, plain = (model.train()(**batch)["x0"].item() for model in (dropped, dropped, whole))
    assert loss == again
    assert loss != plain
    assert torch.equal(dropped.eval()(**batch)["x0"], whole.eval()(**batch)["x0"])


@every_objective
def test_words_that_are_given_carry_no_loss(new_model, batch, objective, monkeypatch):
    model = new_model(objective=objective).eval()
    monkeypatch.setattr(model, "_revealed", lambda index, mask: mask)
    with torch.no_grad():
        terms = model(**batch)
    assert terms[objective] == 0


@every_objective
def test_the_loss_takes_outputs_of_words_to_be_predicted_only(new_model, batch, objective, monkeypatch):
    model, seen = new_model(objective=objective), []
    given = torch.arange(batch["mask"].shape[1]) < batch["mask"].sum(1, keepdim=True) // 2
    monkeypatch.setattr(model, "_revealed", lambda *_: given)
    model.head.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape))
    model(**batch)
    assert seen[-1] == (int((batch["mask"] & ~given).sum()), model.config.width)


@every_objective
def test_a_batch_of_given_words_alone_leaves_gradients_of_zero(new_model, batch, objective, monkeypatch):
    model = new_model(objective=objective)
    monkeypatch.setattr(model, "_revealed", lambda index, mask: mask)
    sum(model(**batch).values()).backward()
    assert all(not parameter.grad.any() for name, parameter in model.named_parameters() if name != "embedding" and parameter.grad is not None)
    assert not model.embedding.grad.isnan().any()


def test_a_given_share_of_zero_reveals_nothing(new_model, batch):
    assert not new_model(reveal=0.0)._revealed(batch["index"], batch["mask"]).any()


def test_only_real_words_are_revealed(new_model, batch):
    known = new_model(reveal=1.0)._revealed(batch["index"], batch["mask"])
    assert known.any()
    assert not (known & ~batch["mask"]).any()


def test_noise_levels_fill_the_schedule_evenly(new_model):
    model = new_model(schedule="cosine", logsnr_min=-8.0, logsnr_max=8.0)
    levels = model._noise_levels(torch.arange(5000, 6000)).sort().values
    middles = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    assert_close(levels, model.schedule()(middles).float().sort().values, atol=0.2, rtol=0)


def test_noise_levels_stay_within_their_bounds(new_model):
    levels = new_model(uniform_share=0.5)._noise_levels(torch.arange(5000))
    assert ((levels >= -9) & (levels <= 6)).all()


def test_the_evidence_enters_gradually(new_model, batch):
    model = new_model(output_prior=(0.2, 0.6)).train()
    weights = []
    for progress in (0.0, 0.2, 0.4, 0.6, 1.0):
        model(**batch, progress=progress)
        weights.append(model.prior_weight.item())
    assert weights == pytest.approx([0, 0, 0.5, 1, 1], abs=1e-6)


def test_without_context_and_with_all_the_evidence_the_prediction_is_bayes_posterior(new_model, batch, noisy):
    """The network adds to what frequencies and the noisy word tell: with a head of zero weights it adds nothing."""
    model = new_model().eval()
    model.prior_weight.fill_(1.0)
    model.head.weight.data.zero_()
    x_t, logsnr = noisy
    with torch.no_grad():
        _, logits = model.predict(x_t, logsnr, torch.zeros_like(x_t), torch.zeros_like(batch["mask"]), batch["mask"])
        assert_close(logits, model.unigram.log() + model.evidence(x_t, logsnr), atol=1e-4, rtol=1e-5)


@every_objective
def test_the_loss_falls_when_it_is_minimized(new_model, batch, objective):
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


# --- prediction


@every_objective
def test_a_prediction_is_a_pair_that_makes_up_the_noisy_vector(new_model, batch, noisy, objective):
    x_t, logsnr = noisy
    model = new_model(objective=objective).eval()
    with torch.no_grad():
        (x0, eps), _ = model.predict(x_t, logsnr, torch.zeros_like(x_t), torch.zeros_like(batch["mask"]), batch["mask"])
    assert_close(diffuse(x0, logsnr, eps), x_t, atol=1e-4, rtol=1e-4)


@every_objective
def test_a_banned_word_has_no_probability(new_model, batch, noisy, objective):
    x_t, logsnr = noisy
    model = new_model(objective=objective).eval()
    banned = torch.arange(model.config.vocab_size) < 3
    with torch.no_grad():
        _, logits = model.predict(x_t, logsnr, torch.zeros_like(x_t), torch.zeros_like(batch["mask"]), batch["mask"], banned=banned)
    assert (logits.softmax(-1)[..., :3] == 0).all()


def test_a_low_temperature_predicts_the_likeliest_word(model, batch, noisy):
    x_t, logsnr = noisy
    with torch.no_grad():
        prediction, logits = model.predict(x_t, logsnr, torch.zeros_like(x_t), torch.zeros_like(batch["mask"]), batch["mask"], temperature=1e-6)
    assert_close(prediction.x0, model.vectors[logits.argmax(-1)].detach(), atol=1e-4, rtol=0)


@torch.no_grad()
def guided(model, batch, noisy, guidance) -> tuple[torch.Tensor, torch.Tensor]:
    """x0 and the words' log-probabilities."""
    known = torch.zeros_like(batch["mask"])
    prediction, logits = model.predict(*noisy, torch.zeros_like(noisy[0]), known, batch["mask"], guidance=guidance)
    return prediction.x0, logits.log_softmax(-1)


def test_guidance_multiplies_what_the_context_says(model, batch, noisy):
    """log p_g = log p_alone + g (log p - log p_alone), up to its norm."""
    alone = model.alone(*noisy).detach().log_softmax(-1)
    expected = (alone + 2.5 * (guided(model, batch, noisy, 1.0)[1] - alone)).log_softmax(-1)
    assert_close(guided(model, batch, noisy, 2.5), (expected.exp() @ model.vectors.detach(), expected), atol=1e-4, rtol=1e-4)


def test_a_word_alone_is_as_likely_as_its_frequency_and_its_noisy_vector_make_it(model, batch, noisy):
    """p(v) N(x_t; alpha e_v, sigma^2 I), up to its norm."""
    x_t, logsnr = (part.double() for part in noisy)
    alpha, sigma = logsnr.sigmoid().sqrt()[:, None, None, None], (-logsnr).sigmoid().sqrt()[:, None, None, None]
    likelihood = Normal(alpha * model.vectors.detach().double(), sigma).log_prob(x_t.unsqueeze(2)).sum(-1)
    expected = (model.unigram.double().log() + likelihood).log_softmax(-1)
    assert_close(model.alone(*noisy).detach().log_softmax(-1).double(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("objective", ["x0", "eps"])
def test_guidance_goes_as_much_farther_from_where_words_are_alone(new_model, batch, noisy, objective):
    model = new_model(objective=objective).eval()
    (alone, _), (trained, _), (far, _) = (guided(model, batch, noisy, guidance) for guidance in (0.0, 1.0, 2.5))
    assert_close(far, alone + 2.5 * (trained - alone), atol=1e-4, rtol=1e-4)


@every_objective
def test_without_guidance_words_stand_alone(new_model, batch, noisy, objective):
    """x0 is their posterior mean, each given its own noisy vector."""
    model = new_model(objective=objective).eval()
    alone = model.alone(*noisy).detach().softmax(-1) @ model.vectors.detach()
    assert_close(guided(model, batch, noisy, 0.0)[0], alone, atol=1e-5, rtol=1e-5)


def test_a_position_knows_its_distance_to_the_end(new_model):
    """And nothing else sets positions apart, where none looks at another and all vectors are equal."""
    model = new_model().eval()
    for block in model.denoiser.blocks:
        block.out.weight.data.zero_()
    mask = torch.arange(9) < torch.tensor([[5], [9]])
    x_t, known = torch.ones(2, 9, 16), torch.zeros(2, 9, dtype=torch.bool)
    with torch.no_grad():
        _, (short, long) = model.predict(x_t, torch.zeros(2), torch.zeros_like(x_t), known, mask)
    assert_close(short[:5], long[4:], atol=1e-5, rtol=1e-5)
    assert (short[:5] - long[:5]).abs().max() > 1e-3


# --- the adaptive schedule


def test_the_adaptive_schedule_moves_to_where_the_loss_falls(new_model):
    """Fitted to losses that fall around noise level 2 with scale 1.5 down from 3 nats."""
    model = new_model(schedule="adaptive")
    logsnr = torch.linspace(-9, 6, 64)
    loss = 3 * torch.exp(-torch.exp((logsnr + 2) / 1.5))
    fitted = [model.noise_center, model.noise_log_scale, model.loss_limit]
    optimizer = torch.optim.Adam(fitted, lr=0.05)
    for _ in range(500):
        optimizer.zero_grad()
        model._schedule_misfit(loss, logsnr).mean().backward()
        optimizer.step()
    assert_close(torch.stack(fitted), torch.tensor([2.0, math.log(1.5), 3.0]), atol=0.02, rtol=0)


def test_the_misfit_moves_nothing_but_the_schedule(new_model, batch):
    model = new_model(schedule="adaptive")
    model(**batch)["schedule"].backward()
    moved = {name for name, parameter in model.named_parameters() if parameter.grad is not None and parameter.grad.any()}
    assert moved == {"noise_center", "noise_log_scale", "loss_limit"}


def test_the_loss_moves_no_schedule(new_model, batch):
    model = new_model(schedule="adaptive")
    model(**batch)["ce"].backward()
    assert all(parameter.grad is None for parameter in (model.noise_center, model.noise_log_scale, model.loss_limit))


@every_schedule
def test_every_schedule_falls_from_the_clean_to_the_noisy_bound(new_model, schedule):
    levels = new_model(schedule=schedule, logsnr_min=-7.0, logsnr_max=4.0).schedule()(torch.linspace(0, 1, 50, dtype=torch.float64))
    assert_close(levels[[0, -1]], torch.tensor([4.0, -7.0], dtype=torch.float64), atol=1e-3, rtol=0)
    assert (levels.diff() < 0).all()


def test_a_schedule_that_lies_out_of_the_bounds_is_refused_by_name(new_model, batch):
    with pytest.raises(InputError, match=r"model.schedule sqrt does not fit .* from 4.595"):
        new_model(schedule="sqrt", logsnr_min=5.0, logsnr_max=6.0)(**batch)


@every_objective
@pytest.mark.parametrize("training", [True, False])
def test_shapes_that_do_not_depend_on_data_change_no_loss_and_no_gradient(new_model, batch, objective, training, monkeypatch):
    def losses_and_gradients() -> tuple[dict, list]:
        model = new_model(objective=objective).train(training)
        terms = model(**batch)
        sum(terms.values()).backward()
        return terms, [p.grad for p in model.parameters()]

    usual = losses_and_gradients()
    for module in ("lm", "transformer"):
        monkeypatch.setattr(f"textdiff.{module}.wants_static_shapes", lambda _: True)
    assert_close(losses_and_gradients(), usual, atol=1e-5, rtol=1e-5)


# --- saving


@every_objective
def test_a_model_that_was_saved_gives_the_same_outputs(new_model, batch, objective, tmp_path):
    model = new_model(objective=objective).eval()
    model.prior_weight.fill_(0.7)
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        assert_close(DiffusionLM.from_pretrained(tmp_path)(**batch), model(**batch), atol=0, rtol=0)


def test_a_model_that_was_saved_keeps_all_it_knows(model, tmp_path):
    model.save_pretrained(tmp_path)
    assert_close(DiffusionLM.from_pretrained(tmp_path).state_dict(), model.state_dict(), atol=0, rtol=0)
