"""Grade a whole class: a process for each submission, and what is done stays done.

A process that is made for one submission has bounds of its own: one core, so much memory, so much time. If it
dies the submission is tried once more, then it has a result that says so. It ends with the command, however
that ends, and the submission's own process ends with it.
"""

import contextlib
import hashlib
import json
import multiprocessing
import os
import sys
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from tools.assignments import ROOT, Assignment
from tools.grading.gradebook import Gradebook, result_of
from tools.grading.run import CELL_SECONDS, NOTEBOOK, Result, brief, grade_notebook, lost
from tools.grading.sandbox import START, NotStarted
from tools.grading.seal import Engine
from tools.grading.submissions import Submission
from tools.grading.worker import end_with_parent
from u2learn.console import hide_bar

MEMORY = 2 << 30  # bytes, of a process that grades: calls back can make it allocate
TRIES = 2
DECIDE = ("worker", "seal", "sandbox", "answers", "run")  # the rooms that decide what a submission gets
GRACE = 60  # seconds beyond the notebook's own time after which a process that grades is ended
Grade = Callable[..., Result]


def grade_class(
    assignment: Assignment,
    submissions: Sequence[Submission],
    book: Gradebook,
    engine: Engine,
    jobs: int,
    progress: bool = True,
    grade: Grade = grade_notebook,
) -> int:
    """Grade the submissions that are new or changed, and keep each result at once; gives how many there were.

    grade: what grades one, called as `grade_notebook` is.

    Raises:
        SystemExit: the engine starts no process. What was graded before is kept.
    """
    from tqdm.auto import tqdm

    name, ours = assignment.name, fingerprint(assignment, book.secret)
    due = deque(s for s in submissions if book.done(name, s.student) != key_of(ours, s.read()))
    count = len(due)
    keys: dict[Submission, str] = {}
    bar = tqdm(
        total=len(submissions),
        initial=len(submissions) - len(due),
        desc=assignment.name,
        disable=hide_bar(progress),
    )
    tries: Counter[Submission] = Counter()
    with bar, Pool(jobs, (assignment, engine, book.secret, grade)) as pool:
        while due or pool.running:
            while due and pool.free:
                each = due.popleft()
                data = each.read()
                keys[each] = key_of(ours, data)  # of what is graded, even if the file has changed meanwhile
                pool.begin(each, data)
            for submission, said in pool.ended():
                tries[submission] += 1
                if isinstance(said, NotStarted):
                    sys.exit(f"{said} What is graded is kept: mend that, and run the command again.")
                if isinstance(said, Died) and said.again and tries[submission] < TRIES:
                    due.append(submission)
                    continue
                if isinstance(said, Died):
                    note = f"{submission.note} It was not graded, please look: {said}.".strip()
                    said = lost(assignment, submission.student, note, "not graded", None)
                book.keep(name, said, keys[submission])
                bar.update()
    return count


class Died(Exception):
    """A process that graded ended without a result. again: whether it may do better a second time."""

    def __init__(self, why: str, again: bool):
        super().__init__(why)
        self.again = again


@dataclass
class Running:
    """A process that grades. until: when it must have ended, by time.monotonic(). begun: it has said so."""

    submission: Submission
    process: BaseProcess
    slot: int
    until: float
    begun: bool = False


class Pool:
    """The processes that grade now: each grades one submission, on one core."""

    def __init__(self, jobs: int, shared: tuple[Assignment, Engine, bytes, Grade]):
        self.shared = shared
        self.seconds = NOTEBOOK * shared[0].settings.get("seconds", CELL_SECONDS) + START + GRACE
        self.free = list(range(jobs))
        self.running: dict[Connection, Running] = {}
        # A server that has imported all there is, and forks: a process costs little and begins clean.
        forks = sys.platform == "linux"
        self.context: Any = multiprocessing.get_context("forkserver" if forks else "spawn")
        if forks:
            self.context.set_forkserver_preload([__name__, "IPython.core.inputtransformer2"])

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *_: object) -> None:
        for each in self.running.values():
            each.process.kill()
            each.process.join()

    def begin(self, submission: Submission, data: bytes) -> None:
        ours, theirs = self.context.Pipe(duplex=False)
        slot = self.free.pop(0)
        given = theirs, slot, submission, data, *self.shared
        process = self.context.Process(target=work, args=given, daemon=True)
        process.start()
        theirs.close()
        self.running[ours] = Running(submission, process, slot, time.monotonic() + self.seconds)

    def ended(self) -> Iterator[tuple[Submission, Result | Died | NotStarted]]:
        """Those that have ended, with what they gave; waits for the next."""
        first = min(each.until for each in self.running.values())
        ready = wait(list(self.running), max(0, first - time.monotonic()))
        now = time.monotonic()
        for connection, each in list(self.running.items()):
            said: Result | Died | NotStarted | None = None
            if connection in ready:
                said = heard(connection, each)
            elif each.until < now:
                said = Died("its tests did not end in the grader's own process", again=False)
            if said is not None:
                each.process.kill()
                each.process.join()
                connection.close()
                del self.running[connection]
                self.free.append(each.slot)
                yield each.submission, said


def heard(connection: Connection, running: Running) -> Result | Died | NotStarted | None:
    """What came of a process that grades; None if it has only begun."""
    try:
        text = connection.recv_bytes().decode()
    except EOFError:
        running.process.join()
        why = f"the grader's own process ended on it, with status {running.process.exitcode}"
        return Died(why, again=True) if running.begun else NotStarted(f"Not begun: {why}.")
    if text == BEGUN:
        running.begun = True
        return None
    said = json.loads(text)
    return NotStarted(said["not started"]) if "not started" in said else result_of(text)


BEGUN = "begun"


def work(
    connection: Connection,
    slot: int,
    submission: Submission,
    data: bytes,
    assignment: Assignment,
    engine: Engine,
    secret: bytes,
    grade: Grade,
) -> None:
    """Grade one submission in a process of the pool, and send what came out."""
    end_with_parent()
    bound(slot)
    connection.send_bytes(BEGUN.encode())
    try:
        said = asdict(grade(assignment, submission.student, data, engine, submission.note, secret))
    except NotStarted as error:
        said = {"not started": str(error)}
    except Exception as error:
        traceback.print_exc()  # for the one who grades; a student reads the note
        note = f"{submission.note} The grader failed on it, please look ({brief(error)}).".strip()
        said = asdict(lost(assignment, submission.student, note, "not graded", None))
    with contextlib.suppress(BrokenPipeError):  # nobody waits any more
        connection.send_bytes(json.dumps(said).encode())


def bound(slot: int) -> None:
    """One core and so much memory for this process; the one that it starts has the same core.

    So a submission that starts sixty processes slows nobody but itself.
    """
    torch.set_num_threads(1)
    if sys.platform == "linux":
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[slot % len(cores)]})
    if sys.platform != "win32":
        import resource

        most = resource.getrlimit(resource.RLIMIT_DATA)[1]  # for the submission, which may have more
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, most))


def key_of(ours: bytes, data: bytes) -> str:
    return hashlib.sha256(ours + data).hexdigest()


def fingerprint(assignment: Assignment, secret: bytes) -> bytes:
    """Changes with the assignment, the course's secret, the package and the grader."""
    digest = hashlib.sha256(secret)
    code = [
        *(ROOT / "u2learn").rglob("*.py"),
        *(ROOT / "tools" / "grading" / f"{room}.py" for room in DECIDE),
    ]
    code += [ROOT / "tools" / "assignments.py", assignment.path, assignment.path.parent / "mistakes.yml"]
    for path in sorted(code):
        digest.update(path.read_bytes())
    return digest.digest()
