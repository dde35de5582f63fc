"""textdiff: Gaussian diffusion for text and images on one shared core."""

import importlib
from typing import Any

from textdiff.registration import register_models

__version__ = "0.1.0"

_LAZY = {"TextDiffusion": "textdiff.text.pipeline"}  # torch is imported when they are used


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'textdiff' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


register_models("textdiff.text.model_config")
