"""Just enough Markdown to hold a page against the code: headings, tables and code blocks."""

import re
from dataclasses import dataclass, field
from pathlib import Path

DOCS = Path(__file__).parent.parent.parent / "docs"

_HEADING = re.compile(r"#{1,6} +(.*)")
_SPAN = re.compile(r"`([^`]*)`")


@dataclass
class Table:
    """A table, by the heading that it stands under."""

    heading: str
    columns: list[str]
    rows: list[dict[str, str]] = field(default_factory=list)

    def column(self, name: str) -> list[str]:
        """The cells of a column, without the backticks around a whole cell."""
        return [plain(row[name]) for row in self.rows]


def read_page(name: str) -> str:
    return (DOCS / name).read_text()


def plain(cell: str) -> str:
    """A cell that is one code span, as what is in it; any other as it is."""
    match = _SPAN.fullmatch(cell)
    return cell if match is None else match[1]


def spans(cell: str) -> list[str]:
    """The code spans of a text."""
    return _SPAN.findall(cell)


def tables(page: str) -> list[Table]:
    found: list[Table] = []
    heading = ""
    inside = False
    for line in _prose(page):
        if match := _HEADING.fullmatch(line):
            heading = plain(match[1])
        if not line.startswith("|"):
            inside = False
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not inside:
            inside = True
            found.append(Table(heading, [plain(cell) for cell in cells]))
        elif not set(line) <= set("|-: "):
            assert len(cells) == len(found[-1].columns), line
            found[-1].rows.append(dict(zip(found[-1].columns, cells, strict=True)))
    return found


def table(page: str, heading: str, first_column: str) -> Table:
    """The one table under a heading whose first column has this name."""
    (found,) = (
        each for each in tables(page) if each.heading == heading and each.columns[0] == first_column
    )
    return found


def headings(page: str) -> list[str]:
    matches = (_HEADING.fullmatch(line) for line in _prose(page))
    return [plain(match[1]) for match in matches if match is not None]


def code_blocks(page: str, language: str = "") -> list[str]:
    """The blocks of one language; "" stands for those that name none."""
    blocks = []
    lines: list[str] | None = None
    opened = ""
    for line in page.splitlines(keepends=True):
        if not line.startswith("```"):
            if lines is not None:
                lines.append(line)
        elif lines is None:
            lines, opened = [], line[3:].strip()
        else:
            if opened == language:
                blocks.append("".join(lines))
            lines = None
    return blocks


def _prose(page: str) -> list[str]:
    """The lines outside code blocks."""
    lines = []
    inside = False
    for line in page.splitlines():
        if line.startswith("```"):
            inside = not inside
        elif not inside:
            lines.append(line)
    return lines
