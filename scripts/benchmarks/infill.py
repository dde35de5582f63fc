"""Infills of held-out text: `python scripts/benchmarks/infill.py --run RUN --reference RUN`.

It prints how often the number of words of a [MASK*] is found, and the perplexity of texts half of
whose words were given, under an autoregressive model that was trained on the same kind of text.
With --baseline, an autoregressive model fills the same texts from left to right.
"""

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, takewhile
from pathlib import Path
from random import Random

import torch
from tokenizers import Tokenizer
from torch import Tensor

from textdiff.cli.parser import quiet_libraries, run_script
from textdiff.config import SamplingConfig, UserError
from textdiff.evaluation.reference_lm import ReferenceLM, perplexity
from textdiff.sampling import collect
from textdiff.text import token_cache
from textdiff.text.autoregressive import Autoregressive
from textdiff.text.free_lengths import placement_nats
from textdiff.text.hub import load_model
from textdiff.text.model import DiffusionLM
from textdiff.text.requests import infill_request, joined
from textdiff.text.sampling import generate
from textdiff.text.sequence_likelihood import sequence_nats
from textdiff.text.tokenizer import MASK, special_ids

LONGEST, SPAN = 8, 6
Fill = Callable[[list[list[int]]], list[list[int]]]


def infill(
    run: str,
    reference: str | None = None,
    baseline: str | None = None,
    numbers: int = 300,
    ranked: int = 100,
    halves: int = 400,
    steps: int = 32,
) -> None:
    """Print the figures.

    Args:
        run: Run folder of a diffusion model.
        reference: Run folder of an autoregressive model, for the perplexity.
        baseline: Run folder of an autoregressive model with the tokens of `run`, which fills too.
        numbers: Held-out texts with a span of 1 to 6 words to find.
        ranked: Number of them in which finished infills of each length are ranked too.
        halves: Held-out texts half of whose words are given.
        steps: Steps of the sampler.
    """
    quiet_libraries()
    model, tokenizer = load_model(run)
    if not isinstance(model, DiffusionLM):
        raise UserError(f"{run} is not a diffusion model")
    corpus = token_cache.load(sorted(Path(run, "tokens").glob("valid*"))[0])
    texts = [corpus[i].tolist() for i in range(len(corpus))]
    filler = Filler(model, tokenizer, SamplingConfig(steps=steps))
    if numbers:
        find_numbers(filler, [text for text in texts if len(text) >= SPAN + 2][-numbers:], ranked)
    if reference:
        fill_halves(filler, texts[:halves], reference, baseline)


@dataclass(frozen=True)
class Filler:
    """A model that fills [MASK]s."""

    model: DiffusionLM
    tokenizer: Tokenizer
    config: SamplingConfig

    @property
    def mask_id(self) -> int:
        return self.tokenizer.token_to_id(MASK)

    @property
    def special(self) -> list[int]:
        return [*special_ids(self.tokenizer)]

    def fill(self, sequences: list[list[int]], n: int = 1) -> list[list[int]]:
        """Fills each sequence in n ways."""
        requests = [infill_request(self.model, ids, n, self.mask_id) for ids in sequences]
        return [*collect(generate(self.model, self.tokenizer, joined(requests), self.config))]


def find_numbers(filler: Filler, texts: list[list[int]], ranked: int) -> None:
    """Prints how often the number of words that were cut out is found, in two ways."""
    model, mask_id, rng = filler.model, filler.mask_id, Random(0)
    nats, by_word, true = [], [], []
    start = time.process_time()
    for text in texts:
        span = rng.randint(1, SPAN)
        first = rng.randint(0, len(text) - span)
        parts = text[:first], text[first + span :]
        placed = [[*parts[0], *[mask_id] * m, *parts[1]] for m in range(1, LONGEST + 1)]
        true.append(span)
        nats.append(placement_nats(model, placed, mask_id, "auto"))
        if len(by_word) < ranked:
            paused = time.process_time()
            found = filler.fill(placed, 2)
            scores = sequence_nats(model, found, torch.tensor(0), precision="auto")
            scores = scores / torch.tensor([*map(len, found)])
            by_word.append(scores.view(LONGEST, 2).amin(1))
            start += time.process_time() - paused
    print(f"given words: {shares(nats, true)}")
    print(f"{(time.process_time() - start) / len(texts):.2f} s of CPU time per text", flush=True)
    if by_word:
        print(f"the first {ranked}: {shares(nats[:ranked], true)}")
        print(f"nats per word of finished infills: {shares(by_word, true)}", flush=True)


def fill_halves(
    filler: Filler, texts: list[list[int]], reference: str, baseline: str | None
) -> None:
    """Prints the perplexity of texts of which half was given, and the share of words kept."""
    judge, words = load_autoregressive(reference)

    def measured(sequences: list[list[int]]) -> float:
        decoded = [filler.tokenizer.decode(ids) for ids in sequences]
        return perplexity(ReferenceLM(judge), [tuple(words.encode(text).ids) for text in decoded])

    methods: dict[str, Fill] = {"textdiff": filler.fill}
    if baseline:
        fill = LeftToRight(load_autoregressive(baseline)[0], filler.mask_id, filler.special)
        methods |= {"ar, given words put in": fill.around, "ar, free": fill.onwards}
    everything, held_out, rng = defaultdict[str, list[list[int]]](list), measured(texts), Random(0)
    for kind in ("scattered", "prefix", "suffix"):
        masked = [half(text, kind, filler.mask_id, rng) for text in texts]
        for method, fill_all in methods.items():
            found = fill_all(masked)
            everything[method] += found
            pairs = [*zip(chain(*masked), chain(*map(padded, found, masked)), strict=True)]
            kept = [new == old for old, new in pairs if old != filler.mask_id]
            share, ratio = sum(kept) / len(kept), measured(found) / held_out
            print(f"{kind}, {method}: perplexity / held-out {ratio:.3f}, kept {share:.2%}")
    for method, found in everything.items():
        print(f"together, {method}: perplexity / held-out {measured(found) / held_out:.3f}")


def padded(found: list[int], masked: list[int]) -> list[int]:
    """The text as long as the masked one. Missing words are -1."""
    return [*found, *[-1] * len(masked)][: len(masked)]


@dataclass(frozen=True)
class LeftToRight:
    """An autoregressive model that fills [MASK]s, each given the words before it.

    Args:
        special: Tokens that are never drawn.
    """

    model: Autoregressive
    mask_id: int
    special: list[int]

    def around(self, texts: list[list[int]]) -> list[list[int]]:
        """Puts the given words in when their turn comes, and keeps the length."""
        found = self._filled(texts, lambda masked: masked, [*self.special, self.model.end])
        return [row[: len(text)] for row, text in zip(found, texts, strict=True)]

    def onwards(self, texts: list[list[int]]) -> list[list[int]]:
        """Writes on from the first [MASK], as long as it likes. Later words may get lost."""
        found = self._filled(texts, lambda masked: masked.cumsum(1) > 0, self.special)
        return [[*takewhile(lambda word: word != self.model.end, row)] for row in found]

    @torch.no_grad()
    def _filled(
        self, texts: list[list[int]], drawn: Callable[[Tensor], Tensor], never: list[int]
    ) -> list[list[int]]:
        rng = torch.Generator().manual_seed(0)
        start = torch.full((len(texts), self.model.config.length + 1), self.mask_id)
        start[:, 0] = self.model.end
        for row, text in zip(start, texts, strict=True):
            row[1 : len(text) + 1] = torch.tensor(text)
        ids, free = start.clone(), drawn(start == self.mask_id)
        longest = max(map(len, texts)) + 1 if self.model.end in never else ids.shape[1]
        for place in range(1, longest):
            logits = self.model.gpt(ids[:, :place]).logits[:, -1].float()
            logits[:, never] = -torch.inf
            words = torch.multinomial(logits.softmax(-1), 1, generator=rng).squeeze(1)
            ids[:, place] = torch.where(free[:, place], words, start[:, place])
        return ids[:, 1:].tolist()


def load_autoregressive(run: str) -> tuple[Autoregressive, Tokenizer]:
    """The autoregressive model of a run folder, and its tokenizer."""
    model, tokenizer = load_model(run)
    if not isinstance(model, Autoregressive):
        raise UserError(f"{run} is not an autoregressive model")
    return model, tokenizer


def half(text: list[int], kind: str, mask_id: int, rng: Random) -> list[int]:
    """The text with half of its words given: scattered ones, the first or the last."""
    size, count = len(text), len(text) - len(text) // 2
    places = {"prefix": range(count), "suffix": range(size - count, size)}
    given = {*places.get(kind, rng.sample(range(size), count))}
    return [word if i in given else mask_id for i, word in enumerate(text)]


def shares(nats: list[torch.Tensor], true: list[int]) -> str:
    """How often the most probable number is the true one, and within one of it."""
    best = torch.stack(nats).argmin(1) + 1
    distance = (best - torch.tensor(true[: len(best)])).abs()
    exact, near = ((distance <= limit).float().mean() for limit in (0, 1))
    return f"right {exact:.1%}, within one {near:.1%} of {len(best)}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    run_script(infill)
