"""The assignments: their sources, the version for students, and the table of mistakes.

    python -m tools.assignments release [--check] [--exercises FOLDER]
    python -m tools.assignments table [--check]

`release` writes exercises/release/*.ipynb, without solutions and hidden tests, and packs each with a README
into _build/exercises/*.zip; with a FOLDER of sources of your own it does so for these, into FOLDER/release.
`table` writes the table of mistakes into the instructor's guide, and prints how many of them get a generic
message. With --check nothing is written: what differs is named, and the exit status is 1.

A source is a notebook as nbgrader reads it. The parts are told apart by their `grade_id`:

    q1-2          the student's cell: code with a solution region, or (graded by hand) an answer in words
    q1-2-check    the check that the student sees
    q1-2-hidden   tests that only the grader has
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import zipfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import yaml

from tools import links, notebooks
from tools.settle import settle

ROOT = Path(__file__).resolve().parents[1]
EXERCISES = ROOT / "exercises"
ZIPS = ROOT / "_build" / "exercises"
GUIDE = ROOT / "book" / "back" / "instructors.md"
GRADE_ID = re.compile(r"q(\d+)-(\d+)(-check|-hidden)?")
SOLUTION = re.compile(r"^([ \t]*)### BEGIN SOLUTION.*?### END SOLUTION[^\n]*", re.MULTILINE | re.DOTALL)
HIDDEN = re.compile(
    r"^[ \t]*### BEGIN HIDDEN TESTS.*?### END HIDDEN TESTS[^\n]*\n?", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Test:
    """One graded cell. kind: "check" (the student has it too), "hidden", or "words" (graded by hand)."""

    part: str  # as "1.2"
    kind: str
    points: int
    source: str

    @property
    def name(self) -> str:
        return f"{self.part} {self.kind}"


@dataclass(frozen=True)
class Mistake:
    """A solution of the kind that students write: an edit of the right one, or a cell of its own.

    loses: how many points, 0 if it is right in another way. says: a piece of the sentence with which the
    first failing test explains it. generic: that sentence only shows two values, and knows no mistake.
    """

    part: str
    mistake: str
    loses: int = 0
    says: str = ""
    generic: bool = False
    replace: str = ""
    by: str = ""
    code: str = ""

    def applied_to(self, source: str) -> str:
        """The student's cell with this mistake in it."""
        if self.code:
            return self.code
        if source.count(self.replace) != 1:
            raise ValueError(
                f"{self.part}, {self.mistake!r}: {self.replace!r} is in the solution "
                f"{source.count(self.replace)} times, not once."
            )
        return source.replace(self.replace, self.by)


@dataclass
class Assignment:
    """One folder of exercises/: its source notebook, and what mistakes.yml says about it."""

    path: Path  # exercises/01-convolution/01-convolution.ipynb
    cells: list[dict] = field(repr=False)

    @classmethod
    def read(cls, name: str, folder: Path = EXERCISES) -> Assignment:
        path = folder / name / f"{name}.ipynb"
        if not path.exists():
            sys.exit(f"There is no assignment {name!r}; there are: {', '.join(names(folder))}.")
        return cls(path, json.loads(path.read_text(encoding="utf-8"))["cells"])

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def number(self) -> str:
        return str(int(self.name[:2]))

    @property
    def title(self) -> str:
        return text(self.cells[0]).partition("\n")[0].removeprefix("# ")

    @cached_property
    def tests(self) -> list[Test]:
        """All that is graded, in order.

        Raises:
            ValueError: a graded cell has another kind of grade_id.
        """
        found = []
        for cell in self.cells:
            data = nbgrader_of(cell)
            if data.get("grade"):
                match = GRADE_ID.fullmatch(data["grade_id"])
                if match is None:
                    raise ValueError(
                        f"{self.path}: a graded cell has the grade_id {data['grade_id']!r}; "
                        "it should be as q1-2, q1-2-check or q1-2-hidden."
                    )
                number, part, suffix = match.groups()
                kind = (suffix or "-words")[1:]
                found.append(Test(f"{number}.{part}", kind, data["points"], text(cell)))
        return found

    def solution(self, part: str) -> dict:
        """The student's cell of a part."""
        return next(cell for cell in self.cells if part_of(cell) == part)

    @cached_property
    def settings(self) -> dict:
        return yaml.safe_load((self.path.parent / "mistakes.yml").read_text(encoding="utf-8"))

    @property
    def mistakes(self) -> list[Mistake]:
        return [Mistake(**{**m, "part": str(m["part"])}) for m in self.settings["mistakes"]]

    @cached_property
    def unusual(self) -> list[Mistake]:
        """Solutions that one does not expect, right and wrong ones; none if there is no unusual.yml."""
        path = self.path.parent / "unusual.yml"
        if not path.exists():
            return []
        found = []
        for case in yaml.safe_load(path.read_text(encoding="utf-8"))["unusual"]:
            if case.pop("want", None) == "full" and "loses" in case:
                raise ValueError(
                    f"{path}: {case['solution']!r} should want all points or lose some, not both."
                )
            found.append(Mistake(str(case.pop("part")), case.pop("solution"), **case))
        return found

    @property
    def wrong(self) -> list[Mistake]:
        """All wrong solutions, part by part."""
        return sorted([*self.mistakes, *(m for m in self.unusual if m.loses)], key=lambda m: m.part)

    @property
    def rubric(self) -> dict[str, str]:
        """What a good answer in words holds, by part: for the person who grades it."""
        found = {}
        for cell in (self.solution(t.part) for t in self.tests if t.kind == "words"):
            region = SOLUTION.search(text(cell))
            lines = region[0].split("\n")[1:-1] if region else []
            found[part_of(cell)] = "\n".join(lines).strip()
        return found

    @property
    def minutes(self) -> list[int]:
        """How long it takes somebody who writes modules, and one who is new to PyTorch. Estimates."""
        return self.settings["minutes"]

    @property
    def points(self) -> int:
        return sum(test.points for test in self.tests)


def names(folder: Path = EXERCISES) -> list[str]:
    return sorted(path.parent.name for path in folder.glob("[0-9][0-9]-*/*.ipynb"))


def text(cell: dict) -> str:
    return "".join(cell["source"])


def nbgrader_of(cell: dict) -> dict:
    """What nbgrader keeps about a cell; a student's notebook may have anything there, or nothing."""
    found = cell.get("metadata", {}).get("nbgrader", {})
    return found if isinstance(found, dict) else {}


def grade_id(cell: dict) -> str:
    return str(nbgrader_of(cell).get("grade_id", ""))


def part_of(cell: dict) -> str:
    """The part that a student's cell answers, as "1.2"; "" if none."""
    found = GRADE_ID.fullmatch(grade_id(cell))
    return f"{found[1]}.{found[2]}" if found and not found[3] else ""


def released(cells: list[dict]) -> dict:
    """The notebook for students."""
    return {
        "cells": [released_cell(cell) for cell in cells],
        "metadata": notebooks.METADATA,
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def released_cell(cell: dict) -> dict:
    """A cell for students: solutions become stubs as nbgrader's, hidden tests go, locked cells lock."""
    cell = json.loads(json.dumps(cell))
    data = nbgrader_of(cell)
    source = text(cell)
    if cell["cell_type"] == "code":
        cell.update(outputs=[], execution_count=None)
        source = SOLUTION.sub(r"\1# YOUR CODE HERE\n\1raise NotImplementedError()", source)
        source = HIDDEN.sub("", source)
    else:
        source = SOLUTION.sub("YOUR ANSWER HERE", source)
    cell["source"] = source.rstrip().splitlines(keepends=True)
    if data:
        cell["metadata"]["deletable"] = False
        if data["locked"]:
            cell["metadata"]["editable"] = False
    return cell


def student_version(assignment: Assignment) -> dict:
    """The notebook for students, with its release, times and links in the head and in its metadata."""
    notebook = released(assignment.cells)
    data = {"assignment": assignment.name, "release": links.release(ROOT), "minutes": assignment.minutes}
    notebook["metadata"] = notebook["metadata"] | {"u2learn": data}
    first = notebook["cells"][0]
    title, _, prose = text(first).partition("\n")
    links.set_source(first, f"{title}\n\n{head(assignment)}\n{prose}")
    return notebook


def head(assignment: Assignment) -> str:
    """What stands below a notebook's title: where to open it, how long it takes, which release it is."""
    writes, new = assignment.minutes
    students = f"{links.site(links.repository(ROOT))}book/back/students.html"
    lines = [
        f"{assignment.points} points. About {writes} minutes if you have written an `nn.Module` before, "
        f"{new} if PyTorch is new to you: both are estimates. "
        f"[How an assignment works, and what you need of PyTorch]({students}). Release {links.release(ROOT)}."
    ]
    if assignment.path.is_relative_to(EXERCISES):  # others are nowhere that Colab could open
        page = links.colab(ROOT, f"exercises/release/{assignment.path.name}")
        lines = [f"[{links.BADGE}]({page})", "", *lines]
    return "\n".join(lines)


def wanted(folder: Path = EXERCISES) -> dict[Path, str]:
    """The student notebooks, each with the text that it should have."""
    return {
        folder / "release" / f"{name}.ipynb": notebooks.dump(student_version(Assignment.read(name, folder)))
        for name in names(folder)
    }


def release(check: bool, folder: Path = EXERCISES) -> None:
    """Write the student notebooks, and pack them.

    Raises:
        SystemExit: there is no assignment in the folder; or, with `check`, a notebook is not up to date.
    """
    files = wanted(folder)
    if not files:
        sys.exit(f"There is no assignment in {folder}: a folder as 01-convolution with a notebook is due.")
    settle(files, folder.parent, check, "make release")
    if check:
        return
    for path in set((folder / "release").glob("*.ipynb")) - set(files):
        path.unlink()
    ZIPS.mkdir(parents=True, exist_ok=True)
    for path in files:
        assignment = Assignment.read(path.stem, folder)
        target = ZIPS / f"{path.stem}.zip"
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in ((path.name, files[path]), ("README.md", readme(assignment))):
                entry = zipfile.ZipInfo(f"{path.stem}/{name}", (2020, 1, 1, 0, 0, 0))  # equal bytes each time
                archive.writestr(entry, content)
    print(f"Packed: {len(files)} assignments in {ZIPS}.")


def readme(assignment: Assignment) -> str:
    home = links.repository(ROOT)
    parts = sum(test.kind == "check" for test in assignment.tests)
    return f"""# {assignment.title}

{parts} parts in code and one in words, {assignment.points} points.

1. Make an environment with Python 3.10 or newer, and in it: pip install jupyterlab matplotlib
   (Or upload the notebook to Google Colab.)
2. Open the notebook (`jupyter lab {assignment.name}.ipynb`). Its first cell installs the package: release
   {links.release(ROOT)}, or a newer one.
3. Fill in the cells that say YOUR CODE HERE; run the check below each: green is done, red says why not.
4. Before you hand in: restart the kernel, run all cells, save. Hand in the notebook, with its name unchanged.

More in the student's page of the book: {links.site(home)}book/back/students.html
"""


def table() -> str:
    """All wrong solutions of all assignments with what they cost, as Markdown."""
    lines = [summary(), ""]
    for assignment in map(Assignment.read, names()):
        lines += [
            f"::::{{dropdown}} {assignment.title}: {len(assignment.wrong)} wrong solutions",
            "| part | points | mistake | loses | what the student reads |",
            "|---|--:|---|--:|---|",
        ]
        for m in assignment.wrong:
            of = sum(t.points for t in assignment.tests if t.part == m.part)
            says = f"… {m.says} …{' (generic)' if m.generic else ''}"
            cells = [m.part, str(of), m.mistake, str(m.loses), says]
            lines.append("| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |")
        lines += ["::::", ""]
    return "\n".join(lines[:-1])


def summary() -> str:
    """How many solutions are tried, and how many wrong ones are not told what is wrong with them."""
    assignments = list(map(Assignment.read, names()))
    wrong = [m for a in assignments for m in a.wrong]
    right = [m for a in assignments for m in a.unusual if not m.loses]
    generic = sum(m.generic for m in wrong)
    return (
        f"{len(wrong)} wrong solutions. {generic} of them get a generic message: two values, no word about "
        f"the mistake. {len(right)} right solutions, written in another way than ours, get all points."
    )


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        "python -m tools.assignments",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=["release", "table"])
    parser.add_argument("--check", action="store_true", help="write nothing, say what differs")
    parser.add_argument("--exercises", type=Path, default=EXERCISES, help="a folder with sources of your own")
    options = parser.parse_args(arguments)
    if options.what == "release":
        release(options.check, options.exercises.resolve())
    else:
        guide = GUIDE.read_text(encoding="utf-8")
        settle({GUIDE: links.block(guide, "mistakes", table(), GUIDE)}, ROOT, options.check, "make table")
        print(summary())


if __name__ == "__main__":
    main(sys.argv[1:])
