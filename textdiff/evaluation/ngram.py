"""Baselines that are counted from the training text: bigrams, unigrams and shuffled sentences."""

import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice

from textdiff.text.diagnostics import Sentence


def shuffled(sentences: Sequence[Sentence], n: int, seed: int) -> list[Sentence]:
    """Returns sentences with their words in random order: the right words without grammar."""
    rng = random.Random(seed)
    chosen = rng.sample(sentences, min(n, len(sentences)))
    return [tuple(rng.sample(sentence, len(sentence))) for sentence in chosen]


class Bigram:
    """Bigram model p(word | previous word) with absolute discounting (Ney et al., 1994).

    Bigrams back off to unigrams, and unigrams to the uniform distribution. One extra token,
    `boundary`, begins and ends every sentence. If all sentences have the same length, as blocks of
    packed text have, samples have this length too and the end is not coded.

    Args:
        sentences: The training text.
        discount: Discount of each count.
    """

    def __init__(
        self, sentences: Sequence[Sentence], vocab_size: int, discount: float = 0.75
    ) -> None:
        self.boundary, self.discount = vocab_size, discount
        lengths = {len(sentence) for sentence in sentences}
        self.fixed_length = lengths.pop() if len(lengths) == 1 else None
        self.successors: dict[int, Counter[int]] = defaultdict(Counter)
        for sentence in sentences:
            for previous, token in self._pairs(sentence):
                self.successors[previous][token] += 1
        self.unigram = sum(self.successors.values(), Counter[int]())

    def probability(self, token: int, previous: int) -> float:
        """Probability of a token after the previous one."""
        unigram = self._unigram_probability(token)
        if previous not in self.successors:
            return unigram
        return self._discounted(self.successors[previous], token, unigram)

    def nats(self, sentence: Sentence) -> float:
        """-log p(sentence) in nats."""
        pairs = self._pairs(sentence)
        return -sum(math.log(self.probability(token, previous)) for previous, token in pairs)

    def sample(self, n: int, seed: int, longest: int) -> list[Sentence]:
        """Samples from the counts without discounting.

        Empty sentences and those with more than `longest` tokens are left out, as they are in the
        training text.
        """
        rng, sentences = random.Random(seed), list[Sentence]()
        lengths = {self.fixed_length} if self.fixed_length else range(1, longest + 1)
        while len(sentences) < n:
            sentence = tuple(islice(self._walk(rng), self.fixed_length or longest + 1))
            if len(sentence) in lengths:
                sentences.append(sentence)
        return sentences

    def _pairs(self, sentence: Sentence) -> Iterator[tuple[int, int]]:
        """(previous token, token) of each token that is coded."""
        tokens = sentence if self.fixed_length else (*sentence, self.boundary)
        return zip((self.boundary, *sentence), tokens, strict=False)

    def _walk(self, rng: random.Random) -> Iterator[int]:
        token = self.boundary
        # the last token of blocks of one length may have no successor
        while successors := self.successors.get(token):
            (token,) = rng.choices(list(successors), list(successors.values()))
            if token == self.boundary:
                return
            yield token

    def _unigram_probability(self, token: int) -> float:
        return self._discounted(self.unigram, token, 1 / (self.boundary + 1))

    def _discounted(self, counts: Counter[int], token: int, backoff: float) -> float:
        total = counts.total()
        discounted = max(0.0, counts[token] - self.discount) / total
        return discounted + self.discount * len(counts) / total * backoff


class Unigram(Bigram):
    """Unigram model p(word), from the same counts."""

    def probability(self, token: int, previous: int) -> float:
        """Probability of a token, which does not depend on the previous one."""
        return self._unigram_probability(token)

    def _walk(self, rng: random.Random) -> Iterator[int]:
        tokens, counts = list(self.unigram), list(self.unigram.values())
        while (token := rng.choices(tokens, counts)[0]) != self.boundary:
            yield token
