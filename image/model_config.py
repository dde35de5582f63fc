"""Configuration of an image model, as it is saved in config.json.

AutoConfig knows it as soon as this module is imported. A configuration imports its model, which
AutoModel then knows too, so this module itself needs no torch.
"""

import importlib
from dataclasses import field
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from image.config import ModelConfig


class ImageDiffusionConfig(PreTrainedConfig, ModelConfig):
    """Options of the model, with the shape and the classes of the images."""

    model_type = "textdiff-image"
    __no_type_check__ = True  # transformers' __init__ takes more options than its signature has
    channels: int = 1
    height: int = 8
    image_width: int = 8
    classes: list[str] = field(default_factory=list)

    def __post_init__(self, **kwargs: Any) -> None:
        importlib.import_module("image.model")
        ModelConfig.__post_init__(self)
        super().__post_init__(**kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Builds the configuration. Models that were saved without these options have one level."""
        before = {"infill_prob": 0.0, "stagger_prob": 0.0}
        return super().from_dict(before | config_dict, **kwargs)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the images."""
        return self.channels, self.height, self.image_width


AutoConfig.register(ImageDiffusionConfig.model_type, ImageDiffusionConfig)
