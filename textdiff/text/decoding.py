"""Decoding: a configuration with the values of a model, and what `auto` stands for in it."""

from dataclasses import dataclass, field, fields, replace

from textdiff.config import UserError
from textdiff.text.autoregressive import Autoregressive
from textdiff.text.control_config import ControlConfig
from textdiff.text.decoding_config import ORDERS_OF_EVERY_MODEL, DecodingConfig
from textdiff.text.predictor import WordPredictor

DRAWN = ("joint", "moving")  # values of x0 that draw whole sentences
COLDEST = 0.2  # temperature below which the pair table to the power 1 / temperature underflows


@dataclass(frozen=True)
class Decoding:
    """Values of a `DecodingConfig`, in which the model's own replace null."""

    temperature: float = 1.0
    guidance_scale: float = 1.0
    length_quantile: float = 0.5
    clamp: bool = False
    x0: str = "auto"
    order: str = "auto"
    window: int = 1
    control: ControlConfig = field(default_factory=ControlConfig)

    @property
    def least_tokens(self) -> int:
        """Number of tokens that has room for the required phrases, one for each word."""
        return self.control.least_tokens


def resolve_decoding(
    model: WordPredictor | Autoregressive, config: DecodingConfig | Decoding
) -> Decoding:
    """Takes temperature and guidance scale from the model where the configuration has none.

    A resolved one is returned as it is.

    Raises:
        UserError: If the configuration asks for something that the model does not have.
    """
    if isinstance(config, Decoding):
        return config
    if isinstance(model, Autoregressive):
        _refuse_options_of_diffusion(config)
        return Decoding(config.temperature or 1.0)
    if config.temperature is not None and model.config.objective != "ce":
        trained = f"this one has {model.config.objective}"
        raise UserError(f"--temperature needs a model trained with objective ce, {trained}")
    if config.classifier and model.config.has_sources:
        raise UserError("--classifier needs a model without sources: write the label in the source")
    if config.length_quantile is not None and not model.config.has_sources:
        raise UserError("--length_quantile needs a model of pairs: use --length")
    if config.x0 in DRAWN and not model.markov:
        raise UserError(f"--x0 {config.x0} needs a model with a Markov prior (model.prior markov)")
    if config.order not in ORDERS_OF_EVERY_MODEL and not model.config.stagger_prob:
        rule = "a model trained for it (model.stagger_prob above 0)"
        raise UserError(f"--order {config.order} needs {rule}")
    longest, window = model.config.length, config.window or 1
    if window > longest:
        rule = f"at most {longest}, the longest text of this model"
        raise UserError(f"--window must be {rule}, got {window}")
    own, guidance_scale = model.config, config.guidance_scale
    guidance_scale = own.sampling_guidance_scale if guidance_scale is None else guidance_scale
    temperature = config.temperature or own.sampling_temperature
    quantile = config.length_quantile or own.sampling_length_quantile
    control = {each.name: getattr(config, each.name) for each in fields(ControlConfig)}
    rest = quantile, config.clamp, config.x0, config.order, window, ControlConfig(**control)
    return Decoding(temperature, guidance_scale, *rest)


def without_auto(
    model: WordPredictor | Autoregressive, decoding: Decoding, sampler: str, document: bool = False
) -> Decoding:
    """The decoding with `x0` and `order` named, as a sampler uses it for a model.

    Args:
        document: Whether texts are longer than the model's sequences.

    Raises:
        UserError: If steps should draw whole sentences, and cannot.
    """
    if isinstance(model, Autoregressive):
        return decoding
    x0, asked = decoding.x0, decoding.x0 in DRAWN
    if asked and sampler != "ddpm":
        raise UserError(f"--x0 {x0} needs --sampler ddpm, got {sampler}")
    too_cold = decoding.temperature < COLDEST
    if asked and too_cold:
        rule = f"a --temperature of at least {COLDEST}"
        raise UserError(f"--x0 {x0} needs {rule}, got {decoding.temperature}: use --x0 mean")
    possible = sampler == "ddpm" and model.markov is not None and not too_cold
    begun = model.prior_weight == 1  # not yet during the warm-up
    if x0 == "mean" or not possible or not begun:
        x0 = "mean"
    elif x0 == "auto":
        x0 = "moving" if document else "joint"
    order = decoding.order
    if order == "auto":
        order = "left-to-right"
        if not (x0 in DRAWN and model.config.stagger_prob):
            order = in_parallel(decoding).order
    return replace(decoding, x0=x0, order=order)


def in_parallel(decoding: Decoding) -> Decoding:
    """The decoding with parallel order. Raises UserError if it has a window."""
    if decoding.window > 1:
        reason = "all words move together here"
        raise UserError(f"--window needs --order left-to-right, right-to-left or random: {reason}")
    return replace(decoding, order="parallel")


def _refuse_options_of_diffusion(config: DecodingConfig) -> None:
    """Raises UserError if a configuration has options that autoregressive models lack."""
    asked = {
        "--guidance_scale": config.guidance_scale is not None,
        "--length_quantile": config.length_quantile is not None,
        "--clamp": config.clamp,
        f"--x0 {config.x0}": config.x0 != "auto",
        f"--order {config.order}": config.order not in ORDERS_OF_EVERY_MODEL,
        "--window": config.window is not None,
        "--forbid or --require": bool(config.forbid or config.require),
        "--classifier": config.classifier is not None,
    }
    for option in filter(asked.get, asked):
        raise UserError(f"{option} needs a diffusion model, this one is autoregressive")
