import os
import random
import subprocess
import sys
from collections import Counter
from functools import cache
from itertools import product
from math import log
from statistics import mean, stdev

import pytest

from textdiff import grammar
from textdiff.sources import GRAMMAR_SENTENCES

SENTENCES = grammar.corpus(1000, seed=1) + grammar.corpus(1000, seed=1, training=False)


def forms(head: str, other: str) -> dict[str, str]:
    """Word -> its other form, both ways: the lexicon lists the forms of a word in parallel."""
    pairs = list(zip(grammar.LEXICON[head].split(), grammar.LEXICON[other].split(), strict=True))
    return dict(pairs) | {b: a for a, b in pairs}


BREAKS = {
    "verb number": forms("Transitive.one", "Transitive.many") | forms("Intransitive.one", "Intransitive.many"),
    "reflexive gender": {"himself": "herself", "herself": "himself"},
    "reflexive number": {"himself": "themselves", "herself": "themselves", "themselves": "himself"},
    "determiner number": {"a": "many", "many": "a"},
}


def with_one_word_exchanged(sentence: str, exchange: dict[str, str]) -> list[str]:
    words = sentence.split()
    return [" ".join([*words[:i], exchange[word], *words[i + 1 :]]) for i, word in enumerate(words) if word in exchange]


def derived(symbol: str, words_each: int = 100) -> list[str]:
    """All that `symbol` derives, once a derivation, from the first `words_each` words of every preterminal."""
    if symbol in grammar.VOCABULARY:
        return [symbol]
    bodies = list(grammar.RULES[symbol])
    bodies = bodies[:words_each] if all(len(body) == 1 and body[0] in grammar.VOCABULARY for body in bodies) else bodies
    return [" ".join(parts) for body in bodies for parts in product(*(derived(part, words_each) for part in body))]


def test_drawn_sentences_are_grammatical():
    assert all(map(grammar.judge, SENTENCES))


def test_drawn_sentences_have_one_derivation():
    assert {grammar.derivations(sentence) for sentence in SENTENCES} == {1}


@pytest.mark.parametrize("broken", BREAKS)
def test_a_sentence_with_one_agreement_broken_is_ungrammatical(broken):
    others = [other for sentence in SENTENCES for other in with_one_word_exchanged(sentence, BREAKS[broken])]
    assert len(others) > 100
    assert not any(map(grammar.judge, others))


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("the kings near the river see a boy .", "the kings near the river sees a boy ."),
        ("the queen who sings helps many girls .", "the queen who sings help many girls ."),
        ("the queen who sings helps many girls .", "the queen who sing helps many girls ."),
        ("many boys near the garden paint themselves .", "many boys near the garden paint himself ."),
        ("the king behind many castles sees himself .", "the king behind many castles sees herself ."),
        ("the king sees a small boy .", "the king sees a small boys ."),
        ("the kings near many rivers see a boy .", "the kings near many river see a boy ."),
    ],
)
def test_agreement_is_that_of_english(good, bad):
    assert grammar.judge(good)
    assert not grammar.judge(bad)


@pytest.mark.parametrize(
    "text",
    [
        *["", " ", ".", "the", "the king", "Sentence", "\ud800\x00", "the " * 10_000],
        *["the unicorn sees a boy .", "The king sees a boy .", "the  king sees a boy .", "Determiner.one king sees a boy ."],
        *["the king sees a boy . ", "the king sees a boy .\n", "the king sees a boy", "the king sees a boy . ."],
    ],
)
def test_what_is_no_sentence_is_refused(text):
    assert not grammar.judge(text)


def test_random_unicode_is_refused():
    rng = random.Random(0)
    assert not any(grammar.judge("".join(chr(rng.randrange(0x110000)) for _ in range(length))) for length in range(200))


def test_shuffled_words_are_refused():
    rng = random.Random(0)
    shuffled = [" ".join(rng.sample(words, len(words))) for words in map(str.split, SENTENCES)]
    assert mean(map(grammar.judge, shuffled)) < 0.005


def test_the_indefinite_article_never_precedes_a_vowel():
    assert not any(word == "a" and after[0] in "aeiou" for s in SENTENCES for word, after in zip(s.split(), s.split()[1:], strict=False))


def test_the_vocabulary_is_what_sentences_are_made_of():
    assert sorted({word for sentence in SENTENCES for word in sentence.split()}) == list(grammar.VOCABULARY)


def test_the_training_share_is_a_fifth_of_the_language():
    rng = random.Random(0)
    distinct = {grammar.draw(rng) for _ in range(20_000)}
    assert mean(map(grammar.in_training_share, distinct)) == pytest.approx(grammar.TRAINING_SHARE, abs=0.01)


def test_a_training_corpus_and_a_held_out_corpus_share_no_sentence():
    assert set(grammar.corpus(1000)).isdisjoint(grammar.corpus(1000, training=False))


def test_a_corpus_is_the_same_in_another_process():
    script = "from textdiff import grammar; print(*grammar.corpus(50, seed=3), sep='\\n')"
    there = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | {"PYTHONHASHSEED": "7"}, capture_output=True, encoding="utf-8", check=True
    )
    assert there.stdout.splitlines() == grammar.corpus(50, seed=3)


def test_a_longer_corpus_begins_with_the_shorter_one():
    assert grammar.corpus(100)[:50] == grammar.corpus(50)


def test_corpora_of_different_seeds_differ():
    assert grammar.corpus(50, seed=0) != grammar.corpus(50, seed=1)


@pytest.mark.parametrize("symbol", ["Creature.she.many", "Place", "Predicate.he.one"])
def test_the_count_is_the_number_of_different_strings(symbol):
    assert grammar.count(symbol) == len(set(derived(symbol)))


def test_the_size_is_the_number_of_different_sentences():
    @cache
    def accepted(states: frozenset) -> int:
        """Distinct ways to go on from what may still have to come: the subset construction, where ambiguity would merge derivations."""
        read = [{rest + s[1:] for s in states if s for rest in grammar.after(s[0], word)} for word in grammar.VOCABULARY]
        return (() in states) + sum(accepted(frozenset(left)) for left in read if left)

    assert accepted(frozenset({(grammar.START,)})) == grammar.size()


def test_the_language_is_ten_times_what_is_trained_on():
    assert grammar.size() > 10 * len(set(grammar.corpus(GRAMMAR_SENTENCES)))


def test_unigram_entropy_is_that_of_drawn_text():
    rng = random.Random(0)
    counts = Counter(word for _ in range(50_000) for word in grammar.draw(rng).split())
    empirical = -sum(n / counts.total() * log(n / counts.total()) for n in counts.values())
    assert grammar.unigram_entropy() == pytest.approx(empirical, rel=0.005)


def test_sentences_have_5_to_11_tokens():
    lengths = {len(sentence.split()) for sentence in derived(grammar.START, words_each=1)}
    assert (min(lengths), max(lengths)) == (5, 11)


def test_lengths_are_spread():
    assert stdev(len(sentence.split()) for sentence in SENTENCES) > 1.5
