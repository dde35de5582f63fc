"""Tables of figures as text."""

from textdiff.table import table_lines


def test_columns_are_as_wide_as_their_values() -> None:
    table = {name: {"interval": [12.3456, 65.4321], "count": 3} for name in ("a", "b")}
    lines = [*table_lines(table)]
    assert lines[1].count("  12.346 to 65.432") == 2
    assert len({*map(len, lines)}) == 1
