"""Grades and feedback in the forms that Moodle, Canvas and nbgrader take.

What their importers want is read from their published source.

Moodle, mod/assign/feedback/offline/importgradeslib.php and locallib.php: the worksheet of one assignment, in
UTF-8 with commas, with the columns Identifier, Grade and Last modified (grade) in the language of the person
who uploads it. Identifier is a word and the number that also stands in the names of the folders. A grade that
was changed in Moodle after the date in the worksheet is left alone, and so is, without a word, one that is
larger than the maximum. mod/assign/feedback/file/importziplib.php: feedback files in folders
NAME_NUMBER_assignsubmission_file. grade/import/csv/classes/load_data.php: the gradebook; an empty grade there
deletes the one in Moodle.

Canvas, lib/gradebook_importer.rb: Student, ID, perhaps SIS User ID and SIS Login ID, Section, then columns
`Title (number)`; without the number it looks for the title, and offers to make a new assignment. The line of
Points Possible changes the assignment's points. An empty cell over a grade is a change.
app/models/assignment.rb, infer_comment_context_from_filename: a feedback file belongs to whom the first two
numbers in its name say, and is shown to the student under the name of their own file.

nbgrader, nbgrader/plugins/export.py: the columns of `nbgrader export`.
"""

from __future__ import annotations

import csv
import html
import io
import json
import re
import unicodedata
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path, PurePosixPath

from tools import notebooks
from tools.assignments import Assignment
from tools.grading.gradebook import Graded
from tools.grading.report import feedback, feedback_body
from tools.grading.sheets import Unreadable, number, read_rows, shown, table_text

OURS = "U2Learn: "  # begins a comment of ours in a worksheet; any other is a teacher's, and stays
CANVAS_COLUMN = re.compile(r"(.+) \((\d+)\)")
NBGRADER = (
    "assignment", "duedate", "timestamp", "student_id", "last_name", "first_name", "email", "raw_score",
    "late_submission_penalty", "score", "max_score",
)  # fmt: skip


@dataclass
class Filled:
    """A platform's table with our grades in it; the students whose grades are not in it, each with why."""

    text: str
    entered: int = 0
    left_out: list[str] = field(default_factory=list)


class Table:
    """A table of a platform, of which every cell stays as it is but for those that are set."""

    def __init__(self, path: Path):
        self.path = path
        self.head, *self.lines = read_rows(path)
        self.names = [cell.strip().lower() for cell in self.head]
        for line in self.lines:
            line += [""] * (len(self.head) - len(line))

    def place(self, *columns: str, hint: str = "") -> int:
        """Where the first of these columns is.

        Raises:
            Unreadable: there is none of them.
        """
        for column in columns:
            if column in self.names:
                return self.names.index(column)
        raise Unreadable(
            f"{self.path} has no column {columns[0].capitalize()!r}{hint}; it has: {', '.join(self.head)}."
        )

    def has(self, column: str) -> bool:
        return column in self.names

    def text(self, columns: Sequence[int]) -> str:
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([line[i] for i in columns] for line in [self.head, *self.lines])
        return file.getvalue()


def moodle_worksheet(path: Path, assignment: Assignment, graded: Sequence[Graded]) -> Filled:
    """Fill in the worksheet that Moodle gave for this assignment. Its dates stay: Moodle compares them.

    Raises:
        Unreadable: it is no such worksheet, or its maximum is not the assignment's.
    """
    table = Table(path)
    hint = " (set Moodle to English, and download it again; and upload it in English)"
    who, grade = table.place("identifier", hint=hint), table.place("grade", hint=hint)
    table.place("last modified (grade)", hint=hint)
    most = table.place("maximum grade", hint=hint)
    comments = table.place("feedback comments") if table.has("feedback comments") else None
    by_number = {
        one.key.number: one for one in graded if one.key and one.key.platform == "moodle" and one.key.number
    }
    by_person = people(graded, "moodle")
    filled, seen = Filled(""), set()
    for line in table.lines:
        if (maximum := number(line[most])) is not None and maximum != assignment.points:
            raise Unreadable(
                f"{path}: Moodle's maximum grade is {line[most]}, and {assignment.name} has "
                f"{assignment.points} points: "
                "set the maximum in Moodle, and download the worksheet again."
            )
        participant = re.search(r"(\d+)\s*$", line[who])
        one = by_number.get(participant[1] if participant else "")
        if one and table.has("full name") and not is_called(one, line[table.place("full name")]):
            one = None
        for column in ("email address", "id number", "username", "full name"):
            if one is None and table.has(column):
                one = by_person.get(line[table.place(column)].strip().casefold())
        if one is None:
            continue
        seen.add(one.student)
        if one.final is not None and one.final > assignment.points:
            filled.left_out.append(f"{one.student}: {shown(one.final)} points are more than Moodle takes")
        elif one.final is not None:
            line[grade] = shown(one.final)
            filled.entered += 1
        if (
            comments is not None
            and one.result
            and (not line[comments].strip() or line[comments].startswith(OURS))
        ):
            line[comments] = OURS + html.escape(summary(one), quote=False)
    filled.text = table.text(range(len(table.head)))
    filled.left_out += missing(graded, seen)
    return filled


def moodle_gradebook(assignment: Assignment, graded: Sequence[Graded]) -> str:
    """For Moodle's gradebook. Who has no final grade is left out, as an empty cell deletes one there."""
    rows = [
        [one.person.id, one.person.email, one.name, shown(one.final), summary(one)]
        for one in graded
        if one.person and one.final is not None
    ]
    return table_text(["ID number", "Email address", "Full name", assignment.title, "Feedback"], rows)


def canvas_gradebook(
    path: Path, assignment: Assignment, graded: Sequence[Graded], column: str = ""
) -> Filled:
    """Fill in the gradebook that Canvas exported: this assignment's column, behind those of the students.

    A cell stays as it is where something waits for a person, or Canvas says EX or N/A. column: its heading,
    where the title is another one in Canvas.

    Raises:
        Unreadable: it is no such table, the column is not there, or its points are not the assignment's.
    """
    table = Table(path)
    who, section = table.place("id"), table.place("section")
    place = canvas_column(table, assignment, column)
    by_number = {one.person.number: one for one in graded if one.person and one.person.number}
    by_number |= {one.key.number: one for one in graded if one.key and one.key.platform == "canvas"}
    by_person = people(graded, "canvas")
    filled, seen = Filled(""), set()
    for line in table.lines:
        if "points possible" in line[0].lower():
            if number(line[place]) != assignment.points:
                raise Unreadable(
                    f"{path}: in Canvas {line[place] or 'no'} points are possible, and {assignment.name} has "
                    f"{assignment.points}: set them in Canvas, and export again."
                )
            continue
        one = by_number.get(line[who].strip()) if line[who].strip() else None
        for name in ("sis user id", "sis login id"):
            if one is None and table.has(name):
                one = by_person.get(line[table.place(name)].strip().casefold())
        if one is None:
            continue
        seen.add(one.student)
        if one.final is not None and line[place].strip().upper() not in ("EX", "N/A"):
            line[place] = shown(one.final)
            filled.entered += 1
    filled.text = table.text([*range(section + 1), place])
    filled.left_out += missing(graded, seen)
    return filled


def canvas_column(table: Table, assignment: Assignment, column: str) -> int:
    """The place of an assignment's column.

    Raises:
        Unreadable: there is none, or there are several.
    """
    title = (column or assignment.title).casefold()
    found = [
        i
        for i, head in enumerate(table.head)
        if head.strip().casefold() == title
        or ((m := CANVAS_COLUMN.fullmatch(head.strip())) and m[1].casefold() == title)
    ]
    if len(found) != 1:
        there = "; ".join(head for head in table.head if CANVAS_COLUMN.fullmatch(head.strip())) or "none"
        raise Unreadable(
            f"{table.path} has {len(found)} columns for {column or assignment.title!r}; name one with "
            f"--column. Columns of assignments are: {there}."
        )
    return found[0]


def canvas_plain(assignment: Assignment, graded: Sequence[Graded]) -> str:
    """For Canvas without its own gradebook: it looks for the assignment's title, or offers a new one."""
    rows: list[list[object]] = [["    Points Possible", "", "", "", "", assignment.points]]
    for one in graded:
        number = (
            one.key.number
            if one.key and one.key.platform == "canvas"
            else one.person.number
            if one.person
            else ""
        )
        rows.append(
            [one.name or one.student, number, "", one.person.id if one.person else "", "", shown(one.final)]
        )
    return table_text(["Student", "ID", "SIS User ID", "SIS Login ID", "Section", assignment.title], rows)


def nbgrader(graded: Mapping[str, Sequence[Graded]], points: Callable[[str], int]) -> str:
    """As `nbgrader export` writes them, for all assignments; empty scores where something waits.

    points: gives what is possible in an assignment.
    """
    rows = []
    for name, students in graded.items():
        for one in students:
            last, first = names_of(one.name)
            penalty = max(Decimal(0), -(one.adjusted or Decimal(0)))
            score = Decimal(0) if one.absent and one.final is None else one.final
            raw = None if score is None else score + penalty
            who = [
                one.person.id if one.person else one.student,
                last,
                first,
                one.person.email if one.person else "",
            ]
            scores = [shown(raw), shown(penalty), shown(score), points(name)]
            rows.append([name, "", "", *who, *scores])
    return table_text(NBGRADER, rows)


def names_of(name: str) -> tuple[str, str]:
    """The last and the first name in "Lovelace, Ada" or "Ada Lovelace"."""
    last, comma, first = name.partition(",")
    if comma:
        return last.strip(), first.strip()
    first, _, last = name.rpartition(" ")
    return last, first


def people(graded: Sequence[Graded], platform: str) -> dict[str, Graded]:
    """Students by what is theirs alone: id and address of the roster; a name where nobody else has it."""
    found: dict[str, Graded] = {}
    for one in graded:
        if one.person and not (one.key and one.key.platform == platform and one.key.number):
            found |= {text.casefold(): one for text in (one.person.id, one.person.email) if text}
    names = [one.name.casefold() for one in graded if one.name]
    return found | {
        one.name.casefold(): one
        for one in graded
        if one.person and names.count(one.name.casefold()) == 1 and one.name.casefold() not in found
    }


def is_called(one: Graded, name: str) -> bool:
    """Whether a submission has this name, or a group's and this; a group's number is no participant's.

    Moodle takes some characters out of the names of files, so that only the letters are compared.
    """
    mine, theirs = (
        re.sub(r"[\W_]", "", unicodedata.normalize("NFC", text).casefold())
        for text in (one.key.name if one.key else "", name)
    )
    return mine.endswith(theirs)


def missing(graded: Sequence[Graded], seen: set[str]) -> list[str]:
    return [
        f"{one.student}: not in the table"
        for one in graded
        if one.total is not None and one.student not in seen
    ]


def summary(one: Graded) -> str:
    """Points and comments in one paragraph."""
    parts = []
    for part in dict.fromkeys(line.verdict.part for line in one.lines):
        mine = [line for line in one.lines if line.verdict.part == part]
        if any(line.earned is None for line in mine):
            parts.append(f"{part}: still open.")
            continue
        earned = sum((line.earned or Decimal(0) for line in mine), Decimal(0))
        comments = [line.entry.comment for line in mine if line.given and line.entry and line.entry.comment]
        parts.append(
            " ".join([f"{part}: {shown(earned)} of {sum(line.verdict.points for line in mine)}.", *comments])
        )
    if one.adjustment and one.adjusted is not None:
        parts.append(f"{one.adjusted:+f} points: {one.adjustment.comment}")
    return " ".join(parts)


def moodle_feedback(assignment: Assignment, graded: Sequence[Graded]) -> bytes:
    """The pages, in a zip file for Moodle's "Upload multiple feedback files in a zip"."""
    return zipped(
        {
            f"{folder[0]}_/{assignment.name}.html": feedback(assignment, one)
            for one in graded
            if one.result and (folder := re.match(r".+?_assignsubmission_file", one.origin))
        }
    )


def canvas_feedback(assignment: Assignment, graded: Sequence[Graded]) -> bytes:
    """The pages, in a zip file for Canvas's "Upload submissions".

    Canvas shows a file under the name of the student's own, which is a notebook: so each page is a notebook.
    """
    found = {}
    for one in graded:
        if one.result and one.key and one.key.platform == "canvas" and one.origin:
            page = {
                "cell_type": "markdown",
                "id": "feedback",
                "metadata": {},
                "source": feedback_body(assignment, one),
            }
            notebook = {"cells": [page], "metadata": notebooks.METADATA, "nbformat": 4, "nbformat_minor": 5}
            found[f"{PurePosixPath(one.origin).stem}.ipynb"] = json.dumps(notebook, ensure_ascii=False)
    return zipped(found)


def zipped(files: dict[str, str]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return data.getvalue()
