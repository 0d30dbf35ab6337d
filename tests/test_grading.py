"""Grading a class: submissions that are right, wrong, broken and hostile; stopped half-way and resumed."""

import ast
import contextlib
import csv
import json
import re
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from puppet import runs

from tools import assignments
from tools.assignments import Assignment, released, text
from tools.grading import seal
from tools.grading.run import Sealed, grade_notebook, names_asked_for, run_test
from tools.grading.sandbox import Sandbox
from tools.grading.submissions import safe
from u2learn.checks import core
from u2learn.checks.reading import Refusal

pytestmark = pytest.mark.course

NAME = "01-convolution"
SOURCE = Assignment.read(NAME)
PARTS = [t.part for t in SOURCE.tests if t.kind == "check"]
FULL = {p: sum(t.points for t in SOURCE.tests if t.part == p) for p in PARTS}
ENGINE = seal.find() or seal.Unsealed()
only_sealed = pytest.mark.skipif(seal.find() is None, reason="nothing here seals a submission")


def submission(right=PARTS, wrong=None, cells=(), drop=(), words="") -> dict:
    """A student's notebook: these parts solved, one with a mistake, more cells in front, some deleted."""
    notebook = released(SOURCE.cells)
    for cell in notebook["cells"]:
        for part in PARTS:
            if assignments.grade_id(cell) == "q" + part.replace(".", "-"):
                if wrong and wrong.part == part:
                    cell["source"] = wrong.applied_to(text(SOURCE.solution(part)))
                elif part in right:
                    cell["source"] = text(SOURCE.solution(part))
        if assignments.grade_id(cell) == "q1-6" and words:
            cell["source"] = words
    kept = [c for c in notebook["cells"] if assignments.grade_id(c) not in drop]
    extra = [
        {
            "cell_type": "code",
            "id": f"extra-{i}",
            "metadata": {},
            "source": s,
            "outputs": [],
            "execution_count": None,
        }
        for i, s in enumerate(cells)
    ]
    return {**notebook, "cells": kept[:3] + extra + kept[3:]}


def points(notebook: dict, **options) -> dict[str, int]:
    """The points of each part that code is asked for."""
    result = grade_notebook(SOURCE, "somebody", json.dumps(notebook).encode(), ENGINE, **options)
    return {p: sum(v.earned for v in result.verdicts if v.part == p) for p in PARTS}


def test_right_and_partly_right():
    mistake = next(m for m in SOURCE.mistakes if m.part == "1.3")
    assert points(submission(wrong=mistake)) == FULL | {"1.3": FULL["1.3"] - mistake.loses}


def test_cells_that_raise_and_cells_that_are_gone_or_there_twice():
    copied = text(SOURCE.solution("1.2")).replace("y = y + ", "y = ")
    notebook = submission(
        cells=["1 / 0", "import nothing_of_this_name", "def broken(:", "%matplotlib inline", copied],
        drop=("q1-4", "q1-3-check", "q1-3-hidden"),
    )
    assert points(notebook) == FULL | {"1.4": 0}


LOOP = """
def cost(layers, size):
    while True:
        pass
"""
STUBBORN = """
import signal
signal.signal(signal.SIGALRM, signal.SIG_IGN)
while True:
    pass
"""


def test_a_loop_without_end_costs_its_part_only(monkeypatch):
    monkeypatch.setattr("tools.grading.run.CELL_SECONDS", 4)
    monkeypatch.setattr("tools.grading.run.NOTEBOOK", 50)
    monkeypatch.setattr("tools.grading.sandbox.PATIENCE", 1)
    monkeypatch.setattr("tools.grading.run.CALL_SECONDS", 6)
    notebook = submission(cells=["while True: pass", STUBBORN])
    notebook["cells"].insert(-1, {**notebook["cells"][3], "source": LOOP})
    assert points(notebook) == FULL | {"1.5": 0}


LEAVE = """
import os
def out_size(*args, **kwargs):
    os._exit(0)
"""


def test_a_process_that_ends_itself_costs_its_part_only():
    notebook = submission(right=PARTS[1:], cells=["import sys; sys.exit()"])
    notebook["cells"].insert(-1, {**notebook["cells"][3], "source": LEAVE})
    assert points(notebook) == FULL | {"1.1": 0}


PATCH = """
import builtins, gc, sys
import torch
import u2learn.checks
import u2learn.checks.core as core
u2learn.checks.check = core.check = lambda *args, **kwargs: print("passed")
core.Cases.done = lambda self, proof: proof
core.same = core.equal = lambda *args: True
core.QUESTIONS.clear()
torch.allclose = torch.equal = lambda *args, **kwargs: True
class Always:
    def __eq__(self, other): return True
    def __bool__(self): return True
    def __call__(self, *args, **kwargs): return Always()
out_size = conv2d = field_of = input_gradient = cost = Always()
check = lambda *args, **kwargs: print("passed")
for thing in gc.get_objects():
    if type(thing).__name__ == "Worker":
        thing.do_call = lambda request: {"value": True, "earned": 100}
"""


def test_patching_the_checker_gives_nothing():
    assert points(submission(right=(), cells=[PATCH])) == dict.fromkeys(PARTS, 0)


STEAL = f"""
import glob, json, re, subprocess
found = ""
for path in glob.glob({str(ROOT / "exercises")!r} + "/**/*.ipynb", recursive=True) + [{str(SOURCE.path)!r}]:
    try:
        for cell in json.load(open(path))["cells"]:
            if "BEGIN SOLUTION" in "".join(cell["source"]) and cell["cell_type"] == "code":
                found += "".join(cell["source"]) + "\\n"
    except OSError:
        pass
command = ["git", "-C", {str(ROOT)!r}, "show", "HEAD:exercises/{NAME}/{NAME}.ipynb"]
found += subprocess.run(command, capture_output=True, text=True).stdout
exec(found)
"""


@only_sealed
def test_the_solutions_cannot_be_read():
    assert points(submission(right=(), cells=[STEAL])) == dict.fromkeys(PARTS, 0)


@only_sealed
def test_a_sealed_process_has_no_network_no_memory_and_no_disk():
    with Sandbox(ENGINE) as box:
        for source, error in [
            ("import socket; socket.create_connection(('1.1.1.1', 53), 3)", OSError),
            ("import torch; torch.zeros(10**11)", RuntimeError),
            ("x = bytearray(10**10)", MemoryError),
            ("import u2learn.checks.core; open(u2learn.checks.core.__file__, 'a')", OSError),
            ("import os; os.mkdir('/stolen')", OSError),
            (f"import os; os.listdir({str(ROOT / 'exercises')!r})", OSError),
        ]:
            with pytest.raises(error):
                box.run(source)
        box.run("open('mine.txt', 'w').write('the own folder is there to be used')")
        box.run("import subprocess; child = subprocess.Popen(['sleep', '600.25'])")
    deadline = time.monotonic() + 5
    while runs("600.25"):
        assert time.monotonic() < deadline, "a child outlived its submission"
        time.sleep(0.05)


LEAVES = "def leave():\n    import os\n    os._exit(0)"
TALKS = "def talk(*args, **kwargs):\n    raise ValueError('the process ended, no answer within 5 seconds')"
FINE = "def fine():\n    return 1"
SWALLOW = "try:\n    leave()\nexcept Exception:\n    pass"


def tried(source: str, session, kind: str = "hidden"):
    """The verdict of a test of one point."""
    return run_test(assignments.Test("1.1", kind, 1, source), session)


def test_a_process_that_a_test_ended_does_not_cost_the_next_test():
    """Also where the test itself swallows the end."""
    session = Sealed([LEAVES, FINE], 20, ENGINE)
    try:
        verdicts = [tried(source, session) for source in (SWALLOW, "leave()", "assert fine() == 1")]
    finally:
        session.close()
    assert [v.earned for v in verdicts] == [1, 0, 1]
    assert verdicts[1].says == "✗ 1.1: the submission was stopped here, the process ended."
    assert session.deaths == 2


def test_a_submission_that_talks_of_its_end_is_not_started_anew():
    session = Sealed([TALKS, FINE], 20, ENGINE)
    try:
        assert "the process ended, no answer within" in tried('check("1.1", talk)', session, "check").says
        assert tried("assert fine() == 1", session).earned == 1
    finally:
        session.close()
    assert session.deaths == 0


def test_what_is_refused_while_it_runs_is_said_in_a_plain_sentence():
    """Also by a hidden test, which calls the answer itself."""
    session = Sealed(["import torch\nconv2d = torch.conv2d"], 20, ENGINE)
    session.sources = []  # what nobody can read
    asks = "import torch\nconv2d(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 3, 3))"
    try:
        verdict = run_test(assignments.Test("1.2", "hidden", 1, asks), session)
    finally:
        session.close()
    assert verdict.says == "✗ 1.2: your code calls `conv2d`, which is refused here: write it yourself."


def test_the_checks_reach_functions_of_a_sandbox():
    """Forbidden names are refused over there, a gradient is taken over there, an error names its line."""
    source = """
import torch
def half(x):
    return torch.nn.functional.relu(x).sum() / 2
def broken(x):
    return x + 'one'
"""
    with Sandbox(ENGINE) as box:
        box.run(source)
        half, x = box.get("half"), torch.tensor([-1.0, 2.0, 3.0])
        assert float(core.call(half, x)) == 2.5
        assert core.gradient(half, x).tolist() == [0.0, 0.5, 0.5]
        with pytest.raises(core.Mistake, match="calls `relu`, which is refused"):
            core.apply(half, (x,), {}, Refusal("", ("relu",)))
        with pytest.raises(core.Mistake, match=r"broken\(a float32 tensor \(3,\)\) .*`return x \+ 'one'`"):
            core.call(box.get("broken"), x)


def test_the_names_that_a_test_asks_for():
    source = """
import torch.nn as nn, numpy
from os import path
def helper(a, *b, c=1):
    return a, b, c
class Thing(Base):
    pass
try:
    total = sum(one(i) for i in range(3))
except ValueError as error:
    print(error, nn, numpy, path, total)
check("1.1", two)
assert helper(lambda z: z) and one and Thing
"""
    assert set(names_asked_for(source)) == {"Base", "one", "two"}
    assert names_asked_for("judge(net, segment_image)") == ["net", "segment_image"]


def test_imports_run_downwards():
    """A room of the grader uses those below it; the package does not know the tools."""
    rooms = ["worker", "seal", "sandbox", "answers", "meter", "judge", "run", "submissions", "sheets"]
    rooms += ["store", "gradebook", "imports", "report", "platforms", "marking", "board", "pool", "__main__"]
    assert {p.stem for p in (ROOT / "tools" / "grading").glob("*.py")} == {*rooms, "__init__"}
    for i, room in enumerate(rooms):
        used = imported(ROOT / "tools" / "grading" / f"{room}.py")
        above = {f"tools.grading.{name}" for name in rooms[i:]}
        assert not used & above, room
    for path in (ROOT / "u2learn").rglob("*.py"):
        assert not any(name.partition(".")[0] == "tools" for name in imported(path)), path


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[]", b'{"cells": 3}', b'{"cells": [{"a": 1}]}'])
def test_a_file_that_is_no_notebook_is_a_result_too(data):
    result = grade_notebook(SOURCE, "somebody", data, ENGINE)
    assert "\n" not in result.note and result.note.count("no notebook") <= 1 and str(ROOT) not in result.note
    assert grade_notebook(SOURCE, "somebody", data, ENGINE, "Known.").note == "Known.", "said once"
    assert result.automatic == 0 and {v.part for v in result.verdicts} == {*PARTS, "1.6"}


def make_class(folder: Path) -> dict[str, dict[str, int]]:
    """A submission or two of every kind; gives the points that each must get."""
    expected = {}

    def hand_in(student: str, notebook: dict | bytes, zero=(), lost=None) -> None:
        target = folder / student / f"{NAME}.ipynb"
        target.parent.mkdir(parents=True)
        target.write_bytes(notebook if isinstance(notebook, bytes) else json.dumps(notebook).encode())
        expected[student] = {p: 0 if p in zero else FULL[p] - (lost or {}).get(p, 0) for p in PARTS}

    words = "Many small kernels, with two poolings and skips: $270 C^2$ weights against $3721 C^2$."
    for i in range(4):
        hand_in(f"right {i}", submission(words=words if i % 2 else ""))
    for part in PARTS:
        mistake = next(m for m in SOURCE.mistakes if m.part == part)
        hand_in(f"wrong-{part}", submission(wrong=mistake), lost={part: mistake.loses})
    for i in (2, 4):
        hand_in(f"half_{i}", submission(right=PARTS[:i]), zero=PARTS[i:])
    hand_in("empty", submission(right=()), zero=PARTS)
    hand_in("no notebook", b"%PDF-1.7", zero=PARTS)
    hand_in("raises", submission(cells=["raise SystemError('<script>alert(1)</script>')"]))
    hand_in("deleted", submission(drop=("q1-5", "q1-1-check")), zero=["1.5"])
    hand_in("patches", submission(right=(), cells=[PATCH]), zero=PARTS)
    steals = submission(right=["1.1"], cells=[STEAL])
    hand_in("steals", steals, zero=PARTS[1:] if seal.find() else ())
    hand_in("leaves", submission(cells=["import os; os._exit(3)"]))
    hand_in("=1+1", submission(right=PARTS[:2]), zero=PARTS[2:])
    return expected


def test_a_class_stopped_half_way(tmp_path):
    """Killed, started again: what was graded stays, nobody is missing, and all points are as they must be."""
    expected = make_class(tmp_path / "class")
    course = tmp_path / "course"
    out = course / NAME
    command = [
        sys.executable,
        "-m",
        "tools.grading",
        "grade",
        str(tmp_path / "class"),
        "--course",
        str(course),
    ]
    command += ["--jobs", "2"]
    first = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    while len(kept(course)) < 6:
        assert first.poll() is None, "it ended before it could be killed"
        time.sleep(0.1)
    first.kill()
    first.communicate(timeout=60)  # until its own processes end too: each holds the other end of this pipe
    done = kept(course)
    assert 6 <= len(done) < len(expected)
    second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert second.returncode == 0, second.stderr
    assert kept(course)[: len(done)] == done and len(kept(course)) == len(expected), (
        "nothing was graded twice"
    )

    before = (out / "points.csv").read_bytes()
    rows = {row["student"].lstrip("'"): row for row in csv.DictReader((out / "points.csv").open())}
    assert len(rows) == len(expected) == 19
    columns = [(t, f"{t.name} ({t.points})") for t in SOURCE.tests if t.kind != "words"]
    for student, due in expected.items():
        row = rows[student.lstrip("'")]
        got = {p: sum(int(row[name]) for t, name in columns if t.part == p) for p in PARTS}
        assert got == due, f"{student}: {got}, expected {due}"
        assert int(row[f"total ({SOURCE.points})"]) == sum(due.values())
    assert "<script>" not in (out / "feedback" / "raises.html").read_text()
    assert "&lt;script&gt;" in (out / "feedback" / "raises.html").read_text()

    marks = out / "marks.csv"
    assert len(list(csv.DictReader(marks.open()))) == len(expected), (
        "where no answer was found, a person looks too"
    )
    marks.write_text(
        marks.read_text().replace("right 3,,1.6 words,4,,", "right 3,,1.6 words,4,3.5,no loss is named")
    )
    third = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert "1 new points and comments were taken" in third.stdout and "0 graded now" in third.stdout
    row = next(row for row in csv.DictReader((out / "points.csv").open()) if row["student"] == "right 3")
    assert (row[f"total ({SOURCE.points})"], row["complete"]) == (str(sum(FULL.values()) + 3.5), "yes")
    assert "no loss is named" in (out / "feedback" / f"{safe('right 3')}.html").read_text()
    assert (out / "points.csv").read_bytes() != before


def kept(course: Path) -> list[tuple]:
    """What is in the book so far: the students graded, in order."""
    with contextlib.suppress(sqlite3.OperationalError), contextlib.closing(open_book(course)) as db:
        return db.execute("SELECT id, student, time FROM results ORDER BY id").fetchall()
    return []


def open_book(course: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{course / 'grades.sqlite'}?mode=ro", uri=True)


@pytest.mark.parametrize("name", assignments.names())
def test_the_student_notebook_runs_to_the_first_open_part_and_says_what_to_do(name):
    """As Run All does it: the first check stops, in one line."""
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    done = []
    for cell in json.loads((assignments.EXERCISES / "release" / f"{name}.ipynb").read_text())["cells"]:
        if cell["cell_type"] == "code":
            result = shell.run_cell(text(cell))
            if not result.success:
                break
            done.append(assignments.grade_id(cell))
    first = Assignment.read(name).number
    assert done[-1] == f"q{first}-1", "everything before the first check runs"
    assert re.match(
        rf"○ {first}\.1 \w+: not done yet\. Write it in the cell above", str(result.error_in_exec)
    )
    assert result.error_in_exec._render_traceback_() == [f"\033[1;33m{result.error_in_exec}\033[0m"]
