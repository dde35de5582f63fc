"""Faults of what a user gives: hostile model files, mistaken options, broken corpora and images."""

import contextlib
import gzip
import io
import json
import os
import pickle
import resource
import shutil
import struct
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

from injected.harness import Kind, emptied, ended, forked, run_to_the_end
from injected.runs import Result
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from image import cli as image_cli
from image import generate as image_generate
from image.config import Data as ImageData
from image.config import ImageRun
from image.sources import open_images
from textdiff import cli as text_cli
from textdiff import generate as text_generate
from textdiff.config import Data, TextRun, Vocabulary
from textdiff.data import examples
from textdiff.folder import saved_config
from textdiff.sources import open_texts
from textdiff.teacher import ForeignTeacher
from textdiff.vocab import train_tokenizer

FREE = ("data.train", "data.valid", "data.field")  # any text will do, as far as one can see before the data are opened


class Bomb:
    """Unpickled, it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.mark}",)


def header(content: dict[str, Any], length: int | None = None, data: bytes = b"") -> bytes:
    text = json.dumps(content).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


WEIGHTS: dict[str, bytes] = {
    "an empty file": b"",
    "a header of 2^62 bytes": header({}, 2**62),
    "a header beyond the end": header({}, 10_000),
    "a header that is no JSON": struct.pack("<Q", 4) + b"\x80\x04N.",
    "overlapping tensors": header({name: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for name in "ab"}, data=b"\0" * 8),
    "a tensor beyond the end": header({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}),
    "a negative offset": header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]}}, data=b"\0" * 8),
    "an unknown type": header({"a": {"dtype": "PICKLE", "shape": [1], "data_offsets": [0, 4]}}, data=b"\0" * 4),
}
CONFIGS: dict[str, bytes] = {
    "with auto_map": b'{"model_type": "textdiff", "auto_map": {"AutoModel": "evil.Model", "AutoConfig": "evil.Config"}}',
    "of no model": b'{"model_type": "nothing"}',
    "of nested lists": b"[" * 100_000,
    "of an unknown schedule": b'{"model_type": "textdiff", "vocab_size": 40, "length": 20, "schedule": "os.system"}',
    "of an unknown objective": b'{"model_type": "textdiff", "vocab_size": 40, "length": 20, "objective": "pickle"}',
    "of a million layers": b'{"model_type": "textdiff", "vocab_size": 40, "length": 20, "depth": 1000000}',
    "of a vocabulary of two billion": b'{"model_type": "textdiff", "vocab_size": 2000000000, "length": 20}',
    "of a width of a thousand": b'{"model_type": "textdiff", "vocab_size": 40, "length": 20, "width": 1024}',
}


def hostile_files(text: Kind, images: Kind, folder: Path) -> Iterator[Result]:
    """None executes, and each gives one line."""
    mark = folder / "executed"
    bomb = pickle.dumps(Bomb(mark))
    weights = [("model.safetensors", content) for content in (bomb, *WEIGHTS.values())]
    configs = [("config.json", content) for content in (bomb, *CONFIGS.values())]
    words = [("tokenizer.json", content) for content in (bomb, b"", b"[" * 100_000, b'{"model": {"type": "nothing"}}')]
    yaml = [("config.yaml", content) for content in (bomb, f"run: !!python/object/apply:os.system ['touch {mark}']".encode(), b"[" * 1000, b"")]
    pickles = [("pytorch_model.bin", bomb)]
    files = {
        text_generate.load: (text, weights + configs + words + pickles),
        image_generate.load: (images, weights + configs + pickles),
        partial(saved_config, kind=TextRun): (text, yaml),
        partial(ForeignTeacher, tokenizer=Tokenizer(WordLevel())): (text, weights + configs + words + pickles),
    }
    good, tried = 0, 0
    for load, (kind, cases) in files.items():
        run_to_the_end(kind.at(folder / kind.name, steps=1))
        for name, content in cases:
            with emptied(folder / "hostile") as home:
                shutil.copytree(folder / kind.name / "model", home, dirs_exist_ok=True)
                if name == "pytorch_model.bin":
                    (home / "model.safetensors").unlink()
                (home / name).write_bytes(content)
                (home / "evil.py").write_text(f"import os; os.system('touch {mark}')", encoding="utf-8")
                log = home / "log"
                code = ended(forked(partial(_frugal, partial(load, str(home))), log))
                said = [line for line in log.read_text(errors="replace", encoding="utf-8").splitlines() if "error" in line]
                held = code == 2 and len(said) == 1 and not mark.exists()
                good, tried = good + held, tried + 1
                if not held:
                    print(f"    {name} {content[:30]!r}: exit code {code}: {said}", file=sys.stderr)
    archive = folder / "climbing.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("../climbed.png", b"no image")
    code = ended(forked(partial(open_images, ImageData(train=str(archive)))))
    good += code == 2 and not (folder.parent / "climbed.png").exists()
    yield "hostile files: none executed, each one line, in 64 MB of memory", good, tried + 1


def _frugal(work: Callable[[], object], megabytes: int = 64) -> None:
    """With little more memory than there is: what a hostile file claims to hold is not to be made room for."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (used,) = (int(line.split()[1]) for line in status.splitlines() if line.startswith("VmData"))
    resource.setrlimit(resource.RLIMIT_DATA, (used * 1024 + megabytes * 2**20,) * 2)
    work()


def mistaken_options(folder: Path) -> Iterator[Result]:
    """Misspelt, of a wrong type or out of range: refused at once, by name, before data or model are touched."""
    commands: list[tuple[Callable[[list[str]], None], type]] = [
        (lambda options: text_cli.main(["train", *options]), TextRun),
        (lambda options: image_cli.main("train", options), ImageRun),
    ]
    good, quick, tried = 0, 0, 0
    for command, config in commands:
        for key, value in _keys(config()):
            section, _, name = key.rpartition(".")
            dotted = f"{section}." if section else ""
            misspelt = (name[:-1], f"{name}x", name[1] + name[0] + name[2:])
            mistakes = [(f"--{dotted}{other}", str(value), key) for other in misspelt]
            mistakes += [(f"--{key}", "nonsense!", key)] if value is not None and key not in FREE else []
            mistakes += [(f"--{key}", "-1", key)] if isinstance(value, int | float) and not isinstance(value, bool) and "logsnr" not in key else []
            for option, given, expected in mistakes:
                began, said = time.monotonic(), io.StringIO()
                with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
                    try:
                        command([option, given, "--run", str(folder / "never")])
                        code: Any = 0
                    except SystemExit as error:
                        code = error.code
                lines = said.getvalue().strip().splitlines()
                name = expected.rpartition(".")[2]
                good += code == 2 and len(lines) == 1 and named(name, option, lines[0]) and not (folder / "never").exists()
                quick += time.monotonic() - began < 2
                tried += 1
    yield "mistaken options: refused in one line that names the right one", good, tried
    yield "  in under 2 seconds", quick, tried


def named(name: str, typed: str, said: str) -> bool:
    """Whether a message names the right option: where another was typed, not counting that."""
    return name in (said if typed.rpartition(".")[2].lstrip("-") == name else said.replace(typed.lstrip("-"), "", 1))


LINES = ["the cat sleeps .", "the dog runs .", "a bird sings ."]
PLAIN = "\n".join(LINES).encode() + b"\n"
CORPORA: dict[str, tuple[bytes, int | None]] = {  # what is in a file, and how many examples it holds; none: it is refused
    "plain.txt": (PLAIN, 3),
    "bom.txt": (b"\xef\xbb\xbf" + PLAIN, 3),
    "crlf.txt": (PLAIN.replace(b"\n", b"\r\n"), 3),
    "cr-mixed.txt": (b"the cat sleeps .\r\nthe dog runs .\na bird sings .\n", 3),
    "no-end.txt": (PLAIN[:-1], 3),
    "blank-lines.txt": (b"\n\n" + PLAIN.replace(b"\n", b"\n\n"), 3),
    "invalid-utf8.txt": (PLAIN + b"\xff\xfe broken\n", 3),
    "nul.txt": (PLAIN + b"nul \x00 here\n", 3),
    "latin1.txt": (PLAIN + "caf\xe9\n".encode("latin1"), 3),
    "emoji.txt": (PLAIN + "a \U0001f600 smiles .\n".encode(), 4),
    "right-to-left.txt": (PLAIN + "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd\n".encode(), 4),
    "combining.txt": (PLAIN + "cafe\u0301 n\u0303\n".encode(), 4),
    "tabs.txt": (PLAIN + b"a\tb\tc\n", 4),
    "long-line.txt": (PLAIN + b"word " * 2_000_000 + b"\n", 3),
    "empty.txt": (b"", None),
    "spaces.txt": (b"  \n \n", None),
    "one-word.txt": (b"word\n", None),
    "gz-by-name.txt.gz": (PLAIN, None),
    "gz-inside.txt": (gzip.compress(PLAIN), 3),
    "truncated.txt.gz": (gzip.compress(PLAIN * 1000)[:50], None),
    "rows.jsonl": (b"".join(json.dumps({"text": line}).encode() + b"\n" for line in LINES), 3),
    "no-field.jsonl": (b'{"words": "the cat"}\n', None),
    "broken.jsonl": (b'{"text": "the cat"}\n{"text": \n', None),
    "numbers.jsonl": (b'{"text": 1}\n{"text": 2}\n', None),
    "null.jsonl": (b'{"text": "the cat sleeps ."}\n{"text": null}\n{"text": "the dog runs ."}\n', 2),
    "rows.csv": (b"text\n" + PLAIN, 3),
    "quotes.csv": (b'text,other\n"the cat, sleeps .",1\n"the dog runs .",2\n', 2),
    "no-field.csv": (b"words\nthe cat\n", None),
    "fake.parquet": (PLAIN, None),
    "directory.txt": (b"", None),
}
LEFT_OUT = (
    "invalid-utf8.txt",
    "nul.txt",
    "latin1.txt",
    "long-line.txt",
    "null.jsonl",
    "numbers.jsonl",
)  # of which a row is left out, counted and located


def broken_corpora(folder: Path) -> Iterator[Result]:
    """Every valid line survives; what is broken is a counted, located warning or one clear line."""
    home, good = folder / "corpora", 0
    (home / "directory.txt").mkdir(parents=True)
    for name, (content, expected) in CORPORA.items():
        if name != "directory.txt":
            (home / name).write_bytes(content)
        log = folder / f"{name}.log"
        code, said = (
            ended(forked(partial(_read_corpus, home / name, home / "plain.txt", expected), log)),
            log.read_text(errors="replace", encoding="utf-8"),
        )
        held = code == (2 if expected is None else 0) and ("left out rows that" in said) == (name in LEFT_OUT)
        good += held
        if not held:
            print(f"    {name}: exit code {code}: {said.strip().splitlines()[-1:]}", file=sys.stderr)
    yield "corpora: every valid line kept and, by bpe, given back exactly, or one clear line", good, len(CORPORA)


def _read_corpus(path: Path, valid: Path, expected: int | None) -> None:
    data = Data(train=str(path), valid=str(valid))
    texts = open_texts(data)
    found = list(examples(texts.train(), train_tokenizer(texts.train(), TextRun().tokenizer), data))
    assert len(found) == expected, (path, len(found), expected)
    exact = train_tokenizer(texts.train(), Vocabulary(kind="bpe", min_count=1))
    assert all(exact.decode(exact.encode(text).ids) == text for text in texts.train())


def broken_images(folder: Path) -> Iterator[Result]:
    """Counted and named where others are left, one clear line where none is."""
    buffer = io.BytesIO()
    Image.new("L", (8, 8), 100).save(buffer, "PNG")
    sound = buffer.getvalue()
    contents = {
        "empty": b"",
        "text": b"no image",
        "half": sound[: len(sound) // 2],
        "head": sound[:20],
        "flipped": sound[:40] + bytes([sound[40] ^ 255]) + sound[41:],
        "gif-name": b"GIF89a",
        "jpeg-head": b"\xff\xd8\xff\xe0" + b"\0" * 20,
        "bmp-head": b"BM" + b"\0" * 30,
        "zeros": b"\0" * 1000,
        "pickle": pickle.dumps({"a": 1}),
    }
    good = 0
    for name, content in contents.items():
        for others in (2, 0):
            home, log = folder / f"{name}-{others}", folder / f"{name}-{others}.log"
            home.mkdir()
            (home / f"{name}.png").write_bytes(content)
            for number in range(others):
                (home / f"sound-{number}.png").write_bytes(sound)
            code, said = ended(forked(partial(_read_images, home, others), log)), log.read_text(encoding="utf-8")
            good += code == (0 if others else 2) and f"1 of {others + 1} images cannot be read: {name}.png" in said
    yield "images: broken ones counted and named, or one clear line", good, 2 * len(contents)


def _read_images(home: Path, expected: int) -> None:
    train, valid = open_images(ImageData(train=str(home), valid_share=0.5))
    assert len(train) + len(valid) == expected


def _keys(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every option with its default."""
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            yield from _keys(value, f"{prefix}{field.name}.")
        elif field.name != "run":
            yield f"{prefix}{field.name}", value
