"""Reading of text data sets: files, globs, URLs and the Hugging Face hub, through `datasets`."""

from collections.abc import Iterator, Sequence
from glob import escape, glob
from itertools import islice
from pathlib import Path
from typing import Any

import datasets

from textdiff.config import UserError
from textdiff.hub import looks_local
from textdiff.text.special_tokens import SEPARATOR

FORMATS = {".txt": "text", ".csv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
READ_BYTES = 2**23  # approximate number of bytes of text that are read at a time


def open_dataset(source: str, fields: tuple[str, ...], split: str, streaming: bool) -> Any:
    """Opens a data set.

    Args:
        source: A file, a glob, a URL or the name of a data set on the hub.
        fields: Columns of the text.
        split: Split of a data set on the hub.
        streaming: Whether rows are read while they are iterated.

    Raises:
        UserError: If it cannot be read or has no such column.
    """
    rows, columns = _load(source, split, streaming)
    for field in fields if columns else ():
        if field not in columns:
            options = "--data.field" if len(fields) == 1 else "--data.source and --data.target"
            found = f"it has {', '.join(columns)}: choose with {options}"
            raise UserError(f"{source} has no field {field!r}, {found}")
    return rows


def text_chunks(
    rows: datasets.Dataset | datasets.IterableDataset, fields: tuple[str, ...]
) -> Iterator[list[Any]]:
    """Yields the texts: megabytes of a table or 100 rows of a stream at a time.

    The text of a row is that of its only column, or source and target around a separator.
    """
    if isinstance(rows, datasets.IterableDataset):
        texts = (_joined([row.get(field) for field in fields]) for row in rows)
        while chunk := list(islice(texts, 100)):
            yield chunk
    elif len(rows):
        columns = rows.select_columns([*fields]).with_format("arrow")
        size = READ_BYTES * len(rows) // (columns.data.nbytes + 1)
        for table in columns.iter(max(1, min(size, 10_000))):
            values = [table[field].to_pylist() for field in fields]
            yield [_joined(row) for row in zip(*values, strict=True)]


def _joined(values: Sequence[Any]) -> Any:
    """The only value, or source and target as one text. A blank one makes the text blank."""
    if len(values) == 1 or not all(isinstance(value, str) for value in values):
        return values[0] if len(values) == 1 else None
    return f" {SEPARATOR} ".join(values) if all(value.strip() for value in values) else ""


def find_files(source: str) -> list[str]:
    """Returns the files that a path or a glob matches."""
    if Path(source).is_file():
        return [source]
    return [path for path in glob(source, recursive=True) if Path(path).is_file()]


def has_validation_split(source: str) -> bool:
    """Whether `source` is a data set on the hub with a validation split."""
    if _format(source) or looks_local(source):
        return False
    try:
        return "validation" in datasets.get_dataset_split_names(source)
    except Exception:  # `open_dataset` reports the error
        return False


def _format(source: str) -> str | None:
    """Format of a file, a glob or a URL; None for a data set on the hub.

    The suffix decides. Without a known suffix it is lines of text.
    """
    name = source
    while name.endswith(COMPRESSED):
        name = name[: name.rindex(".")]
    if known := FORMATS.get(Path(name).suffix.lower()):
        return known
    return "text" if "://" in source or find_files(source) else None


def _load(source: str, split: str, streaming: bool) -> tuple[Any, list[str]]:
    """Rows and column names; an empty stream has no column names."""
    datasets.disable_progress_bars()
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # would report local files to a server
    file_format = _format(source)
    is_file = file_format or looks_local(source)
    if "://" not in source and is_file and not find_files(source):
        raise UserError(f"{source} is not a file and, as a glob, matches none")
    options: dict[str, Any] = {"split": split, "streaming": streaming}
    path = source
    if file_format:
        path = file_format
        options["data_files"] = escape(source) if Path(source).is_file() else source
        options["split"] = "train"
        if file_format != "parquet":  # json is strict with plain "utf-8"
            options |= {"encoding": "utf-8-sig", "encoding_errors": "replace"}
    try:
        rows = datasets.load_dataset(path, **options)
        return rows, rows.column_names or list(next(iter(rows), {}))
    except Exception as error:  # datasets raises many kinds, most of which wrap the reason
        raise UserError(_describe(error, source, file_format)) from error


def _describe(error: Exception, source: str, file_format: str | None) -> str:
    """Message for a data set that cannot be loaded."""
    cause = error.__cause__ or error
    if type(cause).__name__ in ("SchemaInferenceError", "EmptyDataError"):
        return f"{source} is empty"
    what = "is neither a file nor a data set that the hub provides"
    if file_format:
        what = f"cannot be read as {file_format}"
    return f"{source} {what}: {' '.join(str(cause).split())[:200]}"
