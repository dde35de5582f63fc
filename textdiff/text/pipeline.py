"""Text from text: the tasks of a trained model, in Python and on the command line."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeVar

from tokenizers import Tokenizer

from textdiff.config import check
from textdiff.sampling import collect
from textdiff.text.requests import (
    TextModel,
    continue_request,
    infill_request,
    joined,
    rewrite_request,
    sample_request,
)
from textdiff.text.sampling import generate, load_model
from textdiff.text.targets import best_by_bleu, target_request
from textdiff.text.task import Task, TextOutput, checked_texts, sampling_options
from textdiff.text.tokenizer import (
    MASK,
    UNK,
    decode_after,
    decode_unknown,
    encode,
    fill_masks,
    tokens_of_words,
)

R = TypeVar("R")


class TextTasks(ABC, Generic[R]):
    """Tasks of a trained model. Subclasses say what becomes of a task.

    Further arguments of each task are the fields of `SamplingConfig` (steps, sampler, seed, ...)
    and of `DecodingConfig` (temperature, guidance_scale, order, require, forbid, ...).

    Args:
        model: A diffusion model, or the autoregressive baseline, which can sample and complete.
        tokenizer: Its tokenizer.
    """

    def __init__(self, model: TextModel, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer

    @abstractmethod
    def _run(self, task: Task) -> R:
        """Does the task."""

    def sample(self, n: int = 1, *, length: int | None = None, **options: Any) -> R:
        """Generates n texts from noise.

        Args:
            length: Tokens of each text. If None, drawn from the lengths of the training text.
        """
        sampling, decoding = sampling_options(n, options)
        request = sample_request(self.model, n, sampling.seed, length, decoding)
        return self._run(Task(request, lambda _, ids: self.tokenizer.decode(ids), sampling))

    def rewrite(
        self,
        text: str | Sequence[str],
        *,
        strength: float = 0.5,
        protect: Sequence[str] = (),
        n: int = 1,
        **options: Any,
    ) -> R:
        """Adds noise to texts and resamples them: n variations of each.

        Args:
            strength: Amount of noise, from 0 (the text itself) to 1 (only its length is kept).
            protect: Words or phrases that stay as they are.
        """
        sampling, decoding = sampling_options(n, options)
        rule = "between 0 (the text itself) and 1 (only its length is kept)"
        check(0 <= strength <= 1, "--strength", rule, strength)
        texts = checked_texts(text)

        kept = [tokens_of_words(self.tokenizer, each, protect) for each in texts]
        given = [encode(self.tokenizer, each) for each in texts]
        requests = [
            rewrite_request(self.model, ids, n, [strength * (not each) for each in row], decoding)
            for ids, row in zip(given, kept, strict=True)
        ]

        def decode(row: int, ids: list[int]) -> str:
            text, protected = texts[row // n], kept[row // n]
            if strength == 0:
                return text
            offsets = self.tokenizer.encode(text, add_special_tokens=False).offsets
            unknown = [
                text[start:end]
                for (start, end), token, keep in zip(offsets, ids, protected, strict=False)
                if keep and token == self.tokenizer.token_to_id(UNK)
            ]
            return decode_unknown(self.tokenizer, ids, unknown)

        return self._run(Task(joined(requests), decode, sampling))

    def infill(self, text: str | Sequence[str], *, n: int = 1, **options: Any) -> R:
        """Replaces each [MASK] of texts by one token, in n ways. Other words stay as they are."""
        sampling, decoding = sampling_options(n, options)
        texts, mask_id = checked_texts(text, mask=True), self.tokenizer.token_to_id(MASK)
        for each in texts:
            for mark in re.findall(r"\[[A-Za-z_]+\]", each):
                check(mark == MASK, "a missing word in --text", f"written {MASK}", mark)
        given = [encode(self.tokenizer, each) for each in texts]
        requests = [infill_request(self.model, ids, n, mask_id, decoding) for ids in given]

        def decode(row: int, ids: list[int]) -> str:
            return fill_masks(self.tokenizer, texts[row // n], given[row // n], ids)

        return self._run(Task(joined(requests), decode, sampling))

    def complete(
        self, text: str | Sequence[str], *, n: int = 1, length: int | None = None, **options: Any
    ) -> R:
        """Generates n texts that begin with each of the given ones.

        Args:
            length: Tokens of each text, its beginning included. If None, as in training.
        """
        sampling, decoding = sampling_options(n, options)
        texts = [each.rstrip() for each in checked_texts(text)]
        given = [encode(self.tokenizer, each) for each in texts]
        seed = sampling.seed
        requests = [continue_request(self.model, ids, n, seed, length, decoding) for ids in given]

        def decode(row: int, ids: list[int]) -> str:
            before = given[row // n]
            return texts[row // n] + decode_after(self.tokenizer, before, ids[len(before) :])

        return self._run(Task(joined(requests), decode, sampling))

    def generate(
        self,
        source: str | Sequence[str],
        *,
        n: int = 1,
        length: int | None = None,
        mbr: int = 1,
        **options: Any,
    ) -> R:
        """Generates n targets of each source, with a model that was trained on pairs.

        Args:
            length: Tokens of each target. If None, drawn from the lengths of the training text.
            mbr: Candidates for each target. The one that agrees best with the others is chosen:
                minimum Bayes risk with BLEU (Kumar & Byrne, 2004).
        """
        check(mbr >= 1, "--mbr", "at least 1", mbr)
        sampling, decoding = sampling_options(n * mbr, options)
        given = [encode(self.tokenizer, each) for each in checked_texts(source, "--source")]
        seed, many = sampling.seed, n * mbr
        requests = [target_request(self.model, ids, many, seed, length, decoding) for ids in given]

        def decode(row: int, ids: list[int]) -> str:
            return self.tokenizer.decode(ids[len(given[row // many]) + 1 :])

        select = best_by_bleu(mbr) if mbr > 1 else None
        return self._run(Task(joined(requests), decode, sampling, select))


class TextStream(TextTasks[Iterator[TextOutput]]):
    """The tasks as iterators over the steps of the sampler, batch after batch."""

    def _run(self, task: Task) -> Iterator[TextOutput]:
        batches = generate(self.model, self.tokenizer, task.request, task.sampling)
        return map(task.after_step, batches)


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
        return task.result([*collect(batches)])
