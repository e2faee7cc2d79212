"""A sheet drawn as a table for the terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from batchramp.benchmark.sheets import Cell, Sheet
from batchramp.benchmark.terminal import as_text


def sheet_table(sheet: Sheet, name_width: int = 14) -> Table:
    """Draw a sheet, its first column at least `name_width` wide where it needs that."""
    table = Table(
        title=as_text(sheet.title, style="bold"),
        title_justify="left",
        caption=as_text(sheet.caption, style="dim") if sheet.caption else None,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        show_edge=False,
    )
    names = _name_width(sheet, name_width)
    places = [
        index for index, column in enumerate(sheet.columns) if not column.page_only
    ]
    for index in places:
        table.add_column(
            as_text(sheet.columns[index].name, style="bold"),
            justify="right" if index else "left",
            overflow="fold",
            no_wrap=not index,
        )
    for row, is_baseline in zip(sheet.rows, sheet.baselines, strict=True):
        name, *others = (_cell_text(row[index]) for index in places)
        table.add_row(
            _folded(name, names), *others, style="bold" if is_baseline else ""
        )
    return table


def _name_width(sheet: Sheet, least: int) -> int:
    """A width at which names wrap between words, if their words allow."""
    words = (word for row in sheet.rows for word in row[0].main.split())
    return min(24, max([least, *map(len, words)]))


def _folded(text: Text, width: int) -> Text:
    # Rich narrows the widest columns first, and would cut names inside a word.
    return Text("\n").join(text.wrap(Console(width=width), width))


def _cell_text(cell: Cell) -> Text:
    # Text and not a string: an interval in brackets would be read as markup.
    text = as_text(cell.main)
    if cell.detail:
        text.append("\n").append(as_text(cell.detail, style="dim"))
    return text
