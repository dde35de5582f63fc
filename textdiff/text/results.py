"""Results of a task: the sampled texts, or the best of several candidates for each."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import islice
from typing import Any

from textdiff.config import SamplingConfig, check
from textdiff.prng import sample_keys
from textdiff.sampling import SampleBatch
from textdiff.text.requests import Request, TextModel
from textdiff.text.scores import sequence_nats


@dataclass(frozen=True)
class TextOutput:
    """Texts of a task. With several inputs, the texts of the first come first.

    Args:
        texts: The texts.
        sequences: Their tokens.
        rows: Number of each text in the task.
        step: Number of steps of the sampler so far, and `steps` in all. They are 0 for results.
        scores: -log p of each text in nats per token, if the texts are ranked.
    """

    texts: list[str]
    sequences: list[list[int]]
    rows: list[int]
    step: int = 0
    steps: int = 0
    scores: list[float] | None = None


@dataclass(frozen=True)
class Task:
    """A request for sequences of tokens, and how they become texts.

    Args:
        request: The request. It has `n * rank` candidates in a row for each of its groups.
        decode: Function (row of the request, tokens) -> text.
        sampling: Options of the sampler.
        n: Number of texts that are kept of each group.
        rank: Number of candidates for each text. If None, every candidate is kept.
        facts: What else is known of the texts of each group, such as their source.
    """

    request: Request
    decode: Callable[[int, list[int]], str]
    sampling: SamplingConfig
    n: int = 1
    rank: int | None = None
    facts: Sequence[dict[str, Any]] = ()

    def output(self, batch: SampleBatch[list[int]]) -> TextOutput:
        """The texts of a batch, in the order of the request."""
        pairs = sorted(zip(batch.rows, batch.samples, strict=True))
        texts = [self.decode(row, ids) for row, ids in pairs]
        rows, sequences = map(list, zip(*pairs, strict=True))
        return TextOutput(texts, sequences, rows, batch.step, batch.steps)


@dataclass(frozen=True)
class Result:
    """A text, its tokens, and its score in nats per token if it is ranked."""

    text: str
    ids: list[int]
    score: float | None = None


def candidates(n: int, rank: int | None) -> int:
    """Number of candidates for n texts. Raises UserError if `rank` is not a number of them."""
    check(rank is None or 1 <= rank <= 10**4, "--rank", "between 1 and 10,000", rank)
    return n * (rank or 1)


def results(model: TextModel, task: Task, found: Iterable[list[int]]) -> Iterator[Result]:
    """Yields the results of a task, each group as soon as it is complete.

    With ranking, those of a group come best first: the most probable per token. A text that
    repeats a better one comes after all different ones.

    Args:
        found: Tokens of each row of the request, in order.

    Raises:
        UserError: If texts to be ranked are longer than the model's sequences.
    """
    rows = enumerate(found)
    if task.rank is None:
        for row, ids in rows:
            yield Result(task.decode(row, ids), ids)
        return
    size, longest, length = task.n * task.rank, model.config.length, task.request.mask.shape[1]
    check(length <= longest, "--rank", f"left out for texts longer than {longest} tokens", length)
    key, precision = sample_keys(task.sampling.seed, 1)[0], task.sampling.precision
    while group := list(islice(rows, size)):
        nats = sequence_nats(model, [ids for _, ids in group], key, precision=precision)
        scored = [
            Result(task.decode(row, ids), ids, float(of_row) / len(ids))
            for (row, ids), of_row in zip(group, nats, strict=True)
        ]
        yield from best(scored, task.n)


def best(scored: list[Result], n: int) -> list[Result]:
    """The n best results, the best first, and repeated texts only if there are no others."""
    ranked = sorted(scored, key=lambda result: result.score or 0.0)
    first = {result.text: place for place, result in reversed([*enumerate(ranked)])}
    places = sorted(range(len(ranked)), key=lambda place: first[ranked[place].text] != place)
    return [ranked[place] for place in places[:n]]


def similarity(source: str, text: str) -> float:
    """Similarity of the words of two texts, from 0 to 1: `difflib.SequenceMatcher.ratio`.

    It is twice the number of words in matching blocks, divided by the number of words in both.
    """
    return SequenceMatcher(None, source.lower().split(), text.lower().split(), False).ratio()
