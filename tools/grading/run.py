"""Run the tests of an assignment on one notebook."""

from __future__ import annotations

import ast
import builtins
import contextlib
import hmac
import io
import linecache
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypedDict

import torch

from tools.assignments import Assignment, Test, part_of
from tools.grading.answers import read, student_cells, words
from tools.grading.sandbox import Died, Sandbox, SubmissionError
from u2learn.checks import NotYet, check
from u2learn.checks.core import own_work

SCORE = re.compile(r"^leaderboard (\d\.\d+)$", re.M)  # what a hidden test prints to enter a score
CELL_SECONDS = 60  # for one cell, if mistakes.yml says nothing else
CALL_SECONDS = 20  # for one call of a function
RESTARTS = 3  # how often a submission may kill its process before the rest counts as not there


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
    """A code cell of a submission. part: "" if it answers none; error: "" if it ran."""

    part: str
    source: str
    error: str


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

    sources: Sequence[str]  # the cells
    errors: dict[int, Exception]  # by the number of the cell

    def get(self, name: str) -> Any: ...

    def mend(self) -> None:
        """Start again if the last test ended it."""


class Local:
    """The cells run in this process: for solutions that are known to be harmless, as in tests."""

    def __init__(self, sources: Sequence[str]):
        self.sources = sources
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
    """The cells run in a sandbox. If its process dies it is made anew, without the cell that killed it."""

    def __init__(self, sources: Sequence[str], seconds: float, hide: Sequence[Path]):
        self.sources, self.seconds, self.hide = sources, seconds, hide
        self.errors: dict[int, Exception] = {}
        self.deaths = 0
        self.box: Sandbox | None = None
        self._start()

    def _start(self) -> None:
        self.close()
        while self.deaths <= RESTARTS:
            try:
                self.box = Sandbox(self.hide, CALL_SECONDS)
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
                box.run(source, self.seconds)
            except Exception as error:
                self.errors[i] = error
                if isinstance(error, Died):
                    raise

    def get(self, name: str) -> Any:
        if self.box is None:
            raise NameError("the submission ended its process too often")
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
    hide: Sequence[Path] = (),
    note: str = "",
    secret: bytes = b"",
) -> Result:
    """Grade the bytes of one submitted notebook. Whatever is in them, there is a result.

    secret: the course's; from it and the student's key come the cases that this student gets.
    """
    try:
        cells = read(data)
        mine = [(part_of(cell), "".join(cell["source"])) for cell in student_cells(cells)]
    except Exception as error:
        lost = [Verdict.on(t, 0, f"✗ {t.part}: the file is no notebook.") for t in assignment.tests]
        return Result(student, f"{note} This file is no notebook ({type(error).__name__}).".strip(), lost)
    seconds = assignment.settings.get("seconds", CELL_SECONDS)
    session = Sealed([source for _, source in mine], seconds, hide)
    try:
        result = Result(student, note, grade_cells(assignment, session, secret + student.encode()))
    finally:
        session.close()
    for i, (part, source) in enumerate(mine):
        says = named(session.errors[i]) if i in session.errors else ""
        result.cells.append({"part": part, "source": source, "error": says})
    for test in assignment.tests:
        if test.kind == "words":
            answer = result.words[test.part] = words(cells, test.part)
            says = "to be graded by hand" if answer else "no answer"
            result.verdicts.append(Verdict.on(test, None if answer else 0, f"{test.part}: {says}."))
    return result


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
    asked = names_asked_for(test.source)
    try:
        for name in asked:
            names[name] = session.get(name)
        with own_work(test.part, asked, session.sources), contextlib.redirect_stdout(printed):
            exec(compile(test.source, f"<test {test.name}>", "exec"), names)
    except Exception as error:
        return Verdict.on(test, 0, plain(reason(error, test, session)))
    says = plain(printed.getvalue().strip() or f"✓ {test.part}: hidden tests passed.")
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
        case AssertionError():
            return f"✗ {test.part}{' (hidden test)' if test.kind == 'hidden' else ''}: {error}"
        case NameError() if any(isinstance(e, NotImplementedError) for e in session.errors.values()):
            return f"○ {test.part}: not done."
        case NameError():
            return f"✗ {test.part}: {error}: its cell is missing, or stopped with an error."
    return f"✗ {test.part}: {named(error)[:500]}"


def named(error: Exception) -> str:
    """An error with its type, unless the text has it already."""
    return str(error) if isinstance(error, (Died, SubmissionError)) else f"{type(error).__name__}: {error}"


def plain(line: str) -> str:
    """Without the colours of a terminal."""
    return re.sub(r"\033\[[0-9;]*m", "", line)


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
