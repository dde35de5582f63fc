"""Texts and options that a user gives to a task. This module imports nothing heavy."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from textdiff.config import UserError, check
from textdiff.text.special_tokens import ANY_NUMBER, MASK, PAD, SEPARATOR

S = TypeVar("S")
T = TypeVar("T")


class TextError(UserError):
    """An error in one of several texts.

    Args:
        error: The error.
        index: Number of the text, from 0.
        option: Name of the option of the texts.
    """

    def __init__(self, error: UserError, index: int, option: str) -> None:
        name, message = f"{option} (number {index + 1})", str(error)
        rest = message.removeprefix(option)
        super().__init__(f"{name}: {message}" if rest == message else name + rest)
        self.error, self.index = error, index


class RowError(UserError):
    """An error in a row of a request. `row` is its number, from 0."""

    def __init__(self, message: str, row: int) -> None:
        super().__init__(message)
        self.row = row


def for_each(texts: Iterable[S], make: Callable[[S], T], option: str = "--text") -> list[T]:
    """`make(text)` of each text. Raises TextError for an error in one of several."""
    texts, made = [*texts], list[T]()
    for index, text in enumerate(texts):
        try:
            made.append(make(text))
        except UserError as error:
            raise TextError(error, index, option) if len(texts) > 1 else error from None
    return made


def checked_texts(
    text: str | Sequence[str], option: str = "--text", mask: bool = False
) -> list[str]:
    """The texts as a list.

    Args:
        option: Name of the option in messages.
        mask: Whether [MASK] and [MASK*] may occur.

    Raises:
        UserError: If one is empty, is not valid Unicode, or has a [MASK] where none may be.
    """

    def checked(each: str) -> str:
        check(bool(each.strip()), option, "a text that is not empty", each)
        valid = each == each.encode("utf-8", "ignore").decode()
        check(valid, option, "valid UTF-8", ascii(each))
        for mark in () if mask else (MASK, ANY_NUMBER):
            check(mark not in each, option, f"without {mark}, which infill fills", each)
        for mark in (PAD, SEPARATOR):
            check(mark not in each, option, f"without {mark}, which models use themselves", each)
        return each

    texts = [text] if isinstance(text, str) else [*text]
    check(bool(texts), option, "at least one text", texts)
    return for_each(texts, checked, option)


def checked_strengths(strength: float | Sequence[float | int]) -> list[float]:
    """The strengths as a list. Raises UserError if one is not between 0 and 1, or none is given."""
    strengths = [strength] if isinstance(strength, int | float) else [*strength]
    check(bool(strengths), "--strength", "at least one number", strengths)
    for each in strengths:
        rule = "between 0 (the text itself) and 1 (only its length is kept)"
        check(0 <= each <= 1, "--strength", rule, each)
    return strengths


def candidates(n: int, rank: int | None) -> int:
    """Number of candidates for n texts. Raises UserError if `n` or `rank` is impossible."""
    check(1 <= n <= 10**7, "--n", "between 1 and 10,000,000", n)
    check(rank is None or 1 <= rank <= 10**4, "--rank", "between 1 and 10,000", rank)
    return n * (rank or 1)
