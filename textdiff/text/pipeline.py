"""Text from text: the tasks of a trained model, in Python and on the command line."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any, Generic, TypeVar

from tokenizers import Tokenizer

from textdiff.config import SamplingConfig, check
from textdiff.sampling import SampleBatch, collect
from textdiff.text.config import DecodingConfig
from textdiff.text.requests import (
    Request,
    TextModel,
    continue_request,
    infill_request,
    joined,
    rewrite_request,
    sample_request,
)
from textdiff.text.sampling import generate, load_model
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


@dataclass(frozen=True)
class TextOutput:
    """Texts of a task. With several inputs, the texts of the first come first.

    Args:
        texts: The texts.
        sequences: Their tokens.
        rows: Number of each text in the task.
        step: Number of steps of the sampler so far, and `steps` in all. They are 0 for results.
    """

    texts: list[str]
    sequences: list[list[int]]
    rows: list[int]
    step: int = 0
    steps: int = 0


@dataclass(frozen=True)
class Task:
    """A request for sequences of tokens, and how they become texts.

    Args:
        request: The request.
        decode: Function (row of the request, tokens) -> text.
        sampling: Options of the sampler.
    """

    request: Request
    decode: Callable[[int, list[int]], str]
    sampling: SamplingConfig

    def output(self, batch: SampleBatch[list[int]]) -> TextOutput:
        """The texts of a batch, in the order of the request."""
        pairs = sorted(zip(batch.rows, batch.samples, strict=True))
        texts = [self.decode(row, ids) for row, ids in pairs]
        rows, sequences = map(list, zip(*pairs, strict=True))
        return TextOutput(texts, sequences, rows, batch.step, batch.steps)


class TextTasks(ABC, Generic[R]):
    """Tasks of a trained model. Subclasses say what becomes of a task.

    Further arguments of each task are the fields of `SamplingConfig` (steps, sampler, seed, ...)
    and of `DecodingConfig` (temperature, guidance_scale, order, window, ...).

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
        sampling, decoding = _configs(n, options)
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
        sampling, decoding = _configs(n, options)
        rule = "between 0 (the text itself) and 1 (only its length is kept)"
        check(0 <= strength <= 1, "--strength", rule, strength)
        texts = _checked(text)

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
        sampling, decoding = _configs(n, options)
        texts, mask_id = _checked(text, mask=True), self.tokenizer.token_to_id(MASK)
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
        sampling, decoding = _configs(n, options)
        texts = [each.rstrip() for each in _checked(text)]
        given = [encode(self.tokenizer, each) for each in texts]
        seed = sampling.seed
        requests = [continue_request(self.model, ids, n, seed, length, decoding) for ids in given]

        def decode(row: int, ids: list[int]) -> str:
            before = given[row // n]
            return texts[row // n] + decode_after(self.tokenizer, before, ids[len(before) :])

        return self._run(Task(joined(requests), decode, sampling))


class TextStream(TextTasks[Iterator[TextOutput]]):
    """The tasks as iterators over the steps of the sampler, batch after batch."""

    def _run(self, task: Task) -> Iterator[TextOutput]:
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
        found = [*collect(batches)]
        texts = [task.decode(row, ids) for row, ids in enumerate(found)]
        return TextOutput(texts, found, list(range(len(found))))


def _configs(n: int, options: dict[str, Any]) -> tuple[SamplingConfig, DecodingConfig]:
    """The options of sampling and of decoding. Raises TypeError if there are others."""
    check(1 <= n <= 10**7, "--n", "between 1 and 10,000,000", n)
    names = [{field.name for field in fields(kind)} for kind in (SamplingConfig, DecodingConfig)]
    for name in options.keys() - names[0] - names[1]:
        nearest = get_close_matches(name, [*names[0], *names[1]], n=1)
        hint = f": did you mean {nearest[0]}?" if nearest else ""
        raise TypeError(f"unexpected argument {name}{hint}")
    sampling, decoding = ({k: v for k, v in options.items() if k in each} for each in names)
    return SamplingConfig(**sampling), DecodingConfig(**decoding)


def _checked(text: str | Sequence[str], mask: bool = False) -> list[str]:
    """The texts as a list.

    Args:
        mask: Whether [MASK] may occur.

    Raises:
        UserError: If one is empty, is not valid Unicode, or has a [MASK] where none may be.
    """
    texts = [text] if isinstance(text, str) else [*text]
    check(bool(texts), "the text", "at least one", texts)
    for each in texts:
        check(bool(each.strip()), "--text", "a text", each)
        valid = each == each.encode("utf-8", "ignore").decode()
        check(valid, "--text", "valid UTF-8", ascii(each))
        check(mask or MASK not in each, "--text", f"without {MASK}, which infill fills", each)
    return texts
