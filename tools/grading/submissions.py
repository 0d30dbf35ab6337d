"""Who handed in what."""

import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.assignments import Assignment, names, nbgrader_of


@dataclass(frozen=True)
class Submission:
    student: str
    path: Path
    note: str = ""  # what the person who grades should know


def find_submissions(folder: Path, assignment: Assignment) -> list[Submission]:
    """The newest notebook of each student for this assignment, in the order of the students' names."""
    notebooks: dict[str, list[Path]] = {}
    for path in files_below(folder):
        mine = notebooks.setdefault(student_name(path.relative_to(folder)), [])
        if path.suffix == ".ipynb" and is_for(path, assignment):
            mine.append(path)
    return [newest(student, paths, folder) for student, paths in sorted(notebooks.items())]


def files_below(folder: Path) -> Iterator[Path]:
    """All files but those that a system or Jupyter put there."""
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith((".", "__")) for part in path.relative_to(folder).parts)
        if not hidden and not path.is_dir():
            yield path


def newest(student: str, paths: list[Path], folder: Path) -> Submission:
    if not paths:
        return Submission(student, folder / student, "No notebook of this assignment was found.")
    note = f"{len(paths)} notebooks were handed in; the newest counts." if len(paths) > 1 else ""
    return Submission(student, max(paths, key=lambda path: (path.stat().st_mtime, str(path))), note)


def student_name(below: Path) -> str:
    """Moodle: NAME_ID_assignsubmission_file/x.ipynb. Canvas: NAME_[LATE_]ID_ID_x.ipynb. Else: the folder."""
    if len(below.parts) > 1:
        return re.sub(r"_\d+_assignsubmission_\w*$", "", below.parts[0])
    canvas = re.fullmatch(r"(.+?)_(?:LATE_)?(\d+)_\d+_.*", below.name)
    return f"{canvas[1]}_{canvas[2]}" if canvas else below.stem


def safe(student: str) -> str:
    """A file name for a student: two students never share one."""
    short = re.sub(r"[^\w.-]+", "_", student)
    return short if short == student else f"{short}-{zlib.crc32(student.encode()):08x}"


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


def handed_in(folder: Path, exercises: Path) -> list[str]:
    """The assignments of which there is at least one notebook."""
    return [
        name
        for name in names(exercises)
        if any(s.path.is_file() for s in find_submissions(folder, Assignment.read(name, exercises)))
    ]
