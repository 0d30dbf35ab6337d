"""Tables in and out: as CSV for any spreadsheet, and read back as any spreadsheet may have saved them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path

# A cell that a spreadsheet would compute: an apostrophe in front makes it text; if it has some, one more.
FORMULA = re.compile(r"'*[=+\-@\t\r]")


class Unreadable(ValueError):
    """A table, or something in it, cannot be understood; the text says what and where, in a sentence."""


def table_text(head: Sequence[str], rows: Sequence[Sequence]) -> str:
    """A table as CSV, in which no text is a formula."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([guarded(cell) for cell in row] for row in rows)
    return file.getvalue()


def guarded(cell: object) -> object:
    return f"'{cell}" if isinstance(cell, str) and FORMULA.match(cell) else cell


def unguarded(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


def read_rows(path: Path) -> list[list[str]]:
    """The lines of a table that a spreadsheet saved: with commas, semicolons or tabs, in any usual encoding.

    Raises:
        Unreadable: there is no such file, it has no line, or it is a workbook.
    """
    if not path.is_file():
        raise Unreadable(f"There is no file {path}.")
    data = path.read_bytes()
    if data.startswith((b"PK", b"\xd0\xcf\x11\xe0")):
        raise Unreadable(f"{path} is a workbook: save it as CSV in your spreadsheet, and give that file.")
    text = decoded(data)
    first, _, rest = text.partition("\n")
    if found := re.fullmatch(r"sep=(.)\r?", first):  # Excel's own way to name the separator
        return parsed(rest, found[1], path)
    outside = re.sub(r'"[^"]*"', "", first)
    return parsed(text, max(",;\t", key=outside.count), path)


def parsed(text: str, separator: str, path: Path) -> list[list[str]]:
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
    except csv.Error as error:
        raise Unreadable(f"{path} is no table that can be read ({error}).") from error
    lines = [line for line in lines if any(cell.strip() for cell in line)]
    if not lines:
        raise Unreadable(f"{path} is empty.")
    return lines


def decoded(data: bytes) -> str:
    """Text in UTF-16 with a mark (Excel's Unicode text), in UTF-8, else in the Windows code page."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


class Row(dict[str, str]):
    """A line by its columns' names, in small letters. `where` is its place, for messages."""

    where = ""

    def first(self, *columns: str) -> str:
        """What the first of these columns that is there and filled in says; "" if none."""
        return next((self[c] for c in columns if self.get(c)), "")


def read_table(path: Path) -> list[Row]:
    """A table whose first line names the columns, in any order; spaces around a cell do not count.

    Raises:
        Unreadable: see `read_rows`; or a column is there twice.
    """
    head, *lines = read_rows(path)
    columns = [cell.strip().lower() for cell in head]
    twice = {column for column in columns if column and columns.count(column) > 1}
    if twice:
        raise Unreadable(f"{path} has the column {min(twice)!r} twice.")
    rows = []
    for number, line in enumerate(lines, start=2):
        row = Row(zip(columns, (unguarded(cell.strip()) for cell in line), strict=False))
        row.where = f"{path}, line {number}"
        rows.append(row)
    return rows


def number(text: str) -> Decimal | None:
    """A number with a point or a comma, to hundredths; None for anything else."""
    if not re.fullmatch(r"[+-]?\d{1,6}([.,]\d*)?", text.strip()):
        return None
    try:
        value = Decimal(text.strip().replace(",", ".").rstrip("."))
    except InvalidOperation:
        return None
    return value if value == round(value, 2) else None


def shown(points: Decimal | int | None) -> str:
    """Points as a person writes them: 3, 2.5; "" where there are none."""
    if points is None:
        return ""
    return f"{Decimal(points):f}".rstrip("0").rstrip(".") if "." in f"{points}" else str(points)
