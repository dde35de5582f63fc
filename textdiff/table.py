"""Tables of figures as text."""

from collections.abc import Iterator
from typing import Any


def table_lines(table: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Lines of a table with one figure per line and one report per column.

    Args:
        table: Figures by name, of each report by its name. All reports have the same figures; a
            value that does not exist is None.
    """
    reports, keys = table.values(), next(iter(table.values()))
    lines = {"": [*table]} | {key: [format_value(each[key]) for each in reports] for key in keys}
    width = max(16, *(len(cell) + 2 for line in lines.values() for cell in line))
    for key, line in lines.items():
        yield f"{key:22}" + "".join(f"{cell:>{width}}" for cell in line)


def format_value(value: object) -> str:
    """A value with three decimals or digits; an interval as `a to b`; None as a dash."""
    if isinstance(value, list):
        return " to ".join(format_value(part) for part in value)
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) >= 100 else f"{value:.3f}"
    return "-" if value is None else str(value)
