"""Text from text: the tasks of a trained model, in Python and on the command line."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any, Generic, TypeVar

from tokenizers import Tokenizer

from textdiff.config import check
from textdiff.sampling import collect
from textdiff.text.config import DecodingConfig
from textdiff.text.inputs import checked_strengths, checked_texts, for_each, task_configs
from textdiff.text.lengths import choose_lengths
from textdiff.text.requests import (
    Request,
    TextModel,
    continue_request,
    infill_request,
    joined,
    resolve_decoding,
    rewrite_request,
    sample_request,
)
from textdiff.text.results import Task, TextOutput, candidates, results
from textdiff.text.sampling import generate, load_model
from textdiff.text.scores import TextLikelihood, encode_whole, text_likelihood
from textdiff.text.tokenizer import (
    MASK,
    decode_after,
    decode_kept,
    encode,
    fill_masks,
    tokens_of_words,
)

R = TypeVar("R")


class TextTasks(ABC, Generic[R]):
    """Tasks of a trained model. Subclasses say what becomes of a task.

    Further arguments of each task are the fields of `SamplingConfig` (steps, sampler, seed, ...)
    and of `DecodingConfig` (temperature, guidance_scale, order, window, ...). With `rank`, that
    many candidates are sampled for each text, and the best of all are kept, best first: those of
    the lowest bound of -log p per token.

    Args:
        model: A diffusion model, or the autoregressive baseline, which can sample and complete.
        tokenizer: Its tokenizer.
    """

    def __init__(self, model: TextModel, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer

    @abstractmethod
    def _run(self, task: Task) -> R:
        """Does the task."""

    def sample(
        self, n: int = 1, *, length: int | None = None, rank: int | None = None, **options: Any
    ) -> R:
        """Generates n texts from noise.

        Args:
            length: Tokens of each text. If None, drawn from the lengths of the training text.
            rank: Candidates for each text, if texts are ranked.
        """
        sampling, decoding = task_configs(n, options)
        request = sample_request(self.model, candidates(n, rank), sampling.seed, length, decoding)
        task = Task(request, lambda _, ids: self.tokenizer.decode(ids), sampling, n, rank)
        return self._run(task)

    def rewrite(
        self,
        text: str | Sequence[str],
        *,
        strength: float | Sequence[float | int] = 0.5,
        protect: Sequence[str] = (),
        n: int = 1,
        rank: int | None = None,
        **options: Any,
    ) -> R:
        """Adds noise to texts and resamples them: n variations of each.

        Args:
            strength: Amount of noise, from 0 (the text itself) to 1 (only its length is kept).
                Several strengths give n variations of each text at the first, then at the next.
            protect: Words or phrases that stay as they are.
            rank: Candidates for each variation, if those of a text and strength are ranked.
        """
        sampling, decoding = task_configs(n, options)
        strengths, texts = checked_strengths(strength), checked_texts(text)
        size = candidates(n, rank)
        kept = for_each(texts, lambda each: tokens_of_words(self.tokenizer, each, protect))
        pairs = [*zip(texts, kept, strict=True)]
        groups = [(*pair, each) for pair in pairs for each in strengths]

        def requests(pair: tuple[str, list[bool]]) -> list[Request]:
            ids = encode(self.tokenizer, pair[0])
            noise = ([each * (not keep) for keep in pair[1]] for each in strengths)
            return [rewrite_request(self.model, ids, size, row, decoding) for row in noise]

        def decode(row: int, ids: list[int]) -> str:
            text, kept, strength = groups[row // size]
            return decode_kept(self.tokenizer, text, kept, ids) if strength else text

        facts = [{"source": text, "strength": strength} for text, _, strength in groups]
        parts = [*chain(*for_each(pairs, requests))]
        return self._run(Task(joined(parts), decode, sampling, n, rank, facts))

    def infill(
        self,
        text: str | Sequence[str],
        *,
        n: int = 1,
        longest: int = 8,
        rank: int | None = None,
        **options: Any,
    ) -> R:
        """Replaces each [MASK] of texts by one token, in n ways. Other words stay as they are.

        A [MASK*] stands for one or more tokens. Their number is drawn for each of the n texts from
        its probability given the other words (see `textdiff.text.lengths`).

        Args:
            longest: Largest number of tokens for which a [MASK*] stands.
            rank: Candidates for each of the n texts, if texts are ranked.
        """
        sampling, decoding = task_configs(n, options)
        resolve_decoding(self.model, decoding)
        texts, size = checked_texts(text, mask=True), candidates(n, rank)

        def rows_of(each: str) -> list[tuple[str, Request]]:
            chosen = choose_lengths(self.model, self.tokenizer, each, size, longest, sampling)
            made = {masked: self._infill_request(masked, decoding) for masked in {*chosen}}
            return [(masked, made[masked]) for masked in chosen]

        rows, requests = zip(*chain(*for_each(texts, rows_of)), strict=True)

        def decode(row: int, ids: list[int]) -> str:
            return fill_masks(self.tokenizer, rows[row], requests[row].ids[0].tolist(), ids)

        return self._run(
            Task(joined(requests), decode, sampling, n, rank, [{"source": each} for each in texts])
        )

    def _infill_request(self, masked: str, decoding: DecodingConfig) -> Request:
        ids = self.tokenizer.encode(masked, add_special_tokens=False).ids
        mask_id = self.tokenizer.token_to_id(MASK)
        return infill_request(self.model, ids, 1, mask_id, decoding)

    def complete(
        self,
        text: str | Sequence[str],
        *,
        n: int = 1,
        length: int | None = None,
        rank: int | None = None,
        **options: Any,
    ) -> R:
        """Generates n texts that begin with each of the given ones.

        Args:
            length: Tokens of each text, its beginning included. If None, as in training.
            rank: Candidates for each of the n texts, if texts are ranked.
        """
        sampling, decoding = task_configs(n, options)
        texts, size = [each.rstrip() for each in checked_texts(text)], candidates(n, rank)
        given, seed = [encode(self.tokenizer, each) for each in texts], sampling.seed

        def request(ids: list[int]) -> Request:
            return continue_request(self.model, ids, size, seed, length, decoding)

        def decode(row: int, ids: list[int]) -> str:
            before = given[row // size]
            return texts[row // size] + decode_after(self.tokenizer, before, ids[len(before) :])

        requests = joined(for_each(given, request))
        return self._run(
            Task(requests, decode, sampling, n, rank, [{"source": each} for each in texts])
        )


class TextStream(TextTasks[Iterator[TextOutput]]):
    """The tasks as iterators over the steps of the sampler, batch after batch."""

    def _run(self, task: Task) -> Iterator[TextOutput]:
        rule = "left out of stream: candidates are ranked when they are finished"
        check(task.rank is None, "rank", rule, task.rank)
        batches = generate(self.model, self.tokenizer, task.request, task.sampling)
        return map(task.output, batches)


class TextDiffusion(TextTasks[TextOutput]):
    """A trained text model: sample, rewrite, infill, complete.

    The same seed gives the same texts, whatever the batch size is.
    """

    @classmethod
    def from_pretrained(cls, name: str) -> "TextDiffusion":
        """Loads a model to this process's device.

        Args:
            name: A run folder, its model/ folder, or a model on the Hugging Face hub.
        """
        return cls(*load_model(name))

    @property
    def stream(self) -> TextStream:
        """The same tasks, which yield the texts after every step."""
        return TextStream(self.model, self.tokenizer)

    def _run(self, task: Task) -> TextOutput:
        batches = generate(self.model, self.tokenizer, task.request, task.sampling)
        found = [*results(self.model, task, collect(batches))]
        texts, sequences = [each.text for each in found], [each.ids for each in found]
        scores = None if task.rank is None else [each.score or 0.0 for each in found]
        return TextOutput(texts, sequences, [*range(len(found))], scores=scores)

    def log_likelihood(
        self, texts: str | Sequence[str], *, draws: int = 64, seed: int = 0
    ) -> TextLikelihood:
        """-log p of each text and of its length in nats: exact, or an upper bound.

        It is exact for an autoregressive model. A diffusion model has a variational bound
        (arXiv:2006.11239, eq. 5), estimated without bias from random draws.

        Args:
            draws: Noise levels drawn for each text. Four times as many halve the standard error.
            seed: Seed of the draws.

        Raises:
            UserError: If a text is empty or longer than the model's sequences.
        """
        found = for_each(checked_texts(texts), partial(encode_whole, self.model, self.tokenizer))
        return text_likelihood(self.model, found, draws, seed)
