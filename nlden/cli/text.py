"""Text for the terminal."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table


def grid(rows: Iterable[tuple[str, str]]) -> "Table":
    """Return names and what they stand for, in two columns."""
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for key, value in rows:
        table.add_row(plain(key), plain(value))
    return table


def plain(text: str) -> str:
    """Leave out what would steer the terminal: tags of a file can hold anything."""
    return "".join(c if c.isprintable() else " " for c in text)


def size_text(size: int) -> str:
    """Return bytes for people to read."""
    from rich.filesize import decimal

    return decimal(size)


def time_text(seconds: float) -> str:
    """Return seconds as hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds * 1000), 60_000)
    return f"{minutes // 60}:{minutes % 60:02}:{rest / 1000:06.3f}"
