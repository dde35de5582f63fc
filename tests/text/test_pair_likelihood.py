"""Laws of the likelihood of targets given their sources."""

import pytest
import torch
from torch.testing import assert_close

from textdiff.config import UserError
from textdiff.prng import fold_in
from textdiff.text.functional import source_positions
from textdiff.text.lengths import length_nats
from textdiff.text.likelihood import negative_elbo, ode_negative_elbo, word_nats
from textdiff.text.target_lengths import TargetLengths
from textdiff.text.tokenizer import MASK

every_order = pytest.mark.parametrize(
    ("order", "window"), [("parallel", 1), ("left-to-right", 1), ("random", 3)]
)


@pytest.fixture(scope="module")
def separator(tokenizer):
    """A token that no sentence has."""
    return tokenizer.token_to_id(MASK)


@pytest.fixture
def pairs(batch, separator):
    """Eight pairs: the first words of each sentence, in different numbers, are its source."""
    ids, mask = batch["ids"].clone(), batch["mask"]
    ids[torch.arange(8), torch.tensor([1, 2, 3, 1, 2, 3, 1, 2])] = separator
    return ids, mask


@pytest.fixture
def exact(new_model, separator):
    """A Markov text of pairs: the prior without the network."""
    model = new_model(separator=separator).eval()
    model.prior_weight.fill_(1.0)
    model.head.weight.data.zero_()
    model.head.bias.data.zero_()
    return model


@every_order
def test_bound_of_markov_text_is_conditional_likelihood(exact, pairs, order, window):
    ids, mask = (each.repeat(40, 1) for each in pairs)
    nats = word_nats(
        exact, ids, mask, fold_in(torch.arange(320), 7), draws=2, order=order, window=window
    )
    source = source_positions(ids, exact.config.separator)
    assert (nats[source | ~mask] == 0).all()
    known = torch.zeros(*ids.shape, exact.config.vocab_size)
    known.scatter_(2, ids.unsqueeze(2), 60.0 * source.unsqueeze(2))
    gap = nats.sum(1) - exact.markov.chain().nats(known, ids, mask)
    assert_close(gap.view(40, 8).mean(0), torch.zeros(8), atol=0.15, rtol=0)


def test_sources_are_clean_in_every_bound(new_model, pairs, separator, monkeypatch):
    model = new_model(separator=separator).eval()
    ids, mask = pairs
    source, predict, levels = source_positions(ids, separator), model.predict, list[torch.Tensor]()

    def recorded(text, **options):
        levels.append(text.levels)
        return predict(text, **options)

    monkeypatch.setattr(model, "predict", recorded)
    key = torch.arange(8)
    for order in ("parallel", "left-to-right"):
        negative_elbo(model, ids, mask, key, draws=2, order=order)
    ode_negative_elbo(model, ids, mask, key, steps=2)
    low, high = model.logsnr_range
    seen = torch.stack(levels)
    assert_close(seen[:, source], torch.full_like(seen[:, source], high), atol=1e-4, rtol=0)
    assert seen[:, mask & ~source].min() == pytest.approx(low, abs=1e-3)


def test_ode_bound_of_perfect_model_is_entropy(contextless, separator):
    """The source says nothing, and its words cost nothing."""
    contextless.head.weight.data.zero_()
    config, n = contextless.config, 200
    config.self_cond_prob, config.separator = 0.0, separator
    contextless.target_lengths = TargetLengths(config.vocab_size, config.length)
    contextless.target_lengths.frequencies.zero_()[3, 1] = 1
    unigram = contextless.words.unigram
    words = torch.multinomial(unigram, n, True, generator=torch.Generator().manual_seed(0))
    source = torch.tensor([5, 6, separator]).expand(n, 3)
    ids = torch.cat([source, words.unsqueeze(1)], 1)
    nats = ode_negative_elbo(
        contextless, ids, torch.ones_like(ids, dtype=bool), torch.arange(n), steps=96
    )
    entropy = -(unigram * unigram.log()).sum().item()
    assert nats.mean().item() == pytest.approx(entropy, abs=0.3)


@pytest.mark.parametrize("counted", [True, False])
def test_target_lengths_have_probability_one(exact, separator, counted):
    """Also after a source of a length that no training source has."""
    longest, source = exact.config.length, [5, 6, 7, separator]
    frequencies = torch.zeros(longest + 1, longest + 1)
    frequencies[4, [2, 3, longest]] = torch.tensor([0.5, 0.3, 0.2]) * counted
    exact.target_lengths.frequencies.copy_(frequencies)
    ids = torch.zeros(longest - 4, longest, dtype=torch.long)
    ids[:, :4] = torch.tensor(source)
    mask = torch.arange(longest) < torch.arange(5, longest + 1).unsqueeze(1)
    p = (-length_nats(exact, ids, mask)).exp()
    assert p.sum().item() == pytest.approx(1, abs=1e-5)
    expected = [0.5 / 0.8, 0.3 / 0.8] if counted else [1 / len(ids)] * 2
    assert p[1:3].tolist() == pytest.approx(expected, rel=1e-3)


def test_sequences_without_a_source_are_refused(exact, batch):
    with pytest.raises(UserError, match="needs source, separator and target in each sequence"):
        negative_elbo(exact, batch["ids"], batch["mask"], torch.arange(8))
