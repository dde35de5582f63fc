"""A task of a text model: a request for tokens, how they become texts, and its options."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any

from textdiff.config import SamplingConfig, check
from textdiff.sampling import SampleBatch
from textdiff.text.config import DecodingConfig
from textdiff.text.requests import Request
from textdiff.text.tokenizer import MASK


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
        select: Function (texts of all rows) -> rows that are the result, in their order. If None,
            all rows are.
    """

    request: Request
    decode: Callable[[int, list[int]], str]
    sampling: SamplingConfig
    select: Callable[[list[str]], list[int]] | None = None

    def after_step(self, batch: SampleBatch[list[int]]) -> TextOutput:
        """The texts of a batch after a step, in the order of the request."""
        pairs = sorted(zip(batch.rows, batch.samples, strict=True))
        texts = [self.decode(row, ids) for row, ids in pairs]
        rows, sequences = map(list, zip(*pairs, strict=True))
        return TextOutput(texts, sequences, rows, batch.step, batch.steps)

    def result(self, sequences: list[list[int]]) -> TextOutput:
        """The selected texts.

        Args:
            sequences: Those of all rows.
        """
        texts = [self.decode(row, ids) for row, ids in enumerate(sequences)]
        rows = self.select(texts) if self.select else [*range(len(texts))]
        return TextOutput([texts[row] for row in rows], [sequences[row] for row in rows], rows)


def sampling_options(n: int, options: dict[str, Any]) -> tuple[SamplingConfig, DecodingConfig]:
    """The options of sampling and of decoding. Raises TypeError if there are others."""
    check(1 <= n <= 10**7, "--n", "between 1 and 10,000,000", n)
    names = [{field.name for field in fields(kind)} for kind in (SamplingConfig, DecodingConfig)]
    for name in options.keys() - names[0] - names[1]:
        nearest = get_close_matches(name, [*names[0], *names[1]], n=1)
        hint = f": did you mean {nearest[0]}?" if nearest else ""
        raise TypeError(f"unexpected argument {name}{hint}")
    sampling, decoding = ({k: v for k, v in options.items() if k in each} for each in names)
    return SamplingConfig(**sampling), DecodingConfig(**decoding)


def checked_texts(text: str | Sequence[str], mask: bool = False) -> list[str]:
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
