from collections import Counter
from dataclasses import replace
from itertools import chain

import pytest
import torch
from torch.testing import assert_close

from textdiff.config import InputError, Sampling, Vocabulary
from textdiff.diffusion.samplers import SAMPLERS
from textdiff.generate import Draft, Task, continuing, finished, from_noise, generate, infilling, load, rewriting
from textdiff.processes import Place
from textdiff.vocab import MASK, PAD, UNK, encode, save_tokenizer, train_tokenizer

TEXT = "the king sees a small dog ."
every_sampler = pytest.mark.parametrize("sampler", SAMPLERS)


@pytest.fixture(scope="module")
def draw(model, tokenizer):
    """`draw(task, steps=..., ...)`: the finished sentences as lists of ids."""

    def sentences(task: Task, **options: object) -> list[list[int]]:
        return list(finished(generate(model, tokenizer, task, Sampling(**{"steps": 4} | options))))

    return sentences


@pytest.fixture(scope="module")
def ids(tokenizer) -> list[int]:
    return encode(tokenizer, TEXT)


@pytest.fixture(scope="module")
def masked(tokenizer) -> list[int]:
    return encode(tokenizer, f"the {MASK} sees a {MASK} {MASK} .")


@pytest.fixture(scope="module")
def tasks(model, tokenizer, ids, masked) -> dict[str, Task]:
    return {
        "sample": from_noise(model, 6, seed=0),
        "rewrite": rewriting(model, ids, 6, strength=0.7),
        "infill": infilling(model, masked, 6, tokenizer.token_to_id(MASK)),
        "continue": continuing(model, ids[:3], 6, seed=0),
    }


TASKS = ["sample", "rewrite", "infill", "continue"]


@pytest.fixture
def saved(model, tokenizer, tmp_path):
    """A run folder with a model in it."""
    (tmp_path / "run" / "model").mkdir(parents=True)
    model.save_pretrained(tmp_path / "run" / "model")
    save_tokenizer(tokenizer, tmp_path / "run" / "model")
    return tmp_path / "run"


# --- randomness


@pytest.mark.parametrize("batch_size", [1, 2, 4])
@every_sampler
def test_a_sentence_does_not_depend_on_how_many_are_drawn_at_a_time(model, draw, sampler, batch_size):
    task = from_noise(model, 6, seed=3)
    assert draw(task, seed=3, sampler=sampler, batch_size=batch_size) == draw(task, seed=3, sampler=sampler)


def test_a_sentence_does_not_depend_on_how_many_are_wanted(model, draw):
    assert draw(from_noise(model, 9, seed=3), seed=3)[:4] == draw(from_noise(model, 4, seed=3), seed=3)


@pytest.mark.parametrize("task", TASKS)
def test_the_same_seed_gives_the_same_sentences(draw, tasks, task):
    assert draw(tasks[task], seed=5) == draw(tasks[task], seed=5)


@pytest.mark.parametrize("task", TASKS)
def test_another_seed_gives_other_sentences(draw, tasks, task):
    assert draw(tasks[task], seed=5) != draw(tasks[task], seed=6)


@pytest.mark.parametrize("task", ["rewrite", "infill", "continue"])
def test_the_sentences_of_one_call_differ(draw, tasks, task):
    assert len({tuple(ids) for ids in draw(tasks[task], temperature=2.0)}) > 1


def test_sentences_are_drawn_with_the_models_own_guidance_unless_told_otherwise(model, draw, tasks):
    own = model.config.sampling_guidance
    assert draw(tasks["sample"], guidance=own) == draw(tasks["sample"]) != draw(tasks["sample"], guidance=own + 3)


def test_the_global_generator_is_left_alone(draw, tasks):
    before = torch.get_rng_state()
    draw(tasks["sample"])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_processes_share_the_batches_and_draw_the_same_sentences(model, tokenizer, draw, strength):
    task = replace(from_noise(model, 7, seed=3), strength=strength)
    places = [Place(rank, 3) for rank in range(3)]
    shares = [list(generate(model, tokenizer, task, Sampling(steps=3, seed=3, batch_size=2), where=place)) for place in places]
    assert list(finished(chain(*shares))) == draw(task, seed=3, steps=3)
    assert sorted(row for share in shares for draft in share if draft.step == draft.steps for row in draft.rows) == list(range(7))


# --- what comes out


@pytest.mark.parametrize("clamp", [False, True])
@pytest.mark.parametrize("task", TASKS)
def test_special_tokens_are_never_drawn(draw, tasks, tokenizer, task, clamp):
    drawn = {i for ids in draw(tasks[task], temperature=5.0, clamp=clamp) for i in ids}
    assert drawn.isdisjoint(tokenizer.token_to_id(token) for token in (PAD, UNK, MASK))


@pytest.mark.parametrize("objective", ["ce", "x0", "eps"])
@every_sampler
def test_every_sampler_draws_from_a_model_of_every_objective(new_model, tokenizer, objective, sampler):
    model = new_model(objective=objective).eval()
    *_, last = generate(model, tokenizer, from_noise(model, 2, seed=0, length=5), Sampling(steps=3, sampler=sampler))
    assert [len(ids) for ids in last.sentences()] == [5, 5]


def test_every_batch_has_a_draft_a_step(model, tokenizer):
    drafts = list(generate(model, tokenizer, from_noise(model, 5, seed=0), Sampling(steps=3, batch_size=2)))
    assert [(len(draft.rows), draft.step, draft.steps) for draft in drafts] == [(n, step, 3) for n in (2, 2, 1) for step in (1, 2, 3)]
    assert sorted(row for draft in drafts if draft.step == 3 for row in draft.rows) == list(range(5))


def test_sentences_of_about_one_length_are_drawn_together(model, tokenizer):
    """So that nothing is computed on padding where two batches hold the short and the long ones."""
    mask = torch.arange(9) < torch.tensor([[2], [9], [2], [9]])
    task = Task(torch.zeros(4, 9, dtype=torch.long), mask, torch.zeros_like(mask))
    widths = {draft.ids.shape[1] for draft in generate(model, tokenizer, task, Sampling(steps=1, batch_size=2))}
    assert widths == {2, 9}
    assert [len(ids) for ids in finished(generate(model, tokenizer, task, Sampling(steps=1, batch_size=2)))] == [2, 9, 2, 9]


def test_a_strength_too_small_for_any_noise_returns_the_text(new_model, tokenizer, ids):
    model = new_model(schedule="cosine").eval()
    assert list(finished(generate(model, tokenizer, rewriting(model, ids, 2, strength=1e-12), Sampling()))) == [ids] * 2


def test_a_draft_gives_its_sentences_without_their_padding():
    draft = Draft([0, 1], 1, 1, torch.tensor([[5, 6, 7], [8, 9, 0]]), torch.tensor([[True, True, True], [True, True, False]]))
    assert draft.sentences() == [[5, 6, 7], [8, 9]]


# --- lengths


def test_lengths_are_as_frequent_as_in_the_text(model):
    counts = Counter(from_noise(model, 20_000, seed=0).mask.sum(1).tolist())
    drawn = torch.tensor([counts[length] / 20_000 for length in range(model.config.length + 1)])
    assert_close(drawn, model.lengths, atol=0.02, rtol=0)


def test_every_sentence_has_the_length_asked_for(model, draw):
    assert [len(ids) for ids in draw(from_noise(model, 3, seed=0, length=7))] == [7, 7, 7]


def test_a_continuation_is_longer_than_its_beginning(model, ids):
    assert (continuing(model, ids, 500, seed=0).mask.sum(1) > len(ids)).all()


def test_a_beginning_longer_than_any_known_sentence_can_be_continued(model, corpus):
    beginning = [5] * int(corpus.sizes.max())
    assert (continuing(model, beginning, 50, seed=0).mask.sum(1) > len(beginning)).all()


@pytest.mark.parametrize("length", [0, -1, 21])
def test_a_length_out_of_range_is_refused(model, length):
    with pytest.raises(InputError, match=f"--length must lie between 1 and 20, .* got {length}"):
        from_noise(model, 2, seed=0, length=length)


def test_a_length_that_leaves_no_room_to_continue_is_refused(model, ids):
    with pytest.raises(InputError, match=f"--length must lie between {len(ids) + 1} and 20"):
        continuing(model, ids, 2, seed=0, length=len(ids))


# --- rewriting


def test_rewriting_at_strength_0_returns_the_text(model, draw, ids):
    assert draw(rewriting(model, ids, 3, strength=0.0)) == [ids] * 3


def test_rewriting_changes_more_the_stronger_it_is(model, draw, ids):
    changed = [
        sum(a != b for new in draw(rewriting(model, ids, 20, strength), steps=8) for a, b in zip(new, ids, strict=True)) for strength in (0.1, 0.9)
    ]
    assert changed[0] < changed[1]


def test_rewriting_at_strength_1_ignores_all_but_the_length(model, draw, ids):
    assert draw(rewriting(model, ids, 3, strength=1.0)) == draw(from_noise(model, 3, seed=0, length=len(ids)))


def test_rewriting_takes_its_share_of_the_steps(model, tokenizer, ids):
    assert len(list(generate(model, tokenizer, rewriting(model, ids, 2, strength=0.5), Sampling(steps=8)))) == 4


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_a_strength_out_of_range_is_refused(model, ids, strength):
    with pytest.raises(InputError, match="--strength must be between 0"):
        rewriting(model, ids, 2, strength)


@pytest.mark.parametrize("n", [0, 21])
def test_a_text_too_long_or_empty_is_refused(model, n):
    with pytest.raises(InputError, match=f"must have 1 to 20 tokens for this model, got {n}"):
        rewriting(model, [5] * n, 2, strength=0.5)


# --- infilling and continuing


@pytest.mark.parametrize("clamp", [False, True])
@pytest.mark.parametrize("reveal", [0.0, 0.25])
@every_sampler
@pytest.mark.parametrize("task", ["infill", "continue"])
def test_what_is_given_is_never_changed(new_model, tokenizer, tasks, task, sampler, reveal, clamp):
    model = new_model(reveal=reveal).eval()
    given = tasks[task]
    for draft in generate(model, tokenizer, given, Sampling(steps=3, sampler=sampler, clamp=clamp)):
        assert torch.equal(draft.ids[given.known], given.ids[given.known])


@pytest.mark.parametrize("reveal", [0.0, 0.25])
def test_the_network_sees_the_given_words_clean_if_it_was_taught_to(new_model, tokenizer, tasks, reveal, monkeypatch):
    model, given, seen = new_model(reveal=reveal).eval(), tasks["infill"], []
    predict = model.predict
    monkeypatch.setattr(model, "predict", lambda *inputs, **options: seen.append(inputs) or predict(*inputs, **options))
    list(generate(model, tokenizer, given, Sampling(steps=3)))
    assert len(seen) == 3
    for x_t, _, _, told, _ in seen:
        assert torch.equal(told, given.known if reveal else torch.zeros_like(told))
        assert torch.equal(x_t[given.known], model.vectors[given.ids][given.known].detach()) == bool(reveal)


def test_an_unknown_word_that_is_given_stays_unknown(model, tokenizer, draw):
    (given,) = draw(infilling(model, encode(tokenizer, f"the unicorn {MASK} ."), 1, tokenizer.token_to_id(MASK)))
    assert given[1] == tokenizer.token_to_id(UNK)


def test_a_continuation_of_nothing_is_a_sample(model, draw):
    assert draw(continuing(model, [], 3, seed=2), seed=2) == draw(from_noise(model, 3, seed=2), seed=2)


@pytest.mark.parametrize("mask_id", [2, None])
def test_infilling_without_a_mask_is_refused(model, ids, mask_id):
    with pytest.raises(InputError, match=r"no \[MASK\] to fill"):
        infilling(model, ids, 2, mask_id)


def test_infilling_a_text_too_long_is_refused(model):
    with pytest.raises(InputError, match="1 to 20 tokens"):
        infilling(model, [2] * 21, 2, 2)


@pytest.mark.parametrize("length", [None, 20])
def test_a_beginning_that_leaves_no_room_is_refused(model, length):
    with pytest.raises(InputError, match="leaves no room: it has 20 tokens"):
        continuing(model, [5] * 20, 2, seed=0, length=length)


@pytest.mark.parametrize("objective", ["x0", "eps"])
def test_a_temperature_needs_objective_ce(new_model, tokenizer, objective):
    model = new_model(objective=objective).eval()
    with pytest.raises(InputError, match=f"objective ce, this one has {objective}"):
        next(generate(model, tokenizer, from_noise(model, 1, seed=0), Sampling(temperature=0.5)))


# --- loading


@pytest.mark.parametrize("part", ["", "model"])
def test_a_saved_model_draws_the_same_sentences(saved, draw, tokenizer, part):
    model, loaded = load(str(saved / part))
    sentences = list(finished(generate(model, loaded, from_noise(model, 3, seed=0), Sampling(steps=4))))
    assert sentences == draw(from_noise(model, 3, seed=0))


@pytest.mark.parametrize("name", ["missing", "./missing/run", "/no/such/run", "no/such-run"])
def test_a_folder_that_is_missing_is_refused_by_name(name):
    with pytest.raises(InputError, match=name):
        load(name)


def test_a_folder_without_a_model_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=f"{tmp_path} holds no model: no config.json"):
        load(str(tmp_path))


def test_a_file_is_no_model(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(InputError, match="is not a folder"):
        load(str(tmp_path / "model.bin"))


@pytest.mark.parametrize(("file", "keep"), [("model.safetensors", 0), ("model.safetensors", 1000), ("model.safetensors", -100), ("config.json", 20)])
def test_a_truncated_model_is_refused_by_name(saved, file, keep):
    path = saved / "model" / file
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=str(saved)):
        load(str(saved))


def test_a_model_without_its_weights_is_refused_by_name(saved):
    (saved / "model" / "model.safetensors").unlink()
    with pytest.raises(InputError, match=str(saved)):
        load(str(saved))


def test_a_model_without_its_tokenizer_is_refused_by_name(saved):
    (saved / "model" / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=str(saved)):
        load(str(saved))


def test_weights_of_another_model_are_refused_by_name(saved, new_model):
    new_model(width=16).save_pretrained(saved / "other")
    (saved / "other" / "model.safetensors").replace(saved / "model" / "model.safetensors")
    with pytest.raises(InputError, match=f"{saved} has weights of another size .* denoiser"):
        load(str(saved))


def test_the_tokenizer_of_another_model_is_refused_by_name(saved):
    save_tokenizer(train_tokenizer(["a few words"], Vocabulary(min_count=1)), saved / "model")
    with pytest.raises(InputError, match=f"{saved} is a model of .* tokens, but its tokenizer.json has 6"):
        load(str(saved))


def test_weights_that_lack_a_layer_are_refused_by_name(saved):
    config = saved / "model" / "config.json"
    config.write_text(config.read_text(encoding="utf-8").replace('"depth": 1', '"depth": 2'), encoding="utf-8")
    with pytest.raises(InputError, match=f"{saved} lacks weights"):
        load(str(saved))
