"""What a text model is measured against: counting models, and the configurations of trained ones. Knows tokens, not how anything is judged."""

import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

from textdiff.config import TextRun
from textdiff.metrics import Sentence


def autoregressive(config: TextRun, seed: int = 0) -> TextRun:
    """GPT-2's shape at the run's width and depth, by the run's optimizer: on E2E, Muon's 600 steps beat 4,658 of AdamW's."""
    return replace(config, model=replace(config.model, family="autoregressive"), train=replace(config.train, seed=seed, precision="auto"))


def diffusion_lm(config: TextRun) -> TextRun:
    """Diffusion-LM's recipe (arXiv:2205.14217) at the run's width and depth: x0 objective with rounding, sqrt schedule, 16-d embeddings, no
    self-conditioning, no guidance. Ours keeps the embeddings' norm fixed, theirs lets it grow; and AdamW at 1e-3, for its 1e-4 is meant for
    200,000 steps."""
    return replace(
        config,
        model=replace(
            config.model,
            objective="x0",
            schedule="sqrt",
            embed_dim=16,
            embedding_init="random",
            self_condition=0.0,
            reveal=0.0,
            dropout=0.1,
            sampling_guidance=1.0,
        ),
        train=replace(config.train, optimizer="adamw", lr=1e-3, weight_decay=0.0, precision="auto"),
    )


def shuffled(sentences: Sequence[Sentence], n: int, seed: int) -> list[Sentence]:
    """Sentences with their words in random order: the right words without grammar."""
    dice = random.Random(seed)
    return [tuple(dice.sample(sentence, len(sentence))) for sentence in dice.sample(sentences, min(n, len(sentences)))]


class Bigram:
    """p(word | word before), absolute discounting by 0.75 down to unigrams and those to uniform (Ney et al., 1994).

    Where all sentences are of one length, as blocks of packed text are, so is what it writes, and their ends are not coded.
    """

    def __init__(self, sentences: Sequence[Sentence], vocab_size: int, discount: float = 0.75) -> None:
        self.edge, self.discount, self.size = vocab_size, discount, vocab_size + 1
        sizes = {len(sentence) for sentence in sentences}
        self.only_size = sizes.pop() if len(sizes) == 1 else None
        self.after: dict[int, Counter[int]] = defaultdict(Counter)
        for sentence in sentences:
            for before, token in self._pairs(sentence):
                self.after[before][token] += 1
        self.unigram = sum(self.after.values(), Counter[int]())

    def probability(self, token: int, before: int) -> float:
        lower = self._discounted(self.unigram, token, 1 / self.size)
        return self._discounted(self.after[before], token, lower) if before in self.after else lower

    def nats(self, sentence: Sentence) -> float:
        return -sum(math.log(self.probability(token, before)) for before, token in self._pairs(sentence))

    def _pairs(self, sentence: Sentence) -> Iterator[tuple[int, int]]:
        return zip((self.edge, *sentence), sentence if self.only_size else (*sentence, self.edge), strict=False)

    def sample(self, n: int, seed: int, longest: int) -> list[Sentence]:
        """From the counts as they are; what is empty or too long is left out, as it is from the training text."""
        dice, sentences = random.Random(seed), list[Sentence]()
        sizes = {self.only_size} if self.only_size else range(1, longest + 1)
        while len(sentences) < n:
            sentence = tuple(islice(self._walk(dice), self.only_size or longest + 1))
            if len(sentence) in sizes:
                sentences.append(sentence)
        return sentences

    def _walk(self, dice: random.Random) -> Iterator[int]:
        token = self.edge
        while following := self.after.get(token):  # of equal blocks the last one's last word may have nothing after it
            (token,) = dice.choices(list(following), list(following.values()))
            if token == self.edge:
                return
            yield token

    def _discounted(self, counts: Counter[int], token: int, lower: float) -> float:
        total = counts.total()
        return max(0.0, counts[token] - self.discount) / total + self.discount * len(counts) / total * lower


class Unigram(Bigram):
    """p(word) from the same counts, whatever stands before."""

    def probability(self, token: int, before: int) -> float:
        return self._discounted(self.unigram, token, 1 / self.size)

    def _walk(self, dice: random.Random) -> Iterator[int]:
        words, counts = list(self.unigram), list(self.unigram.values())
        while (token := dice.choices(words, counts)[0]) != self.edge:
            yield token
