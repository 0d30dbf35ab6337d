"""Grade a class.

    python -m tools.grade SUBMISSIONS [--assignment NAME] [--out FOLDER] [--jobs N]

Without a name, every assignment that somebody handed in is graded. SUBMISSIONS holds a folder for each
student (any depth, as Moodle or nbgrader make them) or, as Canvas makes them, the notebooks themselves with
the student's name in front. Each notebook runs sealed in a process of its own (tools/sandbox.py) and is asked
the questions of the source notebook. What a student deleted or changed among the tests does not matter: their
own cells are run in order, and the grader brings the tests.

In FOLDER/ASSIGNMENT (FOLDER is _build/grades by default) are then

    points.csv      points for each part, one line a student
    canvas.csv      the totals, as Canvas imports them         moodle.csv      as Moodle does
    leaderboard.csv the scores of a project, best first
    manual.csv      the answers in words, for you to fill in: grade again, and they are added
    feedback/       a page for each student                    results/        what is already graded

A run that was stopped goes on where it was; what has changed is graded again.
"""

from __future__ import annotations

import argparse
import ast
import builtins
import contextlib
import csv
import hashlib
import html
import io
import json
import linecache
import multiprocessing
import os
import re
import sys
import threading
import time
import traceback
import zlib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from tools.assignments import EXERCISES, ROOT, Assignment, Test, names, part_of, text

LEADERBOARD = re.compile(r"^leaderboard (\d\.\d+)$", re.M)  # what a hidden test prints to enter a score
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


@dataclass
class Result:
    """A graded submission."""

    student: str
    note: str = ""  # what the person who grades should know
    verdicts: list[Verdict] = field(default_factory=list)
    cells: list[dict] = field(default_factory=list)  # {"source", "error", "part"} in order
    words: dict[str, str] = field(default_factory=dict)  # answers in words, by part

    @property
    def automatic(self) -> int:
        return sum(v.earned or 0 for v in self.verdicts)


class Session(Protocol):
    """Where the cells of a submission ran, and its names can be asked for."""

    errors: dict[int, str]

    def get(self, name: str) -> Any: ...

    def broken(self, reason: str) -> None: ...


class Local:
    """The cells run in this process: for solutions that are known to be harmless, as in tests."""

    def __init__(self, sources: Sequence[str]):
        self.names: dict[str, Any] = {"__name__": "submission"}
        self.errors: dict[int, str] = {}
        for i, source in enumerate(sources):
            filename = f"<cell {i}>"
            linecache.cache[filename] = len(source), None, source.splitlines(keepends=True), filename
            try:
                exec(compile(source, filename, "exec"), self.names)
            except Exception as error:
                self.errors[i] = f"{type(error).__name__}: {error}"

    def get(self, name: str) -> Any:
        if name not in self.names:
            raise NameError(f"name {name!r} is not defined")
        return self.names[name]

    def broken(self, reason: str) -> None: ...


class Sealed:
    """The cells run in a sandbox. If its process dies it is made anew, without the cell that killed it."""

    def __init__(self, sources: Sequence[str], seconds: float, hide: Sequence[Path]):
        self.sources, self.seconds, self.hide = sources, seconds, hide
        self.errors: dict[int, str] = {}
        self.deaths, self.box = 0, None
        self._start()

    def _start(self) -> None:
        from tools.sandbox import Died, Sandbox

        self.close()
        while self.deaths <= RESTARTS:
            try:
                self.box = Sandbox(self.hide, CALL_SECONDS)
                for i, source in enumerate(self.sources):
                    if i not in self.errors:
                        try:
                            self.box.run(source, self.seconds)
                        except Died as death:
                            self.errors[i] = str(death)
                            raise
                        except Exception as error:
                            self.errors[i] = named(error)
                return
            except Died:
                self.deaths += 1
                self.close()

    def get(self, name: str) -> Any:
        if self.box is None:
            raise NameError("the submission ended its process too often")
        return self.box.get(name)

    def broken(self, reason: str) -> None:
        self.deaths += 1
        self._start()

    def close(self) -> None:
        if self.box is not None:
            self.box.close()
        self.box = None


def named(error: BaseException) -> str:
    """An error with its type, unless the text has it already."""
    kind = type(error).__name__
    return str(error) if kind == "SubmissionError" else f"{kind}: {error}"


def student_cells(cells: Sequence[dict]) -> list[dict]:
    """The code cells of a submission that are the student's: all but the tests, which the grader brings."""
    return [
        cell
        for cell in cells
        if cell.get("cell_type") == "code"
        and not (nbgrader_of(cell).get("grade") and not nbgrader_of(cell).get("solution"))
    ]


def nbgrader_of(cell: dict) -> dict:
    found = cell.get("metadata", {}).get("nbgrader", {})
    return found if isinstance(found, dict) else {}


def run_test(test: Test, session: Session) -> Verdict:
    """Run one test on this side; the names that it asks for come from the submission."""
    import torch

    from tools.sandbox import Died
    from u2learn.checks import check
    from u2learn.checks.core import NotYet

    def verdict(passed: bool, says: str) -> Verdict:
        return Verdict(test.part, test.kind, test.points, test.points if passed else 0, plain(says))

    torch.manual_seed(zlib.crc32(test.name.encode()))
    names = {"check": partial(check, seed=zlib.crc32(test.name.encode())), "__name__": "grader"}
    printed = io.StringIO()
    try:
        for name in names_asked_for(test.source):
            names[name] = session.get(name)
        with contextlib.redirect_stdout(printed):
            exec(compile(test.source, f"<test {test.name}>", "exec"), names)
    except NotYet as error:
        if "the process ended" in str(error) or "no answer within" in str(error):
            session.broken(str(error))
        return verdict(False, str(error))
    except Died as error:
        session.broken(str(error))
        return verdict(False, f"✗ {test.part}: the submission was stopped here, {error}.")
    except NotImplementedError:
        return verdict(False, f"○ {test.part}: not done.")
    except AssertionError as error:
        return verdict(False, f"✗ {test.part} (hidden test): {error}")
    except NameError as error:
        if any(reason.startswith("NotImplementedError") for reason in session.errors.values()):
            return verdict(False, f"○ {test.part}: not done.")
        return verdict(False, f"✗ {test.part}: {error}: its cell is missing, or stopped with an error.")
    except Exception as error:
        return verdict(False, f"✗ {test.part}: {named(error)[:500]}")
    return verdict(True, printed.getvalue().strip() or f"✓ {test.part}: hidden tests passed.")


def names_asked_for(source: str) -> list[str]:
    """The names that a test uses and does not make itself: those of the student."""
    tree = ast.parse(source)
    loaded, made = [], {"check", *dir(builtins)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            loaded.append(node.id)
        elif isinstance(node, ast.Name):
            made.add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            made.add(node.name)
        elif isinstance(node, ast.arg):
            made.add(node.arg)
        elif isinstance(node, ast.ExceptHandler):
            made.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            made |= {(a.asname or a.name).partition(".")[0] for a in node.names}
    return list(dict.fromkeys(name for name in loaded if name not in made))


def plain(line: str) -> str:
    return re.sub(r"\033\[[0-9;]*m", "", line)


def grade_cells(assignment: Assignment, session: Session) -> list[Verdict]:
    """All tests but the answers in words."""
    return [run_test(test, session) for test in assignment.tests if test.kind != "words"]


def grade_notebook(
    assignment: Assignment, student: str, data: bytes, hide: Sequence[Path] = (), note: str = ""
) -> Result:
    """Grade the bytes of one submitted notebook. Whatever is in them, there is a result."""
    result = Result(student, note)
    try:
        cells = json.loads(data.decode("utf-8"))["cells"]
        mine = [dict(cell, source="".join(cell["source"])) for cell in student_cells(cells)]
    except Exception as error:
        result.note = f"{note} This file is no notebook ({type(error).__name__}).".strip()
        result.verdicts = [
            Verdict(t.part, t.kind, t.points, 0, f"✗ {t.part}: the file is no notebook.")
            for t in assignment.tests
        ]
        return result
    session = Sealed(
        [cell["source"] for cell in mine], assignment.settings.get("seconds", CELL_SECONDS), hide
    )
    try:
        result.verdicts = grade_cells(assignment, session)
    finally:
        session.close()
    result.cells = [
        {"part": part_of(cell), "source": cell["source"], "error": session.errors.get(i, "")}
        for i, cell in enumerate(mine)
    ]
    for test in assignment.tests:
        if test.kind == "words":
            answer = words(assignment, cells, test.part)
            result.words[test.part] = answer
            says = "to be graded by hand" if answer else "no answer"
            result.verdicts.append(
                Verdict(test.part, "words", test.points, None if answer else 0, f"{test.part}: {says}.")
            )
    return result


def words(assignment: Assignment, cells: Sequence[dict], part: str) -> str:
    """The answer in words, or "" if it is as it was handed out."""
    found = [text(c) for c in cells if c.get("cell_type") == "markdown" and part_of(c) == part]
    answer = "\n\n".join(found).replace("YOUR ANSWER HERE", "").strip()
    return "" if answer in ("", "### BEGIN SOLUTION\n### END SOLUTION") else answer


@dataclass(frozen=True)
class Submission:
    student: str
    path: Path
    note: str = ""


def find_submissions(folder: Path, assignment: Assignment) -> list[Submission]:
    """The newest notebook of each student for this assignment, in the order of the students' names."""
    newest: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        below = path.relative_to(folder)
        if path.is_dir() or any(part.startswith((".", "__")) for part in below.parts):
            continue
        student = student_name(below)
        newest.setdefault(student, [])
        if path.suffix == ".ipynb" and is_for(path, assignment):
            newest[student].append(path)
    found = []
    for student, paths in sorted(newest.items()):
        paths.sort(key=lambda p: (p.stat().st_mtime, str(p)))
        if paths:
            note = f"{len(paths)} notebooks were handed in; the newest counts." if len(paths) > 1 else ""
            found.append(Submission(student, paths[-1], note))
        else:
            found.append(Submission(student, folder / student, "No notebook of this assignment was found."))
    return found


def student_name(below: Path) -> str:
    """Moodle: NAME_ID_assignsubmission_file/x.ipynb. Canvas: NAME_[LATE_]ID_ID_x.ipynb. Else: the folder."""
    if len(below.parts) > 1:
        return re.sub(r"_\d+_assignsubmission_\w*$", "", below.parts[0])
    canvas = re.fullmatch(r"(.+?)_(?:LATE_)?(\d+)_\d+_.*", below.name)
    return f"{canvas[1]}_{canvas[2]}" if canvas else below.stem


def is_for(path: Path, assignment: Assignment) -> bool:
    """By the grade ids in it; a notebook that lost them, by its name; one that cannot be read, always."""
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        numbers = {m[1] for c in cells if (m := re.match(r"q(\d+)-", str(nbgrader_of(c).get("grade_id"))))}
    except (ValueError, KeyError, TypeError, AttributeError, OSError):
        numbers = set()
    if numbers:
        return assignment.number in numbers
    other = re.search(r"\d\d-[a-z0-9-]+", path.stem)
    return other is None or other[0].startswith(assignment.name)


def fingerprint(assignment: Assignment, data: bytes) -> str:
    """Changes with the submission, with the assignment, and with the checks."""
    digest = hashlib.sha256(data)
    paths = [assignment.path, assignment.path.parent / "mistakes.yml"]
    paths += sorted((ROOT / "u2learn" / "checks").glob("*.py"))
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def grade_one(name: str, exercises: Path, submission: Submission, out: Path, hide: list[Path]) -> str:
    """Grade a submission, unless that was done, and write its result. Runs in a process of the pool."""
    assignment = Assignment.read(name, exercises)
    target = out / "results" / f"{safe(submission.student)}.json"
    data = submission.path.read_bytes() if submission.path.is_file() else b""
    key = fingerprint(assignment, data)
    if target.exists():
        with contextlib.suppress(ValueError, KeyError):
            if json.loads(target.read_text(encoding="utf-8"))["key"] == key:
                return submission.student
    try:
        result = grade_notebook(assignment, submission.student, data, hide, submission.note)
    except Exception:
        why = traceback.format_exc(limit=-2)
        result = Result(
            submission.student,
            f"{submission.note} The grader failed on it, please look: {why}".strip(),
            [Verdict(t.part, t.kind, t.points, 0, f"{t.part}: not graded.") for t in assignment.tests],
        )
    write(target, json.dumps({"key": key, **asdict(result)}, ensure_ascii=False, indent=1))
    return submission.student


def safe(student: str) -> str:
    """A file name for a student: two students never share one."""
    short = re.sub(r"[^\w.-]+", "_", student)
    return short if short == student else f"{short}-{zlib.crc32(student.encode()):08x}"


def write(path: Path, content: str) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    temporary.write_text(content, encoding="utf-8", newline="")
    temporary.replace(path)


def read_result(path: Path) -> Result:
    data = json.loads(path.read_text(encoding="utf-8"))
    data.pop("key")
    data["verdicts"] = [Verdict(**v) for v in data["verdicts"]]
    return Result(**data)


def end_with_parent(parent: int) -> None:
    """A process of the pool ends when the command was killed, whatever it is doing."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def grade_class(
    name: str,
    folder: Path,
    out: Path,
    jobs: int,
    exercises: Path = EXERCISES,
    progress: bool = True,
) -> list[Result]:
    """Grade all submissions of a class and write the tables and pages."""
    from tqdm.auto import tqdm

    assignment = Assignment.read(name, exercises)
    submissions = find_submissions(folder, assignment)
    if not submissions:
        sys.exit(f"There is no submission in {folder}: a folder for each student is due, with a notebook.")
    hide = [EXERCISES, exercises, ROOT / "tests", ROOT / ".git", ROOT / "_build", folder, out]
    hide = [path.resolve() for path in dict.fromkeys(hide)]
    out.mkdir(parents=True, exist_ok=True)
    pool = ProcessPoolExecutor(
        jobs, multiprocessing.get_context("spawn"), initializer=end_with_parent, initargs=(os.getpid(),)
    )
    with pool, tqdm(total=len(submissions), desc=assignment.name, disable=not progress) as bar:
        waiting = {pool.submit(grade_one, name, exercises, s, out, hide): s for s in submissions}
        for done in as_completed(waiting):
            done.result()
            bar.update()
    results = [read_result(out / "results" / f"{safe(s.student)}.json") for s in submissions]
    add_manual(out / "manual.csv", results)
    write_tables(assignment, results, out)
    for result in results:
        write(out / "feedback" / f"{safe(result.student)}.html", feedback(assignment, result))
    return results


def add_manual(path: Path, results: Sequence[Result]) -> None:
    """Take the points that a person gave from manual.csv, and write it anew with the lines that are missing.

    Raises:
        SystemExit: a number of points is none, or more than there are.
    """
    given = {}
    if path.exists():
        with open(path, newline="", encoding="utf-8") as file:
            given = {(row["student"], row["part"]): row for row in csv.DictReader(file)}
    rows = []
    for result in results:
        for verdict in result.verdicts:
            if verdict.kind != "words" or verdict.earned is not None:
                continue
            row = given.get((result.student, verdict.part), {})
            points, comment = (row.get("points") or "").strip(), row.get("comment") or ""
            if points:
                if not points.isdigit() or int(points) > verdict.points:
                    sys.exit(
                        f"{path}: {result.student}, {verdict.part}: {points!r} should be a whole number from "
                        f"0 to {verdict.points}."
                    )
                verdict.earned = int(points)
                verdict.says = f"{verdict.part}: {comment or 'graded by hand'}"
            rows.append([result.student, verdict.part, verdict.points, points, comment])
    write(path, table_text(["student", "part", "of", "points", "comment"], rows))


def write_tables(assignment: Assignment, results: Sequence[Result], out: Path) -> None:
    """points.csv, canvas.csv, moodle.csv, and a leaderboard.csv if a test printed a score for it."""
    tests = assignment.tests
    head = ["student", *(f"{t.name} ({t.points})" for t in tests), f"total ({assignment.points})", "complete"]
    rows, totals = [], []
    for result in results:
        earned = {(v.part, v.kind): v.earned for v in result.verdicts}
        cells = [earned.get((t.part, t.kind), 0) for t in tests]
        total = sum(c or 0 for c in cells)
        complete = "no" if None in cells else "yes"
        rows.append([result.student, *("" if c is None else c for c in cells), total, complete, result.note])
        totals.append((result.student, total))
    write(out / "points.csv", table_text([*head, "note"], rows))
    canvas = [["    Points Possible", "", "", "", assignment.points]]
    canvas += [[student, canvas_id(student), "", "", total] for student, total in totals]
    write(
        out / "canvas.csv",
        table_text(["Student", "ID", "SIS Login ID", "Section", assignment.title], canvas),
    )
    board = {r.student: float(m[1]) for r in results for v in r.verdicts if (m := LEADERBOARD.search(v.says))}
    if board:
        ranked = sorted(board.items(), key=lambda entry: (-entry[1], entry[0]))
        rows = [[i + 1, student, f"{score:.4f}"] for i, (student, score) in enumerate(ranked)]
        write(out / "leaderboard.csv", table_text(["rank", "student", "score"], rows))
    moodle = [[student, total, f"feedback/{safe(student)}.html"] for student, total in totals]
    write(out / "moodle.csv", table_text(["Full name", assignment.title, "Feedback comments"], moodle))


def canvas_id(student: str) -> str:
    """Canvas puts the number of the user behind the name."""
    found = re.fullmatch(r".+_(\d+)", student)
    return found[1] if found else ""


def table_text(head: Sequence[str], rows: Sequence[Sequence]) -> str:
    """CSV. A name that a spreadsheet would take for a formula gets an apostrophe in front."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(head)
    for row in rows:
        writer.writerow([f"'{c}" if isinstance(c, str) and c[:1] in "=+-@" and c else c for c in row])
    return file.getvalue()


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 54rem; margin: 2rem auto; padding: 0 1rem; }}
pre {{ background: #f5f5f5; padding: .7rem; overflow-x: auto; font-size: 14px; }}
.passed {{ color: #00702e; }} .failed {{ color: #b3261e; }} .open {{ color: #7a5b00; }}
li, .error {{ white-space: pre-wrap; }} .error {{ color: #b3261e; }} h2 {{ margin-top: 2rem; }}
</style>
<h1>{title}</h1>
<p><strong>{student}: {total} of {possible} points</strong>{still}. {note}</p>
{body}
</html>
"""


def feedback(assignment: Assignment, result: Result) -> str:
    """What a student gets back. Everything of theirs is escaped."""
    parts = list(dict.fromkeys(t.part for t in assignment.tests))
    body = []
    for part in parts:
        verdicts = [v for v in result.verdicts if v.part == part]
        earned = sum(v.earned or 0 for v in verdicts)
        body.append(f"<h2>{part}: {earned} of {sum(v.points for v in verdicts)}</h2><ul>")
        for v in verdicts:
            kind = "open" if v.earned is None else "passed" if v.earned == v.points else "failed"
            mark = "" if v.earned is None else f" ({v.earned} of {v.points})"
            body.append(f'<li class="{kind}">{html.escape(v.says)}{mark}</li>')
        body.append("</ul>")
        if result.words.get(part):
            body.append(f"<pre>{html.escape(result.words[part])}</pre>")
        for cell in result.cells:
            if cell["part"] == part:
                body.append(f"<pre>{html.escape(cell['source'])}</pre>")
    wrong = [cell for cell in result.cells if cell["error"]]
    if wrong:
        body.append("<h2>Cells that stopped</h2>")
    for cell in wrong:
        body.append(f"<pre>{html.escape(cell['source'])}</pre>")
        body.append(f'<p class="error">{html.escape(cell["error"][:1000])}</p>')
    return PAGE.format(
        title=html.escape(assignment.title),
        student=html.escape(result.student),
        total=result.automatic,
        possible=assignment.points,
        still=", the answer in words is still to be graded" if unfinished(result) else "",
        note=html.escape(result.note),
        body="\n".join(body),
    )


def unfinished(result: Result) -> bool:
    return any(v.earned is None for v in result.verdicts)


def main(arguments: list[str] | None = None) -> None:
    from tools.sandbox import sealed

    parser = argparse.ArgumentParser(
        "python -m tools.grade", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("submissions", type=Path)
    parser.add_argument("--assignment", help="as 01-convolution; default: all that were handed in")
    parser.add_argument("--out", type=Path, default=ROOT / "_build" / "grades")
    parser.add_argument("--jobs", type=int, default=min(4, os.cpu_count() or 1))
    parser.add_argument("--exercises", type=Path, default=EXERCISES, help="a folder with sources of your own")
    options = parser.parse_args(arguments)
    if not options.submissions.is_dir():
        sys.exit(f"{options.submissions} is not a folder.")
    if not sealed():
        print(
            "This system does not let us seal the submissions: they can read your files and use the network, "
            "though not change a verdict. Grade in a container, or on Linux with user namespaces.",
            file=sys.stderr,
        )
    chosen = [options.assignment] if options.assignment else handed_in(options.submissions, options.exercises)
    if not chosen:
        sys.exit(f"There is no notebook of an assignment in {options.submissions}.")
    for name in chosen:
        out = options.out / name
        results = grade_class(name, options.submissions, out, options.jobs, options.exercises)
        print(f"{name}: {len(results)} students, see {out / 'points.csv'} and {out / 'feedback'}.")
        waiting = sum(map(unfinished, results))
        if waiting:
            print(f"{waiting} answers in words wait for you in {out / 'manual.csv'}.")


def handed_in(folder: Path, exercises: Path) -> list[str]:
    """The assignments of which there is at least one notebook."""
    everything = {
        name: find_submissions(folder, Assignment.read(name, exercises)) for name in names(exercises)
    }
    return [name for name, found in everything.items() if any(s.path.is_file() for s in found)]


if __name__ == "__main__":
    main()
