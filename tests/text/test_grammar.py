"""Laws of the built-in language: agreement, counts, entropy, training share and corpora."""

import os
import random
import subprocess
import sys
from collections import Counter
from functools import cache
from itertools import chain, pairwise, product
from math import log
from statistics import mean, stdev

import pytest

from textdiff.text import grammar
from textdiff.text.sources import GRAMMAR_SENTENCES

SENTENCES = grammar.corpus(1000, seed=1) + grammar.corpus(1000, seed=1, training=False)


def forms(head: str, other: str) -> dict[str, str]:
    """Maps each word to its other form. The lexicon lists the forms in the same order."""
    pairs = list(zip(grammar.LEXICON[head].split(), grammar.LEXICON[other].split(), strict=True))
    return dict(pairs) | {b: a for a, b in pairs}


BREAKS = {
    "verb number": (
        forms("Transitive.one", "Transitive.many") | forms("Intransitive.one", "Intransitive.many")
    ),
    "reflexive gender": {"himself": "herself", "herself": "himself"},
    "reflexive number": {"himself": "themselves", "herself": "themselves", "themselves": "himself"},
    "determiner number": {"a": "many", "many": "a"},
}


def with_one_word_replaced(sentence: str, replacements: dict[str, str]) -> list[str]:
    words = sentence.split()
    return [
        " ".join([*words[:i], replacements[word], *words[i + 1 :]])
        for i, word in enumerate(words)
        if word in replacements
    ]


def derived(symbol: str, words_each: int = 100) -> list[str]:
    """One string per derivation of `symbol`, from `words_each` words of each preterminal."""
    if symbol in grammar.VOCABULARY:
        return [symbol]
    bodies = list(grammar.RULES[symbol])
    if all(len(body) == 1 and body[0] in grammar.VOCABULARY for body in bodies):
        bodies = bodies[:words_each]
    parts = (product(*(derived(part, words_each) for part in body)) for body in bodies)
    return [" ".join(words) for words in chain.from_iterable(parts)]


def test_drawn_sentences_are_grammatical():
    assert all(map(grammar.judge, SENTENCES))


def test_drawn_sentences_have_one_derivation():
    assert {grammar.derivations(sentence) for sentence in SENTENCES} == {1}


@pytest.mark.parametrize("agreement", BREAKS)
def test_sentence_with_broken_agreement_is_ungrammatical(agreement):
    """One word at a time is replaced by its other form."""
    replacements = BREAKS[agreement]
    broken = [s for text in SENTENCES for s in with_one_word_replaced(text, replacements)]
    assert len(broken) > 100
    assert not any(map(grammar.judge, broken))


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("the kings near the river see a boy .", "the kings near the river sees a boy ."),
        ("the queen who sings helps many girls .", "the queen who sings help many girls ."),
        ("the queen who sings helps many girls .", "the queen who sing helps many girls ."),
        (
            "many boys near the garden paint themselves .",
            "many boys near the garden paint himself .",
        ),
        (
            "the king behind many castles sees himself .",
            "the king behind many castles sees herself .",
        ),
        ("the king sees a small boy .", "the king sees a small boys ."),
        ("the kings near many rivers see a boy .", "the kings near many river see a boy ."),
    ],
)
def test_words_agree_as_in_english(good, bad):
    assert grammar.judge(good)
    assert not grammar.judge(bad)


@pytest.mark.parametrize(
    "text",
    [
        *["", " ", ".", "the", "the king", "Sentence", "\ud800\x00", "the " * 10_000],
        *["the unicorn sees a boy .", "The king sees a boy .", "the  king sees a boy ."],
        *["Determiner.one king sees a boy .", "the king sees a boy . ", "the king sees a boy .\n"],
        *["the king sees a boy", "the king sees a boy . ."],
    ],
)
def test_other_strings_are_refused(text):
    assert not grammar.judge(text)


def test_random_unicode_is_refused():
    rng = random.Random(0)
    for length in range(200):
        assert not grammar.judge("".join(chr(rng.randrange(0x110000)) for _ in range(length)))


def test_shuffled_words_are_refused():
    rng = random.Random(0)
    shuffled = [" ".join(rng.sample(words, len(words))) for words in map(str.split, SENTENCES)]
    assert mean(map(grammar.judge, shuffled)) < 0.005


def test_indefinite_article_never_precedes_a_vowel():
    pairs = {pair for sentence in SENTENCES for pair in pairwise(sentence.split())}
    assert not any(word == "a" and following[0] in "aeiou" for word, following in pairs)


def test_vocabulary_is_the_words_of_sentences():
    words = {word for sentence in SENTENCES for word in sentence.split()}
    assert sorted(words) == list(grammar.VOCABULARY)


def test_training_share_is_a_fifth_of_the_language():
    rng = random.Random(0)
    distinct = {grammar.draw(rng) for _ in range(20_000)}
    share = mean(map(grammar.in_training_share, distinct))
    assert share == pytest.approx(grammar.TRAINING_SHARE, abs=0.01)


def test_training_and_held_out_corpora_share_no_sentence():
    assert set(grammar.corpus(1000)).isdisjoint(grammar.corpus(1000, training=False))


def test_corpus_is_the_same_in_another_process():
    script = "from textdiff.text import grammar; print(*grammar.corpus(50, seed=3), sep='\\n')"
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    command = [sys.executable, "-c", script]
    output = subprocess.check_output(command, env=environment, encoding="utf-8")
    assert output.splitlines() == grammar.corpus(50, seed=3)


def test_longer_corpus_begins_with_the_shorter_one():
    assert grammar.corpus(100)[:50] == grammar.corpus(50)


def test_corpora_of_different_seeds_differ():
    assert grammar.corpus(50, seed=0) != grammar.corpus(50, seed=1)


@pytest.mark.parametrize("symbol", ["Creature.she.many", "Place", "Predicate.he.one"])
def test_count_is_the_number_of_derived_strings(symbol):
    assert grammar.count(symbol) == len(set(derived(symbol)))


def test_size_is_the_number_of_sentences():
    @cache
    def accepted(states: frozenset) -> int:
        """Number of strings that complete a sentence, by the subset construction.

        Each state is a sequence of remaining symbols. Ambiguous derivations would be merged.
        """
        total = int(() in states)
        for word in grammar.VOCABULARY:
            following = {
                rest + s[1:] for s in states if s for rest in grammar.remainders(s[0], word)
            }
            total += accepted(frozenset(following)) if following else 0
        return total

    assert accepted(frozenset({(grammar.START,)})) == grammar.size()


def test_language_is_ten_times_the_training_text():
    assert grammar.size() > 10 * len(set(grammar.corpus(GRAMMAR_SENTENCES)))


def test_unigram_entropy_is_that_of_drawn_sentences():
    rng = random.Random(0)
    counts = Counter(word for _ in range(50_000) for word in grammar.draw(rng).split())
    empirical = -sum(n / counts.total() * log(n / counts.total()) for n in counts.values())
    assert grammar.unigram_entropy() == pytest.approx(empirical, rel=0.005)


def test_sentences_have_5_to_11_tokens():
    lengths = {len(sentence.split()) for sentence in derived(grammar.START, words_each=1)}
    assert (min(lengths), max(lengths)) == (5, 11)


def test_sentence_lengths_vary():
    assert stdev(len(sentence.split()) for sentence in SENTENCES) > 1.5
