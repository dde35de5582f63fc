"""Broken text files: valid lines are kept, and broken ones are counted or refused in one line."""

import gzip
import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from robustness.harness import Result, run_child
from textdiff.text.config import DataConfig, TokenizerConfig
from textdiff.text.dataset import examples
from textdiff.text.sources import open_texts
from textdiff.text.tokenizer import train_tokenizer

LINES = ["the cat sleeps .", "the dog runs .", "a bird sings ."]
PLAIN = "\n".join(LINES).encode() + b"\n"
ROWS = b"".join(json.dumps({"text": line}).encode() + b"\n" for line in LINES)
ONE_NULL = b'{"text": "the cat sleeps ."}\n{"text": null}\n{"text": "the dog runs ."}\n'
# name -> content and number of examples, or None if the file is refused
CORPORA: dict[str, tuple[bytes, int | None]] = {
    "plain.txt": (PLAIN, 3),
    "bom.txt": (b"\xef\xbb\xbf" + PLAIN, 3),
    "crlf.txt": (PLAIN.replace(b"\n", b"\r\n"), 3),
    "cr-mixed.txt": (PLAIN.replace(b"\n", b"\r\n", 1), 3),
    "no-end.txt": (PLAIN[:-1], 3),
    "blank-lines.txt": (b"\n\n" + PLAIN.replace(b"\n", b"\n\n"), 3),
    "invalid-utf8.txt": (PLAIN + b"\xff\xfe broken\n", 3),
    "nul.txt": (PLAIN + b"nul \x00 here\n", 3),
    "latin1.txt": (PLAIN + "caf\xe9\n".encode("latin1"), 3),
    "emoji.txt": (PLAIN + "a \U0001f600 smiles .\n".encode(), 4),
    "right-to-left.txt": (PLAIN + "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\n".encode(), 4),
    "combining.txt": (PLAIN + "cafe\u0301 n\u0303\n".encode(), 4),
    "tabs.txt": (PLAIN + b"a\tb\tc\n", 4),
    "long-line.txt": (PLAIN + b"word " * 2_000_000 + b"\n", 3),
    "empty.txt": (b"", None),
    "spaces.txt": (b"  \n \n", None),
    "one-word.txt": (b"word\n", None),
    "gz-by-name.txt.gz": (PLAIN, None),
    "gz-inside.txt": (gzip.compress(PLAIN), 3),
    "truncated.txt.gz": (gzip.compress(PLAIN * 1000)[:50], None),
    "rows.jsonl": (ROWS, 3),
    "no-field.jsonl": (b'{"words": "the cat"}\n', None),
    "broken.jsonl": (b'{"text": "the cat"}\n{"text": \n', None),
    "numbers.jsonl": (b'{"text": 1}\n{"text": 2}\n', None),
    "null.jsonl": (ONE_NULL, 2),
    "rows.csv": (b"text\n" + PLAIN, 3),
    "quotes.csv": (b'text,other\n"the cat, sleeps .",1\n"the dog runs .",2\n', 2),
    "no-field.csv": (b"words\nthe cat\n", None),
    "fake.parquet": (PLAIN, None),
    "directory.txt": (b"", None),
}
# files of which a row is left out, with a warning
PARTLY_BROKEN = (
    "invalid-utf8.txt",
    "nul.txt",
    "latin1.txt",
    "long-line.txt",
    "null.jsonl",
    "numbers.jsonl",
)


def broken_corpora(folder: Path) -> Iterator[Result]:
    """Opens every file in a child process."""
    home, held = folder / "corpora", 0
    (home / "directory.txt").mkdir(parents=True)
    for name, (content, expected) in CORPORA.items():
        if name != "directory.txt":
            (home / name).write_bytes(content)
        code, output = run_child(partial(_read, home / name, home / "plain.txt", expected))
        warned = "left out rows that" in output
        good = code == (2 if expected is None else 0) and warned == (name in PARTLY_BROKEN)
        held += good
        if not good:
            last = output.strip().splitlines()[-1:]
            print(f"    {name}: exit code {code}: {last}", file=sys.stderr)
    claim = "corpora: every valid line kept and, by bpe, restored exactly, or one error"
    yield Result(claim, held, len(CORPORA))


def _read(path: Path, valid: Path, expected: int | None) -> None:
    """Reads a file, checks the number of its examples and restores its texts from bpe tokens."""
    data = DataConfig(train=str(path), valid=str(valid))
    texts = open_texts(data)
    tokenizer = train_tokenizer(texts.train(), TokenizerConfig())
    found = list(examples(texts.train(), tokenizer, data))
    assert len(found) == expected, (path, len(found), expected)
    bpe = train_tokenizer(texts.train(), TokenizerConfig(kind="bpe", min_count=1))
    assert all(bpe.decode(bpe.encode(text).ids) == text for text in texts.train())
