"""Checkpoints: folders of safetensors and JSON files that are complete or absent.

A checkpoint is written into a temporary folder, flushed to disk, listed with the SHA-256 of its
files, and renamed. Only then are old ones deleted. Nothing in it can be executed when it is loaded.
"""

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load as load_bytes
from safetensors.torch import save_file
from torch import Tensor

from textdiff.config import UserError

log = logging.getLogger("textdiff")

MANIFEST = "MANIFEST.json"
FORMAT = 1


class Checkpoint(NamedTuple):
    """The content of a checkpoint.

    Args:
        tensors: Groups (model, ema, optimizer0, ...) of tensors by name.
        facts: JSON values, such as the step and the version of torch.
    """

    tensors: dict[str, dict[str, Tensor]]
    facts: dict[str, Any]


def save(folder: Path, step: int, checkpoint: Checkpoint, keep: int = 2) -> Path:
    """Writes `folder`/step-N, then deletes older checkpoints except the newest `keep`.

    Raises:
        UserError: If writing fails. The checkpoints that were there are unchanged.
    """
    with reraise_write_errors(f"the checkpoint of step {step}", folder):
        return _save(folder, step, checkpoint, keep)


@contextmanager
def reraise_write_errors(what: str, path: Path) -> Iterator[None]:
    """Re-raises write errors as one-line user errors.

    Args:
        what: Name of what is written, for the message.
        path: The file or folder that is written to.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        failure = f"{what} could not be written to {path} ({error})"
        way_out = "earlier files are unchanged: free some disk space and use --resume"
        raise UserError(f"{failure}; {way_out}") from error


def atomic_write(path: Path, text: str) -> None:
    """Replaces a small text file as a whole.

    Raises:
        UserError: If writing fails. The file is then unchanged.
    """
    partial = path.with_name(f".{path.name}.partial")
    with reraise_write_errors(path.name, path.parent):
        partial.write_text(text, encoding="utf-8")
        _flush(partial)
        partial.replace(path)


def _save(folder: Path, step: int, checkpoint: Checkpoint, keep: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".step-*.partial"):  # of a run that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    partial = folder / f".step-{step:08d}.partial"
    partial.mkdir()
    for name, group in checkpoint.tensors.items():
        tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in group.items()}
        save_file(tensors, partial / f"{name}.safetensors")
    facts = json.dumps({"format": FORMAT, **checkpoint.facts}, indent=2)
    (partial / "facts.json").write_text(facts, encoding="utf-8")
    final = folder / f"step-{step:08d}"
    finalize(partial, final)
    # later checkpoints are damaged, because training resumed from an earlier one
    older = [path for path in list_checkpoints(folder) if path <= final]
    for path in older[:-keep]:
        shutil.rmtree(path)
    return final


def finalize(partial: Path, final: Path) -> None:
    """Makes a folder of files final: adds a manifest of SHA-256 sums, flushes and renames it.

    `verify` checks the folder against the manifest.
    """
    sums = {path.name: _sha256(path) for path in sorted(partial.iterdir())}
    (partial / MANIFEST).write_text(json.dumps(sums, indent=2), encoding="utf-8")
    for path in (*partial.iterdir(), partial):
        _flush(path)
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    _flush(final.parent)


def load_latest(folder: Path) -> Checkpoint | None:
    """Loads the newest intact checkpoint and warns about damaged ones.

    Returns:
        The checkpoint, or None if the folder has none.

    Raises:
        UserError: If all checkpoints are damaged.
    """
    paths = list_checkpoints(folder)
    for path in reversed(paths):
        damage = verify(path)
        if damage is None:
            if path != paths[-1]:
                log.warning("using checkpoint %s instead", path)
            return load(path)
        log.warning("checkpoint %s is damaged (%s) and is not used", path, damage)
    if paths:
        raise UserError(f"every checkpoint in {folder} is damaged: start again with --overwrite")
    return None


def list_checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted(path for path in folder.glob("step-*") if re.fullmatch(r"step-\d{8}", path.name))


def verify(path: Path) -> str | None:
    """Checks a finalized folder against its manifest.

    Returns:
        The damage in words, or None if the folder is intact.
    """
    try:
        sums = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        if sums.keys() ^ {file.name for file in path.iterdir()} != {MANIFEST}:
            return f"{MANIFEST} does not list the files in the folder"
        for name, expected in sums.items():
            if _sha256(path / name) != expected:
                return f"{name} has changed since it was written"
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        return f"{MANIFEST} or a file in it cannot be read: {error}"
    return None


def load(path: Path) -> Checkpoint:
    """Loads a checkpoint without verifying it.

    Raises:
        UserError: If another version of the program wrote it in another format.
    """
    facts = json.loads((path / "facts.json").read_text(encoding="utf-8"))
    if facts["format"] != FORMAT:
        raise UserError(f"{path} has format {facts['format']}, this version reads {FORMAT}")
    # read, not mapped, because Windows cannot delete a mapped file
    files = sorted(path.glob("*.safetensors"))
    return Checkpoint({file.stem: load_bytes(file.read_bytes()) for file in files}, facts)


def sha256(*parts: bytes) -> str:
    """SHA-256 of the concatenated parts, as hexadecimal digits."""
    return hashlib.sha256(b"".join(parts)).hexdigest()


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    """Waits until a file or a folder is on the disk.

    Windows flushes no folders, and only files that are open for writing.
    """
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
