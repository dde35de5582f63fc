"""Checkpoints that are whole or not there: written aside, flushed, listed with their SHA-256, renamed into place, and only then pruned.

safetensors and JSON only, nothing that can execute. Knows tensors by name, not what they are for.
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

from textdiff.config import InputError

log = logging.getLogger("textdiff")

MANIFEST = "MANIFEST.json"
FORMAT = 1


class Checkpoint(NamedTuple):
    """Groups of named tensors (model, ema, optimizer, ...) and JSON facts (step, versions, ...)."""

    tensors: dict[str, dict[str, Tensor]]
    facts: dict[str, Any]


def save(folder: Path, step: int, checkpoint: Checkpoint, keep: int = 2) -> Path:
    """Writes `folder`/step-N and then deletes all up to it but the newest `keep`. Raises InputError if that fails; what was there is untouched."""
    with telling(f"the checkpoint of step {step}", folder):
        return _save(folder, step, checkpoint, keep)


@contextmanager
def telling(what: str, where: Path) -> Iterator[None]:
    """Says in one line what could not be written, whoever tried."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise InputError(f"{what} could not be written to {where} ({error}); what was there before is whole: make room and --resume") from error


def write_whole(path: Path, text: str) -> None:
    """A small file is replaced as a whole or not at all. Raises InputError if it cannot be."""
    aside = path.with_name(f".{path.name}.partial")
    with telling(path.name, path.parent):
        aside.write_text(text, encoding="utf-8")
        _flush(aside)
        aside.replace(path)


def _save(folder: Path, step: int, checkpoint: Checkpoint, keep: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f".step-{step:08d}.partial"
    for left in folder.glob(".step-*.partial"):  # of a run that was killed
        shutil.rmtree(left, ignore_errors=True)
    aside.mkdir()
    for name, group in checkpoint.tensors.items():
        save_file({key: tensor.detach().cpu().contiguous() for key, tensor in group.items()}, aside / f"{name}.safetensors")
    (aside / "facts.json").write_text(json.dumps({"format": FORMAT, **checkpoint.facts}, indent=2), encoding="utf-8")
    done = folder / f"step-{step:08d}"
    publish(aside, done)
    for old in [path for path in steps(folder) if path <= done][:-keep]:  # later ones are damaged: they were passed over
        shutil.rmtree(old)
    return done


def publish(aside: Path, done: Path) -> None:
    """Lists a folder's files with their SHA-256, flushes them and renames the folder, which `damage` then finds whole."""
    sums = {path.name: _sha256(path) for path in sorted(aside.iterdir())}
    (aside / MANIFEST).write_text(json.dumps(sums, indent=2), encoding="utf-8")
    for path in (*aside.iterdir(), aside):
        _flush(path)
    shutil.rmtree(done, ignore_errors=True)
    aside.rename(done)
    _flush(done.parent)


def newest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole; damaged ones are named in a warning. None if there has never been one.

    Raises InputError if there are checkpoints but all are damaged.
    """
    found = steps(folder)
    for path in reversed(found):
        reason = damage(path)
        if reason is None:
            if path != found[-1]:
                log.warning("going on from checkpoint %s instead", path)
            return load(path)
        log.warning("checkpoint %s is damaged (%s) and was passed over", path, reason)
    if found:
        raise InputError(f"every checkpoint in {folder} is damaged: start again with --overwrite")
    return None


def steps(folder: Path) -> list[Path]:
    """Finished checkpoints, oldest first."""
    return sorted(path for path in folder.glob("step-*") if re.fullmatch(r"step-\d{8}", path.name))


def damage(path: Path) -> str | None:
    """Why a checkpoint cannot be trusted, or None."""
    try:
        sums = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        if sums.keys() ^ {file.name for file in path.iterdir()} != {MANIFEST}:
            return f"{MANIFEST} does not list the files that are there"
        for name, expected in sums.items():
            if _sha256(path / name) != expected:
                return f"{name} has changed since it was written"
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        return f"{MANIFEST} or a file it lists cannot be read: {error}"
    return None


def load(path: Path) -> Checkpoint:
    facts = json.loads((path / "facts.json").read_text(encoding="utf-8"))
    if facts["format"] != FORMAT:
        raise InputError(f"{path} has format {facts['format']}, this version reads {FORMAT}")
    files = sorted(path.glob("*.safetensors"))  # read, not mapped: Windows cannot delete a mapped file
    return Checkpoint({file.stem: load_bytes(file.read_bytes()) for file in files}, facts)


def digest(*parts: bytes) -> str:
    """SHA-256 of all of them."""
    return hashlib.sha256(b"".join(parts)).hexdigest()


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    """Waits until a file or a folder is on the disk. Windows syncs no folders, and only files opened to be written."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
