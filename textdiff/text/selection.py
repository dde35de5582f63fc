"""Selections among candidates: the most probable per token, or the one most like the others."""

import importlib.util
import re
from collections.abc import Callable
from dataclasses import replace
from difflib import SequenceMatcher

from textdiff.config import SamplingConfig, UserError, check
from textdiff.prng import sample_keys
from textdiff.text.requests import Request, TextModel
from textdiff.text.sequence_likelihood import ranking_order, sequence_nats
from textdiff.text.task import Result, Selection


def ranking(
    model: TextModel,
    request: Request,
    n: int,
    rank: int | None,
    sampling: SamplingConfig,
    source_of: Callable[[int], str] | None = None,
) -> Selection | None:
    """Selection of the n best of `n * rank` candidates, the best first; None without `rank`.

    Candidates are compared by nats per token: per token of the target in a model of pairs. A text
    that repeats a better one, or the text that is rewritten, comes after all others.

    Args:
        source_of: Text of a row. If not None, candidates are compared by similarity to it first.

    Raises:
        UserError: If texts are longer than the model's sequences, or for `source_of` alone.
    """
    if rank is None:
        check(source_of is None, "--rank_by", "left out without --rank", "similarity")
        return None
    longest, length = model.config.length, request.mask.shape[1]
    check(length <= longest, "--rank", f"left out for texts longer than {longest} tokens", length)
    key, precision = sample_keys(sampling.seed, 1)[0], sampling.precision
    order, separator = ranking_order(model), model.config.separator

    def coded(ids: list[int]) -> int:
        return len(ids) - (ids.index(separator) + 1 if model.config.has_sources else 0)

    def choose(candidates: list[Result]) -> list[Result]:
        found = [each.ids for each in candidates]
        nats = sequence_nats(model, found, key, order=order, precision=precision).tolist()
        pairs = zip(candidates, nats, strict=True)
        scored = [replace(each, score=total / coded(each.ids)) for each, total in pairs]
        row = candidates[0].row
        given = request.ids[row][request.mask[row]].tolist()
        return best(scored, n, given, source_of and source_of(row))

    return Selection(n * rank, choose)


def best(scored: list[Result], n: int, given: list[int], source: str | None = None) -> list[Result]:
    """The n best results, the best first, and repeated texts only if there are no others.

    Args:
        given: Tokens of the given text. A result with the same tokens counts as repeated.
        source: Text to which the best results are most similar. If None, they have the best score.
    """

    def place_of(result: Result) -> tuple[float, float]:
        likeness = similarity(source, result.text) if source else 0.0
        return -likeness, result.score or 0.0

    ranked = sorted(scored, key=place_of)
    first = {result.text: place for place, result in reversed([*enumerate(ranked)])}

    def repeats(place: int) -> bool:
        return first[ranked[place].text] != place or ranked[place].ids == given

    return [ranked[place] for place in sorted(range(len(ranked)), key=repeats)[:n]]


def most_like_others(candidates: int) -> Selection | None:
    """Selection of the candidate most like the others by BLEU; None if there is only one.

    Raises:
        UserError: If sacrebleu is missing.
    """
    if candidates == 1:
        return None
    if importlib.util.find_spec("sacrebleu") is None:
        raise UserError("--mbr needs sacrebleu: pip install 'textdiff[evaluate]'")
    from sacrebleu import sentence_bleu

    def choose(group: list[Result]) -> list[Result]:
        def agreement(result: Result) -> float:
            others = (other.text for other in group if other is not result)
            return sum(sentence_bleu(result.text, [other]).score for other in others)

        return [max(group, key=agreement)]  # the first of equal ones

    return Selection(candidates, choose)


def similarity(source: str, text: str) -> float:
    """Similarity of the words of two texts, from 0 to 1: `difflib.SequenceMatcher.ratio`.

    It is twice the number of words in matching blocks, divided by the number of words in both.
    Punctuation marks are words, whether or not a space precedes them.
    """
    first, second = (re.findall(r"\w+|[^\w\s]", each.lower()) for each in (source, text))
    return SequenceMatcher(None, first, second, False).ratio()
