"""Automata over words, against the enumeration of all sentences."""

import itertools

import pytest
import torch
from markov_cases import LONGER
from tensors import close, seeded

from textdiff.diffusion.automaton import Automaton
from textdiff.diffusion.markov import MarkovChain
from textdiff.diffusion.transitions import Transitions

WORDS, LENGTH = 4, 4
# word 1 must occur; word 3 may not be followed by word 2. States: 2 was read or not, 1 was or not.
NEXT = torch.tensor([[0, 2, 1, 0], [0, 2, 1, 4], [2, 2, 3, 2], [2, 2, 3, 4]])
SET = Automaton(NEXT, torch.tensor([False, False, True, True]))
SENTENCES = torch.tensor([*itertools.product(range(WORDS), repeat=LENGTH)])


def in_set(sentence: list[int]) -> bool:
    return 1 in sentence and (3, 2) not in itertools.pairwise(sentence)


INSIDE = torch.tensor([in_set(sentence) for sentence in SENTENCES.tolist()])


@pytest.fixture(params=[False, True], ids=["words", "contexts"])
def chain(request) -> MarkovChain:
    if request.param:
        return LONGER
    rows = torch.rand(WORDS, WORDS + 1, generator=seeded()).softmax(1)
    start = torch.tensor([0.4, 0.1, 0.3, 0.2])
    return MarkovChain(start, Transitions.from_dense(rows[:, :-1].contiguous()), rows[:, -1])


@pytest.fixture
def logits() -> torch.Tensor:
    return 2 * torch.randn(1, LENGTH, WORDS, generator=seeded())


def probabilities(logits: torch.Tensor, chain: MarkovChain | None) -> torch.Tensor:
    """Probability of every sentence, restricted to the set."""
    scores = logits[0].gather(1, SENTENCES.T).sum(0)
    if chain:
        scores = scores + chain.log_prob(SENTENCES, torch.ones_like(SENTENCES, dtype=torch.bool))
    return scores.masked_fill(~INSIDE, -torch.inf).softmax(0)


def mask(n: int, length: int = LENGTH) -> torch.Tensor:
    return torch.arange(LENGTH).expand(n, -1) < length


def test_draws_follow_the_restricted_posterior(chain, logits):
    n = 40_000
    uniforms = torch.rand(n, LENGTH, generator=seeded())
    words = SET.sample(chain, logits.expand(n, -1, -1), mask(n), uniforms)
    index = (words * WORDS ** torch.arange(LENGTH).flip(0)).sum(1)
    frequency = torch.bincount(index, minlength=len(SENTENCES)) / n
    assert INSIDE[index].all()
    expected = probabilities(logits, chain)
    assert ((frequency - expected).abs() < 5 * (expected / n).sqrt() + 1e-4).all()


def test_words_that_are_hopelessly_unlikely_are_drawn(chain):
    """Also where their likelihood is 0 in float32."""
    logits = torch.full((50, LENGTH, WORDS), 0.0)
    logits[..., 1] = -500
    words = SET.sample(chain, logits, mask(50), torch.rand(50, LENGTH, generator=seeded()))
    assert ((words == 1).sum(1) == 1).all()


def test_set_of_all_sentences_changes_no_draw(chain, logits):
    everything = Automaton(torch.zeros(1, WORDS, dtype=torch.long), torch.tensor([True]))
    uniforms, rows = torch.rand(100, LENGTH, generator=seeded()), logits.expand(100, -1, -1)
    for length in (2, LENGTH):
        real = mask(100, length)
        drawn = everything.sample(chain, rows, real, uniforms)
        assert torch.equal(drawn[real], chain.sample(rows, real, uniforms)[real])
    close(everything.tilt(logits, mask(1)), logits)


def test_tilted_logits_are_restricted_marginals(logits):
    expected = torch.zeros(LENGTH, WORDS)
    for position in range(LENGTH):
        expected[position].index_add_(0, SENTENCES[:, position], probabilities(logits, None))
    close(SET.tilt(logits, mask(1)).softmax(-1)[0], expected, 1e-5)


def test_required_word_has_the_probability_of_occurring(logits):
    """p_i becomes p_i / (1 - prod (1 - p_j))."""
    once = Automaton(torch.tensor([[0, 1, 0, 0], [1, 1, 1, 1]]), torch.tensor([False, True]))
    p = logits.softmax(-1)[0, :, 1]
    close(once.tilt(logits, mask(1)).softmax(-1)[0, :, 1], p / (1 - (1 - p).prod()), 1e-5)


def test_best_sentence_is_that_of_the_enumeration(logits):
    best = SENTENCES[probabilities(logits, None).argmax()]
    assert torch.equal(SET.best(logits, mask(1))[0], best)


def test_best_words_stay_if_they_are_in_the_set():
    logits = 3 * torch.randn(500, LENGTH, WORDS, generator=seeded())
    best = logits.argmax(-1)
    inside = torch.tensor([in_set(sentence) for sentence in best.tolist()])
    assert inside.any()
    assert torch.equal(SET.best(logits, mask(500))[inside], best[inside])
    assert all(in_set(sentence) for sentence in SET.best(logits, mask(500)).tolist())


def test_padding_is_not_read(logits):
    """Word 1 behind the end does not count."""
    logits = logits.clone()
    logits[:, 2:, 1] = 100
    words = SET.best(logits, mask(1, 2))[0, :2]
    assert in_set(words.tolist())
    tilted = SET.tilt(logits, mask(1, 2))
    close(tilted[:, 2:], logits[:, 2:])


def test_sets_without_a_possible_sentence_are_recognized():
    words, given = torch.zeros(3, LENGTH, dtype=torch.long), torch.zeros(3, LENGTH).bool()
    banned = torch.zeros(WORDS, dtype=torch.bool)
    words[1, :2] = torch.tensor([3, 2])
    given[1, :2] = given[2] = True
    assert SET.accepts(words, given, banned, mask(3)).tolist() == [True, False, False]
    banned[1] = True
    assert not SET.accepts(words, given, banned, mask(3)).any()
