"""Trained models by name: a run folder, its model/ folder, or the hub. Knows neither text nor images."""

from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import AutoConfig, AutoModel, PreTrainedModel

from textdiff.config import InputError
from textdiff.device import own_device

M = TypeVar("M", bound=PreTrainedModel)


def load_pretrained(name: str, kinds: tuple[type[M], ...], files: tuple[str, ...]) -> tuple[M, str]:
    """A model of one of `kinds`, on this process's device, and where it lies: a folder that holds `files`, or the hub."""
    folder = Path(name) / "model" if (Path(name) / "model").is_dir() else Path(name)
    for file in files:
        if folder.is_dir() and not (folder / file).exists():
            raise InputError(f"{name} holds no model: no {file} in it or in {name}/model")
    source = str(folder) if folder.is_dir() else name
    if not folder.is_dir() and (folder.exists() or looks_local(name) or "/" not in name):
        raise InputError(f"{name} is not a folder: give a run folder, its model/ folder, or a hub name such as user/model")
    what = "a model of textdiff" if len(kinds) > 1 else f"a {kinds[0].__name__}"
    try:
        _check_size(name, folder)
        options: Any = {"output_loading_info": True, "ignore_mismatched_sizes": True}  # told below, by name
        loaded: Any = AutoModel.from_pretrained(source, use_safetensors=True, trust_remote_code=False, **options)
    except InputError:
        raise
    except Exception as error:  # transformers, safetensors and the hub raise many kinds
        raise InputError(f"{name} cannot be loaded as {what}: {' '.join(str(error).split())[:200]}") from error
    model, report = loaded
    if not isinstance(model, kinds):
        raise InputError(f"{name} is a {type(model).__name__}, not {what}")
    for wrong, keys in (("lacks weights that", report["missing_keys"]), ("has weights of another size than", report["mismatched_keys"])):
        if keys:
            listed = ", ".join(sorted(key if isinstance(key, str) else key[0] for key in keys))
            raise InputError(f"{name} {wrong} its config.json asks for: {listed[:200]}")
    torch.nn.Module.to(model, own_device())  # transformers hides its signature from the type checker
    return model.eval(), source


def _check_size(name: str, folder: Path) -> None:
    """Before a network is built for which no file has the weights. Raises InputError."""
    if not (weights := folder / "model.safetensors").exists():
        return
    config, size = AutoConfig.from_pretrained(folder, trust_remote_code=False), weights.stat().st_size
    wanted = max((value for value in config.to_dict().values() if type(value) is int), default=0)
    if wanted <= size:
        with torch.device("meta"):
            wanted = sum(weight.numel() for weight in AutoModel.from_config(config, trust_remote_code=False).parameters())
    if wanted > size:
        raise InputError(f"{name}: its config.json asks for {wanted:,} weights or more, its model.safetensors has {size:,} bytes")


def looks_local(name: str) -> bool:
    """Whether a name is meant as a path: the hub's have one slash at most, and what is before it is no folder here."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or ("/" in name and Path(name).parent.is_dir())
