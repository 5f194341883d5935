"""Prints tables of which no figure is cut: as wide as they are in a file or a pipe, folded in a terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

_WIDEST = 1000


def table_of(title: str, columns: Sequence[str]) -> Table:
    """Return an empty table, whose cells break into lines where there is no room."""
    table = Table(title=title)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def show(table: Table) -> None:
    """Print a table on standard output."""
    console = Console()
    if not console.is_terminal:  # nobody reads it by the width of a screen that is not there
        wanted = Console(width=_WIDEST).measure(table).maximum
        console = Console(width=max(console.width, wanted))
    console.print(table)
