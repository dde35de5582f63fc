"""Control of a request: forbidden and required phrases, and guidance by a classifier."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from tokenizers import Tokenizer
from torch import Tensor

from textdiff.config import UserError, check
from textdiff.diffusion.automaton import Automaton
from textdiff.text.classifier import TextClassifier, load_classifier
from textdiff.text.constraints import constraints_of
from textdiff.text.control_config import ControlConfig
from textdiff.text.functional import source_positions
from textdiff.text.inputs import RowError
from textdiff.text.predictor import Guide, WordPredictor
from textdiff.text.requests import Request, TextModel
from textdiff.text.tokenizer import special_ids


@dataclass(frozen=True)
class Control:
    """Constraints and guidance of sampled texts.

    Args:
        banned: Tokens that are never sampled: the special ones, and forbidden words.
        automaton: The set of sentences with all required and no forbidden phrases; None for all.
        classifier: Guides texts towards `label`, with the strength `scale`.
    """

    banned: Bool[Tensor, " v"]
    automaton: Automaton | None = None
    classifier: TextClassifier | None = None
    label: str = ""
    scale: float = 0.0

    def to(self, device: torch.device) -> "Control":
        """The control on a device."""
        automaton = self.automaton.to(device) if self.automaton else None
        return replace(self, banned=self.banned.to(device), automaton=automaton)

    def after_text(self) -> "Control":
        """The control of words after a text that obeys, which may begin within a word."""
        if self.automaton is None:
            return self
        everywhere = torch.ones_like(self.automaton.accepting)
        return replace(self, automaton=Automaton(self.automaton.next, everywhere))

    def never(self, request: Request) -> Bool[Tensor, "*#b v"]:
        """Tokens that are never sampled, anywhere or at each position, where given ones are."""
        given, own = request.given, self.banned[request.ids]
        if self.automaton:  # it reads given words as they are
            kept = (own & ~given).unsqueeze(-1)
            return (self.banned | given.unsqueeze(-1)).scatter(2, request.ids.unsqueeze(-1), kept)
        return self.banned & ~given.unsqueeze(-1) if (own & given).any() else self.banned

    def guide(self, mask: Bool[Tensor, "b l"]) -> Guide | None:
        """The classifier's guidance; None without a classifier or at scale 0."""
        classifier, label, scale = self.classifier, self.label, self.scale
        if classifier is None or scale == 0:
            return None
        return lambda p: scale * classifier.tilt(p, mask, label)

    def words(
        self, scores: Float[Tensor, "b l v"], mask: Bool[Tensor, "b l"]
    ) -> Int[Tensor, "b l"]:
        """The words of the greatest scores that make an allowed sentence."""
        return self.automaton.best(scores, mask) if self.automaton else scores.argmax(-1)


def control_of(model: TextModel, tokenizer: Tokenizer, request: Request) -> Control:
    """The control that a request asks for.

    Raises:
        UserError: If no text can meet the request.
    """
    options, size = request.decoding.control, model.config.vocab_size
    special = _special_tokens(model, tokenizer)
    control = _guided_control(Control(special), model, options)
    if not (options.forbidden or options.required):
        return control
    longest = request.mask.shape[1]
    if options.required and longest > model.config.length:
        rule = f"a text of at most {model.config.length} tokens, in which the model can place it"
        raise UserError(f"--require needs {rule}, got {longest}")
    phrases, separator = (options.forbidden, options.required), model.config.separator
    constraints = constraints_of(tokenizer, size, *phrases, separator)
    own = request.given & ~source_positions(request.ids, separator)
    for row, place in (own & constraints.banned[request.ids]).nonzero().tolist():
        word = tokenizer.id_to_token(int(request.ids[row, place]))
        way_out = "leave it out of --forbid, or do not keep it"
        raise RowError(f"--forbid: {word!r} is one of the words to keep: {way_out}", row)
    if constraints.automaton:
        _check_possible(constraints.automaton, special, request, own)
    banned = special | constraints.banned
    return replace(control, banned=banned, automaton=constraints.automaton)


def allowed_rows(model: TextModel, tokenizer: Tokenizer, request: Request) -> Bool[Tensor, " n"]:
    """Whether each sequence of a request has a sentence that its constraints allow."""
    options, config = request.decoding.control, model.config
    phrases = options.forbidden, options.required
    automaton = constraints_of(tokenizer, config.vocab_size, *phrases, config.separator).automaton
    if automaton is None:
        return torch.ones(len(request.ids), dtype=torch.bool)
    ids, special = request.ids.where(request.given, 0), _special_tokens(model, tokenizer)
    return automaton.accepts(ids, request.given, special, request.mask)


def _special_tokens(model: TextModel, tokenizer: Tokenizer) -> Bool[Tensor, " v"]:
    special = torch.zeros(model.config.vocab_size, dtype=torch.bool)
    special[[*special_ids(tokenizer)]] = True
    return special


def _guided_control(control: Control, model: TextModel, options: ControlConfig) -> Control:
    """The control with the classifier that the options name, if any."""
    if options.classifier is None or options.label is None:
        return control
    assert isinstance(model, WordPredictor)
    classifier = load_classifier(options.classifier, model)
    known = f"one of {', '.join(classifier.labels)}"
    check(options.label in classifier.labels, "--label", known, options.label)
    scale = options.classifier_scale
    return replace(control, classifier=classifier, label=options.label, scale=scale)


def _check_possible(
    automaton: Automaton, special: Bool[Tensor, " v"], request: Request, own: Bool[Tensor, "n l"]
) -> None:
    """Raises RowError if a sequence of the request has no allowed sentence.

    Args:
        own: Given words that are not those of a source.
    """
    ids, given = request.ids.where(request.given, 0), request.given.long()
    stacked = torch.stack([ids, given, request.mask.long()], 1)
    rows, number = stacked.unique(dim=0, return_inverse=True)
    ids, given, mask = rows.unbind(1)
    possible = automaton.accepts(ids, given.bool(), special, mask.bool())
    if not possible.all():
        first = int((~possible[number]).nonzero()[0])
        source = (request.given & ~own)[first]
        length = int(request.mask[first].sum() - source.sum())
        raise RowError(_impossible(length, bool(own[first].any()), request), first)


def _impossible(length: int, kept: bool, request: Request) -> str:
    """The message that no text of a length obeys the constraints of a request."""
    options = request.decoding.control
    required, forbidden = bool(options.required), bool(options.forbidden)
    wanted = ["all required phrases"] * required + ["the words to keep"] * kept
    clauses = [" and ".join(wanted)] * bool(wanted) + ["no forbidden phrase"] * forbidden
    changes = ["--require"] * required + ["--forbid"] * forbidden
    way_out = f"change {', '.join(changes)} or the {'text' if kept else 'length'}"
    return f"no text of length {length} has {', and '.join(clauses)}: {way_out}"
