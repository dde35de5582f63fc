"""A task of a text model: a request for tokens, how they become texts, and which are kept."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

from textdiff.config import SamplingConfig
from textdiff.sampling import SampleBatch
from textdiff.text.inputs import RowError, TextError
from textdiff.text.requests import Request


@dataclass(frozen=True)
class TextOutput:
    """Texts of a task. With several inputs, the texts of the first come first.

    Args:
        texts: The texts.
        sequences: Their tokens.
        rows: Number of each text in the task.
        step: Number of steps of the sampler so far, and `steps` in all. They are 0 for results.
        scores: -log p of each text in nats per token, if the texts are ranked.
        probabilities: Predicted probability of each token of `sequences` at this step, if the model
            predicts them. It is 1 for given tokens, and None for results.
    """

    texts: list[str]
    sequences: list[list[int]]
    rows: list[int]
    step: int = 0
    steps: int = 0
    scores: list[float] | None = None
    probabilities: list[list[float]] | None = None


@dataclass(frozen=True)
class Result:
    """A text, its tokens, its row in the request, and its nats per token if it is ranked."""

    text: str
    ids: list[int]
    row: int
    score: float | None = None


@dataclass(frozen=True)
class Selection:
    """A choice among several candidates for the same text.

    Args:
        size: Number of candidates in a row of the request from which `choose` chooses.
        choose: Function (candidates) -> results, in their order.
    """

    size: int
    choose: Callable[[list[Result]], list[Result]]


@dataclass(frozen=True)
class Task:
    """A request for sequences of tokens, and how they become texts.

    Args:
        request: The request.
        decode: Function (row of the request, tokens) -> text.
        sampling: Options of the sampler.
        select: Choice of the results. If None, all rows are results.
        given: The given texts, if there are any. Each has an equal part of the request's rows.
        strengths: Strengths of rewriting. Each has an equal part of the rows of a text.
        option: Name of the option of the given texts.
    """

    request: Request
    decode: Callable[[int, list[int]], str]
    sampling: SamplingConfig
    select: Selection | None = None
    given: Sequence[str] = ()
    strengths: Sequence[float] = ()
    option: str = "--text"

    def after_step(self, batch: SampleBatch[list[int]]) -> TextOutput:
        """The texts of a batch after a step, in the order of the request."""
        order = sorted(range(len(batch.rows)), key=batch.rows.__getitem__)
        rows, sequences = [batch.rows[i] for i in order], [batch.samples[i] for i in order]
        texts = [*map(self.decode, rows, sequences)]
        known = [batch.probabilities[i] for i in order] if batch.probabilities else None
        progress = batch.step, batch.steps
        return TextOutput(texts, sequences, rows, *progress, probabilities=known)

    def results(self, found: Iterable[list[int]]) -> Iterator[Result]:
        """Yields the results, those of each group of candidates as soon as it is complete.

        Args:
            found: Tokens of each row of the request, in order.
        """
        every = (Result(self.decode(row, ids), ids, row) for row, ids in enumerate(found))
        if self.select is None:
            yield from every
            return
        while candidates := list(islice(every, self.select.size)):
            yield from self.select.choose(candidates)

    def output(self, found: Iterable[list[int]]) -> TextOutput:
        """The results as one output. The argument is that of `results`."""
        results = [*self.results(found)]
        texts, sequences = [each.text for each in results], [each.ids for each in results]
        scores = [each.score for each in results if each.score is not None]
        return TextOutput(texts, sequences, [each.row for each in results], scores=scores or None)

    def facts_of(self, row: int) -> dict[str, Any]:
        """The given text and the strength of a row, if there are any."""
        if not self.given:
            return {}
        count = max(1, len(self.strengths))
        part = row * len(self.given) * count // len(self.request.ids)
        text, place = divmod(part, count)
        strength = {"strength": self.strengths[place]} if self.strengths else {}
        return {"source": self.given[text]} | strength

    @contextmanager
    def naming_texts(self) -> Iterator[None]:
        """Within it, an error in a row names the given text, if there are several."""
        try:
            yield
        except RowError as error:
            if len(self.given) < 2:
                raise
            index = error.row * len(self.given) // len(self.request.ids)
            raise TextError(error, index, self.option) from None
