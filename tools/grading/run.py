"""Run the tests of an assignment on one notebook."""

from __future__ import annotations

import ast
import builtins
import contextlib
import hmac
import io
import linecache
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypedDict

import torch

from tools.assignments import Assignment, Test, part_of
from tools.grading.answers import read, student_cells, words
from tools.grading.sandbox import TEXT, Died, NotStarted, Sandbox, SubmissionError, plain
from tools.grading.seal import Engine
from tools.grading.worker import encodable
from u2learn.checks import NotYet, check

SCORE = re.compile(r"^leaderboard (\d\.\d+)$", re.M)  # what a hidden test prints to enter a score
CELL_SECONDS = 60  # for one cell, if mistakes.yml says nothing else
CALL_SECONDS = 20  # for one call of a function, with all that it asks back
NOTEBOOK = 5  # a whole notebook with its tests has the time of so many cells
RESTARTS = 3  # how often a submission may kill its process before the rest counts as not there
CELLS = 300  # that are run
CELL_LENGTH = 100_000  # characters of a cell that is run
SHOWN = 20_000  # characters of a cell, or of an answer, in a result
SAYS = 1000  # characters of a verdict


@dataclass
class Verdict:
    """What one test gave. `says` is what the student reads."""

    part: str
    kind: str
    points: int
    earned: int | None  # None: to be graded by hand
    says: str
    score: float | None = None  # for the leaderboard

    @classmethod
    def on(cls, test: Test, earned: int | None, says: str, score: float | None = None) -> Verdict:
        return cls(test.part, test.kind, test.points, earned, says, score)


class Cell(TypedDict):
    """A code cell of a submission. part: "" if it answers none."""

    part: str
    source: str
    error: str  # what it raised, as "Cell 3: ValueError: ..." with some 200 characters; "" if it ran


@dataclass
class Result:
    """A graded submission."""

    student: str
    note: str = ""  # what the person who grades should know
    verdicts: list[Verdict] = field(default_factory=list)
    cells: list[Cell] = field(default_factory=list)  # in order
    words: dict[str, str] = field(default_factory=dict)  # answers in words, by part

    @property
    def automatic(self) -> int:
        return sum(v.earned or 0 for v in self.verdicts)

    @property
    def waiting(self) -> list[Verdict]:
        """What a person has still to grade."""
        return [v for v in self.verdicts if v.earned is None]


class Session(Protocol):
    """Where the cells of a submission ran, and its names can be asked for."""

    errors: dict[int, Exception]  # by the number of the cell

    def get(self, name: str) -> Any: ...

    def mend(self) -> None:
        """Start again if the last test ended it."""


class Local:
    """The cells run in this process: for solutions that are known to be harmless, as in tests."""

    def __init__(self, sources: Sequence[str]):
        self.names: dict[str, Any] = {"__name__": "submission"}
        self.errors: dict[int, Exception] = {}
        for i, source in enumerate(sources):
            filename = f"<cell {i}>"
            linecache.cache[filename] = len(source), None, source.splitlines(keepends=True), filename
            try:
                exec(compile(source, filename, "exec"), self.names)
            except Exception as error:
                self.errors[i] = error

    def get(self, name: str) -> Any:
        if name not in self.names:
            raise NameError(f"name {name!r} is not defined")
        return self.names[name]

    def mend(self) -> None: ...


class Sealed:
    """The cells run in a sandbox. If its process dies it is made anew, without the cell that killed it.

    seconds: for a cell. All cells, tests and new starts together have NOTEBOOK times that.
    """

    def __init__(self, sources: Sequence[str], seconds: float, engine: Engine):
        self.sources, self.seconds, self.engine = sources, seconds, engine
        self.until = time.monotonic() + NOTEBOOK * seconds
        self.errors: dict[int, Exception] = {}
        self.deaths = 0
        self.box: Sandbox | None = None
        self._start()

    def _start(self) -> None:
        self.close()
        while self.deaths <= RESTARTS and time.monotonic() < self.until:
            try:
                self.box = Sandbox(self.engine, CALL_SECONDS, self.until)
                self._run_cells(self.box)
                return
            except Died:
                self.deaths += 1
                self.close()

    def _run_cells(self, box: Sandbox) -> None:
        """All cells but those that failed before.

        Raises:
            Died: a cell ended the process; it is in `errors`.
        """
        for i, source in enumerate(self.sources):
            if i in self.errors:
                continue
            try:
                if len(source) > CELL_LENGTH:
                    raise SubmissionError(f"It has more than {CELL_LENGTH:,} characters, and is not run.")
                box.run(source, self.seconds)
            except Exception as error:
                self.errors[i] = error
                if isinstance(error, Died):
                    raise

    def get(self, name: str) -> Any:
        if self.box is None:
            why = "ended its process too often" if self.deaths > RESTARTS else "has used up its time"
            raise NameError(f"the submission {why}")
        return self.box.get(name)

    def mend(self) -> None:
        if self.box is not None and not self.box.alive:
            self.deaths += 1
            self._start()

    def close(self) -> None:
        if self.box is not None:
            self.box.close()
        self.box = None


def grade_notebook(
    assignment: Assignment,
    student: str,
    data: bytes,
    engine: Engine,
    note: str = "",
    secret: bytes = b"",
) -> Result:
    """Grade the bytes of one submitted notebook. Whatever is in them, there is a result.

    secret: the course's; from it and the student's key come the cases that this student gets.

    Raises:
        NotStarted: the engine cannot run anybody's submission.
    """
    notes = [note] if note else []
    try:
        cells = read(data)
        mine = [(part_of(c), encodable("".join(c["source"]))) for c in student_cells(cells)]
    except Exception as error:
        notes.append(f"This file is no notebook ({type(error).__name__}).")
        return lost(assignment, student, " ".join(notes), "the file is no notebook")
    if len(mine) > CELLS:
        notes.append(f"It has {len(mine):,} cells with code; the first {CELLS} count.")
    mine = mine[:CELLS]
    seconds = assignment.settings.get("seconds", CELL_SECONDS)
    session = Sealed([source for _, source in mine], seconds, engine)
    try:
        result = Result(
            student, "", grade_cells(assignment, session, secret + student.encode("utf-8", "surrogatepass"))
        )
    finally:
        session.close()
    for i, (part, source) in enumerate(mine):
        says = f"Cell {i + 1}: {brief(session.errors[i])}" if i in session.errors else ""
        result.cells.append({"part": part, "source": source[:SHOWN], "error": says})
    for test in assignment.tests:
        if test.kind == "words":
            answer = result.words[test.part] = encodable(words(cells, test.part))[:SHOWN]
            says = "to be graded by hand" if answer else "no answer"
            result.verdicts.append(Verdict.on(test, None if answer else 0, f"{test.part}: {says}."))
    if session.deaths:
        notes.append(f"Its process ended early ({session.deaths} of at most {RESTARTS + 1} times).")
    result.note = " ".join(notes)
    return result


def lost(assignment: Assignment, student: str, note: str, why: str) -> Result:
    """A result without points."""
    return Result(student, note, [Verdict.on(t, 0, f"✗ {t.part}: {why}.") for t in assignment.tests])


def grade_cells(assignment: Assignment, session: Session, key: bytes = b"") -> list[Verdict]:
    """All tests but the answers in words. `key` decides which cases they draw."""
    return [run_test(test, session, key) for test in assignment.tests if test.kind != "words"]


def run_test(test: Test, session: Session, key: bytes = b"") -> Verdict:
    """Run one test on this side; the names that it asks for come from the submission."""
    session.mend()
    seed = seed_of(test, key)
    torch.manual_seed(seed)
    names: dict[str, Any] = {"check": partial(check, seed=seed), "__name__": "grader"}
    printed = io.StringIO()
    try:
        for name in names_asked_for(test.source):
            names[name] = session.get(name)
        with contextlib.redirect_stdout(printed):
            exec(compile(test.source, f"<test {test.name}>", "exec"), names)
    except NotStarted:
        raise
    except Exception as error:
        return Verdict.on(test, 0, plain(reason(error, test, session), SAYS))
    says = plain(printed.getvalue().strip() or f"✓ {test.part}: hidden tests passed.", SAYS)
    score = SCORE.search(printed.getvalue())
    return Verdict.on(test, test.points, says, float(score[1]) if score else None)


def seed_of(test: Test, key: bytes) -> int:
    """The seed of a test's cases: with another key others, and nobody finds the key from the cases."""
    return int.from_bytes(hmac.digest(key, test.name.encode(), "sha256")[:4], "big")


def reason(error: Exception, test: Test, session: Session) -> str:
    """Why a test failed, for the student."""
    match error:
        case NotYet():
            return str(error)
        case Died():
            return f"✗ {test.part}: the submission was stopped here, {error}."
        case NotImplementedError():
            return f"○ {test.part}: not done."
        case AssertionError() if not hasattr(error, "line"):  # with a line it is the submission's own
            return f"✗ {test.part} (hidden test): {error}"
        case NameError() if any(isinstance(e, NotImplementedError) for e in session.errors.values()):
            return f"○ {test.part}: not done."
        case NameError():
            return f"✗ {test.part}: {error}: its cell is missing, or stopped with an error."
    return f"✗ {test.part}: {brief(error)}"


def brief(error: Exception) -> str:
    """An error in one short line, with its type unless the text has it already."""
    typed = isinstance(error, (Died, SubmissionError))
    text = str(error) if typed else f"{type(error).__name__}: {error}"
    return plain(" ".join(text.split()), TEXT)


def names_asked_for(source: str) -> list[str]:
    """The names that a test uses and does not make itself: those of the student."""
    nodes = list(ast.walk(ast.parse(source)))
    made = {"check", *dir(builtins)}.union(*map(made_by, nodes))
    used = [node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]
    return list(dict.fromkeys(name for name in used if name not in made))


def made_by(node: ast.AST) -> list[str]:
    """The names that a node of a syntax tree gives to something."""
    match node:
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
            return [name]
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.arg(arg=name):
            return [name]
        case ast.ExceptHandler(name=str(name)):
            return [name]
        case ast.Import(names=modules) | ast.ImportFrom(names=modules):
            return [(a.asname or a.name).partition(".")[0] for a in modules]
    return []
