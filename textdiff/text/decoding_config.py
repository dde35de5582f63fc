"""Options of decoding. Importing this module does not import torch."""

from dataclasses import dataclass
from typing import Literal

from textdiff.config import check, check_choices
from textdiff.text.config import check_guidance_scale, check_length_quantile, check_temperature
from textdiff.text.control_config import ControlConfig

Order = Literal["auto", "parallel", "left-to-right", "right-to-left", "random"]
ORDERS_OF_EVERY_MODEL = ("auto", "parallel")


@dataclass(frozen=True)
class WordDecodingConfig:
    """Options of decoding without those of control.

    Args:
        temperature: Temperature of the word probabilities, for models trained with objective ce.
            Below 1 gives more common words, above 1 more variety. If null, the model's own
            (model.sampling_temperature).
        guidance_scale: Guidance towards words that fit the context, or the source of a model of
            pairs. 1 is no guidance. About 1.3 gives words that agree more, in models whose prior
            has no contexts. 0 ignores the context, and from 3 on words become too rare. If null,
            model.sampling_guidance_scale.
        length_quantile: Quantile of the predicted lengths that a target of a model of pairs has.
            0.5 is the median; longer targets say more of their source. If null,
            model.sampling_length_quantile.
        clamp: Replace every estimate of x0 by the nearest word embedding, as Diffusion-LM does.
        x0: What stands for the clean embeddings in a step. joint: those of a sentence drawn from
            the predicted distribution, all words together. moving: the same, but the network
            predicts only the words that lose noise in the step; one word at a time this is the
            chain rule. mean: the mean. auto: joint, and in documents moving, with the sampler ddpm,
            a temperature of at least 0.2 and a model that has a Markov prior, otherwise mean.
        order: Order in which words lose their noise. parallel: all together. Others need a model
            trained with model.stagger_prob above 0. auto: left-to-right for such a model where x0
            is joint, and parallel otherwise and in rewriting.
        window: Number of words that lose their noise together in the other orders. If null, 1.
    """

    temperature: float | None = None
    guidance_scale: float | None = None
    length_quantile: float | None = None
    clamp: bool = False
    x0: Literal["auto", "joint", "moving", "mean"] = "auto"
    order: Order = "auto"
    window: int | None = None

    def __post_init__(self) -> None:
        check_choices(self)
        if self.temperature is not None:
            check_temperature("--temperature", self.temperature)
        if self.guidance_scale is not None:
            check_guidance_scale("--guidance_scale", self.guidance_scale)
        if self.length_quantile is not None:
            check_length_quantile("--length_quantile", self.length_quantile)
        if self.window is not None:
            check(self.window >= 1, "--window", "at least 1", self.window)
            rule = "left out where all words move together (--order parallel)"
            check(self.order != "parallel", "--window", rule, self.window)


@dataclass(frozen=True)
class DecodingConfig(ControlConfig, WordDecodingConfig):
    """Options of decoding: how sampling uses the predicted word probabilities."""

    def __post_init__(self) -> None:
        ControlConfig.__post_init__(self)
        WordDecodingConfig.__post_init__(self)
