"""A table of figures as text: a line a figure, a column a row of the report."""

from collections.abc import Iterator
from typing import Any


def lines(table: dict[str, dict[str, Any]]) -> Iterator[str]:
    """`table` holds a row's figures by its name; all rows have the same, None where there is nothing to say."""
    wide = max(16, *(len(name) + 2 for name in table))
    yield " " * 22 + "".join(f"{name:>{wide}}" for name in table)
    for key in next(iter(table.values())):
        yield f"{key:22}" + "".join(f"{shown(row[key]):>{wide}}" for row in table.values())


def shown(value: object) -> str:
    if isinstance(value, list):
        return " to ".join(shown(part) for part in value)
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) >= 100 else f"{value:.3f}"
    return "-" if value is None else str(value)
