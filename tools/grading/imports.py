"""What teachers give in tables: points by hand, and the roster. All of a table is taken, or nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path

from tools.assignments import Assignment
from tools.grading.answers import count, limit_of, question_of
from tools.grading.gradebook import ADJUSTMENT, LATE, Entry, Gradebook, Graded, Line, Person
from tools.grading.sheets import Row, Unreadable, number, read_table, shown, table_text
from tools.grading.store import Refused

MARKS = ("student", "name", "test", "of", "points", "comment", "before", "words", "version", "answer")
VERSION = re.compile(
    r"v-([0-9a-f]+)-(\d+)"
)  # the work that a line shows, and the entry that it was made with
MOST_NAMED = 5  # errors in one message


def marks_table(assignment: Assignment, graded: Sequence[Graded]) -> str:
    """The answers in words, with the points that they have: to be filled in, or changed, and taken back."""
    rows = []
    for one in graded:
        for line in one.lines:
            if line.is_words or line.earned is None:
                rows.append(marks_row(assignment, one, line))
    return table_text(MARKS, rows)


def marks_row(assignment: Assignment, one: Graded, line: Line) -> list[str]:
    entry = None if line.outdated else line.entry
    before = f"{shown(line.entry.points)}: {line.entry.comment}" if line.outdated and line.entry else ""
    answer = one.result.words.get(line.verdict.part, "") if one.result and line.is_words else ""
    return [
        one.student,
        one.name,
        line.what,
        str(line.verdict.points),
        shown(entry.points) if entry else "",
        entry.comment if entry else "",
        before,
        length_of(assignment, line.verdict.part, answer) if line.is_words else "",
        f"v-{line.digest}-{entry.id if entry else 0}",
        answer,
    ]


def length_of(assignment: Assignment, part: str, answer: str) -> str:
    """How long an answer is, as "212 words, 150 to 250 are asked for"."""
    limit = limit_of(question_of(assignment, part))
    asked = f", {limit[0]} to {limit[1]} are asked for" if limit else ""
    return f"{count(answer)} words{asked}"


def read_marks(path: Path, book: Gradebook, assignment: Assignment) -> list[Entry]:
    """What a table says that the book does not know: lines without points or comment change nothing.

    A line tells by its `version` what it was made with, so that points which somebody entered meanwhile are
    not set back by a line that nobody touched.

    Raises:
        Unreadable: something in it cannot be understood, or does not fit; nothing is to be taken then.
    """
    rows = read_table(path)
    wrong: list[str] = []
    found: dict[tuple[str, str], Entry] = {}
    by_id = {entry.id: entry for entry in book.entries(assignment.name)}
    standing: dict[tuple[str, str], Entry | None] = {}
    for one in book.graded(assignment.name):
        standing[one.student, ADJUSTMENT] = one.adjustment
        standing |= {(one.student, line.what): None if line.outdated else line.entry for line in one.lines}
    if rows and not (rows[0].keys() >= {"student", "points"} and rows[0].keys() & {"test", "part"}):
        raise Unreadable(f"{path} needs the columns student, test and points; it has: {', '.join(rows[0])}.")
    for row in rows:
        try:
            student = book.find(assignment.name, row.first("student"))
            what = test_of(row.first("test", "part"), assignment)
            points = points_of(row.first("points"))
        except (Refused, Unreadable) as error:
            wrong.append(f"{row.where}: {error}")
            continue
        version = VERSION.fullmatch(row.first("version"))
        current = standing.get((student, what))
        base = by_id.get(int(version[2])) if version else current
        comment = row.first("comment")
        new_points = points is not None and (base is None or points != base.points)
        new_comment = bool(comment) and (base is None or comment != base.comment)
        if not new_points and not new_comment:
            continue
        entry = Entry(
            assignment.name,
            student,
            what,
            points if new_points or current is None else current.points,
            comment if new_comment or current is None else current.comment,
            version[1] if version else "",
            row.where,
        )
        if found.setdefault((student, what), entry) != entry:
            wrong.append(f"{row.where}: {student}, {what} stands here twice.")
    if wrong:
        more = f" And {len(wrong) - MOST_NAMED} more." if len(wrong) > MOST_NAMED else ""
        raise Unreadable(" ".join(wrong[:MOST_NAMED]) + more + " Nothing of the file was taken.")
    return list(found.values())


def test_of(text: str, assignment: Assignment) -> str:
    """The test that a cell means: by its name; words also by their part, as 1.6 or a spreadsheet's 1.60.

    Raises:
        Unreadable: there is no such test, or two.
    """
    names = [*(test.name for test in assignment.tests), ADJUSTMENT, LATE]
    if text.lower() in names:
        return text.lower()
    value = number(text)
    found = [
        t.name
        for t in assignment.tests
        if t.kind == "words" and value is not None and Decimal(t.part) == value
    ]
    if len(found) != 1:
        raise Unreadable(f"{text!r} is no test of {assignment.name}; there are: {', '.join(names)}.")
    return found[0]


def points_of(text: str) -> Decimal | None:
    """Points as people and spreadsheets write them: 3, 2.5, 2,50; None for an empty cell.

    Raises:
        Unreadable: it is something else.
    """
    value = number(text)
    if text and value is None:
        raise Unreadable(f"{text!r} is no number of points, as 3 or 2.5.")
    return value


def take_marks(path: Path, book: Gradebook, assignment: Assignment) -> int:
    """Enter what a table says, after a copy of the book was made; gives how many points and comments are new.

    Raises:
        Unreadable, Refused: nothing was taken; it says why.
    """
    entries = read_marks(path, book, assignment)
    if entries:
        book.backup()
        book.enter(entries)
    return len(entries)


NAME: tuple[Callable[[Row], str], ...] = (
    lambda row: row.first("name", "full name", "student"),
    lambda row: (
        f"{row.first('first name', 'firstname')} {row.first('last name', 'lastname', 'surname')}".strip()
    ),
)
IDS = ("sis user id", "id number", "sis login id", "username", "email address", "email")


def read_roster(path: Path, assignment: str = "") -> tuple[list[Person], dict[tuple[str, str], str]]:
    """People and their keys, from Canvas's gradebook, Moodle's participants or worksheet, or one's own table.

    One's own has the columns id, name and, as needed, email and key: what a platform puts in front of this
    person's files, several with | between them. The keys hold for one assignment, or for all where none is
    named.

    Raises:
        Unreadable: a column is missing, or somebody stands there twice.
    """
    people: dict[str, Person] = {}
    links: dict[tuple[str, str], str] = {}
    for row in read_table(path):
        name = next(filter(None, (part(row) for part in NAME)), "")
        from_canvas = "section" in row and "student" in row
        if from_canvas and (not name or "points possible" in name.lower()):
            continue
        person_id = row.first(*IDS, "id") if from_canvas else row.first("id", *IDS) or name
        if not person_id:
            raise Unreadable(
                f"{row.where}: neither an id nor a name; a roster needs one of the columns id, email, name."
            )
        if person_id in people:
            raise Unreadable(f"{row.where}: {person_id!r} stands in the roster twice.")
        email = row.first("email address", "email", *(["sis login id"] if from_canvas else []))
        people[person_id] = Person(person_id, name, email, row.first("id") if from_canvas else "")
        keys = [key.strip() for key in re.split(r"[|]", row.first("key", "keys"))]
        participant = re.fullmatch(r"\D*(\d+)", row.first("identifier"))  # Moodle's word for it is translated
        if participant and assignment:
            keys.append(f"moodle {participant[1]}")
        elif participant:
            raise Unreadable(f"{path} is Moodle's worksheet of one assignment: name it, with --assignment.")
        for key in filter(None, keys):
            if links.setdefault((assignment, key), person_id) != person_id:
                raise Unreadable(
                    f"{row.where}: the key {key!r} belongs to {links[assignment, key]!r} already."
                )
    return list(people.values()), links
