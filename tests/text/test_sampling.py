"""Laws of text sampling: randomness, batches, and known words."""

from dataclasses import replace
from itertools import chain

import pytest
import torch

from textdiff.config import SamplingConfig
from textdiff.diffusion.samplers import SAMPLERS
from textdiff.distributed import ProcessInfo
from textdiff.sampling import collect
from textdiff.text.requests import Request, rewrite_request, sample_request
from textdiff.text.sampling import generate
from textdiff.text.tokenizer import MASK, PAD, UNK

every_sampler = pytest.mark.parametrize("sampler", SAMPLERS)
every_kind = pytest.mark.parametrize("kind", ["sample", "rewrite", "infill", "continue"])
clamped_or_not = pytest.mark.parametrize("clamp", [False, True])


@pytest.mark.parametrize("batch_size", [1, 2, 4])
@every_sampler
def test_samples_do_not_depend_on_batch_size(model, draw, sampler, batch_size):
    request = sample_request(model, 6, seed=3)
    one_batch = draw(request, seed=3, sampler=sampler)
    assert draw(request, seed=3, sampler=sampler, batch_size=batch_size) == one_batch


def test_samples_do_not_depend_on_their_number(model, draw):
    nine, four = (draw(sample_request(model, n, seed=3), seed=3) for n in (9, 4))
    assert nine[:4] == four


@every_kind
def test_same_seed_gives_the_same_samples(draw, new_request, kind):
    assert draw(new_request(kind), seed=5) == draw(new_request(kind), seed=5)


@every_kind
def test_different_seeds_give_different_samples(draw, new_request, kind):
    assert draw(new_request(kind), seed=5) != draw(new_request(kind), seed=6)


@pytest.mark.parametrize("kind", ["rewrite", "infill", "continue"])
def test_samples_of_one_request_differ(draw, new_request, kind):
    assert len({tuple(ids) for ids in draw(new_request(kind, temperature=2.0))}) > 1


def test_default_guidance_scale_is_the_models_own(model, draw, new_request):
    own = model.config.sampling_guidance_scale
    default = draw(new_request("sample"))
    assert draw(new_request("sample", guidance_scale=own)) == default
    assert draw(new_request("sample", guidance_scale=own + 3)) != default


def test_sampling_does_not_use_the_global_generator(draw, new_request):
    before = torch.get_rng_state()
    draw(new_request("sample"))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_several_processes_draw_the_same_samples(model, tokenizer, draw, strength):
    """Each process samples its part of the batches."""
    request = sample_request(model, 7, seed=3)
    request = replace(request, start=request.start * strength)
    config = SamplingConfig(steps=3, seed=3, batch_size=2)
    processes = [ProcessInfo(rank, 3) for rank in range(3)]
    parts = [list(generate(model, tokenizer, request, config, process)) for process in processes]
    assert list(collect(chain(*parts))) == draw(request, seed=3, steps=3)
    final = [batch for batch in chain(*parts) if batch.is_final]
    assert sorted(row for batch in final for row in batch.rows) == list(range(7))


@clamped_or_not
@every_kind
def test_special_tokens_are_never_sampled(draw, new_request, tokenizer, kind, clamp):
    samples = draw(new_request(kind, temperature=5.0, clamp=clamp))
    special = {tokenizer.token_to_id(token) for token in (PAD, UNK, MASK)}
    assert special.isdisjoint(chain(*samples))


@pytest.mark.parametrize("objective", ["ce", "x0", "eps"])
@every_sampler
def test_every_sampler_works_with_every_objective(new_model, tokenizer, objective, sampler):
    model = new_model(objective=objective).eval()
    request = sample_request(model, 2, seed=0, length=5)
    *_, last = generate(model, tokenizer, request, SamplingConfig(steps=3, sampler=sampler))
    assert [len(ids) for ids in last.samples] == [5, 5]


def test_every_batch_is_yielded_after_every_step(model, tokenizer):
    request = sample_request(model, 5, seed=0)
    batches = list(generate(model, tokenizer, request, SamplingConfig(steps=3, batch_size=2)))
    assert [(len(batch.rows), batch.step, batch.steps) for batch in batches] == [
        (n, step, 3) for n in (2, 2, 1) for step in (1, 2, 3)
    ]
    rows = [row for batch in batches if batch.step == 3 for row in batch.rows]
    assert sorted(rows) == list(range(5))


def test_sequences_of_similar_length_share_a_batch(new_model, tokenizer):
    """Nothing is computed on padding if one batch holds the short and one the long sequences."""
    model, widths = new_model().eval(), []
    model.denoiser.register_forward_pre_hook(
        lambda _, inputs: widths.append(inputs[0].x_t.shape[1])
    )
    mask = torch.arange(9) < torch.tensor([[2], [9], [2], [9]])
    request = Request(torch.zeros(4, 9, dtype=torch.long), mask, torch.ones(4, 9))
    config = SamplingConfig(steps=1, batch_size=2)
    samples = list(collect(generate(model, tokenizer, request, config)))
    assert widths == [2, 9]
    assert [len(ids) for ids in samples] == [2, 9, 2, 9]


def test_samples_have_no_padding(model, draw):
    ids = torch.tensor([[5, 6, 7], [8, 9, 0]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    request = Request(ids, mask, torch.zeros(2, 3))
    assert draw(request) == [[5, 6, 7], [8, 9]]


def test_tiny_strength_without_noise_returns_the_text(new_model, tokenizer, ids):
    model = new_model(schedule="cosine").eval()
    request = rewrite_request(model, ids, 2, strength=1e-12)
    assert list(collect(generate(model, tokenizer, request, SamplingConfig()))) == [ids] * 2


@clamped_or_not
@pytest.mark.parametrize("infill_prob", [0.0, 0.25])
@every_sampler
@pytest.mark.parametrize("kind", ["infill", "continue"])
def test_known_words_never_change(
    new_model, tokenizer, new_request, kind, sampler, infill_prob, clamp
):
    model, request = new_model(infill_prob=infill_prob).eval(), new_request(kind, clamp=clamp)
    for batch in generate(model, tokenizer, request, SamplingConfig(steps=3, sampler=sampler)):
        for row, sample in zip(batch.rows, batch.samples, strict=True):
            mask = request.mask[row]
            known, given = request.given[row][mask], request.ids[row][mask]
            assert known.any()
            assert torch.equal(torch.tensor(sample)[known], given[known])
