"""The grades of a course: one file, to which everything is added and from which nothing is taken away.

`grades.sqlite` in the course's folder holds the results of all runs, what people entered (points, comments,
overrides, adjustments, lateness), who handed in what, the roster, and the course's secret. The newest counts,
the older is history; the file itself refuses to change or delete what a person entered. Tables and pages are
made from it and can be made again at any time.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from decimal import Decimal
from functools import lru_cache
from typing import Any

from tools.grading.run import Result, Verdict
from tools.grading.sheets import shown
from tools.grading.store import Refused, Store, now
from tools.grading.submissions import Key, Submission, Unclear
from u2learn.version import __version__

ADJUSTMENT = "adjustment"  # points for a whole assignment, with a reason; may be negative
LATE = "late"  # how late it was, in words; no points
NEWEST = "SELECT * FROM {0} WHERE id IN (SELECT max(id) FROM {0} WHERE assignment = ? GROUP BY student)"


@dataclass(frozen=True)
class Person:
    """One line of the roster. number: the account's number in Canvas."""

    id: str
    name: str = ""
    email: str = ""
    number: str = ""
    enrolled: bool = True


@dataclass(frozen=True)
class Entry:
    """What a person entered about a submission.

    what: the name of a test as "1.6 words" (points for an answer) or "1.2 hidden" (an override), `ADJUSTMENT`
    or `LATE`. points: None takes back those that were given. answer: the digest of the work that was looked
    at; "" for the newest. source: how it came in.
    """

    assignment: str
    student: str
    what: str
    points: Decimal | None
    comment: str = ""
    answer: str = ""
    source: str = ""
    id: int = 0
    time: str = ""


@dataclass(frozen=True)
class Line:
    """One test of a submission: what the grader found, and what a person said of it.

    entry: the newest about the work that is there now; where there is none, the newest about earlier work.
    """

    verdict: Verdict
    digest: str  # of the work that the test is about
    entry: Entry | None = None

    @property
    def what(self) -> str:
        return f"{self.verdict.part} {self.verdict.kind}"

    @property
    def is_words(self) -> bool:
        return self.verdict.kind == "words"

    @property
    def given(self) -> bool:
        return self.entry is not None and self.entry.points is not None

    @property
    def outdated(self) -> bool:
        """Whether a person gave points for earlier work, and none for what is there now."""
        return self.given and self.entry is not None and self.entry.answer != self.digest

    @property
    def earned(self) -> Decimal | None:
        """The points; None where a person has still to give them."""
        if self.given and self.entry is not None:
            return None if self.outdated else self.entry.points
        return None if self.verdict.earned is None else Decimal(self.verdict.earned)


@dataclass
class Graded:
    """A student in an assignment, with all that is known; `result` is None for one who did not hand in."""

    student: str
    person: Person | None = None
    result: Result | None = None
    release: str = ""
    lines: list[Line] = field(default_factory=list)
    adjustment: Entry | None = None
    late: str = ""
    key: Key | None = None  # as the platform says, of one who handed in
    origin: str = ""  # the name that the platform gave to the folder or file
    instead: str = ""  # what is there in place of a notebook
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.person.name if self.person and self.person.name else ""

    @property
    def absent(self) -> bool:
        """Whether there is no notebook of theirs."""
        return self.result is None and (self.key is None or bool(self.instead))

    @property
    def waiting(self) -> list[Line]:
        """What a person has still to look at."""
        return [line for line in self.lines if line.earned is None]

    @property
    def adjusted(self) -> Decimal | None:
        return self.adjustment.points if self.adjustment else None

    @property
    def total(self) -> Decimal | None:
        """The points so far; None where there is nothing to grade and nothing was entered."""
        if self.result is None and self.adjusted is None:
            return None
        return max(
            Decimal(0), sum((line.earned or Decimal(0) for line in self.lines), self.adjusted or Decimal(0))
        )

    @property
    def final(self) -> Decimal | None:
        """The points if nothing waits any more: what may be handed on to others."""
        return None if self.waiting else self.total


def digest_of(result: Result, verdict: Verdict) -> str:
    """Changes with the work that a test is about: the answer in words, or the code of its part."""
    if verdict.kind == "words":
        work = result.words.get(verdict.part, "")
    else:
        work = "\n".join(cell["source"] for cell in result.cells if cell["part"] == verdict.part)
    return hashlib.sha256(work.encode()).hexdigest()[:12]


class Gradebook(Store):
    """The grades of one course."""

    # What was handed in, and what the grader found

    def receive(
        self, assignment: str, submissions: Sequence[Submission], without: dict[Key, str] | None = None
    ) -> list[Submission]:
        """Note who handed in; gives the submissions under the names that the book knows them by.

        The platform's number decides: a student who changed their name there stays the same student.
        without: those who handed in no notebook, and what there is to say about it.

        Raises:
            Unclear: two of them, or one of them and an earlier one, are the same person.
        """
        with self.transaction():
            earlier = {
                (row["platform"], row["number"]): row["student"]
                for row in self.rows("SELECT * FROM handed_in ORDER BY id DESC")
                if row["number"] and (row["platform"] == "canvas" or row["assignment"] == assignment)
            }
            known = [
                replace(s, key=replace(s.key, text=earlier.get((s.key.platform, s.key.number), s.student)))
                for s in submissions
            ]
            last = {
                row["student"]: tuple(row)[3:] for row in self.rows(NEWEST.format("handed_in"), assignment)
            }
            seen: set[str] = set()
            for each in known:
                if each.student in seen:
                    raise Unclear(
                        f"{each.student} handed in {assignment} under two names: remove one of them."
                    )
                seen.add(each.student)
                values = (*dataclasses.astuple(each.key), each.origin, int(each.late), "")
                if last.get(each.student) != values:
                    self._add("handed_in", now(), assignment, *values)
            for key, note in (without or {}).items():
                if key.text not in last and (key.platform, key.number) not in earlier:
                    self._add("handed_in", now(), assignment, *dataclasses.astuple(key), "", 0, note)
            self.students(assignment)
        return known

    def done(self, assignment: str, student: str) -> str | None:
        """The fingerprint of what was graded last for a student; None if nothing was."""
        query = (
            "SELECT fingerprint FROM results WHERE assignment = ? AND student = ? ORDER BY id DESC LIMIT 1"
        )
        found = self.rows(query, assignment, student)
        return found[0]["fingerprint"] if found else None

    def keep(self, assignment: str, result: Result, fingerprint: str) -> None:
        """Add the result of a run; those before it stay as history."""
        text = json.dumps(asdict(result), ensure_ascii=False)
        with self.transaction():
            self._add("results", now(), assignment, result.student, fingerprint, __version__, text)

    def results(self, assignment: str) -> list[Result]:
        """The results of all runs, the oldest first."""
        rows = self.rows("SELECT result FROM results WHERE assignment = ? ORDER BY id", assignment)
        return [result_of(row["result"]) for row in rows]

    def assignments(self) -> list[str]:
        """Those of which something was handed in, graded or entered, in order."""
        query = " UNION ".join(
            f"SELECT assignment FROM {table}" for table in ("handed_in", "results", "entries")
        )
        return [row["assignment"] for row in self.rows(f"{query} ORDER BY assignment")]

    # What people entered

    def enter(self, entries: Sequence[Entry]) -> None:
        """Add what a person entered, all of it or nothing.

        Raises:
            Refused: one of them does not fit; all that do not are named.
        """
        with self.transaction():
            wrong: list[str] = []
            known: dict[str, dict[str, Graded]] = {}
            for entry in entries:
                if entry.assignment not in known:
                    known[entry.assignment] = {g.student: g for g in self.graded(entry.assignment)}
                graded = known[entry.assignment].get(entry.student)
                line = (
                    next((line for line in graded.lines if line.what == entry.what), None) if graded else None
                )
                if objection := fault_of(entry, graded, line):
                    wrong.append(objection)
                    continue
                answer = entry.answer or (line.digest if line else "")
                hundredths = None if entry.points is None else int(entry.points * 100)
                values = (entry.student, entry.what, hundredths, entry.comment, answer, entry.source)
                self._add("entries", now(), entry.assignment, *values)
            if wrong:
                raise Refused(" ".join(wrong))

    def entries(self, assignment: str) -> list[Entry]:
        """All that was entered for an assignment, the oldest first."""
        return [
            entry_of(row)
            for row in self.rows("SELECT * FROM entries WHERE assignment = ? ORDER BY id", assignment)
        ]

    def graded(self, assignment: str) -> list[Graded]:
        """Everybody: who handed in, who is on the roster, of whom something was entered; by their names."""
        people = self.students(assignment)
        found = {student: Graded(student, person) for student, person in people.items()}
        for row in self.rows(NEWEST.format("handed_in"), assignment):
            one = found[row["student"]]
            one.key, one.origin, one.late = key_in(row), row["origin"], "yes" if row["late"] else ""
            one.instead = row["note"]
        for row in self.rows(NEWEST.format("results"), assignment):
            one = found[row["student"]]
            one.result, one.release = result_of(row["result"]), row["release"]
        names = {person.id: student for student, person in people.items() if person}
        entered: dict[str, dict[str, list[Entry]]] = {student: {} for student in found}
        for entry in self.entries(assignment):
            entered[names.get(entry.student, entry.student)].setdefault(entry.what, []).append(entry)
        for student, one in found.items():
            complete(one, entered[student])
        roster = any(person for person in people.values())
        for one in found.values():
            if roster and one.person is None:
                one.notes.append("Not on the roster.")
        return sorted(found.values(), key=lambda one: (one.name or one.student, one.student))

    # Who the students are

    def enrol(self, people: Sequence[Person], links: dict[tuple[str, str], str], whole: bool = True) -> None:
        """Take a roster. whole: who is not in it is no longer enrolled, and keeps all grades.

        links: a key of a platform in an assignment ("" for all), and the id of the person.

        Raises:
            Unclear: with it two students of an assignment would be one person.
        """
        with self.transaction():
            if whole:
                self.db.execute("UPDATE people SET enrolled = 0")
            for person in people:
                values = (person.id, person.name, person.email, person.number)
                self.db.execute("INSERT OR REPLACE INTO people VALUES (?, ?, ?, ?, 1)", values)
            for (assignment, key), person_id in links.items():
                self.db.execute("INSERT OR REPLACE INTO links VALUES (?, ?, ?)", (assignment, key, person_id))
            for assignment in self.assignments():
                self.students(assignment)

    def people(self) -> list[Person]:
        """All who are or were on the roster."""
        return [
            Person(row["id"], row["name"], row["email"], row["number"], bool(row["enrolled"]))
            for row in self.rows("SELECT * FROM people ORDER BY name, id")
        ]

    def students(self, assignment: str) -> dict[str, Person | None]:
        """The students of an assignment, and who each is; who did not hand in is there by the roster's id.

        Raises:
            Unclear: two students are the same person.
        """
        people, handed = self.people(), self.rows(NEWEST.format("handed_in"), assignment)
        links = {
            row["key"]: row["person"]
            for row in self.rows(
                "SELECT * FROM links WHERE assignment IN ('', ?) ORDER BY assignment", assignment
            )
        }
        keys = {row["student"]: key_in(row) for row in handed}
        named = {
            row["student"]
            for row in self.rows("SELECT student FROM entries WHERE assignment = ?", assignment)
        }
        on_roster = {person.id for person in people}
        results = self.rows("SELECT DISTINCT student FROM results WHERE assignment = ?", assignment)
        for student in {row["student"] for row in results} | (named - on_roster):
            keys.setdefault(student, Key(student, name=student))
        found: dict[str, Person | None] = {}
        taken: dict[str, str] = {}
        for student, key in keys.items():
            person = found[student] = person_of(key, people, links)
            if person and taken.setdefault(person.id, student) != student:
                raise Unclear(
                    f"In {assignment}, {taken[person.id]!r} and {student!r} are both "
                    f"{person.name or person.id} of the roster. If they are two people, give each a line "
                    "with their own key in the roster; if they are one, put the newer file under the first "
                    "name."
                )
        for person in people:
            if person.id not in taken and (person.enrolled or person.id in named):
                found[person.id] = person
        return found

    def find(self, assignment: str, student: str) -> str:
        """The student whom a person means: by the key, or by the id, name or address of the roster.

        Raises:
            Refused: nobody is called so, or several are.
        """
        students = self.students(assignment)
        if student in students:
            return student
        small = student.casefold()
        found = [
            s
            for s, p in students.items()
            if s.casefold() == small
            or (p and small in {p.id.casefold(), p.name.casefold(), p.email.casefold()})
        ]
        if len(found) == 1:
            return found[0]
        if found:
            raise Refused(f"{student!r} may be {' or '.join(map(repr, found))} in {assignment}.")
        raise Refused(f"There is no student {student!r} in {assignment}.")


def key_in(row: sqlite3.Row) -> Key:
    return Key(row["student"], row["platform"], row["name"], row["number"])


@lru_cache(maxsize=1024)  # the marking page reads the same ones again and again
def result_of(text: str) -> Result:
    """A result that was kept, perhaps by another release: fields that are new have their defaults."""
    data = json.loads(text)
    data["verdicts"] = [known_fields(Verdict, verdict) for verdict in data["verdicts"]]
    return known_fields(Result, data)


def known_fields(kind: Any, data: dict[str, Any]) -> Any:
    names = {f.name for f in dataclasses.fields(kind)}
    return kind(**{name: value for name, value in data.items() if name in names})


def entry_of(row: sqlite3.Row) -> Entry:
    points = None if row["hundredths"] is None else Decimal(row["hundredths"]) / 100
    names = ("assignment", "student", "what", "comment", "answer", "source", "id", "time")
    return Entry(points=points, **{name: row[name] for name in names})


def complete(one: Graded, entered: dict[str, list[Entry]]) -> None:
    """Put what was entered beside what the grader found."""
    for verdict in one.result.verdicts if one.result else []:
        line = Line(verdict, digest_of(one.result, verdict) if one.result else "")
        entries = entered.pop(line.what, [])
        about_this = [entry for entry in entries if entry.answer == line.digest]
        one.lines.append(replace(line, entry=next(reversed(about_this or entries), None)))
    one.adjustment = next(reversed(entered.pop(ADJUSTMENT, [])), None)
    for entry in entered.pop(LATE, []):
        one.late = entry.comment
    if one.result:
        one.notes += [one.result.note] if one.result.note else []
    else:
        one.notes.append(one.instead or ("Not handed in." if one.absent else "Not graded yet."))
    for line in one.lines:
        if line.outdated and line.entry:
            one.notes.append(
                f"{line.what}: the work has changed since {shown(line.entry.points)} points were given."
            )
    for what, entries in entered.items():
        one.notes.append(
            f"{what}: {shown(entries[-1].points)} points were given, but there is no such test now."
        )


def fault_of(entry: Entry, graded: Graded | None, line: Line | None) -> str:
    """Why something cannot be entered; "" if it can."""
    about = (
        f"{entry.source}: {entry.student}, {entry.what}:"
        if entry.source
        else f"{entry.student}, {entry.what}:"
    )
    if graded is None:
        return f"{about} there is no such student in {entry.assignment}."
    if entry.what == LATE:
        return (
            ""
            if entry.points is None
            else f"{about} lateness has no points, but an adjustment can have them."
        )
    if entry.points is not None and (entry.points * 100) % 1:
        return f"{about} {entry.points} has more than two decimals."
    if entry.what == ADJUSTMENT:
        return "" if entry.comment or entry.points is None else f"{about} a reason is due."
    if line is None:
        tests = ", ".join(each.what for each in graded.lines) or "none, as nothing was handed in"
        return f"{about} there is no such test; there are: {tests}."
    if entry.points is not None and not 0 <= entry.points <= line.verdict.points:
        return f"{about} {shown(entry.points)} points, but 0 to {line.verdict.points} are possible."
    if entry.points is not None and not line.is_words and not entry.comment:
        return f"{about} a reason is due where the grader's points are changed."
    return ""


def person_of(key: Key, people: Sequence[Person], links: dict[str, str]) -> Person | None:
    """Who a student is: by the key in the roster, by the account's number, else by a name that is one's own.

    Two of the same name are told by their keys alone.
    """
    for known in (key.text, f"{key.platform} {key.number}"):
        if person := next((p for p in people if links.get(known) == p.id), None):
            return person
    if key.platform == "canvas":
        return next((p for p in people if p.number and p.number == key.number), None)
    small = key.name.casefold()
    if key.platform == "folder":
        found = [p for p in people if small in {p.id.casefold(), p.email.casefold(), p.name.casefold()}]
    else:
        found = [
            p
            for p in people
            if p.name and (small == p.name.casefold() or small.endswith(f"-{p.name.casefold()}"))
        ]
    return found[0] if len(found) == 1 else None
