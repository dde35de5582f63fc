"""Words that a text must or must not have, as a finite automaton over the tokens of a model.

A phrase occurs in a text where its characters do, in any case, and where it neither begins nor ends
within a word: "cheap" does not occur in "cheapest". So the automaton reads characters, token by
token, and the tokenizer may divide words in any way.
"""

import json
import logging
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from tokenizers import Tokenizer
from torch import Tensor

from textdiff.config import UserError
from textdiff.diffusion.automaton import Automaton
from textdiff.text.tokenizer import decode_after, in_word, special_ids

log = logging.getLogger("textdiff")

MOST_STATES = 64
TOO_MANY = "have too many phrases together, or too long ones: name fewer or shorter ones"


class Constraints(NamedTuple):
    """The set of texts that have all required and no forbidden phrases.

    Args:
        banned: Tokens that occur in no text of the set.
        automaton: The automaton of the set. None if `banned` is all that there is to it.
    """

    banned: Bool[Tensor, " v"]
    automaton: Automaton | None


class _Reader(NamedTuple):
    """State of reading a text backwards in search of one phrase.

    Args:
        ends: How many characters of the phrase, counted from its end, have just been read.
        found: Whether the phrase has occurred.
    """

    ends: frozenset[int] = frozenset({0})
    found: bool = False


def constraints_of(
    tokenizer: Tokenizer,
    size: int,
    forbid: Sequence[str],
    require: Sequence[str],
    separator: int = -1,
) -> Constraints:
    """The constraints of phrases on texts of a model.

    Args:
        size: Number of tokens of the model.
        forbid: Phrases that must not occur.
        require: Phrases that must occur, at any place.
        separator: The token between source and target, of which only the target is constrained.
            If negative, there are no sources.

    Raises:
        UserError: If a required phrase has a word that is not in the vocabulary, or the phrases
            contradict each other, or they are too many.
    """
    pieces = _pieces(tokenizer, size)
    names = {"--forbid": _possible(tokenizer, forbid), "--require": require}
    written = {key: [_written(tokenizer, pieces, key, p) for p in names[key]] for key in names}
    for phrase in {*written["--forbid"]} & {*written["--require"]}:
        raise UserError(f"{phrase!r} is in --forbid and in --require: take it out of one of them")
    parts = [
        _part(tuple(pieces), phrase, key == "--require")
        for key, phrases in written.items()
        for phrase in dict.fromkeys(phrases)
    ]
    found = _product(parts)
    if found is None:
        raise UserError("--require: a required phrase has a forbidden one: change --forbid")
    if found.states > MOST_STATES:
        raise UserError(f"--forbid and --require {TOO_MANY}")
    banned = (found.next == found.states).all(0)
    if found.states == 1:
        return Constraints(banned, None)
    return Constraints(banned, found if separator < 0 else _after(separator, found))


def _after(separator: int, part: Automaton) -> Automaton:
    """The automaton of texts whose part after the separator is in a set."""
    states = part.states  # the new state accepts every source, and the number of no state rises
    table = F.pad(part.next + (part.next == states).long(), (0, 0, 0, 1), value=states)
    table[:states, separator] = torch.where(part.accepting, states, states + 1)
    return Automaton(table, torch.arange(states + 1) == states)


def _pieces(tokenizer: Tokenizer, size: int) -> list[str]:
    """Characters that each token adds to a text, in lower case."""
    decoder = json.loads(tokenizer.to_str())["decoder"] or {}
    special = special_ids(tokenizer)
    anything = next((i for i in range(size) if i not in special), 0)

    def piece(token: int) -> str:
        if token in special:
            return "\0"
        if decoder.get("type") == "ByteLevel":  # a token may be a part of a character
            return (tokenizer.id_to_token(token) or "").replace("Ġ", " ").replace("Ċ", "\n")
        return decode_after(tokenizer, [anything], [token])

    return [piece(token).lower() for token in range(size)]


def _possible(tokenizer: Tokenizer, forbid: Sequence[str]) -> list[str]:
    """The forbidden phrases that the model can write. A warning names the others."""
    impossible = [phrase for phrase in forbid if _unknown_words(tokenizer, phrase)]
    if impossible:
        names = ", ".join(map(repr, impossible[:5])) + ", ..." * (len(impossible) > 5)
        log.warning("--forbid: words that are not in the model's vocabulary: %s", names)
    return [phrase for phrase in forbid if phrase not in impossible]


def _unknown_words(tokenizer: Tokenizer, phrase: str) -> list[str]:
    """Parts of a phrase that are not in the vocabulary."""
    encoding = tokenizer.encode(phrase, add_special_tokens=False)
    special, tokens = special_ids(tokenizer), zip(encoding.ids, encoding.offsets, strict=True)
    return [phrase[start:end] for token, (start, end) in tokens if token in special]


def _written(tokenizer: Tokenizer, pieces: list[str], key: str, phrase: str) -> str:
    """A phrase as texts of the model have it."""
    for word in _unknown_words(tokenizer, phrase):
        known = "use words of its training text"
        raise UserError(f"{key}: {word!r} is not in the model's vocabulary: {known}")
    encoding = tokenizer.encode(phrase, add_special_tokens=False)
    written = "".join(pieces[token] for token in encoding.ids).strip()
    if not written:
        raise UserError(f"{key} must be words or phrases, separated by commas, got {phrase!r}")
    return written


def _reader(phrase: str) -> Callable[[_Reader, str], _Reader]:
    """Function (state, character) -> state after it, which reads backwards."""

    from_word, to_word = in_word(phrase[0]), in_word(phrase[-1])

    @cache
    def read(state: _Reader, character: str) -> _Reader:
        if state.found or (len(phrase) in state.ends and not (from_word and in_word(character))):
            return _Reader(frozenset(), found=True)
        longer = (k + 1 for k in state.ends if phrase[-1 - k : len(phrase) - k] == character)
        begins = () if to_word and in_word(character) else (0,)
        return _Reader(frozenset([*longer, *begins]))

    return read


def _part(pieces: Sequence[str], phrase: str, required: bool) -> Automaton:
    """The automaton of one phrase. Its states may be too many."""
    read, start = _reader(phrase), _Reader()
    number, waiting, rows = {start: 0}, [start], []
    for state in waiting:
        row = []
        for piece in pieces:
            after = state
            for character in reversed(piece):
                after = read(after, character)
            if number.setdefault(after, len(number)) == len(waiting):
                waiting.append(after)
            row.append(number[after])
        rows.append(row)
    found = torch.tensor([state.found or len(phrase) in state.ends for state in waiting])
    return Automaton(torch.tensor(rows), found == required)


def _product(parts: Sequence[Automaton]) -> Automaton | None:
    """The smallest automaton of the texts in all sets. None if there are no such texts."""
    start, nowhere = (0,) * len(parts), (-1,) * len(parts)  # no text is accepted from nowhere
    living = [_living(part) for part in parts]
    number, waiting, rows = {start: 0}, [start], []
    for states in waiting:
        after = torch.stack([part.next[state] for part, state in zip(parts, states, strict=True)])
        lives = [each[states] for each, states in zip(living, after, strict=True)]
        after = after.where(torch.stack(lives).all(0), -1)
        if states == nowhere:
            after.fill_(-1)
        columns, inverse = after.unique(dim=1, return_inverse=True)
        for each in map(tuple, columns.T.tolist()):
            if number.setdefault(each, len(number)) == len(waiting):
                waiting.append(each)
        if len(waiting) > 16 * MOST_STATES:
            raise UserError(f"--forbid and --require {TOO_MANY}")
        targets = torch.tensor([number[each] for each in map(tuple, columns.T.tolist())])
        rows.append(targets[inverse])
    pairs = [zip(parts, states, strict=True) for states in waiting]
    accepting = torch.tensor([all(i >= 0 and part.accepting[i] for part, i in p) for p in pairs])
    return _smallest(torch.stack(rows), accepting)


def _living(part: Automaton) -> Bool[Tensor, " s"]:
    """Whether a text is accepted from each state."""
    living, count = part.accepting, 0
    while count < living.sum():
        count, living = int(living.sum()), living | living[part.next].any(1)
    return living


def _smallest(table: Int[Tensor, "s v"], accepting: Bool[Tensor, " s"]) -> Automaton | None:
    """Joins states with the same future, and removes those from which no text is accepted."""
    living = _living(Automaton(table, accepting))
    if not living[0]:
        return None
    label, count = (living.long() + accepting).unique(return_inverse=True)[1], 0
    while count <= label.max():
        count = int(label.max()) + 1
        label = torch.cat([label[:, None], label[table]], 1).unique(dim=0, return_inverse=True)[1]
    # one state for each label, the initial one first; all that cannot accept are the last
    first = [int((label == each).nonzero()[0]) for each in label.unique()]
    kept = sorted(state for state in first if living[state])
    position = torch.full((len(table),), len(kept))
    position[kept] = torch.arange(len(kept))
    of_label = torch.full((count,), len(kept)).scatter(0, label[kept], position[kept])
    return Automaton(of_label[label[table[kept]]], accepting[kept])
