"""Messages and samples of a Markov chain, against enumeration and recursions in log space."""

import math

import pytest
import torch
from markov_cases import (
    CHAIN,
    END,
    LONGER,
    MASK,
    TABLE,
    L,
    V,
    enumerated,
    longer_log_joint,
    marginals,
    sentences,
    uniforms,
)
from tensors import close, draws, seeded

from textdiff.diffusion.markov import MarkovChain
from textdiff.diffusion.transitions import Transitions

LOG_LIKELIHOOD = 2 * draws(len(MASK), L, V, seed=7)
chains = pytest.mark.parametrize("chain", [CHAIN, LONGER], ids=["words", "contexts"])


def backed_off(v: int = 40, pairs: int = 90) -> Transitions:
    """A sparse table with a backoff distribution."""
    chosen = torch.randperm(v * v, generator=seeded(1))[:pairs].sort().values
    values, weight, backoff = (uniforms(n, seed=n) for n in (pairs, v, v))
    return Transitions(chosen // v, chosen % v, values, weight, backoff)


def log_space_posterior(chain: MarkovChain, log_likelihood, size: int) -> torch.Tensor:
    """Posterior of the words of one sentence by recursions with logsumexp."""
    table, start, end = (x.log() for x in (chain.transitions.dense(), chain.start, chain.end))
    own = log_likelihood[:size]
    forward, backward = [start], [end]
    for i in range(1, size):
        forward.append(((forward[-1] + own[i - 1]).unsqueeze(1) + table).logsumexp(0))
        backward.append((table + backward[-1] + own[-i]).logsumexp(1))
    return (torch.stack(forward) + own + torch.stack(backward[::-1])).softmax(-1)


@chains
@pytest.mark.parametrize("row", range(len(MASK)))
def test_messages_give_the_enumerated_posterior(row, chain):
    messages = chain.log_messages(LOG_LIKELIHOOD, MASK)
    size = int(MASK[row].sum())
    posterior = (messages + LOG_LIKELIHOOD)[row, :size].softmax(-1)
    close(posterior, marginals(LOG_LIKELIHOOD[row, :size], chain), 1e-12)


def test_messages_do_not_depend_on_own_likelihood():
    changed = LOG_LIKELIHOOD.clone()
    changed[:, 2] += draws(len(MASK), V)
    before, after = (CHAIN.log_messages(x, MASK)[:, 2] for x in (LOG_LIKELIHOOD, changed))
    close(after.softmax(-1), before.softmax(-1), 1e-12)


def test_messages_do_not_depend_on_padding():
    padded = torch.cat([LOG_LIKELIHOOD, 9 * draws(len(MASK), 2, V)], 1)
    mask = torch.nn.functional.pad(MASK, (0, 2))
    before = CHAIN.log_messages(LOG_LIKELIHOOD, MASK)[MASK]
    close(CHAIN.log_messages(padded, mask)[mask].softmax(-1), before.softmax(-1), 1e-12)


def test_constants_of_the_likelihood_do_not_matter():
    shifted = LOG_LIKELIHOOD + 700 * draws(len(MASK), L, 1)
    before = CHAIN.log_messages(LOG_LIKELIHOOD, MASK)
    close(CHAIN.log_messages(shifted, MASK), before, 1e-10)


@pytest.mark.parametrize("scale", [0.1, 3.0, 40.0])
def test_scaled_and_log_space_recursions_agree(scale):
    """In float32, over 60 words of 40."""
    table = backed_off()
    start = end = uniforms(40, seed=3)
    chain = MarkovChain(start, table, end)
    log_likelihood = scale * draws(1, 60, 40)
    exact = log_space_posterior(chain, log_likelihood[0], 60)
    parts = (table.before, table.after, *(x.float() for x in (table.values, *_rank_one(table))))
    float32 = MarkovChain(start.float(), Transitions(*parts), end.float())
    low = log_likelihood.float()
    messages = float32.log_messages(low, torch.ones(1, 60, dtype=torch.bool))
    torch.testing.assert_close((messages + low)[0].softmax(-1), exact.float(), atol=2e-5, rtol=0)


def _rank_one(table: Transitions) -> tuple[torch.Tensor, torch.Tensor]:
    return table.backoff_weight, table.backoff


def test_sparse_plus_rank_one_equals_dense():
    table, columns = backed_off(), draws(40, 6)
    dense = torch.outer(table.backoff_weight, table.backoff)
    dense[table.before, table.after] += table.values
    close(table.forward(columns), dense.T @ columns, 1e-12)
    close(table.backward(columns), dense @ columns, 1e-12)
    close(table.dense(), dense, 1e-15)


def test_dense_table_survives_its_sparse_form():
    close(Transitions.from_dense(TABLE).dense(), TABLE, 0)


@chains
def test_gradient_of_messages_is_that_of_their_formula(chain):
    """The probability-flow ODE differentiates the denoiser."""

    def posterior(x):
        return (chain.log_messages(x, MASK[:2]) + x)[MASK[:2]].softmax(-1)

    assert torch.autograd.gradcheck(posterior, LOG_LIKELIHOOD[:2].clone().requires_grad_())


@chains
def test_sentences_are_drawn_from_their_posterior(chain):
    """Chi-square against enumeration; the threshold is five standard deviations."""
    n, size = 40_000, 3
    own = LOG_LIKELIHOOD[1, :size]
    mask = torch.ones(n, size, dtype=torch.bool)
    drawn = chain.sample(own.expand(n, -1, -1), mask, uniforms(n, size))
    words, probability = enumerated(own, chain)
    number = (drawn * torch.tensor([V**2, V, 1])).sum(1)
    seen = torch.bincount(number, minlength=len(words)).double()
    assert not seen[probability == 0].any()
    likely = probability > 0
    expected = n * probability[likely]
    chi_square = ((seen[likely] - expected) ** 2 / expected).sum().item()
    degrees = int(likely.sum()) - 1
    assert abs(chi_square - degrees) < 5 * math.sqrt(2 * degrees)


@chains
def test_nats_are_those_of_enumeration(chain):
    words = chain.sample(LOG_LIKELIHOOD, MASK, uniforms(len(MASK), L))
    nats = chain.nats(LOG_LIKELIHOOD, words, MASK)
    for row, size in enumerate(MASK.sum(1).tolist()):
        every, probability = enumerated(LOG_LIKELIHOOD[row, :size], chain)
        (number,) = (every == words[row, :size]).all(1).nonzero().flatten()
        close(nats[row], -probability[number].log(), 1e-12)


@chains
def test_gradient_of_nats_is_that_of_their_formula(chain):
    words = chain.sample(LOG_LIKELIHOOD, MASK, uniforms(len(MASK), L))
    start = LOG_LIKELIHOOD.clone().requires_grad_()
    chain.nats(start, words, MASK).sum().backward()
    posterior = (LOG_LIKELIHOOD + chain.log_messages(LOG_LIKELIHOOD, MASK)).softmax(-1)
    expected = posterior - torch.nn.functional.one_hot(words, V)
    close(start.grad, expected * MASK.unsqueeze(-1), 1e-12)
    step = 1e-6 * draws(*LOG_LIKELIHOOD.shape, seed=3)
    change = chain.nats(LOG_LIKELIHOOD + step, words, MASK) - chain.nats(
        LOG_LIKELIHOOD - step, words, MASK
    )
    close(change.sum(), 2 * (start.grad * step).sum(), 1e-9)


@pytest.mark.parametrize("exponent", [0.5, 2.0])
def test_powers_of_the_chain_are_exact(exponent):
    """Also of words that never follow each other, which back off."""
    table = backed_off()
    close(table.power(exponent).dense(), table.dense() ** exponent, 1e-12)
    words = CHAIN.sample(LOG_LIKELIHOOD, MASK, uniforms(len(MASK), L))
    raised = CHAIN.power(exponent).log_prob(words, MASK)
    close(raised, exponent * CHAIN.log_prob(words, MASK), 1e-12)


def test_contexts_give_the_next_word_by_several():
    """A sentence's probability is the sum over the contexts that its words may have."""
    for length in (1, 2, L):
        words = sentences(length)
        expected = longer_log_joint(words)
        possible = expected > -math.inf
        found = LONGER.log_prob(words, torch.ones_like(words, dtype=torch.bool))
        close(found[possible], expected[possible], 1e-12)


@pytest.mark.parametrize("exponent", [0.5, 2.0])
def test_powers_of_contexts_are_exact(exponent):
    table = LONGER.transitions
    close(table.power(exponent).dense(), table.dense() ** exponent, 1e-12)


@pytest.mark.parametrize("chain", [backed_off(), LONGER.transitions], ids=["words", "contexts"])
def test_single_pairs_are_looked_up(chain):
    table, n = chain, len(chain.backoff)
    before, after = torch.randint(n, (2, 1, 500), generator=seeded(2))
    close(table.lookup(before, after), table.dense()[before, after], 1e-15)


def test_drawn_words_do_not_depend_on_the_batch():
    chosen, numbers = [2, 0], uniforms(len(MASK), L)
    together = CHAIN.sample(LOG_LIKELIHOOD, MASK, numbers)[chosen]
    apart = CHAIN.sample(LOG_LIKELIHOOD[chosen], MASK[chosen], numbers[chosen])
    assert together[MASK[chosen]].equal(apart[MASK[chosen]])


def test_sentence_ends_weigh_the_last_word():
    """One word: start times end times its own likelihood."""
    messages = CHAIN.log_messages(LOG_LIKELIHOOD[:, :1], MASK[:, :1])
    close(messages.softmax(-1)[:, 0], (CHAIN.start * END).log().softmax(0).expand(4, -1), 1e-12)
