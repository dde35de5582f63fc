"""The built-in language: a small grammar that generates sentences and checks them.

The grammar is data: weighted productions without recursion. Generator, recognizer, counts and
entropy all read these productions, so they cannot disagree. Verbs agree with their subject in
number, and reflexive pronouns in number and gender, also across other words; determiners agree with
their noun. The language can be learned in three minutes on two cores, and is too large (see `size`)
to be memorized. Training uses a fixed fifth of it, so a grammatical sentence outside of that fifth
is new.
"""

import math
import random
from collections import Counter, defaultdict
from collections.abc import Mapping
from functools import cache
from hashlib import blake2b
from itertools import accumulate, islice, product, repeat

TRAINING_SHARE = 0.2
START = "Sentence"
FEATURES = {"gender": ("he", "she"), "number": ("one", "many")}

Body = tuple[str, ...]

# Head -> {body: weight}. A feature in braces takes each of its values, the same one in the whole
# production, which is what makes words agree.
SYNTAX: dict[str, dict[str, int]] = {
    START: {"Subject.{gender}.{number} Predicate.{gender}.{number} .": 1},
    "Subject.{gender}.{number}": {
        "Creature.{gender}.{number}": 1,
        "Creature.{gender}.{number} Preposition Place": 1,
        "Creature.{gender}.{number} who Intransitive.{number}": 1,
    },
    "Predicate.{gender}.{number}": {
        "Transitive.{number} Object": 1,
        "Transitive.{number} Reflexive.{gender}.{number}": 1,
    },
    "Object": {"Creature.{gender}.{number}": 1},
    "Creature.{gender}.{number}": {
        "Determiner.{number} Noun.{gender}.{number}": 2,
        "Determiner.{number} Temper Noun.{gender}.{number}": 1,
    },
    "Place": {"Determiner.{number} Site.{number}": 1},
}

# Preterminal -> its words, all equally likely. A word listed twice would be twice as likely. "a" is
# never "an", because every word that can follow it begins with a consonant.
LEXICON = {
    "Determiner.one": "the a",
    "Determiner.many": "the many",
    "Noun.he.one": "king boy",
    "Noun.he.many": "kings boys",
    "Noun.she.one": "queen girl",
    "Noun.she.many": "queens girls",
    "Reflexive.he.one": "himself",
    "Reflexive.she.one": "herself",
    "Reflexive.{gender}.many": "themselves",
    "Transitive.one": "sees helps paints",
    "Transitive.many": "see help paint",
    "Intransitive.one": "sings waits",
    "Intransitive.many": "sing wait",
    "Temper": "small brave clever",
    "Preposition": "near behind",
    "Site.one": "river castle garden",
    "Site.many": "rivers castles gardens",
}


def expand(templates: Mapping[str, Mapping[str, int]]) -> dict[str, dict[Body, int]]:
    """Context-free productions of templates: each template with every value of the features."""
    rules: defaultdict[str, dict[Body, int]] = defaultdict(dict)
    for values in product(*FEATURES.values()):
        features = dict(zip(FEATURES, values, strict=True))
        for head, bodies in templates.items():
            rules[head.format(**features)] |= {
                tuple(body.format(**features).split()): weight for body, weight in bodies.items()
            }
    return dict(rules)


RULES = expand(SYNTAX | {head: Counter(words.split()) for head, words in LEXICON.items()})
VOCABULARY = tuple(
    sorted(
        {symbol for bodies in RULES.values() for body in bodies for symbol in body} - RULES.keys()
    )
)


def draw(rng: random.Random) -> str:
    """Draws a sentence of the whole language. Words and the final "." are separated by spaces."""
    words: list[str] = []
    pending = [START]
    while pending:
        symbol = pending.pop()
        if symbol in RULES:
            bodies, thresholds = _choices(symbol)
            pending += reversed(rng.choices(bodies, cum_weights=thresholds)[0])
        else:
            words.append(symbol)
    return " ".join(words)


@cache
def _choices(symbol: str) -> tuple[list[Body], list[int]]:
    return list(RULES[symbol]), list(accumulate(RULES[symbol].values()))


def judge(sentence: str) -> bool:
    """Whether a string is a sentence of the language."""
    return derivations(sentence) > 0


def derivations(sentence: str) -> int:
    """Number of derivations of a string: 0 or 1, because the grammar is unambiguous."""
    words = sentence.split(" ")
    if not set(VOCABULARY).issuperset(words):  # keeps the cache of `remainders` small
        return 0
    pending: list[Body] = [(START,)]
    for word in words:
        pending = [
            rest + symbols[1:]
            for symbols in pending
            if symbols
            for rest in remainders(symbols[0], word)
        ]
    return pending.count(())


@cache
def remainders(symbol: str, word: str) -> list[Body]:
    """Remaining symbols of `symbol` after its first word, for each production that fits."""
    if symbol not in RULES:
        return [()] if symbol == word else []
    return [rest + body[1:] for body in RULES[symbol] for rest in remainders(body[0], word)]


def in_training_share(sentence: str) -> bool:
    """Whether a sentence belongs to the fifth used in training; a hash of it decides."""
    digest = blake2b(sentence.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < TRAINING_SHARE * 2**64


def corpus(n: int, seed: int = 0, training: bool = True) -> list[str]:
    """Draws n independent sentences, which may repeat.

    Args:
        training: Whether they are from the training share or from the rest of the language.
    """
    drawn = map(draw, repeat(random.Random(seed)))
    return [*islice((text for text in drawn if in_training_share(text) == training), n)]


def size() -> int:
    """Number of different sentences."""
    return count(START)


@cache
def count(symbol: str) -> int:
    """Number of different word sequences that a symbol derives."""
    return sum(math.prod(map(count, body)) for body in RULES[symbol]) if symbol in RULES else 1


def unigram_entropy() -> float:
    """Entropy of the word frequencies in nats, "." included: the loss of a unigram model."""
    counts = expected_words(START)
    total = sum(counts.values())
    return -sum(c / total * math.log(c / total) for c in counts.values())


@cache
def expected_words(symbol: str) -> Mapping[str, float]:
    """Expected number of occurrences of each word in what a symbol derives."""
    if symbol not in RULES:
        return {symbol: 1.0}
    total = sum(RULES[symbol].values())
    counts: defaultdict[str, float] = defaultdict(float)
    for body, weight in RULES[symbol].items():
        for word, times in (item for part in body for item in expected_words(part).items()):
            counts[word] += times * weight / total
    return counts
