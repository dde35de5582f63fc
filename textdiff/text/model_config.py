"""Configurations of text models, as they are saved in config.json.

AutoConfig knows them as soon as this module is imported. A configuration imports its model, which
AutoModel then knows too, so this module itself needs no torch.
"""

import importlib
from typing import Any, Literal

from transformers import AutoConfig, PreTrainedConfig

from textdiff.text.config import ModelConfig


class DiffusionLMConfig(PreTrainedConfig, ModelConfig):
    """Options of the model, with the vocabulary size and the longest sequence of the data.

    `prior_pairs` and `prior_contexts` are the numbers of pairs and contexts that the Markov prior
    has, `separator` the token after a source (-1: there are no sources), and `target_share` the
    share of tokens that are in targets.
    """

    model_type = "textdiff"
    __no_type_check__ = True  # transformers' __init__ takes more options than its signature has
    vocab_size: int = 8
    length: int = 64
    prior_pairs: int = 0
    prior_contexts: int = 0
    separator: int = -1
    target_share: float = 1.0

    def __post_init__(self, **kwargs: Any) -> None:
        importlib.import_module("textdiff.text.model")
        ModelConfig.__post_init__(self)
        super().__post_init__(**kwargs)

    @property
    def has_sources(self) -> bool:
        """Whether the model generates targets from sources."""
        return self.separator >= 0

    @property
    def drops_sources(self) -> bool:
        """Whether training examples without source are among those of the model."""
        return self.has_sources and self.source_drop_prob > 0

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Builds the configuration. Models that were saved without a prior have unigrams."""
        before = {"prior": "unigram", "self_cond_start": 0.0, "sampling_guidance_scale": 1.6}
        before |= {"stagger_prob": 0.0, "prior_contexts": 0}
        return super().from_dict(before | config_dict, **kwargs)


class AutoregressiveConfig(PreTrainedConfig, ModelConfig):
    """Options of the model; it uses width, depth, heads and dropout."""

    model_type = "textdiff-autoregressive"
    __no_type_check__ = True  # transformers' __init__ takes more options than its signature has
    family: Literal["diffusion", "autoregressive"] = "autoregressive"
    vocab_size: int = 8
    length: int = 64
    prior_pairs: int = 0
    prior_contexts: int = 0
    separator: int = -1
    target_share: float = 1.0

    @property
    def has_sources(self) -> bool:
        """Whether the model generates targets from sources."""
        return self.separator >= 0

    def __post_init__(self, **kwargs: Any) -> None:
        importlib.import_module("textdiff.text.autoregressive")
        ModelConfig.__post_init__(self)
        super().__post_init__(**kwargs)


for kind in (DiffusionLMConfig, AutoregressiveConfig):
    AutoConfig.register(kind.model_type, kind)
