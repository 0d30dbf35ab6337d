"""Grade a class.

    python -m tools.grading SUBMISSIONS [--assignment NAME] [--out FOLDER] [--jobs N] [--unsealed]

Without a name, every assignment that somebody handed in is graded. SUBMISSIONS holds a folder for each
student (any depth, as Moodle or nbgrader make them) or, as Canvas makes them, the notebooks themselves with
the student's name in front. Each notebook runs sealed in a process of its own and is asked the questions of
the source notebook. What a student deleted or changed among the tests does not matter: their own cells are
run in order, and the grader brings the tests.

In FOLDER/ASSIGNMENT (FOLDER is _build/grades by default) are then

    points.csv      points for each part, one line a student
    canvas.csv      the totals, as Canvas imports them         moodle.csv      as Moodle does
    leaderboard.csv the scores of a project, best first
    manual.csv      the answers in words, for you to fill in: grade again, and they are added
    feedback/       a page for each student                    results/        what is already graded

A run that was stopped goes on where it was; what has changed is graded again.
"""

import argparse
import os
import sys
from pathlib import Path

from tools.assignments import EXERCISES, ROOT, Assignment
from tools.grading import seal
from tools.grading.pool import Files, grade_class
from tools.grading.report import add_manual, reports
from tools.grading.submissions import find_submissions, handed_in
from u2learn.files import write_text


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        "python -m tools.grading", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("submissions", type=Path)
    parser.add_argument("--assignment", help="as 01-convolution; default: all that were handed in")
    parser.add_argument("--out", type=Path, default=ROOT / "_build" / "grades")
    parser.add_argument("--jobs", type=int, default=min(4, os.cpu_count() or 1))
    parser.add_argument("--exercises", type=Path, default=EXERCISES, help="a folder with sources of your own")
    parser.add_argument("--unsealed", action="store_true", help="run submissions without a seal, as yourself")
    options = parser.parse_args(arguments)
    if not options.submissions.is_dir():
        sys.exit(f"{options.submissions} is not a folder.")
    engine = seal.chosen(options.unsealed)
    chosen = [options.assignment] if options.assignment else handed_in(options.submissions, options.exercises)
    if not chosen:
        sys.exit(f"There is no notebook of an assignment in {options.submissions}.")
    for name in chosen:
        out = options.out / name
        assignment = Assignment.read(name, options.exercises)
        submissions = find_submissions(options.submissions, assignment)
        store = Files(out / "results")
        grade_class(assignment, submissions, store, engine, options.jobs)
        results = [store.result(each.student) for each in submissions]
        (out / "feedback").mkdir(exist_ok=True)
        write_text(out / "manual.csv", add_manual(out / "manual.csv", results))
        for file, content in reports(assignment, results).items():
            write_text(out / file, content)
        print(f"{name}: {len(results)} students, see {out / 'points.csv'} and {out / 'feedback'}.")
        waiting = sum(len(result.waiting) for result in results)
        if waiting:
            print(f"{waiting} answers in words wait for you in {out / 'manual.csv'}.")


if __name__ == "__main__":
    main()
