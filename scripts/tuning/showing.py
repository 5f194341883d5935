"""Prints tables of which no figure is cut: as wide as they are in a file or a pipe, folded in a terminal."""

from collections.abc import Collection, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console, JustifyMethod
from rich.table import Table

_WIDEST = 1000
# The first column has names, and room for the longest word of ours.
_LEAST_NAME = len("greedy-dual,")


def table_of(title: str, columns: Sequence[str], figures: Collection[str] = ()) -> Table:
    """Return an empty table, whose cells break into lines where there is no room; those of `figures` never do."""
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in columns:
        is_figure = column in figures
        justify: JustifyMethod = "right" if is_figure else "left"
        least = _LEAST_NAME if column == columns[0] else None
        table.add_column(column, overflow="fold", no_wrap=is_figure, justify=justify, min_width=least)
    return table


def show(table: Table) -> None:
    """Print a table on standard output."""
    console = Console()
    if not console.is_terminal:  # nobody reads it by the width of a screen that is not there
        wanted = Console(width=_WIDEST).measure(table).maximum
        console = Console(width=max(console.width, wanted))
    console.print(table)
