"""Grade a class, and keep its grades.

    python -m tools.grading grade SUBMISSIONS [--assignment NAME] [--jobs N] [--unsealed]
    python -m tools.grading mark
    python -m tools.grading import FILE --assignment NAME
    python -m tools.grading override STUDENT TEST POINTS --assignment NAME --reason TEXT
    python -m tools.grading history STUDENT --assignment NAME
    python -m tools.grading roster FILE [--assignment NAME]
    python -m tools.grading export moodle|canvas|nbgrader [--assignment NAME] [--into FILE]
    python -m tools.grading board FOLDER [--unsealed]
    python -m tools.grading tables
    python -m tools.grading backup

All grades are in one file, COURSE/grades.sqlite; COURSE is the folder course/ of the project, or --course
FOLDER. Nothing that you enter is ever deleted there, and `make clean` leaves the folder alone.

`grade` takes the folder, or the zip file, that the platform gave, or a folder with a folder for each
student. Each notebook runs sealed in a process of its own and is asked the questions of the source
notebook. A run that was stopped goes on where it was; what has changed is graded again. Without a name,
every assignment that somebody handed in is graded. Then COURSE/ASSIGNMENT holds

    points.csv       points for each test, one line a student     leaderboard.csv  the scores of a project
    marks.csv        the answers in words, for you to fill in      feedback/        a page for each student

and COURSE/points.csv all assignments side by side. `mark` opens a page on this computer with question, rubric
and answer side by side; or fill in marks.csv and grade again, or give the file to `import`. `tables` makes
everything in these folders again, but for grades.sqlite and backups/. `board` writes the project's
leaderboard, as a page that names nobody.
"""

import argparse
import contextlib
import os
import sys
import webbrowser
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tools.assignments import EXERCISES, ROOT, Assignment, names
from tools.grading import seal
from tools.grading.board import PROJECT, write_board
from tools.grading.gradebook import ADJUSTMENT, LATE, Entry, Gradebook, Graded
from tools.grading.imports import points_of, read_roster, take_marks, test_of
from tools.grading.marking import Marking, Server
from tools.grading.platforms import (
    Filled,
    canvas_feedback,
    canvas_gradebook,
    canvas_plain,
    moodle_feedback,
    moodle_gradebook,
    moodle_worksheet,
    nbgrader,
)
from tools.grading.pool import grade_class
from tools.grading.report import course_table, reports
from tools.grading.run import grade_notebook
from tools.grading.sheets import Unreadable, shown
from tools.grading.store import FILE, Refused
from tools.grading.submissions import Handed, Unclear, unpack_class
from u2learn.files import write_text, written_whole

Command = Callable[[Gradebook, argparse.Namespace], None]
COURSE = ROOT / "course"
FEW = 3  # results from which on it is odd that all have 0 points


def main(arguments: list[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    book = None
    try:
        if options.run not in (run_grade, run_roster) and not (options.course / FILE).exists():
            raise Refused(f"There are no grades in {options.course}: name the folder, as --course FOLDER.")
        book = Gradebook(options.course)
        options.run(book, options)
    except (Unclear, Unreadable, Refused, OSError) as error:
        sys.exit(str(error))
    finally:
        if book:
            book.close()


def parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--course", type=Path, default=COURSE, help="the folder with the grades; default: course/"
    )
    common.add_argument("--exercises", type=Path, default=EXERCISES, help="a folder with sources of your own")
    common.add_argument("--assignment", help="as 01-convolution")
    whole = argparse.ArgumentParser(
        "python -m tools.grading", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = whole.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Command, about: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, parents=[common], help=about, description=about)
        added.set_defaults(run=run)
        return added

    grade = command("grade", run_grade, "grade what was handed in")
    grade.add_argument("submissions", type=Path, help="a folder or a zip file")
    grade.add_argument("--jobs", type=int, default=min(4, os.cpu_count() or 1))
    mark = command("mark", run_mark, "mark the answers in words, on a page of this computer")
    mark.add_argument("--port", type=int, default=0, help="default: a free one")
    take = command("import", run_import, "take points and comments from a table")
    take.add_argument("file", type=Path)
    override = command("override", run_override, "change the points of a test, or of a whole assignment")
    override.add_argument("student")
    override.add_argument("test", help=f'as "1.2 hidden", or {ADJUSTMENT}, or {LATE}')
    override.add_argument(
        "points", help="as 2.5; - takes back what was given, and stands where there are none"
    )
    override.add_argument("--reason", default="")
    history = command("history", run_history, "show all that was ever entered about a student")
    history.add_argument("student")
    roster = command("roster", run_roster, "say who is in the course")
    roster.add_argument("file", type=Path)
    export = command("export", run_export, "write grades and feedback as a platform takes them")
    export.add_argument("platform", choices=["moodle", "canvas", "nbgrader"])
    export.add_argument(
        "--into", type=Path, help="Moodle's grading worksheet, or the gradebook that Canvas exported"
    )
    export.add_argument(
        "--column", default="", help="the heading of the assignment in Canvas, if it is not its title"
    )
    board = command("board", run_board, "write the project's leaderboard, for all to see")
    board.add_argument("folder", type=Path)
    for each in (grade, board):
        each.add_argument(
            "--unsealed", action="store_true", help="run submissions without a seal, as yourself"
        )
    command("tables", run_tables, "make the tables and pages again")
    command("backup", run_backup, "copy the grades")
    return whole


def run_grade(book: Gradebook, options: argparse.Namespace) -> None:
    folder = options.submissions
    if folder.is_file():
        folder = unpack_class(folder, book.folder / "submissions")
    if not folder.is_dir():
        raise Unclear(f"{folder} is neither a folder nor a zip file.")
    handed = Handed.in_folder(folder)
    if handed.stray:
        print(f"These lie beside the students' folders and belong to nobody: {', '.join(handed.stray)}.")
    chosen = [options.assignment] if options.assignment else names(options.exercises)
    found = {}
    for name in chosen:
        assignment = Assignment.read(name, options.exercises)
        take_back(book, assignment)  # before the work, so that what is wrong in it is said now
        submissions = handed.submissions(assignment)
        if submissions:
            found[name] = book.receive(name, submissions, handed.without(assignment))
    if not found:
        raise Unclear(
            f"There is no notebook of {options.assignment or 'an assignment'} in {folder}: a folder for each "
            "student is due, or the files as Moodle or Canvas give them."
        )
    engine = seal.chosen(options.unsealed)
    for name, submissions in found.items():
        assignment = Assignment.read(name, options.exercises)
        report(book, assignment, grade_class(assignment, submissions, book, engine, options.jobs))


def report(book: Gradebook, assignment: Assignment, new: int) -> None:
    """Write the tables of a graded assignment, and say what is to be done."""
    graded = book.graded(assignment.name)
    points = [sum(v.earned or 0 for v in one.result.verdicts) for one in graded if one.result]
    if new >= FEW and len(points) >= FEW and not any(points):
        raise Unclear(
            f"{assignment.name}: all {len(points)} students have 0 points from the tests, so something is "
            "wrong with the grading, not with them. No table was written; if it is right, `python -m "
            "tools.grading tables` does."
        )
    write_tables(book, [assignment])
    place = book.folder / assignment.name
    there = sum(one.result is not None for one in graded)
    print(
        f"{assignment.name}: {there} students, {new} graded now; see {place / 'points.csv'} and "
        f"{place / 'feedback'}."
    )
    unknown = [one.student for one in graded if one.person is None]
    if unknown and book.people():
        print(
            f"Not on the roster: {', '.join(unknown)}. Add a line for each, with what stands here as its key."
        )
    absent = [one.name or one.student for one in graded if one.absent]
    if absent:
        print(f"Not handed in: {', '.join(absent)}.")
    waiting = sum(len(one.waiting) for one in graded)
    if waiting:
        print(f"{waiting} answers or tests wait for a person, in {place / 'marks.csv'}.")


def take_back(book: Gradebook, assignment: Assignment) -> None:
    """Enter what somebody filled in where the table lies, before it is written anew."""
    path = book.folder / assignment.name / "marks.csv"
    if path.exists() and (taken := take_marks(path, book, assignment)):
        print(f"{taken} new points and comments were taken from {path}.")


def write_tables(book: Gradebook, assignments: Sequence[Assignment]) -> None:
    for assignment in assignments:
        take_back(book, assignment)
        place = book.folder / assignment.name
        (place / "feedback").mkdir(parents=True, exist_ok=True)
        for file, content in reports(assignment, book.graded(assignment.name)).items():
            path = place / file
            if not path.exists() or path.read_text(encoding="utf-8") != content:
                write_text(path, content)
    write_text(book.folder / "points.csv", course_table(book))


def graded_assignments(book: Gradebook, options: argparse.Namespace) -> list[Assignment]:
    """The one that was named, or all that are in the book.

    Raises:
        Refused: none is.
    """
    chosen = [options.assignment] if options.assignment else book.assignments()
    if not chosen:
        raise Refused(
            f"{book.folder} has no grades yet: `python -m tools.grading grade SUBMISSIONS` makes some."
        )
    return [Assignment.read(name, options.exercises) for name in chosen]


def only_assignment(options: argparse.Namespace) -> Assignment:
    if not options.assignment:
        raise Refused("Name the assignment, as --assignment 01-convolution.")
    return Assignment.read(options.assignment, options.exercises)


def run_mark(book: Gradebook, options: argparse.Namespace) -> None:
    assignments = graded_assignments(book, options)
    server = Server(Marking(book.folder, options.exercises), options.port)
    print(f"Mark at {server.address} and end with Ctrl C.", flush=True)
    webbrowser.open(server.address)
    with contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()
    write_tables(book, assignments)
    print(f"The tables and pages in {book.folder} are as the grades say.")


def run_import(book: Gradebook, options: argparse.Namespace) -> None:
    assignment = only_assignment(options)
    taken = take_marks(options.file, book, assignment)
    write_tables(book, [assignment])
    print(f"{taken} new points and comments were taken from {options.file}.")


def run_override(book: Gradebook, options: argparse.Namespace) -> None:
    assignment = only_assignment(options)
    student = book.find(assignment.name, options.student)
    what = test_of(options.test, assignment)
    points = None if options.points == "-" else points_of(options.points)
    book.enter([Entry(assignment.name, student, what, points, options.reason, source="override")])
    write_tables(book, [assignment])
    (one,) = (one for one in book.graded(assignment.name) if one.student == student)
    print(
        f"{one.name or student} has {shown(one.total)} of {assignment.points} points in "
        f"{assignment.name} now."
    )


def run_history(book: Gradebook, options: argparse.Namespace) -> None:
    assignment = only_assignment(options)
    student = book.find(assignment.name, options.student)
    (one,) = (one for one in book.graded(assignment.name) if one.student == student)
    names = {student, one.person.id if one.person else student}
    for entry in book.entries(assignment.name):
        if entry.student in names:
            print(
                f"{entry.time}  {entry.what}: {shown(entry.points) or '-'}  {entry.comment}  ({entry.source})"
            )
    print(
        f"{student}: {shown(one.total) or 'no'} of {assignment.points} points. {' '.join(one.notes)}".strip()
    )


def run_roster(book: Gradebook, options: argparse.Namespace) -> None:
    people, links = read_roster(options.file, options.assignment or "")
    book.backup()
    book.enrol(people, links, whole=not options.assignment)
    print(f"{len(people)} people are in {options.file}.")
    for name in book.assignments():
        unknown = [student for student, person in book.students(name).items() if person is None]
        if unknown:
            print(f"{name}: not on the roster: {', '.join(unknown)}.")


def run_export(book: Gradebook, options: argparse.Namespace) -> None:
    if options.platform == "nbgrader":
        assignments = {each.name: each for each in graded_assignments(book, options)}
        graded = {name: book.graded(name) for name in assignments}
        save(book.folder / "nbgrader.csv", nbgrader(graded, lambda name: assignments[name].points))
        return
    assignment = only_assignment(options)
    (book.folder / assignment.name).mkdir(exist_ok=True)
    everybody = book.graded(assignment.name)
    place = book.folder / assignment.name / options.platform
    if options.platform == "moodle":
        if options.into:
            tell(
                moodle_worksheet(options.into, assignment, everybody), place.with_name("moodle-worksheet.csv")
            )
        save(place.with_name("moodle-gradebook.csv"), moodle_gradebook(assignment, everybody))
        save(place.with_name("moodle-feedback.zip"), moodle_feedback(assignment, everybody))
    else:
        if options.into:
            filled = canvas_gradebook(options.into, assignment, everybody, options.column)
            tell(filled, place.with_name("canvas-gradebook.csv"))
        else:
            save(place.with_name("canvas.csv"), canvas_plain(assignment, everybody))
        save(place.with_name("canvas-feedback.zip"), canvas_feedback(assignment, everybody))
    say_blank(everybody)


def say_blank(everybody: Sequence[Graded]) -> None:
    waiting = [one.student for one in everybody if one.waiting]
    if waiting:
        print(f"Without points, as something waits for a person: {', '.join(waiting)}.")


def tell(filled: Filled, path: Path) -> None:
    save(path, filled.text)
    print(f"{filled.entered} grades are in it.")
    for reason in filled.left_out:
        print(f"Left out: {reason}.")


def save(path: Path, content: str | bytes) -> None:
    data = content.encode("utf-8") if isinstance(content, str) else content
    with written_whole(path, len(data)) as temporary:
        temporary.write_bytes(data)
    print(f"Written: {path}")


def run_board(book: Gradebook, options: argparse.Namespace) -> None:
    grade = partial(grade_notebook, engine=seal.chosen(options.unsealed), secret=book.secret)
    path = write_board(book.results(PROJECT), options.folder, book.secret, grade, options.exercises)
    print(f"Written: {path}")


def run_tables(book: Gradebook, options: argparse.Namespace) -> None:
    write_tables(book, graded_assignments(book, options))
    print(f"The tables and pages in {book.folder} are as the grades say.")


def run_backup(book: Gradebook, options: argparse.Namespace) -> None:
    print(f"Copied to {book.backup()}")


if __name__ == "__main__":
    main()
