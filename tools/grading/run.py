"""Run the tests of an assignment on one notebook."""

from __future__ import annotations

import ast
import builtins
import contextlib
import hmac
import io
import linecache
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypedDict

import torch

from tools.assignments import Assignment, Test, part_of, text
from tools.grading.answers import NotANotebook, read, student_cells, words
from tools.grading.judge import Judge, Score
from tools.grading.meter import Meter
from tools.grading.sandbox import TEXT, Died, NotStarted, Sandbox, SubmissionError, plain
from tools.grading.seal import PACKAGE, Engine
from u2learn.checks import NotYet, check
from u2learn.checks.core import MODULES, Mistake, own_work

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
    score: Score | None = None  # for the leaderboard: what the judge found, if the test passed

    @classmethod
    def on(cls, test: Test, earned: int | None, says: str, score: Score | None = None) -> Verdict:
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

    sources: Sequence[str]  # of the cells
    errors: dict[int, Exception]  # by the number of the cell

    @property
    def spent(self) -> float:
        """Seconds of processor time so far, on the reference machine."""

    def get(self, name: str) -> Any: ...

    def mend(self) -> None:
        """Start again if the last test ended it."""

    def fresh(self, sources: Sequence[str]) -> Session:
        """Another one of this kind, which knows nothing of this one."""

    def close(self) -> None: ...


class Local:
    """The cells run in this process: for solutions that are known to be harmless, as in tests."""

    def __init__(self, sources: Sequence[str]):
        self.sources, self.started = sources, time.process_time()
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

    @property
    def spent(self) -> float:
        return time.process_time() - self.started

    def mend(self) -> None: ...

    def fresh(self, sources: Sequence[str]) -> Local:
        return Local(sources)

    def close(self) -> None: ...


class Sealed:
    """The cells run in a sandbox. If its process dies it is made anew, without the cell that killed it.

    seconds: for a cell. All cells, tests and new starts together have NOTEBOOK times that. metered: what it
    costs is measured; then no weights that ship are there, as what is trained within a budget begins without.
    """

    def __init__(self, sources: Sequence[str], seconds: float, engine: Engine, metered: bool = False):
        self.sources, self.seconds, self.engine, self.metered = sources, seconds, engine, metered
        self.until = time.monotonic() + NOTEBOOK * seconds
        self.errors: dict[int, Exception] = {}
        self.deaths = 0
        self.box: Sandbox | None = None
        self.meter: Meter | None = None  # of the box
        self._start()

    def _start(self) -> None:
        self.close()
        while self.deaths <= RESTARTS and time.monotonic() < self.until:
            try:
                self.box = Sandbox(self.engine, CALL_SECONDS, self.until, hidden(self.metered))
                self.meter = Meter(self.box.started.pid) if self.metered else None
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

    @property
    def spent(self) -> float:
        if self.meter is None:
            raise RuntimeError("what these cells cost is not measured")
        return self.meter.seconds

    def fresh(self, sources: Sequence[str]) -> Sealed:
        return Sealed(sources, self.seconds, self.engine, self.metered)

    def close(self) -> None:
        if self.meter is not None:
            self.meter.stop()
        if self.box is not None:
            self.box.close()
        self.box = self.meter = None


def hidden(weights: bool) -> list[Path]:
    """Files of the package that no submission reads: the questions, with what is right; the weights too."""
    checks = PACKAGE / "checks"
    found = [path for name in MODULES.values() for path in checks.rglob(f"{name}.*py*")]
    return found + (list((PACKAGE / "assets").glob("*.safetensors")) if weights else [])


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
    except NotANotebook as error:
        return lost(assignment, student, note or str(error), "the file is no notebook")
    mine = [(part_of(cell), text(cell)) for cell in student_cells(cells)]
    if len(mine) > CELLS:
        notes.append(f"It has {len(mine):,} cells with code; the first {CELLS} count.")
    mine = mine[:CELLS]
    seconds = assignment.settings.get("seconds", CELL_SECONDS)
    session = Sealed(
        [source for _, source in mine], seconds, engine, assignment.settings.get("metered", False)
    )
    key = secret + student.encode("utf-8", "surrogatepass")
    try:
        result = Result(student, "", grade_cells(assignment, session, key, secret))
    finally:
        session.close()
    for i, (part, source) in enumerate(mine):
        says = f"Cell {i + 1}: {brief(session.errors[i])}" if i in session.errors else ""
        result.cells.append({"part": part, "source": source[:SHOWN], "error": says})
    for test in assignment.tests:
        if test.kind == "words":
            answer = result.words[test.part] = words(cells, assignment, test.part)[:SHOWN]
            says = "to be graded by hand" if answer else "no answer was found, a person looks"
            result.verdicts.append(Verdict.on(test, None, f"{test.part}: {says}."))
    if session.deaths:
        notes.append(f"Its process ended early ({session.deaths} of at most {RESTARTS + 1} times).")
    result.note = " ".join(notes)
    return result


def lost(assignment: Assignment, student: str, note: str, why: str, earned: int | None = 0) -> Result:
    """A result without points. The answers in words wait, so that a person looks at the file.

    earned: None if the tests wait as well.
    """
    verdicts = [
        Verdict.on(test, None if test.kind == "words" else earned, f"✗ {test.part}: {why}.")
        for test in assignment.tests
    ]
    return Result(student, note, verdicts)


def grade_cells(
    assignment: Assignment, session: Session, key: bytes = b"", secret: bytes = b""
) -> list[Verdict]:
    """All tests but the answers in words.

    key: decides which cases they draw, secret: which eyes the project is judged on.
    """
    return [run_test(test, session, key, secret) for test in assignment.tests if test.kind != "words"]


def run_test(test: Test, session: Session, key: bytes = b"", secret: bytes = b"") -> Verdict:
    """Run one test on this side; the names that it asks for come from the submission."""
    session.mend()
    seed = seed_of(test, key)
    torch.manual_seed(seed)
    judge = Judge(session, secret, key)
    names: dict[str, Any] = {"check": partial(check, seed=seed), "judge": judge, "__name__": "grader"}
    printed = io.StringIO()
    asked = names_asked_for(test.source)
    try:
        for name in asked:
            names[name] = session.get(name)
        with own_work(test.part, asked, session.sources), contextlib.redirect_stdout(printed):
            exec(compile(test.source, f"<test {test.name}>", "exec"), names)
    except NotStarted:
        raise
    except Exception as error:
        return Verdict.on(test, 0, plain(reason(error, test, session), SAYS))
    says = plain(printed.getvalue().strip() or f"✓ {test.part}: hidden tests passed.", SAYS)
    return Verdict.on(test, test.points, says, judge.score)


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
            return f"✗ {test.part}{' (hidden test)' if test.kind == 'hidden' else ''}: {error}"
        case NameError() if any(isinstance(e, NotImplementedError) for e in session.errors.values()):
            return f"○ {test.part}: not done."
        case NameError():
            return f"✗ {test.part}: {error}: its cell is missing, or stopped with an error."
    return f"✗ {test.part}: {brief(error)}"


def brief(error: Exception) -> str:
    """An error in one short line, with its type unless the text has it already."""
    typed = isinstance(error, (Died, SubmissionError, Mistake))
    text = str(error) if typed else f"{type(error).__name__}: {error}"
    return plain(" ".join(text.split()), TEXT)


def names_asked_for(source: str) -> list[str]:
    """The names that a test uses and does not make itself: those of the student."""
    nodes = list(ast.walk(ast.parse(source)))
    made = {"check", "judge", *dir(builtins)}.union(*map(made_by, nodes))
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
