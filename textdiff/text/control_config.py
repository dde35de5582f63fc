"""Options of control: what sampled texts must have, without retraining.

This module does not import torch, so that the command line starts quickly.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from textdiff.config import UserError, check


@dataclass(frozen=True, kw_only=True)
class ControlConfig:
    """Options of control.

    Args:
        forbid: Words or phrases that no text has, separated by commas.
        require: Words or phrases that every text has, at any place, separated by commas.
        classifier: Folder of a classifier, made by `textdiff train-classifier`. It guides texts
            towards `label`.
        label: Class of the texts, one of the classifier's.
        classifier_scale: Power of the label's probability in the guidance: 0 is none, 1 to 2 are
            useful, and from about 3 on texts break.
    """

    forbid: list[str] | str = field(default_factory=list)
    require: list[str] | str = field(default_factory=list)
    classifier: str | None = None
    label: str | None = None
    classifier_scale: float = 1.5

    def __post_init__(self) -> None:
        scale = self.classifier_scale
        check(0 <= scale <= 1000, "--classifier_scale", "between 0 and 1000", scale)
        if (self.classifier is None) != (self.label is None):
            missing = "--label" if self.label is None else "--classifier"
            raise UserError(f"--classifier and --label belong together: {missing} is missing")

    @property
    def forbidden(self) -> list[str]:
        """The forbidden phrases."""
        return phrases(self.forbid)

    @property
    def required(self) -> list[str]:
        """The required phrases."""
        return phrases(self.require)

    @property
    def least_tokens(self) -> int:
        """Number of tokens that has room for the required phrases, one for each word."""
        return max(1, sum(len(phrase.split()) for phrase in self.required))


def phrases(value: Sequence[str] | str | None) -> list[str]:
    """The phrases of a list, or of a text with commas between them."""
    return [each.strip() for each in (value.split(",") if isinstance(value, str) else value or ())]


@dataclass(frozen=True)
class LabelledDataConfig:
    """Options of labelled texts.

    Args:
        train: A file, a glob, a URL or a data set on the hub, in the formats of `textdiff train`.
        field: Column of the texts.
        label: Column of the labels.
    """

    train: str
    field: str = "text"
    label: str = "label"


@dataclass(frozen=True)
class ClassifierConfig:
    """Options of a classifier and its training.

    Args:
        data: Labelled texts.
        out: Folder of the classifier.
        steps: Number of training steps.
        batch_size: Texts per step.
        lr: Peak learning rate of Adam.
        seed: Seed of the order of texts.
    """

    data: LabelledDataConfig
    out: str = "runs/classifier"
    steps: int = 500
    batch_size: int = 64
    lr: float = 0.03
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size"):
            check(getattr(self, name) >= 1, f"--{name}", "at least 1", getattr(self, name))
        check(self.lr > 0, "--lr", "positive", self.lr)
