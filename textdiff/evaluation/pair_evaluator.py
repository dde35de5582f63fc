"""Metrics of targets: against their references, of their slots, and alone."""

import logging
import random
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from tokenizers import Tokenizer

from textdiff.config import check
from textdiff.evaluation.evaluator import Row
from textdiff.evaluation.metrics import corpus_scores
from textdiff.evaluation.scores import likelihood_columns
from textdiff.evaluation.sentence_metrics import SentenceMetrics
from textdiff.evaluation.slots import Meaning, SlotErrors, parse_meaning
from textdiff.text.diagnostics import Sentence
from textdiff.text.requests import TextModel
from textdiff.text.special_tokens import SEPARATOR
from textdiff.text.tokenizer import UNK

log = logging.getLogger("textdiff")

Pairs = dict[str, list[str]]  # source -> references


@dataclass
class TargetRow(Row):
    """A row of targets.

    Args:
        texts: The targets as text.
        references: References of each target. None for those of the evaluation.
    """

    texts: list[str] = field(default_factory=list)
    references: list[list[str]] | None = None


class PairEvaluator:
    """Computes the metrics of rows of targets.

    Args:
        pairs: The evaluated sources and their references.
        scored: Held-out pairs whose likelihood is estimated, as tokens.
        training: Pairs of the training text.
        tokenizer: Tokenizer of the model.
    """

    def __init__(
        self, pairs: Pairs, scored: list[Sentence], training: Sequence[str], tokenizer: Tokenizer
    ) -> None:
        self.pairs, self.scored, self.tokenizer = pairs, scored, tokenizer
        self.signatures: dict[str, str] = {}
        sources, targets = zip(*map(split_pair, training), strict=True)
        self.sentence_metrics = SentenceMetrics(self.encode(targets), tokenizer)
        self.meanings = _meanings(pairs)
        known = {*sources}
        if seen := sum(source in known for source in pairs):
            way_out = "name pairs with other sources by --data, or train with --data.valid"
            what = "%d of %d sources are also in the training text: %s"
            log.warning(what, seen, len(pairs), way_out)
        names = chain(self.meanings, filter(None, map(parse_meaning, known)))
        self.slot_errors = SlotErrors(names) if self.meanings else None
        coded = [self.target(pair) for pair in scored]
        self.scored_sizes = [*map(len, coded)]
        self.words = sum(len(text.split()) for text in self.sentence_metrics.texts(coded))

    def encode(self, texts: Sequence[str]) -> list[Sentence]:
        """Tokens of texts."""
        encoded = self.tokenizer.encode_batch_fast([*texts], add_special_tokens=False)
        return [tuple(each.ids) for each in encoded]

    def target(self, pair: Sequence[int]) -> Sentence:
        """Tokens of the target of a pair."""
        return tuple(pair[pair.index(self.tokenizer.token_to_id(SEPARATOR)) + 1 :])

    def metrics_of(self, row: TargetRow) -> dict[str, Any]:
        """All metrics of a row."""
        found = self._against_references(row) | self._slot_metrics(row.texts)
        found |= likelihood_columns(row.scores, self.scored_sizes, self.words)
        return found | self.sentence_metrics(row.sentences) | row.cost

    def _against_references(self, row: TargetRow) -> dict[str, Any]:
        """BLEU, chrF, and the share of targets that have as many tokens as a reference."""
        references = [*self.pairs.values()] if row.references is None else row.references
        rows = zip(row.texts, references, row.sentences, strict=True)
        kept = [each for each in rows if each[1]]  # a single reference has no others
        if not kept:
            return dict.fromkeys(("bleu", "bleu_interval", "chrf", "exact_length"))
        texts, others, sentences = map(list, zip(*kept, strict=True))
        normalizer = self.tokenizer.normalizer
        lowercase = normalizer is not None and normalizer.normalize_str("A") == "a"
        scores = corpus_scores(texts, others, lowercase)
        if row.references is None:
            self.signatures |= scores.signatures
        sizes = [{*map(len, self.encode(each))} for each in others]
        exact = sum(len(own) in size for own, size in zip(sentences, sizes, strict=True))
        found = {"bleu": scores.bleu, "bleu_interval": scores.bleu_interval, "chrf": scores.chrf}
        return found | {"exact_length": exact / len(kept)}

    def _slot_metrics(self, texts: list[str]) -> dict[str, float]:
        """Slot errors per slot, and the share of targets without any; empty without meanings."""
        if self.slot_errors is None:
            return {}
        counts = [*map(self.slot_errors, self.meanings, texts)]
        slots, *errors = map(sum, zip(*counts, strict=True))
        names = ("missing_slots", "wrong_slots", "invented_slots")
        rates = {name: number / slots for name, number in zip(names, errors, strict=True)}
        right = sum(each.errors == 0 for each in counts) / len(counts)
        return {"slot_error_rate": sum(errors) / slots} | rates | {"no_slot_error": right}


def held_out_pairs(texts: Iterable[str], n: int, model: TextModel, tokenizer: Tokenizer) -> Pairs:
    """n different sources, drawn at random, with all their references.

    Sources that leave no room for a target are left out.

    Args:
        texts: Held-out pairs.

    Raises:
        UserError: If no source is left.
    """
    pairs = Pairs()
    for text in texts:
        source, target = split_pair(text)
        pairs.setdefault(source, []).append(target)
    encoded = tokenizer.encode_batch_fast([*pairs], add_special_tokens=False)
    tokens = {source: each.ids for source, each in zip(pairs, encoded, strict=True)}
    longest, unknown = model.config.length - 2, tokenizer.token_to_id(UNK)
    usable = [source for source, ids in tokens.items() if len(ids) <= longest]
    if len(usable) < len(pairs):
        left_out = len(pairs) - len(usable), longest
        log.warning("left out %d held-out sources of more than %d tokens", *left_out)
    check(bool(usable), "held-out sources", f"of at most {longest} tokens", len(pairs))
    strange = sum(unknown in tokens[source] for source in usable)
    if strange:
        what = "%d of %d held-out sources have words that are not in the model's vocabulary"
        log.warning(what, strange, len(usable))
    if len(usable) < n:
        what = "held-out text has %d different sources: using %d instead of --n %d"
        log.warning(what, len(pairs), len(usable), n)
    chosen = random.Random(0).sample(usable, min(n, len(usable)))
    return {source: pairs[source] for source in chosen}


def split_pair(text: str) -> tuple[str, str]:
    """Source and target of a pair that is written as one text."""
    source, _, target = text.partition(SEPARATOR)
    return source.strip(), target.strip()


def _meanings(sources: Collection[str]) -> list[Meaning]:
    """The sources as meanings; empty unless all of them are."""
    found = [*filter(None, map(parse_meaning, sources))]
    if 0 < len(found) < len(sources):
        count = len(sources) - len(found)
        log.warning("%d sources are no E2E meanings, so slot errors are not counted", count)
    return found if len(found) == len(sources) else []
