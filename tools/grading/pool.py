"""Grade a whole class: a process for each submission, and what is done stays done."""

import contextlib
import hashlib
import json
import multiprocessing
import os
import sys
import threading
import time
import traceback
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

from tools.assignments import EXERCISES, ROOT, Assignment
from tools.grading.report import add_manual, reports
from tools.grading.run import Result, Verdict, grade_notebook
from tools.grading.submissions import Submission, find_submissions, safe
from u2learn.console import hide_bar
from u2learn.files import write_text


def grade_class(
    name: str,
    folder: Path,
    out: Path,
    jobs: int,
    exercises: Path = EXERCISES,
    progress: bool = True,
) -> list[Result]:
    """Grade all submissions of a class and write the tables and pages.

    Raises:
        SystemExit: nothing was handed in, or manual.csv has something that is no number of points.
    """
    from tqdm.auto import tqdm

    assignment = Assignment.read(name, exercises)
    submissions = find_submissions(folder, assignment)
    if not submissions:
        sys.exit(f"There is no submission in {folder}: a folder for each student is due, with a notebook.")
    hide = [EXERCISES, exercises, ROOT / "tests", ROOT / ".git", ROOT / "_build", folder, out]
    hide = [path.resolve() for path in dict.fromkeys(hide)]
    for part in ("results", "feedback"):
        (out / part).mkdir(parents=True, exist_ok=True)
    pool = ProcessPoolExecutor(
        jobs, multiprocessing.get_context("spawn"), initializer=end_with_parent, initargs=(os.getpid(),)
    )
    due = [
        each
        for each in submissions
        if not is_done(result_path(out, each.student), fingerprint(assignment, file_of(each)))
    ]
    bar = tqdm(
        total=len(submissions),
        initial=len(submissions) - len(due),
        desc=assignment.name,
        disable=hide_bar(progress),
    )
    with pool, bar:
        waiting = [pool.submit(grade_one, name, exercises, each, out, hide) for each in due]
        for done in as_completed(waiting):
            done.result()
            bar.update()
    results = [read_result(result_path(out, s.student)) for s in submissions]
    write_text(out / "manual.csv", add_manual(out / "manual.csv", results))
    for file, content in reports(assignment, results).items():
        write_text(out / file, content)
    return results


def grade_one(name: str, exercises: Path, submission: Submission, out: Path, hide: list[Path]) -> None:
    """Grade a submission and write its result. Runs in a process of the pool."""
    assignment = Assignment.read(name, exercises)
    data = file_of(submission)
    key = fingerprint(assignment, data)  # of what is graded, even if the file changes meanwhile
    try:
        result = grade_notebook(assignment, submission.student, data, hide, submission.note)
    except Exception:
        why = traceback.format_exc(limit=-2)
        note = f"{submission.note} The grader failed on it, please look: {why}".strip()
        lost = [Verdict.on(t, 0, f"{t.part}: not graded.") for t in assignment.tests]
        result = Result(submission.student, note, lost)
    text = json.dumps({"key": key, **asdict(result)}, ensure_ascii=False, indent=1)
    write_text(result_path(out, submission.student), text)


def file_of(submission: Submission) -> bytes:
    """The notebook's file; nothing where there is none."""
    return submission.path.read_bytes() if submission.path.is_file() else b""


def result_path(out: Path, student: str) -> Path:
    return out / "results" / f"{safe(student)}.json"


def is_done(path: Path, key: str) -> bool:
    """Whether there is a result, made from what is there now."""
    if path.exists():
        with contextlib.suppress(ValueError, KeyError):
            return json.loads(path.read_text(encoding="utf-8"))["key"] == key
    return False


def fingerprint(assignment: Assignment, data: bytes) -> str:
    """Changes with the submission, with the assignment, with the checks, and with the grader."""
    digest = hashlib.sha256(data)
    paths = [assignment.path, assignment.path.parent / "mistakes.yml"]
    for folder in (ROOT / "u2learn" / "checks", ROOT / "tools" / "grading"):
        paths += sorted(folder.glob("*.py"))
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()


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
