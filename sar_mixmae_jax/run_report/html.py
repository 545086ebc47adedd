"""HTML in which nothing but what this package says is markup."""

import base64
import html
from collections.abc import Iterable, Sequence
from typing import Any

from sar_mixmae_jax.utils.errors import escape_unprintable

CSS = """
@page { size: A4; margin: 9mm 11mm }
:root { color-scheme: light }
body { font: 8.5pt/1.3 "Helvetica Neue", Helvetica, Arial, "Liberation Sans", sans-serif;
  color: #1a1a1a; background: #fff; max-width: 190mm; margin: 5mm auto; padding: 0 4mm }
h1 { font-size: 15pt; line-height: 1.2; margin: 0 0 1mm; overflow-wrap: anywhere }
h2 { font-size: 10.5pt; margin: 2mm 0 1mm; border-bottom: 0.3mm solid #ccc; break-after: avoid }
p { margin: 0 0 1mm; overflow-wrap: anywhere }
.lead, .note { color: #444 }
.note { font-size: 7.5pt }
.notice { background: #fff3d6; border-left: 1mm solid #d98200; padding: 0.5mm 2mm;
  font-weight: bold; margin: 0.8mm 0; overflow-wrap: anywhere }
.tiles { display: flex; flex-wrap: wrap; gap: 2mm; margin: 1.5mm 0 }
.tiles div { flex: 1 1 36mm; background: #f2f5f8; padding: 1.2mm 2mm }
.tiles b { display: block; font-size: 11.5pt; white-space: nowrap }
.tiles span { font-size: 7.5pt; color: #444 }
img { display: block; max-width: 100%; height: auto; margin: 0 auto }
img.tall { max-height: 250mm; width: auto }
table { border-collapse: collapse; font-size: 7.5pt; line-height: 1.2; margin: 1mm 0; width: 100% }
th, td { text-align: left; vertical-align: top; padding: 0.4mm 1.5mm 0.4mm 0;
  border-bottom: 0.2mm solid #ddd; overflow-wrap: anywhere }
th { color: #444 }
.right { text-align: right; white-space: nowrap; padding: 0.4mm 3mm }
.kept { white-space: nowrap }
code { font: 7.5pt "DejaVu Sans Mono", Menlo, Consolas, monospace; overflow-wrap: anywhere }
.sheet { break-inside: avoid }
tr, img, .notice, .tiles, .whole { break-inside: avoid }
@media print { body { margin: 0; padding: 0; max-width: none } }
"""

KEPT = 28
"""Characters of a table's cell up to which it stays on one line."""


class Markup(str):
    """HTML that is meant as such; every other text is escaped."""


def html_of(value: Any) -> Markup:
    """A value as HTML: markup as it is, everything else as nothing but text."""
    return (
        value if isinstance(value, Markup) else Markup(html.escape(escape_unprintable(str(value))))
    )


def join(*parts: Any) -> Markup:
    """Parts one after the other, those that are empty left out."""
    return Markup("\n".join(part for part in map(html_of, parts) if part))


def tag(name: str, content: Any, style: str = "") -> Markup:
    """An element, with the name of a style of the sheet."""
    attribute = f' class="{style}"' if style else ""
    return Markup(f"<{name}{attribute}>{html_of(content)}</{name}>")


def notice(text: str) -> Markup:
    """Something that a reader must not miss."""
    return tag("p", text, "notice")


def note(text: str) -> Markup:
    """Something beside the point; nothing where the text is empty."""
    return tag("p", text, "note") if text else Markup()


def section(title: str, *parts: Any, style: str = "") -> Markup:
    """A section with its heading."""
    return tag("section", join(tag("h2", title), *parts), style)


def table(head: Sequence[Any], rows: Iterable[Sequence[Any]], right: Iterable[int] = ()) -> Markup:
    """A table; an empty head is left out.

    Args:
      head: of the columns.
      rows: of cells.
      right: numbers of the columns that are set to the right.
    """
    numbers = set(right)

    def style(column: int, cell: Any) -> str:
        if column in numbers:
            return "right"
        return "kept" if len(str(cell)) <= KEPT and not isinstance(cell, Markup) else ""

    def row(name: str, cells: Sequence[Any]) -> Markup:
        return tag("tr", join(*(tag(name, cell, style(at, cell)) for at, cell in enumerate(cells))))

    return tag("table", join(row("th", head) if head else "", *(row("td", one) for one in rows)))


def link(text: str, path: str) -> Markup:
    """A way to a file beside the page.

    Args:
      text: to click on.
      path: relative to the page, quoted; its first part is a folder of ours, no scheme.
    """
    return Markup(f'<a href="{html_of(path)}">{html_of(text)}</a>')


def picture(png: bytes, text: str, style: str = "") -> Markup:
    """An embedded PNG.

    Args:
      png: its bytes.
      text: what it shows, for who cannot see it.
      style: of the sheet.
    """
    data = base64.b64encode(png).decode()
    attribute = f' class="{style}"' if style else ""
    return Markup(f'<img{attribute} alt="{html_of(text)}" src="data:image/png;base64,{data}">')


def document(title: str, *parts: Any) -> str:
    """A whole page that needs no other file."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{html_of(title)}</title>\n<style>{CSS}</style>\n</head>\n"
        f"<body>\n{join(*parts)}\n</body>\n</html>\n"
    )
