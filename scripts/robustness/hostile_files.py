"""Hostile files in a model folder: none executes code, and each leads to an error of one line."""

import json
import os
import pickle
import resource
import shutil
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from image import sampling as image_sampling
from image.config import DataConfig
from image.sources import open_images
from robustness.harness import Result, TinyRun, run_child, scratch_folder
from textdiff.evaluation.reference_lm import PretrainedReferenceLM
from textdiff.text import hub as text_hub
from textdiff.text.config import TextConfig
from textdiff.training.run_dir import load_config_of

Case = tuple[str, bytes]  # name and content of a file
Load = Callable[[str], object]
MEGABYTES = 64  # memory for loading, far less than the files claim to need


class Bomb:
    """An object that creates a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.mark}",)


def header(content: dict[str, Any], length: int | None = None, data: bytes = b"") -> bytes:
    """A safetensors file with this header.

    Args:
        length: Length of the header that the file states. If None, the true one.
    """
    text = json.dumps(content).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(dtype: str, shape: list[int], start: int, end: int) -> dict[str, Any]:
    """A tensor in the header of a safetensors file."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def config(**options: object) -> bytes:
    """A config.json of a text model."""
    return json.dumps(
        {"model_type": "textdiff", "vocab_size": 40, "length": 20, **options}
    ).encode()


WEIGHTS = (
    b"",
    header({}, 2**62),
    header({}, 10_000),
    struct.pack("<Q", 4) + b"\x80\x04N.",
    header({name: tensor("F32", [2], 0, 8) for name in "ab"}, data=b"\0" * 8),
    header({"a": tensor("F32", [2**40], 0, 2**42)}),
    header({"a": tensor("F32", [2], -8, 0)}, data=b"\0" * 8),
    header({"a": tensor("PICKLE", [1], 0, 4)}, data=b"\0" * 4),
)
REMOTE_CODE = {"AutoModel": "evil.Model", "AutoConfig": "evil.Config"}
CONFIGS = (
    json.dumps({"model_type": "textdiff", "auto_map": REMOTE_CODE}).encode(),
    b'{"model_type": "nothing"}',
    b"[" * 100_000,
    config(schedule="os.system"),
    config(objective="pickle"),
    config(depth=1_000_000),
    config(vocab_size=2_000_000_000),
    config(width=1024),
)
GENERATION = (b"", b"[" * 100_000, b"[1]", b'{"max_new_tokens": "many"}', b'{"top_k": 1}')
TOKENIZERS = (b"", b"[" * 100_000, b'{"model": {"type": "nothing"}}')


def hostile_files(text: TinyRun, images: TinyRun, folder: Path) -> Iterator[Result]:
    """Loads every hostile file, with little memory, in a child process."""
    mark = folder / "executed"
    held = []
    for load, run, cases in _cases(text, images, mark):
        run = run.at(folder / run.name, steps=1)
        run.complete()
        for name, content in cases:
            with scratch_folder(folder / "hostile") as home:
                shutil.copytree(run.path / "model", home, dirs_exist_ok=True)
                _write(home, name, content, mark)
                code, output = run_child(partial(_load_frugally, load, str(home)))
            errors = [line for line in output.splitlines() if "error" in line]
            held.append(code == 2 and len(errors) == 1 and not mark.exists())
            if not held[-1]:
                print(f"    {name} {content[:30]!r}: exit code {code}: {errors}", file=sys.stderr)
    held.append(_refuses_climbing_archive(folder))
    claim = f"hostile files: none executed, an error of one line, in {MEGABYTES} MB of memory"
    yield Result(claim, sum(held), len(held))


def _cases(
    text: TinyRun, images: TinyRun, mark: Path
) -> Iterator[tuple[Load, TinyRun, list[Case]]]:
    """Functions that load a model folder, with a run and the files that replace its own."""
    bomb = pickle.dumps(Bomb(mark))
    weights = [("model.safetensors", content) for content in (bomb, *WEIGHTS)]
    configs = [("config.json", content) for content in (bomb, *CONFIGS)]
    generation = [("generation_config.json", content) for content in GENERATION]
    tokenizers = [("tokenizer.json", content) for content in (bomb, *TOKENIZERS)]
    pickles = [("pytorch_model.bin", bomb)]
    command = f"run: !!python/object/apply:os.system ['touch {mark}']".encode()
    yaml = [("config.yaml", content) for content in (bomb, command, b"[" * 1000, b"")]
    reference_lm = partial(PretrainedReferenceLM, tokenizer=Tokenizer(WordLevel()))
    yield text_hub.load_model, text, weights + configs + generation + tokenizers + pickles
    yield image_sampling.load_model, images, weights + configs + pickles
    yield partial(load_config_of, kind=TextConfig), text, yaml
    yield reference_lm, text, weights + configs + tokenizers + pickles


def _write(home: Path, name: str, content: bytes, mark: Path) -> None:
    """Writes a hostile file, and code that a configuration may point to."""
    if name == "pytorch_model.bin":
        (home / "model.safetensors").unlink()
    (home / name).write_bytes(content)
    code = f"import os; os.system('touch {mark}')"
    (home / "evil.py").write_text(code, encoding="utf-8")


def _load_frugally(load: Load, folder: str) -> None:
    """Loads a model with little more memory than the process already has."""
    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (used,) = (int(line.split()[1]) for line in status if line.startswith("VmData"))
    limit = used * 1024 + MEGABYTES * 2**20
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    load(folder)


def _refuses_climbing_archive(folder: Path) -> bool:
    """Whether an archive cannot write outside of its folder."""
    path = folder / "climbing.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("../climbed.png", b"no image")
    code, _ = run_child(partial(open_images, DataConfig(train=str(path))))
    return code == 2 and not (folder.parent / "climbed.png").exists()
