"""Options of control: what sampled texts must have, without retraining.

This module does not import torch, so that the command line starts quickly.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from textdiff.config import check


@dataclass(frozen=True, kw_only=True)
class ControlConfig:
    """Options of control.

    Args:
        forbid: Words or phrases that no text has, separated by commas.
        require: Words or phrases that every text has, at any place, separated by commas.
        classifier: Folder of a classifier, made by `textdiff train-classifier`. It guides texts
            towards `label`.
        label: Class of the texts, one of the classifier's.
        classifier_scale: Strength of the classifier's guidance. 0 is none.
    """

    forbid: list[str] | str = field(default_factory=list)
    require: list[str] | str = field(default_factory=list)
    classifier: str | None = None
    label: str | None = None
    classifier_scale: float = 5.0

    def __post_init__(self) -> None:
        check(0 <= self.classifier_scale <= 1000, "--classifier_scale", "between 0 and 1000",
              self.classifier_scale)  # fmt: skip
        both = (self.classifier is None) == (self.label is None)
        given = "--classifier" if self.label is None else "--label"
        check(both, given, "given with the other", None)

    @property
    def forbidden(self) -> list[str]:
        """The forbidden phrases."""
        return _phrases(self.forbid)

    @property
    def required(self) -> list[str]:
        """The required phrases."""
        return _phrases(self.require)

    @property
    def least_tokens(self) -> int:
        """Number of tokens that has room for the required phrases, one for each word."""
        return max(1, sum(len(phrase.split()) for phrase in self.required))


def _phrases(value: Sequence[str] | str | None) -> list[str]:
    """The phrases of a list, or of a text with commas between them."""
    return [each.strip() for each in (value.split(",") if isinstance(value, str) else value or ())]
