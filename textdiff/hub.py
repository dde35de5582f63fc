"""Loading of trained models by name: a run folder, its model/ folder, or a model on the hub.

`HubMixin` is the reverse: it saves and uploads the model of a pipeline.
"""

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import torch
from huggingface_hub import snapshot_download
from transformers import AutoConfig, AutoModel, PreTrainedModel

from textdiff.config import UserError
from textdiff.device import own_device
from textdiff.upload import check_repo_id, hub_error, push_folder

M = TypeVar("M", bound=PreTrainedModel)

CARD = ("README.md", "samples.png")  # the model card and its picture
DOWNLOADED = ("*.json", "*.safetensors", *CARD)  # files of a model on the hub


def load_pretrained(
    name: str,
    kinds: tuple[type[M], ...],
    files: tuple[str, ...],
    revision: str | None = None,
    token: str | None = None,
) -> tuple[M, str]:
    """Loads a model in evaluation mode on this process's device.

    Args:
        name: A run folder, its model/ folder, or a name on the hub such as user/model.
        kinds: The classes that the model may have.
        files: Files that a folder with a model must contain.
        revision: Branch, tag or commit of a model on the hub. If None, the main branch.
        token: Access token of the hub. If None, that of `hf auth login` or HF_TOKEN.

    Returns:
        The model, and the folder that it was loaded from.

    Raises:
        UserError: If there is no such model or it cannot be loaded.
    """
    source = model_source(name, files)
    if not Path(source).is_dir():
        source = _download(name, revision, token)
    kind = "a model of textdiff" if len(kinds) > 1 else f"a model of class {kinds[0].__name__}"
    model, report = _load(name, source, kind)
    if not isinstance(model, kinds):
        is_other = f"{name} is a {type(model).__name__}, not {kind}"
        raise UserError(is_other + _way_to_sample(model.config.model_type))
    for fault, keys in (
        ("lacks weights that", report["missing_keys"]),
        ("has weights of another size than", report["mismatched_keys"]),
    ):
        if keys:
            listed = ", ".join(sorted(key if isinstance(key, str) else key[0] for key in keys))
            raise UserError(f"{name} {fault} its config.json asks for: {listed[:200]}")
    torch.nn.Module.to(model, own_device())  # transformers hides the signature of its own `to`
    return model.eval(), source


def model_source(name: str, files: tuple[str, ...]) -> str:
    """The folder of a model that is named by its run folder, or else the name itself.

    Raises:
        UserError: If it is a folder without one of the files, or no folder and no name on the hub.
    """
    name = name or "."
    folder = Path(name) / "model" if (Path(name) / "model").is_dir() else Path(name)
    for file in files:
        if folder.is_dir() and not (folder / file).exists():
            text = f"{name} holds no model: no {file} in it or in {name}/model"
            raise UserError(text + _other_model(folder))
    if not folder.is_dir() and (folder.exists() or looks_local(name) or "/" not in name):
        way_out = "give a run folder, its model/ folder, or a hub name such as user/model"
        raise UserError(f"{name} is not a folder: {way_out}")
    return str(folder) if folder.is_dir() else name


def _other_model(folder: Path) -> str:
    """What a message says about a model of another kind in a folder."""
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    way_out = _way_to_sample(str(kind)) if "image" in str(kind) else ""  # others lack a file
    return f", but a model of type {kind}{way_out}"


def _way_to_sample(model_type: str) -> str:
    """What a message says about the command for models of a type, if there is one."""
    if not model_type.startswith("textdiff"):
        return ""
    command = "scripts/sample_image.py" if "image" in model_type else "textdiff sample"
    return f": sample it with {command}"


def _download(name: str, revision: str | None, token: str | None) -> str:
    """The folder in the hub's cache that holds a model, downloaded if it is not there.

    Raises:
        UserError: If it is neither on the hub nor in the cache.
    """
    try:
        return snapshot_download(name, revision=revision, token=token, allow_patterns=[*DOWNLOADED])
    except Exception as error:  # of the hub, of httpx and of the disk
        raise hub_error(name, error) from error


def _load(name: str, source: str, kind: str) -> tuple[Any, dict[str, Any]]:
    """The model and transformers' report of missing and mismatched weights."""
    options: Any = {"output_loading_info": True, "ignore_mismatched_sizes": True}
    try:
        _check_size(name, Path(source))
        return AutoModel.from_pretrained(
            source, use_safetensors=True, trust_remote_code=False, **options
        )
    except UserError:
        raise
    except Exception as error:  # transformers, safetensors and the hub raise many kinds
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{name} cannot be loaded as {kind}: {reason}") from error


def _check_size(name: str, folder: Path) -> None:
    """Raises UserError if config.json asks for more weights than its file can hold.

    It runs before the network is built, which may need more memory than there is.
    """
    if not (weights := folder / "model.safetensors").exists():
        return
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    size = weights.stat().st_size
    wanted = max((value for value in config.to_dict().values() if type(value) is int), default=0)
    if wanted <= size:
        with torch.device("meta"):
            model = AutoModel.from_config(config, trust_remote_code=False)
        wanted = sum(weight.numel() for weight in model.parameters())
    if wanted > size:
        asked = f"its config.json asks for {wanted:,} weights or more"
        raise UserError(f"{name}: {asked}, its model.safetensors has {size:,} bytes")


class HubMixin:
    """Saving and uploading of the model of a pipeline."""

    model: Any  # a PreTrainedModel

    def save_pretrained(self, folder: str | Path) -> None:
        """Saves what `from_pretrained` loads into a folder, with the model card if there is one."""
        save_model(self.model, Path(folder))

    def push_to_hub(self, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
        """Uploads the model to the Hugging Face hub and returns its address.

        Args:
            repo_id: Name on the hub, such as user/model.
            private: Whether a new repository is private.
            token: Access token of the hub. If None, that of `hf auth login` or HF_TOKEN.

        Raises:
            UserError: If the name is impossible, or the hub refuses the model or cannot be reached.
        """
        check_repo_id(repo_id)
        with TemporaryDirectory(prefix="textdiff-") as folder:
            self.save_pretrained(folder)
            return push_folder(Path(folder), repo_id, private=private, token=token)


def save_model(model: PreTrainedModel, folder: Path) -> None:
    """Saves weights and configuration, with the model card of the folder it was loaded from.

    Raises:
        UserError: If writing fails.
    """
    source = Path(model.name_or_path) if model.name_or_path else folder
    try:
        model.save_pretrained(folder)
        for name in CARD:
            if (source / name).exists() and source.resolve() != folder.resolve():
                shutil.copyfile(source / name, folder / name)
    except OSError as error:
        raise UserError(f"the model cannot be written to {folder}: {error}") from error


def looks_local(name: str) -> bool:
    """Whether a name is meant as a path.

    Names on the hub have at most one slash, and the part before it is no folder here.
    """
    is_path = name.startswith((".", "/", "~")) or name.count("/") > 1
    return is_path or ("/" in name and Path(name).parent.is_dir())
