"""The default corpus: a small language of our own that can also judge what a model makes of it.

The grammar is data, weighted productions without recursion, and the generator, the recogniser, the counts and the entropy all
read those same productions, so they cannot disagree. Across whatever stands between them, verbs agree with their subject in number
and a reflexive pronoun in number and gender; a determiner agrees with its noun. It is small enough to be learned in three minutes on
two cores, and large enough (see `size`) not to be learned by heart.
Only a fixed fifth of the language is ever trained on, so a grammatical sentence outside it is new and not remembered.
This file knows no model, tokenizer, tensor or file.
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

# head -> {body: weight}. A feature in braces takes each of its values, the same one throughout a production: that is agreement.
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

# preterminal -> its words, as likely as often they are written. "a" has no "an": whatever can follow it begins with a consonant.
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
    """Plain context-free productions: every template under every value of the features."""
    rules: defaultdict[str, dict[Body, int]] = defaultdict(dict)
    for values in product(*FEATURES.values()):
        features = dict(zip(FEATURES, values, strict=True))
        for head, bodies in templates.items():
            rules[head.format(**features)] |= {tuple(body.format(**features).split()): weight for body, weight in bodies.items()}
    return dict(rules)


RULES = expand(SYNTAX | {head: Counter(words.split()) for head, words in LEXICON.items()})
VOCABULARY = tuple(sorted({symbol for bodies in RULES.values() for body in bodies for symbol in body} - RULES.keys()))


def draw(rng: random.Random) -> str:
    """One sentence of the whole language, its words and its "." separated by single spaces."""
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
    """Whether this exact string is a sentence of the language; any string may be asked."""
    return derivations(sentence) > 0


def derivations(sentence: str) -> int:
    """In how many ways the grammar makes this string: 0 or 1, for it is unambiguous."""
    words = sentence.split(" ")
    if not set(VOCABULARY).issuperset(words):  # so that the cache below stays small whatever is asked
        return 0
    pending: list[Body] = [(START,)]
    for word in words:
        pending = [rest + symbols[1:] for symbols in pending if symbols for rest in after(symbols[0], word)]
    return pending.count(())


@cache
def after(symbol: str, word: str) -> list[Body]:
    """What must still come of `symbol` once its first word was read: one entry for each way to begin so. No body is empty."""
    if symbol not in RULES:
        return [()] if symbol == word else []
    return [rest + body[1:] for body in RULES[symbol] for rest in after(body[0], word)]


def in_training_share(sentence: str) -> bool:
    """Whether training may see this sentence: a hash decides, so the answer is the same in every run and for every corpus."""
    digest = blake2b(sentence.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < TRAINING_SHARE * 2**64


def corpus(n: int, seed: int = 0, training: bool = True) -> list[str]:
    """n independent draws (short sentences may repeat) from the training share, or from what training never sees."""
    drawn = map(draw, repeat(random.Random(seed)))
    return list(islice((sentence for sentence in drawn if in_training_share(sentence) == training), n))


def size() -> int:
    """The number of different sentences: that of derivations, for each sentence has one."""
    return count(START)


@cache
def count(symbol: str) -> int:
    """The number of different word sequences that `symbol` derives."""
    return sum(math.prod(map(count, body)) for body in RULES[symbol]) if symbol in RULES else 1


def unigram_entropy() -> float:
    """Entropy in nats of a token picked at random from a long text, "." included: what a model that knows only frequencies can reach."""
    counts = expected_words(START)
    total = sum(counts.values())
    return -sum(c / total * math.log(c / total) for c in counts.values())


@cache
def expected_words(symbol: str) -> Mapping[str, float]:
    """How often each word occurs, on average, in what `symbol` derives."""
    if symbol not in RULES:
        return {symbol: 1.0}
    total = sum(RULES[symbol].values())
    counts: defaultdict[str, float] = defaultdict(float)
    for body, weight in RULES[symbol].items():
        for word, times in (item for part in body for item in expected_words(part).items()):
            counts[word] += times * weight / total
    return counts
