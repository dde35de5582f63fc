"""Text files of every format, and the texts that a configuration opens."""

import csv
import gzip
import json

import pyarrow as pa
import pyarrow.parquet

from textdiff.text import grammar
from textdiff.text.config import DataConfig
from textdiff.text.sources import Texts, open_texts

# thirty different lines
LINES = [f"{sentence} {i}" for i, sentence in enumerate(grammar.corpus(30, seed=5))]


def write_txt(path, lines):
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def write_txt_gz(path, lines):
    path.write_bytes(gzip.compress("".join(line + "\n" for line in lines).encode()))


def write_csv(path, lines):
    rows = [["number", "text"], *([i, line] for i, line in enumerate(lines))]
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def write_json(path, lines):
    path.write_text(json.dumps([{"text": line} for line in lines]), encoding="utf-8")


def write_jsonl_gz(path, lines):
    write_txt_gz(path, [json.dumps({"text": line, "n": 1}) for line in lines])


def write_parquet(path, lines, field="text"):
    pyarrow.parquet.write_table(pa.table({field: lines}), path)


WRITERS = {
    ".txt": write_txt,
    ".txt.gz": write_txt_gz,
    ".csv": write_csv,
    ".json": write_json,
    ".jsonl.gz": write_jsonl_gz,
    ".parquet": write_parquet,
}


def open_files(**options) -> Texts:
    """Texts of `DataConfig(**options)`."""
    return open_texts(DataConfig(**options))


def lines_of(path, **options) -> list[str]:
    """Training texts of a file from which nothing is held out."""
    return [*open_files(train=str(path), valid=str(path), **options).train()]


def log_messages(caplog) -> list[str]:
    """Messages that the package has logged."""
    return [record.getMessage() for record in caplog.records if record.name == "textdiff"]
