"""Laws of the autoregressive baseline: likelihood, sampling and loading."""

import math
from itertools import product

import pytest
import torch
from torch.nn.functional import pad
from torch.testing import assert_close

from textdiff.config import SamplingConfig, UserError
from textdiff.evaluation.reference_lm import ReferenceLM
from textdiff.sampling import collect
from textdiff.text.autoregressive import Autoregressive, AutoregressiveConfig
from textdiff.text.decoding_config import DecodingConfig
from textdiff.text.hub import load_model
from textdiff.text.requests import (
    continue_request,
    infill_request,
    rewrite_request,
    sample_request,
)
from textdiff.text.sampling import generate
from textdiff.text.tokenizer import MASK, PAD, UNK, encode, save_tokenizer


@pytest.fixture(scope="module")
def gpt(tokenizer) -> Autoregressive:
    vocab_size = tokenizer.get_vocab_size()
    shape = {"length": 20, "width": 32, "depth": 1, "heads": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Autoregressive(AutoregressiveConfig(vocab_size=vocab_size, **shape)).eval()


def draw(gpt, tokenizer, request, **options) -> list[list[int]]:
    return list(collect(generate(gpt, tokenizer, request, SamplingConfig(**options))))


@torch.no_grad()
def test_probabilities_of_all_sentences_sum_to_one():
    """Three words, up to two per sentence, and the mass of all longer sentences."""
    config = AutoregressiveConfig(vocab_size=3, length=3, width=16, depth=1, heads=2)
    small = Autoregressive(config).eval()

    def nats(*ids: int) -> torch.Tensor:
        mask = torch.arange(max(len(ids), 1)).unsqueeze(0) < len(ids)
        return small.nats(torch.tensor([ids or (0,)]), mask)

    sentences = [ids for n in (1, 2) for ids in product(range(3), repeat=n)]
    p = [nats()[0, 0].neg().exp(), *(nats(*ids).sum().neg().exp() for ids in sentences)]
    longer = [nats(*ids)[0, :3].sum().neg().exp() for ids in product(range(3), repeat=3)]
    assert_close(sum(p) + sum(longer), torch.ones(()), atol=1e-5, rtol=0)


@torch.no_grad()
def test_padding_does_not_change_the_likelihood(gpt, batch):
    padded = gpt.nats(pad(batch["ids"], (0, 3)), pad(batch["mask"], (0, 3)))
    nats = gpt.nats(batch["ids"], batch["mask"])
    assert_close(padded.sum(1), nats.sum(1), atol=1e-4, rtol=1e-5)


def test_loss_is_nats_per_token(gpt, batch):
    expected = gpt.nats(batch["ids"], batch["mask"]).sum() / batch["mask"].sum()
    assert gpt(**batch)["ce"].item() == pytest.approx(expected.item(), rel=1e-6)


def test_words_are_sampled_with_their_probability(gpt, tokenizer):
    request = sample_request(gpt, 4000, seed=0, length=1)
    first = [ids[0] for ids in draw(gpt, tokenizer, request, batch_size=4000)]
    with torch.no_grad():
        logits = gpt.gpt(torch.tensor([[gpt.end]])).logits[0, -1]
    logits[[gpt.end, *map(tokenizer.token_to_id, (PAD, UNK, MASK))]] = -math.inf
    shares = torch.bincount(torch.tensor(first), minlength=len(logits)) / len(first)
    assert_close(shares, logits.softmax(-1), atol=0.03, rtol=0)


@torch.no_grad()
def test_features_of_a_sentence_predict_its_end(gpt, batch):
    sentences = [tuple(i[m].tolist()) for i, m in zip(batch["ids"], batch["mask"], strict=True)]
    features = torch.from_numpy(ReferenceLM(gpt).features(sentences))
    nats = -gpt.gpt.lm_head(features).log_softmax(-1)[:, gpt.end]
    expected = gpt.nats(batch["ids"], batch["mask"]).gather(1, batch["mask"].sum(1, keepdim=True))
    assert_close(nats, expected.squeeze(1), atol=1e-4, rtol=1e-5)


def test_yielded_tokens_are_not_changed_later(gpt):
    ids, keys = torch.zeros(3, 6, dtype=torch.long), torch.arange(3)
    banned = torch.zeros(gpt.config.vocab_size, dtype=torch.bool)
    yielded = gpt.generate_tokens(ids, 0, keys, banned=banned)
    pairs = [(tokens, tokens.clone()) for tokens in yielded]
    assert len(pairs) > 1
    for tokens, copy in pairs:
        assert_close(tokens, copy, atol=0, rtol=0)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_autoregressive_samples_do_not_depend_on_batch_size(gpt, tokenizer, batch_size):
    request = sample_request(gpt, 6, seed=3)
    one_batch = draw(gpt, tokenizer, request, seed=3)
    assert draw(gpt, tokenizer, request, seed=3, batch_size=batch_size) == one_batch


def test_continuations_begin_with_the_given_words(gpt, tokenizer):
    given = encode(tokenizer, "the king sees")
    samples = draw(gpt, tokenizer, continue_request(gpt, given, 5, seed=0))
    assert all(ids[:3] == given for ids in samples)


def test_rewriting_and_infilling_are_refused(gpt, tokenizer):
    ids = encode(tokenizer, f"the {MASK} sees a dog .")
    for request in (
        rewrite_request(gpt, ids, 1, 0.5),
        infill_request(gpt, ids, 1, tokenizer.token_to_id(MASK)),
    ):
        with pytest.raises(UserError, match="sample and continue"):
            next(generate(gpt, tokenizer, request, SamplingConfig()))


@pytest.mark.parametrize(
    "option",
    [{"clamp": True}, {"x0": "mean"}, {"order": "random"}, {"window": 2}, {"guidance_scale": 1.0}],
)
def test_options_of_diffusion_are_refused(gpt, option):
    (name,) = option
    with pytest.raises(UserError, match=f"--{name}.* needs a diffusion model"):
        sample_request(gpt, 1, seed=0, decoding=DecodingConfig(**option))


def test_loaded_baseline_has_the_same_likelihood(gpt, tokenizer, batch, tmp_path):
    gpt.save_pretrained(tmp_path)
    save_tokenizer(tokenizer, tmp_path)
    loaded, _ = load_model(str(tmp_path))
    inputs = batch["ids"], batch["mask"]
    assert_close(loaded.nats(*inputs), gpt.nats(*inputs), atol=0, rtol=0)
