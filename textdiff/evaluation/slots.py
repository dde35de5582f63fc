"""Slot errors of restaurant descriptions (E2E NLG, Novikova et al., arXiv:1706.09254).

A meaning is a set of slots such as food = Italian. Regular expressions look for the values in a
description, as in Dusek, Howcroft & Rieser (arXiv:1911.03905). The slot error rate is

    (missing + wrong + invented) / slots of the meanings.

missing: no value of the slot is mentioned. wrong: only another value is. invented: a value of a
slot that the meaning does not have, or a second value of one that it has.

Limits: the expressions know common phrasings and not all, so rates of other expressions are not
comparable. Report the rate of the references beside them: it has their own errors and those of
the expressions. Prices and ratings are compared in three levels: "cheap" stands for "less than
£20", and "3 out of 5" for "average". "Restaurant" is never invented. Only names that some meaning
has are recognized, and a value that is said of another place counts as said of the first.
"""

import re
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

Meaning = dict[str, str]  # slot -> value

SLOTS = {  # names in both notations
    **{name: name for name in ("name", "near", "food", "area", "type", "price")},
    **{"eattype": "type", "pricerange": "price", "customer rating": "customer rating"},
    **dict.fromkeys(("family friendly", "familyfriendly"), "family friendly"),
}
LEVELS = {  # values in words of the patterns below
    "price": {
        "low": ("cheap", "less than £ 20"),
        "mid": ("moderate", "£ 20 25"),
        "high": ("high", "more than £ 30"),
    },
    "customer rating": {
        "low": ("low", "1 out of 5"),
        "mid": ("average", "3 out of 5"),
        "high": ("high", "5 out of 5"),
    },
}
GENERIC = {"restaurant"}  # said of every place
DIGITS = {"one": "1", "three": "3", "five": "5", "twenty": "20", "thirty": "30"}

NOT = r"\b(?:not(?! only)|\w*n't|no|non|never|without)"
FAMILY = r"\b(?:famil\w+|child\w*|kids?|all ages)(?:'s)?"
COST = r"(?:pric\w+|costs?)"
RATED = r"(?:rat(?:e|es|ed|ings?)|reviews?|reviewed|scores?|ranked|feedback)"
GOOD = "high|highly|higher|highest|great|excellent|good|top|well|perfect"
FAIR = "average|averagely|moderate|moderately|decent|mid|medium|fair|fairly|okay"
POOR = "low|lowly|lower|lowest|poor|bad|terrible|below average|lower than average"
MIDDLE = "moderate|moderately|average|averagely|medium|mid|middle|reasonable|reasonably|fair|fairly"
LINK = r"(?:(?:that|is|are|was|it|its|of|at|in|as|a|an|the|range|score|being|very|quite) )*"


def _of(noun: str, words: str) -> str:
    """Pattern of words said of a noun: `low customer rating`, `rated low`."""
    between = rf"(?: (?!{COST}|{RATED})\w+)?"
    return rf"\b(?:{words}){between} {noun}\b|\b{noun} {LINK}(?:{words})\b"


def _points(number: int) -> str:
    """Pattern of a rating such as `5 out of 5`, `5 stars` or `rated 5`."""
    alone = _of(RATED, rf"{number}(?! (?:out|of|5)\b)")
    return rf"\b{number} (?:out )?(?:of )?(?:a possible )?5\b|\b{number} stars?\b|{alone}"


# Patterns of the values of each slot. A passage that one value takes is no other value of the slot.
VALUES = {
    "food": {
        "fast food": r"\bfast foods?|burger|\bfries\b|\bjunk food",
        "english": r"\b(?:english|british|fish and chips)",
        "french": r"\bfrench",
        "italian": r"\b(?:italian|pasta|pizza|spaghetti)",
        "indian": r"\b(?:indian|curry|curries)",
        "chinese": r"\bchinese",
        "japanese": r"\b(?:japanese|sushi)",
    },
    "area": {
        "riverside": r"\b(?:river|waterfront|waterside|water's edge)",
        "city centre": r"\b(?:city|town|central) ?(?:centre|center|area)|\bcent(?:re|er) of\b"
        r"|\bcent(?:re|er) city|\b(?:in|of) the (?:city|centre|center)\b|\bdowntown"
        r"|\bcentral(?:ly)?\b|\bheart of",
    },
    "type": {
        "coffee shop": r"\b(?:coffee|cafes?\b)",
        "pub": r"\b(?:pubs?|taverns?|bar)\b",
        "restaurant": r"\b(?:restaur|diner|eatery|bistro)",
    },
    "price": {
        "high": rf"\b(?:more than|over|above|higher than|at least|starting at) (?:£ )?30|£ 30"
        rf"|\b30 (?:pounds|and|or|plus)|{NOT} (?:\w+ )?(?:cheap|inexpensive)\w*|\bhigh end"
        rf"|\b(?:expensive|pricey|costly|upscale)|{_of(COST, 'high|higher|highly|above average')}",
        "mid": rf"\b20 (?:(?:to|and) )?(?:£ )?25|{NOT} (?:\w+ )?(?:expensive|pricey)|\bmid pric"
        rf"|\b(?:moderate|average|mid) range|{_of(COST, MIDDLE)}",
        "low": rf"\b(?:cheap|inexpensive|affordabl|economical|budget|bargain)|£ 20\b"
        rf"|\b(?:less than|under|below|lower than|no more than|up to|cheaper than) (?:£ )?20"
        rf"|{_of(COST, 'low|lower|lowest|good|great')}",
    },
    "customer rating": {
        "low": rf"{_points(1)}|\bpoorly|\bbadly|{NOT} (?:\w+ )?(?:well|highly|good|great) {RATED}"
        rf"|{NOT} {RATED} (?:\w+ )?(?:well|highly|high)|\b(?:un|under|low)rated|{_of(RATED, POOR)}",
        "mid": rf"{_points(3)}|{_of(RATED, FAIR)}",
        "high": rf"{_points(5)}|\b(?:highly|well) (?:rated|recommended|reviewed|regarded|liked)"
        rf"|{_of(RATED, GOOD)}",
    },
    "family friendly": {
        "no": rf"{NOT}\b(?:(?! (?:but|and|yet) )[^.,;]){{0,25}}?{FAMILY}(?: (?:or|with) {FAMILY})*"
        rf"|{FAMILY}[^.,;]{{0,12}}(?:{NOT}|unfriendly|unwelcome)\b|\badults?\b|\bunfriendly",
        "yes": FAMILY,
    },
}
PATTERNS = {slot: {v: re.compile(p) for v, p in each.items()} for slot, each in VALUES.items()}


class SlotCounts(NamedTuple):
    """Number of slots of meanings, and of errors in their descriptions."""

    slots: int
    missing: int
    wrong: int
    invented: int

    @property
    def errors(self) -> int:
        """Number of all errors."""
        return self.missing + self.wrong + self.invented


def parse_meaning(text: str) -> Meaning | None:
    """Slots of a meaning such as `name : X | food : Y` or `name[X], food[Y]`; None if it is none.

    Values are in lower case, with single spaces and without accents.
    """
    release = re.findall(r"([^\[\],]+)\[([^\]]*)\]", text)
    parts = release or [part.partition(":")[::2] for part in text.split("|")]
    meaning = Meaning()
    for name, value in parts:
        slot = SLOTS.get(name.strip().lower(), "")
        if found := _value(slot, _plain(value)):
            meaning[slot] = found
    return meaning if len(meaning) == len(parts) and "name" in meaning else None


class SlotErrors:
    """Counts slot errors of descriptions.

    Args:
        meanings: Meanings whose names are recognized in descriptions.
    """

    def __init__(self, meanings: Iterable[Meaning]) -> None:
        names = {m[slot] for m in meanings for slot in ("name", "near") if slot in m}
        longest_first = sorted(names, key=len, reverse=True)
        self.names = {name: re.compile(rf"\b(?:the )?{_short(name)}\b") for name in longest_first}

    def __call__(self, meaning: Meaning, text: str) -> SlotCounts:
        """Counts the errors in the description of a meaning."""
        text = _plain(text)
        named, text = _mentioned(self.names, text)
        own = {slot: {meaning[slot]} & named for slot in ("name", "near") if slot in meaning}
        others = len(named - {meaning.get("name"), meaning.get("near")})
        lost = sum(not found for found in own.values())
        wrong = min(lost, others)
        counts = [SlotCounts(len(own), lost - wrong, wrong, others - wrong)]
        for slot, patterns in PATTERNS.items():
            counts.append(_compare(meaning.get(slot), _mentioned(patterns, text)[0]))
        return SlotCounts(*map(sum, zip(*counts, strict=True)))


def _compare(value: str | None, found: set[str]) -> SlotCounts:
    """Errors of one slot.

    Args:
        value: Its value in the meaning, or None.
        found: The values that the description mentions.
    """
    others = len(found - {value} - GENERIC)
    if value is None:
        return SlotCounts(0, 0, 0, others)
    if value in found:
        return SlotCounts(1, 0, 0, others)
    return SlotCounts(1, others == 0, others > 0, max(0, others - 1))


def _mentioned(patterns: dict[str, re.Pattern[str]], text: str) -> tuple[set[str], str]:
    """Values whose pattern is found, in order, and the text without what they take."""
    found = set()
    for value, pattern in patterns.items():
        text, times = pattern.subn("/", text)
        if times:
            found.add(value)
    return found, text


def _value(slot: str, value: str) -> str | None:
    """The value as the patterns call it; None if the slot does not have it."""
    if not slot:
        return None
    if slot in LEVELS:
        levels = (level for level, values in LEVELS[slot].items() if value in values)
        return next(levels, None)
    return value if slot not in VALUES or value in VALUES[slot] else None


def _short(name: str) -> str:
    """A name as a pattern, without its article."""
    return re.escape(name.removeprefix("the "))


def _plain(text: str) -> str:
    """Text in lower case without accents and hyphens, with a space between tokens."""
    text = unicodedata.normalize("NFKD", text.lower().replace("’", "'"))
    text = re.sub(r"\s*'\s*", "'", "".join(c for c in text if not unicodedata.combining(c)))
    tokens = re.findall(r"£|\w+(?:'\w+)*|[.,;!?]", text.replace("/", " out of "))
    return " ".join(DIGITS.get(token, token) for token in tokens)
