"""Image diffusion: a U-Net on the diffusion core that text and images share."""

import importlib
from typing import Any

from textdiff.registration import register_models

_LAZY = {"ImageDiffusion": "image.pipeline"}  # torch is imported when they are used


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'image' has no attribute {name!r}")
    importlib.import_module("image.config").need_pillow()
    return getattr(importlib.import_module(_LAZY[name]), name)


register_models("image.model_config")
