"""Selections among candidates: the most probable per token, or the one most like the others."""

import importlib.util
import re
from dataclasses import replace
from difflib import SequenceMatcher

from textdiff.config import SamplingConfig, UserError, check
from textdiff.prng import sample_keys
from textdiff.text.requests import Request, TextModel
from textdiff.text.sequence_likelihood import sequence_nats
from textdiff.text.task import Result, Selection


def ranking(
    model: TextModel, request: Request, n: int, rank: int | None, sampling: SamplingConfig
) -> Selection | None:
    """Selection of the n most probable of `n * rank` candidates, best first; None without `rank`.

    Candidates are compared by nats per token: per token of the target in a model of pairs. A text
    that repeats a better one, or the text that is rewritten, comes after all others.

    Raises:
        UserError: If texts to be ranked are longer than the model's sequences.
    """
    if rank is None:
        return None
    longest, length = model.config.length, request.mask.shape[1]
    check(length <= longest, "--rank", f"left out for texts longer than {longest} tokens", length)
    key, separator = sample_keys(sampling.seed, 1)[0], model.config.separator

    def coded(ids: list[int]) -> int:
        return len(ids) - (ids.index(separator) + 1 if model.config.has_sources else 0)

    def choose(candidates: list[Result]) -> list[Result]:
        sequences = [each.ids for each in candidates]
        nats = sequence_nats(model, sequences, key, precision=sampling.precision).tolist()
        scored = [
            replace(each, score=of_text / coded(each.ids))
            for each, of_text in zip(candidates, nats, strict=True)
        ]
        row = candidates[0].row
        return best(scored, n, request.ids[row][request.mask[row]].tolist())

    return Selection(n * rank, choose)


def best(scored: list[Result], n: int, given: list[int]) -> list[Result]:
    """The n best results, the best first, and repeated texts only if there are no others.

    Args:
        given: Tokens of the given text. A result with the same tokens counts as repeated.
    """
    ranked = sorted(scored, key=lambda result: result.score or 0.0)
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
