"""Laws of texts longer than a model's sequences: a window moves from left to right."""

from dataclasses import replace

import pytest
import torch

from textdiff.config import SamplingConfig, UserError
from textdiff.sampling import collect
from textdiff.text.decoding_config import DecodingConfig
from textdiff.text.documents import windowed
from textdiff.text.requests import continue_request, joined, rewrite_request, sample_request
from textdiff.text.sampling import generate

LONGEST = 20


@pytest.fixture(scope="module")
def writer(new_model):
    """A model whose training text had no ends: all its sequences have the same length."""
    return windows_of(new_model(ends=False))


def windows_of(model):
    """The model for texts that are longer than its sequences."""
    model.prior_weight.fill_(1.0)
    model.lengths.zero_()[LONGEST] = 1.0
    return model.eval()


@pytest.fixture
def write(writer, tokenizer):
    """`write(request, ...)`: final samples of the writer."""

    def samples(request, **options):
        config = SamplingConfig(**{"steps": 3} | options)
        return [*collect(generate(writer, tokenizer, request, config))]

    return samples


@pytest.mark.parametrize("length", [1, 19, 20, 21, 30, 31, 57])
def test_windows_sample_every_word_once(writer, length):
    request = sample_request(writer, 2, 0, length)
    done = 0
    for window, part in windowed(request, LONGEST):
        assert part.ids.shape[1] == min(LONGEST, length) == window.stop - window.start
        assert part.given[:, : done - window.start].all()
        assert (part.start[:, done - window.start :] == 1).all()
        assert window.start == 0 or done - window.start >= LONGEST // 2
        done = window.stop
    assert done == length


def test_windows_without_noise_are_left_out(writer):
    request = continue_request(writer, [5] * 70, 2, 0, 75)
    ((window, part),) = windowed(request, LONGEST)
    assert window == slice(55, 75)
    assert part.given.sum(1).tolist() == [15, 15]


@pytest.mark.parametrize("order", ["parallel", "left-to-right"])
def test_documents_do_not_depend_on_batches(writer, write, order):
    decoding = DecodingConfig(order=order, temperature=2.0)
    request = sample_request(writer, 5, 0, 47, decoding)
    found = write(request)
    assert write(request, batch_size=2) == found
    assert [len(ids) for ids in found] == [47] * 5
    assert len({tuple(ids) for ids in found}) == 5


def test_documents_do_not_depend_on_their_neighbors(writer, write):
    """Their windows and steps are their own, also beside longer ones."""
    short = continue_request(writer, [5] * 3, 2, 0, 47)
    long = continue_request(writer, [5] * 30, 2, 0, 61)
    for own, other in ((short, long), (long, short)):
        assert write(joined([own, other]), precision="no")[:2] == write(own, precision="no")


def test_documents_begin_as_short_texts(writer, write):
    decoding = DecodingConfig(x0="moving")
    short = write(sample_request(writer, 2, 0, LONGEST, decoding))
    assert [ids[:LONGEST] for ids in write(sample_request(writer, 2, 0, 50))] == short


def test_continued_words_depend_on_their_window_only(writer, write):
    near = [7, 8, 9] * 5
    first, second = (
        write(continue_request(writer, far + near, 2, 0, 60)) for far in ([5] * 40, [6] * 40)
    )
    assert [ids[40:] for ids in first] == [ids[40:] for ids in second]
    assert all(ids[40:55] == near for ids in first)


def test_long_texts_keep_protected_words(writer, write):
    ids = [5 + i % 9 for i in range(65)]
    strengths = [0.0 if i % 3 else 1.0 for i in range(65)]
    request = rewrite_request(writer, ids, 3, strengths, DecodingConfig(temperature=3.0))
    for found in write(request):
        assert [word for i, word in enumerate(found) if i % 3] == [
            word for i, word in enumerate(ids) if i % 3
        ]
        assert found != ids
    untouched = replace(request, start=torch.zeros_like(request.start))
    assert write(untouched) == [ids] * 3


def test_network_sees_one_window_at_most(writer, write, monkeypatch):
    seen, word_logits = [], writer.word_logits

    def recorded(text, **options):
        seen.append(text.x_t.shape[1])
        return word_logits(text, **options)

    monkeypatch.setattr(writer, "word_logits", recorded)
    write(sample_request(writer, 1, 0, 90))
    assert set(seen) == {LONGEST}


@pytest.mark.parametrize("order", ["parallel", "left-to-right", "right-to-left"])
def test_settled_words_are_final(writer, tokenizer, order):
    request = sample_request(writer, 2, 0, 45, DecodingConfig(order=order, temperature=2.0))
    batches = list(generate(writer, tokenizer, request, SamplingConfig(steps=8)))
    for row, final in enumerate(batches[-1].samples):
        settled = [batch.settled[row] for batch in batches]
        assert settled == sorted(settled)
        assert settled[-1] == 45
        assert (settled[3] > 0) == (order == "left-to-right")
        for batch in batches:
            ready = batch.settled[row]
            assert batch.samples[row][:ready] == final[:ready]


def test_pairs_across_windows_follow_the_chain(new_model, tokenizer):
    """Without network and contexts the model is a Markov text, also where two windows meet."""
    model = windows_of(new_model(ends=False, prior_contexts=0))
    model.head.weight.data.zero_()
    model.head.bias.data.zero_()
    request = sample_request(model, 600, 0, 30, DecodingConfig(guidance_scale=1.0))
    config = SamplingConfig(steps=12, batch_size=600, precision="no")
    words = torch.tensor([*collect(generate(model, tokenizer, request, config))])
    transitions = model.markov.chain().transitions.dense()
    transitions[:, :3] = 0  # special tokens are never sampled
    transitions /= transitions.sum(1, keepdim=True)
    surprisal = -transitions.clamp(min=1e-12).log()
    mean = (transitions * surprisal).sum(1)
    variance = (transitions * surprisal**2).sum(1) - mean**2
    for position in (9, LONGEST - 1, LONGEST):  # within a window, and where they meet
        before, after = words[:, position], words[:, position + 1]
        excess = surprisal[before, after] - mean[before]
        assert excess.sum().abs() < 4 * variance[before].sum().sqrt()


def test_models_of_sentences_do_not_write_documents(model):
    with pytest.raises(UserError, match="--length must be between 1 and 20"):
        sample_request(model, 2, 0, 40)


def test_long_beginnings_are_continued_by_half_a_window(writer):
    request = continue_request(writer, [5] * 33, 2, 0)
    assert request.mask.sum(1).tolist() == [33 + 1 + LONGEST // 2] * 2
