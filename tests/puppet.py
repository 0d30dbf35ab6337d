"""Stand-ins for the grader's tests: a submission's process that says what it likes, a grader of nothing.

`python tests/puppet.py FOLDER COUNT` grades a class of so many with the latter, so that it can be killed.
"""

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch

from tools.assignments import Assignment
from tools.grading import seal
from tools.grading.gradebook import Gradebook
from tools.grading.pool import grade_class
from tools.grading.run import Result, Verdict
from tools.grading.sandbox import NotStarted, Sandbox
from tools.grading.submissions import Key, Submission

SOURCE = Assignment.read("01-convolution")


def runs(word: str) -> bool:
    """Whether a process with this word in its command is there."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has just ended
            if word.encode() in path.read_bytes():
                return True
    return False


def frame(head: bytes | str, body: bytes = b"") -> bytes:
    """A message as it is on the wire."""
    head = head.encode() if isinstance(head, str) else head
    return struct.pack("!QQ", len(head), len(body)) + head + body


def value(text: str, body: bytes = b"") -> bytes:
    return frame(f'{{"dict": [["value", {text}]]}}', body)


class Puppet:
    """An engine whose process says what a test makes it say."""

    name = "puppet"

    def __init__(self, *answers: bytes | Callable[[socket.socket], None]):
        self.answers = answers

    def why_not(self) -> str:
        return ""

    def arguments(self) -> list[str]:
        return []

    def start(self, arguments, end: socket.socket, hide=()) -> seal.Started:
        threading.Thread(target=self.play, args=(end.dup(),), daemon=True).start()
        sleep = subprocess.Popen(
            ["sleep", "60"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        return seal.Started(sleep)

    def play(self, end: socket.socket) -> None:
        with contextlib.suppress(OSError), end:
            end.sendall(value('"ready"'))
            for answer in self.answers:
                end.recv(1 << 20)
                if callable(answer):
                    answer(end)
                else:
                    end.sendall(answer)
            end.recv(1)


def calling(number: str = "0", args: str = '{"list": [3000, 5000]}') -> bytes:
    """A call back, as a submission sends it when it calls a function of ours."""
    told = f'["callback", {number}], ["args", {args}], ["kwargs", {{"dict": []}}], ["training", false]'
    return frame(f'{{"dict": [{told}]}}')


def stub(assignment, student, data: bytes, engine, note="", secret=b"") -> Result:
    """Grades nobody: does what the file says, in a process of the pool."""
    word = data.decode()
    if word == "die":
        with open(secret.decode(), "a") as file:
            file.write(f"{student}\n")
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "loop":
        while True:
            time.sleep(1)
    if word == "deep":
        json.loads("[" * 200_000)
    if word == "no start":
        raise NotStarted("The process for a submission did not start (no such thing).")
    if word == "greedy":
        return Result(student, greedy())
    if word == "core":
        return Result(student, str(len(os.sched_getaffinity(0))))
    if word.startswith("wait"):
        time.sleep(0.05)
        with open(secret.decode(), "a") as file:
            file.write(f"{os.getpid()}\n")
    return Result(student, word, [Verdict.on(t, len(word) % 2, "hidden") for t in assignment.tests])


def greedy() -> str:
    """A submission that has the grader allocate 540 MB with each call back."""
    made = []

    def conv(a: int, b: int) -> str:
        made.append(torch.empty(a, b, 9))
        return "made"

    with Sandbox(Puppet(*[calling()] * 6, value('"done"'))) as box:
        return f"{box.ask('call', object=conv)} {len(made)}"


def hand_in(folder: Path, words: dict[str, str]) -> list[Submission]:
    folder.mkdir(exist_ok=True)
    for student, word in words.items():
        (folder / student).write_text(word)
    return [Submission(Key(student), folder / student) for student in words]


class Book(Gradebook):
    """A gradebook whose secret is where the stubs write what they did."""

    @property
    def secret(self) -> bytes:
        return str(self.folder / "ids").encode()


def grade_stubs(submissions: list[Submission], course: Path, jobs: int = 2) -> dict[str, Result]:
    """Grades them, and gives all results that are kept."""
    with contextlib.closing(Book(course)) as book:
        grade_class(SOURCE, submissions, book, seal.Unsealed(), jobs, False, stub)
        return {one.student: one.result for one in book.graded(SOURCE.name)}


def waiting_class(folder: Path, count: int) -> dict[str, Result]:
    """Grades a class of so many; for a process of its own, that can be killed."""
    submissions = hand_in(folder / "class", {f"student-{i}": f"wait {i}" for i in range(count)})
    return grade_stubs(submissions, folder)


if __name__ == "__main__":
    waiting_class(Path(sys.argv[1]), int(sys.argv[2]))
