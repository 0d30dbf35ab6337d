"""Grade a whole class: a process for each submission, and what is done stays done."""

import hashlib
import multiprocessing
import os
import threading
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from tools.assignments import EXERCISES, ROOT, Assignment
from tools.grading.gradebook import Gradebook
from tools.grading.run import Result, Verdict, grade_notebook
from tools.grading.submissions import Submission
from u2learn.console import hide_bar


def grade_class(
    name: str,
    submissions: Sequence[Submission],
    book: Gradebook,
    jobs: int,
    hide: Sequence[Path] = (),
    exercises: Path = EXERCISES,
    progress: bool = True,
) -> int:
    """Grade the submissions that are new or changed, and keep each result at once; gives how many there were.

    hide: folders that no submission may read, beside those of the project and the course.
    """
    from tqdm.auto import tqdm

    assignment = Assignment.read(name, exercises)
    hidden = [EXERCISES, exercises, ROOT / "tests", ROOT / ".git", ROOT / "_build", book.folder, *hide]
    hidden = [path.resolve() for path in dict.fromkeys(hidden)]
    pool = ProcessPoolExecutor(
        jobs, multiprocessing.get_context("spawn"), initializer=end_with_parent, initargs=(os.getpid(),)
    )
    due = [s for s in submissions if book.done(name, s.student) != fingerprint(assignment, s.read())]
    bar = tqdm(
        total=len(submissions),
        initial=len(submissions) - len(due),
        desc=assignment.name,
        disable=hide_bar(progress),
    )
    with pool, bar:
        waiting = [pool.submit(grade_one, name, exercises, each, hidden, book.secret) for each in due]
        for done in as_completed(waiting):
            key, result = done.result()
            book.keep(name, result, key)
            bar.update()
    return len(due)


def grade_one(
    name: str, exercises: Path, submission: Submission, hide: list[Path], secret: bytes
) -> tuple[str, Result]:
    """Grade a submission, in a process of the pool; gives the fingerprint of its file, and the result."""
    assignment = Assignment.read(name, exercises)
    data = submission.read()
    key = fingerprint(assignment, data)  # of what is graded, even if the file changes meanwhile
    try:
        result = grade_notebook(assignment, submission.student, data, hide, submission.note, secret)
    except Exception:
        why = traceback.format_exc(limit=-2)
        note = f"{submission.note} The grader failed on it, please look: {why}".strip()
        lost = [Verdict.on(t, None, f"{t.part}: not graded.") for t in assignment.tests]
        result = Result(submission.student, note, lost)
    return key, result


def fingerprint(assignment: Assignment, data: bytes) -> str:
    """Changes with the submission, with the assignment, with the checks, and with the grader."""
    digest = hashlib.sha256(data)
    paths = [assignment.path, assignment.path.parent / "mistakes.yml"]
    for folder in (ROOT / "u2learn" / "checks", ROOT / "tools" / "grading"):
        paths += sorted(folder.glob("*.py"))
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def end_with_parent(parent: int) -> None:
    """A process of the pool ends when the command was killed, whatever it is doing."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
