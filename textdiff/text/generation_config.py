"""Options of `DiffusionLM.generate`, as they are saved beside a model in generation_config.json."""

from dataclasses import fields
from typing import Any

from tokenizers import Tokenizer
from transformers import GenerationConfig

from textdiff.arguments import refuse_unknown
from textdiff.config import SamplingConfig, check
from textdiff.text.control_config import ControlConfig
from textdiff.text.decoding_config import DecodingConfig
from textdiff.text.tokenizer import PAD, special_ids

COUNTS = ("max_new_tokens", "num_return_sequences", "max_denoising_steps")
SAMPLING = [field.name for field in fields(SamplingConfig) if field.name != "steps"]
CONTROL = {field.name for field in fields(ControlConfig)}  # needs the tokenizer
DECODING = [field.name for field in fields(DecodingConfig) if field.name not in CONTROL]
OUTPUT = ("return_dict_in_generate", "pad_token_id", "suppress_tokens")
OPTIONS = (*COUNTS, *SAMPLING, *DECODING, *OUTPUT)
METADATA = ("transformers_version", "_from_model_config", "_commit_hash")
OTHER_NAMES = {
    "steps": "max_denoising_steps",
    "num_inference_steps": "max_denoising_steps",
    "n": "num_return_sequences",
    "length": "max_new_tokens",
    "max_length": "max_new_tokens",
    "generator": "seed",
}


class DiffusionGenerationConfig(GenerationConfig):
    """Options of `DiffusionLM.generate`. Those that are None have their defaults.

    Beside the arguments below it has the fields of `SamplingConfig` (sampler, seed, batch_size,
    precision) and of `DecodingConfig` (temperature, guidance_scale, length_quantile, clamp, x0,
    order, window).

    Args:
        max_new_tokens: Number of new tokens of each sequence. Diffusion fills all of them: there is
            no end token. If None, drawn from the lengths of the training text.
        num_return_sequences: Number of sequences for each prompt. By default 1.
        max_denoising_steps: Sampling steps, the `steps` of `SamplingConfig`.
        return_dict_in_generate: Return a `ModelOutput` with the sequences instead of a tensor.
        pad_token_id: Token that fills shorter sequences. By default 0.
        suppress_tokens: Tokens that are never sampled. Training sets the special ones.

    Raises:
        TypeError: If an argument is unknown. The message names the nearest.
        UserError: If a value is impossible.

    Examples:
        >>> quick = DiffusionGenerationConfig(max_denoising_steps=8, sampler="dpm_solver")
        >>> quick.over(DiffusionGenerationConfig(sampler="ddpm", seed=1)).to_diff_dict()["sampler"]
        'dpm_solver'
        >>> DiffusionGenerationConfig(num_inference_steps=8)
        Traceback (most recent call last):
        TypeError: unexpected argument num_inference_steps: did you mean max_denoising_steps?
    """

    max_new_tokens: int | None
    num_return_sequences: int | None
    max_denoising_steps: int | None
    return_dict_in_generate: bool | None
    pad_token_id: int | None
    suppress_tokens: list[int] | None

    def __init__(self, **options: Any) -> None:
        # the parent's __init__ would add the options of other ways to generate
        for name in options.keys() & OTHER_NAMES.keys():
            raise TypeError(f"unexpected argument {name}: did you mean {OTHER_NAMES[name]}?")
        for name in options.keys() & CONTROL:
            raise TypeError(f"unexpected argument {name}: use TextDiffusion, which has a tokenizer")
        refuse_unknown(options.keys() - {*METADATA}, OPTIONS)
        for name in OPTIONS:
            setattr(self, name, options.get(name))
        self.validate()

    @classmethod
    def from_model_config(cls, model_config: Any) -> "DiffusionGenerationConfig":
        """Returns the defaults: a model's configuration has no options of `generate`."""
        return cls()

    @classmethod
    def of_tokenizer(cls, tokenizer: Tokenizer) -> "DiffusionGenerationConfig":
        """The defaults, with the special tokens of a tokenizer."""
        special = sorted(special_ids(tokenizer))
        return cls(pad_token_id=tokenizer.token_to_id(PAD), suppress_tokens=special)

    @property
    def copies(self) -> int:
        """Number of sequences for each prompt."""
        return self.num_return_sequences or 1

    @property
    def padding(self) -> int:
        """Token that fills shorter sequences."""
        return self.pad_token_id or 0

    @property
    def sampling(self) -> SamplingConfig:
        """The options of the sampler."""
        options = self._given(SAMPLING)
        if self.max_denoising_steps is not None:
            options["steps"] = self.max_denoising_steps
        return SamplingConfig(**options)

    @property
    def decoding(self) -> DecodingConfig:
        """The options of decoding."""
        return DecodingConfig(**self._given(DECODING))

    def validate(self, *_: Any, **__: Any) -> None:
        """Raises UserError if a value is impossible."""
        for name in COUNTS:
            _check_whole(name, getattr(self, name), at_least=1)
        for token in (self.pad_token_id, *(self.suppress_tokens or ())):
            _check_whole("a token of the generation config", token, at_least=0)
        assert self.sampling  # these check their own values
        assert self.decoding

    def over(self, other: GenerationConfig) -> "DiffusionGenerationConfig":
        """This configuration, with values of another one where it has None.

        Raises:
            TypeError: If the other one has options of other ways to generate, such as top_k.
        """
        return DiffusionGenerationConfig(**other.to_diff_dict() | self._given(OPTIONS))

    def to_dict(self) -> dict[str, Any]:
        """The options that are set."""
        return {name: value for name, value in super().to_dict().items() if value is not None}

    def _given(self, names: Any) -> dict[str, Any]:
        """Those of the options that are not None."""
        values = {name: getattr(self, name) for name in names}
        return {name: value for name, value in values.items() if value is not None}


def _check_whole(name: str, value: object, at_least: int) -> None:
    valid = value is None or (isinstance(value, int) and value >= at_least)
    check(valid, name, f"a whole number from {at_least}", value)
