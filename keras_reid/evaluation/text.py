"""Printed scores."""

from collections.abc import Mapping


def columns(rows: Mapping[str, str]) -> str:
    """Return lines of names and values; the values begin in the same column."""
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())
