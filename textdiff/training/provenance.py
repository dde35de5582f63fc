"""Provenance of a model in words that can be published: its data sets and its command.

Data sets are named by their files, addresses or hub names, without folders, users and queries.
"""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from textdiff.hub import looks_local

PATHS = ("data", "data.train", "data.valid", "tokenizer.name", "reference_lm")  # or names
OMITTED = ("run", "out", "train.trackers", "train.license", "train.minutes")


def public_name(source: str) -> str:
    """Name of a data set: the file of a path, an address without user and query, or a hub name."""
    if "://" in source and not source.startswith("file:"):
        parts = urlsplit(source)
        return f"{parts.scheme}://{parts.hostname}{parts.path}"
    is_path = looks_local(source) or Path(source).exists()
    return re.split(r"[/\\]", source.rstrip("/\\"))[-1] if is_path or "\\" in source else source


def hub_datasets(*sources: str | None) -> list[str]:
    """The sources that are data sets on the hub."""
    names = [source for source in sources if source and source == public_name(source)]
    return [name for name in names if re.fullmatch(r"[\w.-]+/[\w.-]+", name)]


def reproduce(command: str, options: dict[str, Any], defaults: dict[str, Any]) -> str:
    """The command with the options that differ from their defaults, in lines of 80 columns."""
    parts, usual = [command], dict(_flat(defaults))
    for key, value in _flat(options):
        if value != usual[key] and key not in OMITTED:
            shown = public_name(value) if key in PATHS and value else value
            text = shown if isinstance(shown, str) else json.dumps(shown, separators=(",", ":"))
            parts.append(f"--{key} {shlex.quote(text)}")
    lines = [parts[0]]
    for part in parts[1:]:
        if len(lines[-1]) + len(part) > 80:
            lines.append("   ")
        lines[-1] += f" {part}"
    return " \\\n".join(lines)


def _flat(options: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The options of all sections by their names on the command line."""
    for key, value in options.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
