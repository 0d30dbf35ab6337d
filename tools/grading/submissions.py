"""Who handed in what: the names that learning platforms give to folders and files, and the notebooks in them.

The rules are read from the platforms' published source:

    Moodle   mod/assign/classes/downloader.php: a folder NAME_NUMBER_assignsubmission_file for each student,
             or (older settings) these words in front of each file's name. NAME is `Participant` if marking is
             anonymous, the group's if groups hand in; NUMBER is another one in each assignment.
    Canvas   lib/content_zipper.rb: files side by side, NAME_[LATE_]USER_FILE_their own name, or
             [LATE_]anon_USER_FILE_... if marking is anonymous. USER is the number of the account.
"""

from __future__ import annotations

import os
import re
import stat
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from tools.assignments import GRADE_ID, Assignment, grade_id, text
from tools.grading.answers import LARGEST, NotANotebook, is_hidden, read, unpacked
from u2learn.files import checksum

MOODLE = re.compile(r"(.+?)(?:_(\d+))?_assignsubmission_([a-z]+)(?:_(.*))?")
CANVAS = re.compile(r"(.+?)_(LATE_)?(\d+)_(\d+)_(.+)")
ANONYMOUS = re.compile(r"(LATE_)?anon_([A-Za-z0-9]+)_(\d+)_(.+)")
MOST_FILES = 50_000  # in a zip of a class
MOST_BYTES = 20_000_000_000  # of a class, unpacked
LONG_TITLE = 200  # characters of a cell in which a title may stand
LONG = 50  # characters of a name that a file of ours is called after; systems take 255 bytes


class Unclear(ValueError):
    """Who handed in what cannot be told for sure; the text says what to do."""


@dataclass(frozen=True)
class Key:
    """A student, as the platform says. `text` is another for each: the platform's name and number.

    platform: "moodle", "canvas" or "folder"; number: the platform's, "" for a folder of the teacher's own.
    """

    text: str
    platform: str = "folder"
    name: str = ""
    number: str = ""


@dataclass(frozen=True)
class Candidate:
    """A file that may be a submission, with what the notebook in it says of itself."""

    key: Key
    path: Path
    member: str = ""  # its name in a zip file
    origin: str = ""  # the folder or file name that the platform gave, under which feedback goes back
    late: bool = False
    numbers: tuple[str, ...] = ()  # the assignments of its grade ids, those of most cells first
    titles: frozenset[str] = frozenset()  # the headings in it
    wrong: str = ""  # why it is no notebook

    @property
    def name(self) -> str:
        return PurePosixPath(self.member).name or readable(self.path.name)

    def fits(self, assignment: Assignment) -> int:
        """How surely it is of an assignment: 3 by its ids, 2 by its title, 1 by its name, 0 not at all."""
        if self.numbers:
            return 3 if self.numbers[0] == assignment.number else 0
        if assignment.title in self.titles:
            return 2
        other = re.search(r"\d\d-[a-z0-9-]+", self.name)
        return int(other is not None and other[0].startswith(assignment.name))


@dataclass(frozen=True)
class Submission:
    """What counts for a student. note: what the person who grades should know."""

    key: Key
    path: Path
    member: str = ""
    origin: str = ""
    late: bool = False
    note: str = ""

    @property
    def student(self) -> str:
        return self.key.text

    def read(self) -> bytes:
        """The notebook, or whatever is there in place of it; nothing if it cannot be read any more."""
        try:
            data = self.path.read_bytes() if self.path.stat().st_size <= LARGEST else b""
            return unpacked(data).get(self.member, b"") if self.member else data
        except (OSError, NotANotebook):
            return b""


@dataclass
class Handed:
    """All files of a class, read once."""

    folder: Path
    candidates: list[Candidate] = field(default_factory=list)
    others: dict[Key, list[str]] = field(default_factory=dict)  # other files of students
    stray: list[str] = field(default_factory=list)  # notebooks that lie beside the students' folders

    @classmethod
    def in_folder(cls, folder: Path) -> Handed:
        """Find out whose each file is, and which assignment the notebooks are of."""
        handed = cls(folder)
        files = [path.relative_to(folder) for path in files_below(folder)]
        mine = list(filter(is_file_of_a_student, files))
        flat = [f for f in mine if not any(map(MOODLE.fullmatch, f.parts))]
        all_canvas = bool(flat) and all(canvas_key(f.name) for f in flat)
        all_moodle = not any(len(f.parts) > 1 for f in flat)
        for below in files:
            owner = owner_of(below, all_canvas, all_moodle)
            if owner is None:
                if is_file_of_a_student(below):
                    handed.stray.append(readable(below.as_posix()))
                continue
            key, origin, late = owner
            handed.others.setdefault(key, [])
            found = candidates(folder / below, key, origin, late) if is_file_of_a_student(below) else []
            handed.candidates += found
            if not found:
                handed.others[key].append(readable(below.name))
        return handed

    def submissions(self, assignment: Assignment) -> list[Submission]:
        """The notebook of each student that counts for an assignment, in the order of the students' names.

        One with the assignment's grade ids goes before one without; then the right file name; then the
        newest.

        Raises:
            Unclear: two students would become one, or none of several notebooks can be read.
        """
        found: dict[Key, list[Candidate]] = {}
        for candidate in self.candidates:
            if candidate.fits(assignment):
                found.setdefault(candidate.key, []).append(candidate)
        for key, mine in found.items():
            self._refuse_many_in_one(key, mine, assignment)
        if len(found) > 1 and all(c.wrong for mine in found.values() for c in mine):
            why = next(c.wrong for mine in found.values() for c in mine)
            raise Unclear(
                f"None of the {len(found)} notebooks of {assignment.name} in {self.folder} can be read, so "
                f"the whole class would get 0 points. The first: {why}"
            )
        return [chosen(mine, assignment) for _, mine in sorted(found.items(), key=lambda f: f[0].text)]

    def _refuse_many_in_one(self, key: Key, mine: Sequence[Candidate], assignment: Assignment) -> None:
        """A folder of folders with the same assignment is a class, or a group, and no student."""
        if key.platform != "folder":
            return
        below = [c.path.relative_to(self.folder).parts[1:] for c in mine]
        inner = sorted({parts[0] for parts in below if len(parts) > 1})
        if len(inner) > 1 and all(len(parts) > 1 for parts in below):
            shown = ", ".join(inner[:4]) + (", …" if len(inner) > 4 else "")
            raise Unclear(
                f"The folder {self.folder / key.text} holds notebooks of {assignment.name} in {len(inner)} "
                f"folders ({shown}), and would be one student. If these are students, give the folder "
                f"{self.folder / key.text} itself; if it is one student, leave one of the notebooks there."
            )

    def without(self, assignment: Assignment) -> dict[Key, str]:
        """The students without a notebook of this assignment, and what they handed in in place of it."""
        with_one = {c.key for c in self.candidates if c.fits(assignment)}
        said = {}
        for key, names in self.others.items():
            if key in with_one:
                continue
            names = sorted([*names, *(c.name for c in self.candidates if c.key == key and not c.numbers)])
            code = [name for name in names if name.endswith(".py")]
            said[key] = "No notebook of this assignment was handed in."
            if code:
                said[key] += f" {code[0]} is Python code, which is not graded: the .ipynb is due."
            elif names:
                said[key] += f" There is {', '.join(names[:4])}."
        return said


def chosen(mine: Sequence[Candidate], assignment: Assignment) -> Submission:
    """The candidate of a student that counts."""

    def rank(candidate: Candidate) -> tuple:
        return (
            not candidate.wrong,
            candidate.fits(assignment) > 1,
            assignment.name in candidate.name,
            candidate.path.stat().st_mtime,
            str(candidate.path),
        )

    best = max(mine, key=rank)
    notes = [f"{len(mine)} notebooks were handed in; {best.name} counts."] if len(mine) > 1 else []
    notes += [best.wrong] if best.wrong else []
    return Submission(best.key, best.path, best.member, best.origin, best.late, " ".join(notes))


def files_below(folder: Path) -> Iterator[Path]:
    """All files but those that a system or Jupyter put there; links are not followed out of the folder."""
    whole = folder.resolve()
    for path in sorted(folder.rglob("*")):
        hidden = is_hidden(PurePosixPath(path.relative_to(folder).as_posix()))
        if not hidden and path.is_file() and path.resolve().is_relative_to(whole):
            yield path


def is_file_of_a_student(path: Path) -> bool:
    return path.suffix.lower() in (".ipynb", ".zip")


def owner_of(below: Path, all_canvas: bool, all_moodle: bool) -> tuple[Key, str, bool] | None:
    """Whose a file is, by its place below the class's folder; the platform's name for it; whether it is late.

    all_canvas, all_moodle: every notebook here has such a name, so that they may lie deeper than at the top.
    Else a folder that a student made in their own could be called as another student.
    """
    parts = [readable(part) for part in below.parts]
    for part in parts if all_moodle else parts[:1]:
        if found := MOODLE.fullmatch(part):
            name, number, kind, _ = found.groups()
            if kind != "file":
                return None  # a text typed into Moodle's page
            return Key(f"{name}_{number}" if number else name, "moodle", name, number or ""), part, False
    if (len(parts) == 1 or all_canvas) and (canvas := canvas_key(parts[-1])):
        return canvas[0], parts[-1], canvas[1]
    return (Key(parts[0], name=parts[0]), "", False) if len(parts) > 1 else None


def readable(name: str) -> str:
    """A file's name as text: one whose bytes are not UTF-8 is read as Latin-1, as a notebook is."""
    data = os.fsencode(name)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def canvas_key(name: str) -> tuple[Key, bool] | None:
    """The student in a file name of Canvas, and whether Canvas calls it late."""
    if found := ANONYMOUS.fullmatch(name):
        return Key(f"anon_{found[2]}", "canvas", "", found[2]), bool(found[1])
    if found := CANVAS.fullmatch(name):
        return Key(f"{found[1]}_{found[3]}", "canvas", found[1], found[3]), bool(found[2])
    return None


def candidates(path: Path, key: Key, origin: str, late: bool) -> list[Candidate]:
    """The notebooks in a file: the file itself, or those in a zip file of a student."""
    try:
        inside = unpacked(path.read_bytes() if path.stat().st_size <= LARGEST else b"")
    except (OSError, NotANotebook) as error:
        return [Candidate(key, path, origin=origin, late=late, wrong=str(error))]
    return [looked_into(Candidate(key, path, name, origin, late), data) for name, data in inside.items()]


def looked_into(candidate: Candidate, data: bytes) -> Candidate:
    """With what the notebook itself says about where it belongs."""
    known = (candidate.key, candidate.path, candidate.member, candidate.origin, candidate.late)
    try:
        cells = read(data)
    except NotANotebook as error:
        return Candidate(*known, wrong=str(error))
    numbers = Counter(found[1] for cell in cells if (found := GRADE_ID.fullmatch(grade_id(cell))))
    titles = {text(cell)[:LONG_TITLE].strip().partition("\n")[0].removeprefix("# ") for cell in cells}
    return Candidate(*known, tuple(number for number, _ in numbers.most_common()), frozenset(titles))


def safe(student: str) -> str:
    """A file name for a student: two students never share one, also where capitals do not count."""
    short = re.sub(r"[^\w.-]+", "_", student)
    if short == student.lower() and len(short) <= LONG:
        return short
    return f"{short[:LONG]}-{zlib.crc32(student.encode()):08x}"


def unpack_class(path: Path, into: Path) -> Path:
    """Unpack the zip file of a class, as a platform gives it; gives the folder. Once is enough for each file.

    Raises:
        Unclear: the file is broken or larger than a class, or a name in it leads out of the folder.
    """
    folder = into / f"{safe(path.stem)}-{checksum(path)[:12]}"
    if folder.exists():
        return folder
    whole = folder.with_name(folder.name + ".part")
    try:
        with zipfile.ZipFile(path) as archive:
            members = [
                m for m in archive.infolist() if not m.is_dir() and not stat.S_ISLNK(m.external_attr >> 16)
            ]
            if len(members) > MOST_FILES or sum(m.file_size for m in members) > MOST_BYTES:
                raise Unclear(
                    f"{path} holds more than {MOST_FILES:,} files or {MOST_BYTES:,} bytes: is it the "
                    "class's file?"
                )
            for name, member in names_in(path, members).items():
                target = whole / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, open(target, "wb") as file:
                    left = member.file_size
                    while piece := source.read(1 << 20):
                        left -= len(piece)
                        if left < 0:
                            raise Unclear(f"{path}: {name} is larger than the zip file says.")
                        file.write(piece)
                stamp = time.mktime((*member.date_time, 0, 0, -1))
                os.utime(target, (stamp, stamp))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, zlib.error, EOFError) as error:
        raise Unclear(f"{path} cannot be unpacked ({error}): download it again.") from error
    whole.rename(folder)
    return folder


def names_in(path: Path, members: Sequence[zipfile.ZipInfo]) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """The members of a zip file by their names, each of which stays below the folder.

    Raises:
        Unclear: one does not, or two are the same.
    """
    found: dict[PurePosixPath, zipfile.ZipInfo] = {}
    for member in members:
        name = PurePosixPath(true_name(member).replace("\\", "/"))
        if name.is_absolute() or not name.parts or ".." in name.parts or ":" in name.parts[0]:
            raise Unclear(
                f"{path}: the name {str(name)!r} leads out of the folder, so nothing of it is unpacked."
            )
        name = PurePosixPath(*map(storable, name.parts))
        if name in found:
            raise Unclear(f"{path}: it holds {str(name)!r} twice, so it is not clear which counts.")
        found[name] = member
    return found


def storable(part: str) -> str:
    """A name as a system stores it, in 255 bytes: the platform's beginning stays, a student's end may go."""
    data = part.encode("utf-8", "replace")
    if len(data) <= 255:
        return part
    return f"{data[:200].decode(errors='ignore')}-{zlib.crc32(data):08x}{PurePosixPath(part).suffix[:9]}"


def true_name(member: zipfile.ZipInfo) -> str:
    """A member's name; some programs write UTF-8 without saying so."""
    if member.flag_bits & 0x800:
        return member.filename
    try:
        return member.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return member.filename
