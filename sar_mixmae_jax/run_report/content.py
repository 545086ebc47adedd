"""Content of the summary page as plain data; `page.html.j2` renders it."""

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

MAX_NOWRAP = 28
"""Characters of a table cell up to which it stays on one line."""


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of text.

    Attributes:
      text: plain text.
      style: class of the style sheet: "lead", "note", or "notice" for warnings.
    """

    kind: ClassVar[str] = "paragraph"
    text: str
    style: str = "note"


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
      text: plain text.
      style: "code", "bold" or "".
      link: path of a file relative to the page, percent-encoded, that the text links to.
      detail: a line of small text below.
    """

    text: str
    style: str = ""
    link: str = ""
    detail: str = ""

    @property
    def nowrap(self) -> bool:
        """True if the cell stays on one line."""
        return not (self.style or self.link or self.detail) and len(self.text) <= MAX_NOWRAP


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
      head: titles of the columns; empty for a table without them.
      rows: cells of each row.
      numeric: indices of the columns that are aligned right.
    """

    kind: ClassVar[str] = "table"
    head: tuple[Cell, ...]
    rows: tuple[tuple[Cell, ...], ...]
    numeric: frozenset[int]


@dataclass(frozen=True)
class Figure:
    """An embedded PNG.

    Attributes:
      png: content of the file.
      alt: description for readers who do not see it.
      style: class of the style sheet: "tall" or "".
    """

    kind: ClassVar[str] = "figure"
    png: bytes
    alt: str
    style: str = ""

    @property
    def base64(self) -> str:
        """The PNG in base64."""
        return base64.b64encode(self.png).decode()


Block = Paragraph | Table | Figure


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
      title: its heading.
      blocks: its content in order.
      style: class of the style sheet: "whole" or "sheet" where no page break may divide it.
    """

    title: str
    blocks: tuple[Block, ...]
    style: str = ""


@dataclass(frozen=True)
class Header:
    """Beginning of the page.

    Attributes:
      title: what was trained on what.
      blocks: the setting in one line, caveats, and files that could not be read.
      tiles: key numbers, each with a line of detail.
    """

    title: str
    blocks: tuple[Block, ...]
    tiles: tuple[tuple[str, str], ...]


def note(text: str) -> Paragraph | None:
    """Return a note in small text; None if the text is empty."""
    return Paragraph(text) if text else None


def notice(text: str) -> Paragraph:
    """Return a highlighted warning."""
    return Paragraph(text, "notice")


def make_figure(png: bytes | None, alt: str) -> Figure | None:
    """Return a figure; None without an image."""
    return None if png is None else Figure(png, alt)


def make_table(
    head: Sequence[str], rows: Iterable[Sequence[Any]], numeric: Iterable[int] = ()
) -> Table:
    """Return a table of cells and of other values, which are shown as text.

    Args:
      head: titles of the columns, or ().
      rows: `Cell`s or other values.
      numeric: indices of the columns that are aligned right.
    """

    def cells(row: Sequence[Any]) -> tuple[Cell, ...]:
        return tuple(value if isinstance(value, Cell) else Cell(str(value)) for value in row)

    return Table(cells(head), tuple(map(cells, rows)), frozenset(numeric))


def make_section(title: str, *blocks: Block | None, style: str = "") -> Section:
    """Return a section of the blocks that are not None."""
    return Section(title, tuple(block for block in blocks if block is not None), style)
