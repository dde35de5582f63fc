"""Laws of pairs: data with sources, their training losses, and targets generated from them."""

import json

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from textdiff import TextDiffusion
from textdiff.config import SamplingConfig, UserError
from textdiff.prng import sample_keys
from textdiff.sampling import collect
from textdiff.text import grammar
from textdiff.text.autoregressive import Autoregressive
from textdiff.text.config import DataConfig, ModelConfig, TextConfig
from textdiff.text.dataset import Corpus, collate
from textdiff.text.functional import source_words
from textdiff.text.model import DiffusionLM
from textdiff.text.requests import joined
from textdiff.text.sampling import generate
from textdiff.text.sequence_likelihood import sequence_nats
from textdiff.text.sources import open_texts
from textdiff.text.special_tokens import SEPARATOR
from textdiff.text.targets import target_request
from textdiff.text.tokenizer import encode
from textdiff.text.train import build_model

TARGETS = grammar.corpus(40, seed=3)
SOURCES = [" ".join(reversed(text.split()[:3])) for text in TARGETS]


def pairs_model(family, tokenizer, corpus):
    shape = {"width": 32, "heads": 2, "depth": 1, "source_drop_prob": 0.1}
    data = DataConfig(source="from", target="to", length=20)
    config = TextConfig(model=ModelConfig(family=family, **shape), data=data)
    model = build_model(config, tokenizer, corpus)
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape)
    return model.eval()


@pytest.fixture
def pairs_file(tmp_path):
    """A file of pairs, in which one row has no source and one has no target."""
    rows = [{"from": a, "to": b} for a, b in zip(SOURCES, TARGETS, strict=True)]
    rows += [{"from": "", "to": "the king ."}, {"from": "the king", "to": None}]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def separated(tokenizer):
    """The tokenizer with a separator."""
    own = Tokenizer.from_str(tokenizer.to_str())
    own.add_special_tokens([SEPARATOR])
    return own


@pytest.fixture(scope="module")
def pairs(separated):
    texts = (f"{a} {SEPARATOR} {b}" for a, b in zip(SOURCES, TARGETS, strict=True))
    return Corpus.of(encode(separated, text) for text in texts)


@pytest.fixture(scope="module")
def diffusion(separated, pairs):
    return pairs_model("diffusion", separated, pairs)


@pytest.fixture(scope="module")
def autoregressive(separated, pairs):
    return pairs_model("autoregressive", separated, pairs)


@pytest.fixture(params=["diffusion", "autoregressive"])
def translator(request):
    """A model of either family."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def pipe(translator, separated):
    return TextDiffusion(translator, separated)


def test_pairs_are_read_as_one_text(pairs_file):
    texts = open_texts(DataConfig(train=str(pairs_file), source="from", target="to"))
    found = {*texts.train(), *texts.valid}
    assert found == {f"{a} {SEPARATOR} {b}" for a, b in zip(SOURCES, TARGETS, strict=True)}


def test_sources_are_clean_and_not_predicted(diffusion, pairs):
    batch = collate([pairs[i] for i in range(16)], np.arange(16))
    clean, separator = diffusion.logsnr_range[1], diffusion.config.separator
    for mode in (True, False):
        noisy = diffusion.train(mode)._corrupt(**batch)
        diffusion.eval()
        source = noisy.source
        assert source.sum(1).tolist() == [ids.index(separator) + 1 for ids in noisy.ids.tolist()]
        assert source[:, 0].all()
        assert (noisy.logsnr[source] == clean).all()
        assert not noisy.predicted[source].any()
        assert noisy.predicted.any(1).sum() > 12


def test_dropped_sources_leave_only_their_places(diffusion, pairs):
    batch = collate([pairs[i] for i in range(40)], np.arange(40))
    ids, separator = batch["ids"], diffusion.config.separator
    words = source_words(ids, separator)
    other = ids.where(~words, (ids + 1) % separator)
    diffusion.train()
    diffusion.config.source_drop_prob = 1.0
    noisy = diffusion._corrupt(**batch)
    assert (noisy.dropped == words).all()
    assert (noisy.x_t[words] == 0).all()
    assert (noisy.logsnr[words] == diffusion.logsnr_range[0]).all()
    # the target is predicted from its own noise and the separator
    losses = diffusion(**batch), diffusion(**(batch | {"ids": other}))
    assert losses[0]["ce"] == losses[1]["ce"]
    diffusion.config.source_drop_prob = 0.3
    assert 4 <= diffusion._corrupt(**batch).dropped.any(1).sum() <= 20
    diffusion.config.source_drop_prob = 0.1
    assert diffusion.eval()._corrupt(**batch).dropped is None


def test_guidance_is_towards_the_source(diffusion, separated):
    pipe = TextDiffusion(diffusion, separated)
    other = " ".join(reversed(SOURCES[0].split()))

    def targets(source, scale):
        return pipe.generate(source, n=4, length=6, steps=3, guidance_scale=scale).texts

    assert targets(SOURCES[0], 0.0) == targets(other, 0.0)  # the unconditional model
    assert targets(SOURCES[0], 30.0) != targets(other, 30.0)
    assert targets(SOURCES[0], 30.0) != targets(SOURCES[0], 1.0)


def test_autoregressive_nats_leave_out_sources(autoregressive, pairs):
    batch = collate([pairs[i] for i in range(4)], np.arange(4))
    nats = autoregressive.nats(batch["ids"], batch["mask"])
    for row, ids, size in zip(nats, batch["ids"].tolist(), pairs.sizes, strict=False):
        end = ids.index(autoregressive.config.separator) + 1
        assert (row[:end] == 0).all()
        assert (row[end : size + 1] > 0).all()
        assert (row[size + 1 :] == 0).all()


def test_requests_give_the_source_and_predict_lengths(translator, separated):
    request = target_request(translator, [5, 6, 7], 6)
    given = [5, 6, 7, translator.config.separator]
    assert request.ids[:, :4].tolist() == [given] * 6
    assert request.given.sum(1).tolist() == [4] * 6
    sizes = request.mask.sum(1) - 4
    lengths = {len(encode(separated, text)) for text in TARGETS}
    # an autoregressive model ends its targets itself
    assert {*sizes.tolist()} <= (lengths if isinstance(translator, DiffusionLM) else {16})
    first = target_request(translator, [5, 6, 7], 4)
    assert (first.mask.sum(1) - 4 == sizes[:4]).all()
    fixed = target_request(translator, [5, 6, 7], 2, length=3)
    assert fixed.mask.sum(1).tolist() == [7, 7]


def test_no_target_is_empty(autoregressive, separated, monkeypatch):
    forward = autoregressive.gpt.forward

    def ending(*args, **options):
        out = forward(*args, **options)
        out.logits[..., autoregressive.end] += 1000
        return out

    monkeypatch.setattr(autoregressive.gpt, "forward", ending)
    request = target_request(autoregressive, [5, 6], 4)
    found = collect(generate(autoregressive, separated, request, SamplingConfig()))
    assert [len(ids) for ids in found] == [4] * 4


def test_targets_do_not_depend_on_other_sources(translator, separated):
    sources = [encode(separated, text) for text in SOURCES[:4]]
    requests = [target_request(translator, ids, 2) for ids in sources]
    together = joined(requests)
    options = {"steps": 3, "precision": "no"}
    draw = SamplingConfig(**options), SamplingConfig(**options, batch_size=3)
    first, second = ([*collect(generate(translator, separated, together, c))] for c in draw)
    assert first == second
    alone = [*collect(generate(translator, separated, requests[0], draw[0]))]
    assert alone == first[:2]


def test_likelihood_of_targets_is_given_sources(pipe):
    """It is the bound of the evaluation of pairs, and counts the target's tokens alone."""
    found = pipe.log_likelihood(TARGETS[:2], source=SOURCES[:2], draws=8, seed=3)
    tokenizer, separator = pipe.tokenizer, pipe.model.config.separator
    assert found.tokens == [len(encode(tokenizer, text)) for text in TARGETS[:2]]
    pairs = zip(SOURCES, TARGETS, strict=True)
    first = [[*encode(tokenizer, a), separator, *encode(tokenizer, b)] for a, b in pairs][:2]
    keys = sample_keys(3, 1 if isinstance(pipe.model, Autoregressive) else 4)
    each = [sequence_nats(pipe.model, first, key, 2) for key in keys]
    assert found.nats == pytest.approx(torch.stack(each).mean(0).tolist())
    swapped = pipe.log_likelihood(TARGETS[:2], source=SOURCES[1::-1], draws=8, seed=3)
    assert swapped.nats != pytest.approx(found.nats)


def test_outputs_are_targets_alone(pipe):
    found = pipe.generate(SOURCES[:2], n=2, steps=2)
    assert len(found.texts) == 4
    for i, (text, ids) in enumerate(zip(found.texts, found.sequences, strict=True)):
        before = ids.index(pipe.model.config.separator)
        assert text == pipe.tokenizer.decode(ids[before + 1 :])
        assert ids[:before] == encode(pipe.tokenizer, SOURCES[i // 2])
        assert ids.count(pipe.model.config.separator) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda pipe: pipe.generate(""), "source must be a text"),
        (lambda pipe: pipe.generate(["the", " "]), r"source \(number 2\) must be a text"),
        (lambda pipe: pipe.generate(" ".join(["king"] * 19)), "the source has 19 tokens, at most"),
        (lambda pipe: pipe.generate("the", length=19), "length must be between 1 and 18"),
        (lambda pipe: pipe.generate("the", length_quantile=1.0), "length_quantile must be above 0"),
        (lambda pipe: pipe.generate("the", mbr=0), "mbr must be at least 1"),
        (lambda pipe: pipe.generate("the", mbr=2, rank=2), "mbr must be left out with rank"),
        (lambda pipe: pipe.generate(["the", "king " * 19]), r"^source \(number 2\): the source"),
        (lambda pipe: pipe.stream.generate("the", mbr=2), "mbr must be left out of stream"),
        (lambda pipe: pipe.log_likelihood("the king"), "give source"),
        (lambda pipe: pipe.log_likelihood("a", source=["a", "b"]), "source must be 1 texts, got 2"),
        (lambda pipe: pipe.log_likelihood("king " * 11, source="king " * 9), "1 to 10 tokens"),
        (lambda pipe: pipe.sample(2), "use textdiff generate"),
        (lambda pipe: pipe.rewrite("the king"), "use textdiff generate"),
        (lambda pipe: pipe.rewrite(["the", "king"]), "^this model generates targets"),
        (lambda pipe: pipe.generate(["a", "b"], order="random", window=99), "^(window|order) "),
        (lambda pipe: pipe.complete("the king"), "use textdiff generate"),
    ],
)
def test_bad_input_is_refused_in_one_line(pipe, call, message):
    with pytest.raises(UserError, match=message) as error:
        call(pipe)
    assert "\n" not in str(error.value)


def test_models_without_sources_generate_no_targets(model, tokenizer):
    with pytest.raises(UserError, match=r"has no sources: train one with --data\.source"):
        TextDiffusion(model, tokenizer).generate("the king")
    with pytest.raises(UserError, match="length_quantile needs a model of pairs"):
        TextDiffusion(model, tokenizer).sample(1, length_quantile=0.7)
