import math

import pytest
import torch
from torch.testing import assert_close

from textdiff.autoregressive import Autoregressive, AutoregressiveConfig
from textdiff.config import InputError, Sampling
from textdiff.generate import continuing, finished, from_noise, generate, infilling, load, rewriting
from textdiff.teacher import Teacher
from textdiff.vocab import MASK, PAD, UNK, encode, save_tokenizer


@pytest.fixture(scope="module")
def gpt(tokenizer, corpus) -> Autoregressive:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Autoregressive(AutoregressiveConfig(vocab_size=tokenizer.get_vocab_size(), length=20, width=32, depth=1, heads=2)).eval()


def written(gpt, tokenizer, task, **options) -> list[list[int]]:
    return list(finished(generate(gpt, tokenizer, task, Sampling(**options))))


@torch.no_grad()
def test_the_probabilities_of_all_sentences_add_up_to_one():
    """Over three words and up to two of them a sentence; what is left is the mass of longer ones."""
    small = Autoregressive(AutoregressiveConfig(vocab_size=3, length=3, width=16, depth=1, heads=2)).eval()
    p = {(): small.nats(torch.zeros(1, 1, dtype=torch.long), torch.zeros(1, 1, dtype=torch.bool))[0, 0].neg().exp()}
    for a in range(3):
        p[(a,)] = small.nats(torch.tensor([[a]]), torch.ones(1, 1, dtype=torch.bool)).sum().neg().exp()
        for b in range(3):
            p[(a, b)] = small.nats(torch.tensor([[a, b]]), torch.ones(1, 2, dtype=torch.bool)).sum().neg().exp()
    longer = sum(
        small.nats(torch.tensor([[a, b, c]]), torch.ones(1, 3, dtype=torch.bool))[0, :3].sum().neg().exp()
        for a in range(3) for b in range(3) for c in range(3)
    )  # fmt: skip
    assert_close(sum(p.values()) + longer, torch.ones(()), atol=1e-5, rtol=0)


@torch.no_grad()
def test_padding_changes_no_sentences_likelihood(gpt, batch):
    wide = {name: torch.nn.functional.pad(batch[name], (0, 3)) for name in ("ids", "mask")}
    assert_close(gpt.nats(**wide).sum(1), gpt.nats(batch["ids"], batch["mask"]).sum(1), atol=1e-4, rtol=1e-5)


def test_the_loss_is_nats_a_token(gpt, batch):
    assert gpt(**batch)["ce"].item() == pytest.approx((gpt.nats(batch["ids"], batch["mask"]).sum() / batch["mask"].sum()).item(), rel=1e-6)


def test_a_word_is_drawn_as_often_as_it_is_likely(gpt, tokenizer):
    first = [ids[0] for ids in written(gpt, tokenizer, from_noise(gpt, 4000, seed=0, length=1), batch_size=4000)]
    with torch.no_grad():
        logits = gpt.gpt(torch.tensor([[gpt.end]])).logits[0, -1]
    logits[[gpt.end, *map(tokenizer.token_to_id, (PAD, UNK, MASK))]] = -math.inf
    shares = torch.bincount(torch.tensor(first), minlength=len(logits)) / len(first)
    assert_close(shares, logits.softmax(-1), atol=0.03, rtol=0)


@torch.no_grad()
def test_the_end_is_predicted_from_a_sentences_features(gpt, batch):
    sentences = [tuple(i[m].tolist()) for i, m in zip(batch["ids"], batch["mask"], strict=True)]
    features = torch.from_numpy(Teacher(gpt).features(sentences))
    nats = -gpt.gpt.lm_head(features).log_softmax(-1)[:, gpt.end]
    exact = gpt.nats(batch["ids"], batch["mask"]).gather(1, batch["mask"].sum(1, keepdim=True))
    assert_close(nats, exact.squeeze(1), atol=1e-4, rtol=1e-5)


def test_every_draft_is_a_tensor_of_its_own(gpt):
    nothing, keys = torch.zeros(3, 6, dtype=torch.long), torch.arange(3)
    banned = torch.zeros(gpt.config.vocab_size, dtype=torch.bool)
    drafts = gpt.generate_tokens(nothing, 0, keys, banned=banned)
    seen = [(draft, draft.clone()) for draft in drafts]
    assert len(seen) > 1
    for draft, as_it_was in seen:
        assert_close(draft, as_it_was, atol=0, rtol=0)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_sentence_does_not_depend_on_how_many_are_drawn_at_a_time(gpt, tokenizer, batch_size):
    task = from_noise(gpt, 6, seed=3)
    assert written(gpt, tokenizer, task, seed=3, batch_size=batch_size) == written(gpt, tokenizer, task, seed=3)


def test_it_continues_what_is_given(gpt, tokenizer):
    given = encode(tokenizer, "the king sees")
    assert all(ids[:3] == given for ids in written(gpt, tokenizer, continuing(gpt, given, 5, seed=0)))


def test_it_refuses_what_it_cannot_do(gpt, tokenizer):
    ids = encode(tokenizer, f"the {MASK} sees a dog .")
    for task in (rewriting(gpt, ids, 1, 0.5), infilling(gpt, ids, 1, tokenizer.token_to_id(MASK))):
        with pytest.raises(InputError, match="sample and continue"):
            next(generate(gpt, tokenizer, task, Sampling()))


def test_it_is_loaded_as_it_was_saved(gpt, tokenizer, batch, tmp_path):
    gpt.save_pretrained(tmp_path)
    save_tokenizer(tokenizer, tmp_path)
    loaded, _ = load(str(tmp_path))
    assert_close(loaded.nats(batch["ids"], batch["mask"]), gpt.nats(batch["ids"], batch["mask"]), atol=0, rtol=0)
