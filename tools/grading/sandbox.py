"""Run what others wrote, and ask it questions, without believing a word.

A submission runs in a process of its own (worker.py), in a place with nothing else in it (seal.py). The
checks run here, on the grader's side, and call the submission's functions through a channel that carries only
numbers, text and tensors. A submission can so give wrong answers, hang, or die; it cannot change what is
compared with what, because the code that compares is not in its process.

Nothing it does takes longer than it may: a request has one deadline, with all that it asks back, and so has a
notebook as a whole.
"""

import builtins
import contextlib
import math
import re
import socket
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tools.grading.seal import Engine, last
from tools.grading.worker import Channel
from u2learn.checks import core
from u2learn.checks.reading import Refusal

PATIENCE = 5  # seconds for a process to report that its time is up, before it is killed
START = 120  # seconds in which it must have started
LOOK = 0.25  # seconds between two looks at what it takes
TEXT = 200  # characters of what a submission says that may reach a page


class Died(Exception):
    """The process of the submission ended, or did not answer in time."""


class NotStarted(Exception):
    """There is no process, and that is not the submission's fault: nothing of it has run."""


class SubmissionError(Exception):
    """Something that was raised in the submission and has no name of Python's own."""


class Remote:
    """An object that lives in the submission's process. Calls and attributes are asked for there."""

    def __init__(self, sandbox: "Sandbox", reference: dict):
        self.remote_sandbox, self.remote_id = sandbox, int(reference["id"])
        self.__name__ = plain(str(reference["name"]), 100)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return apply(self, args, kwargs, core.FORBIDDEN.get())

    def __getattr__(self, name: str) -> Any:
        if name.startswith(("__", "remote_", "_ipython")):
            raise AttributeError(name)
        return self.remote_sandbox.ask("attribute", object=self, name=name)

    def _special(self, name: str, *args: Any) -> Any:
        return self.remote_sandbox.ask("attribute", object=self, name=name)(*args)

    def __len__(self) -> int:
        return self._special("__len__")

    def __getitem__(self, key: Any) -> Any:
        return self._special("__getitem__", key)

    def __iter__(self) -> Iterator:
        return iter(self._special("__iter__"))


# How the checks reach a function of a submission.
@core.apply.register(Remote)
def apply(function: Remote, args: Sequence, kwargs: Mapping[str, Any], refusal: Refusal | None = None) -> Any:
    refused = asdict(refusal) if refusal else None
    return function.remote_sandbox.ask(
        "call", object=function, args=list(args), kwargs=kwargs, refusal=refused
    )


@core.gradient.register(Remote)
def gradient(function: Remote, *args: Any, **kwargs: Any) -> Any:
    return function.remote_sandbox.ask("gradient", object=function, args=list(args), kwargs=kwargs)


class Sandbox:
    """One process of a submission; `with Sandbox(...) as box:` ends it, its children and its folder.

    seconds: for a call; until: when all must be over, by time.monotonic(); hide: files of the package that
    are empty there.
    """

    def __init__(
        self, engine: Engine, seconds: float = 20, until: float = math.inf, hide: Sequence[Path] = ()
    ):
        self.seconds, self.until = seconds, until
        self.callbacks: list[Callable] = []
        self.stopped = ""  # what it took too much of
        self.end, theirs = socket.socketpair()
        self.channel = Channel(self._read, self._write, self._keep, self._find)
        with theirs:
            self.started = engine.start(engine.arguments(), theirs, hide)
        self.deadline = time.monotonic() + START
        self.closed = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()
        try:
            self._hear()
            self.deadline = math.inf
        except Died as died:
            self.close()
            why = f"{engine.name}: {died}, {last(self.started.errors())}"
            raise NotStarted(f"The process for a submission did not start ({why}).") from None
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def alive(self) -> bool:
        return self.started.alive

    def close(self) -> None:
        self.closed.set()
        self.started.kill()
        self.end.close()

    def run(self, source: str, seconds: float | None = None) -> None:
        """Execute a cell; what it raises is raised here."""
        self.ask("run", source=source, limit=seconds)

    def get(self, name: str) -> Any:
        """A name of the submission: plain data as a copy, anything else as a `Remote`."""
        return self.ask("get", name=name)

    def ask(self, do: str, limit: float | None = None, **request: Any) -> Any:
        """Send a request and wait for its answer, serving the functions that it was given meanwhile.

        Raises:
            Died: there is no answer in time, or the process is gone.
            Exception: what the submission raised, as the built-in exception of that name or SubmissionError.
        """
        now, before = time.monotonic(), self.deadline
        limit = min(limit or self.seconds, self.until - now)
        message = self.channel.packed({"do": do, "seconds": limit, **request})
        try:
            if limit <= 0:
                raise Died("the time for the whole notebook is used up")
            self.deadline = min(before, now + limit + PATIENCE)
            self._write(message)
            reply = self._hear()
            while "callback" in reply:
                self._write(self._served(reply))
                reply = self._hear()
        except Died:
            self.started.kill()
            raise
        finally:
            self.deadline = before  # of a request that this one came out of
        if "error" in reply:
            raise rebuilt(reply["error"])
        return reply.get("value")

    def _hear(self) -> dict:
        try:
            reply = self.channel.receive()
            if not isinstance(reply, dict):
                raise TypeError("A message is a dictionary.")
            return reply
        except Died:
            raise
        except Exception as error:  # a forged message may break anything that reads it
            raise Died(self._why(f"the process sent nonsense, {type(error).__name__}")) from None

    def _why(self, otherwise: str) -> str:
        return f"it took {self.stopped}" if self.stopped else otherwise

    def _served(self, call: dict) -> bytes:
        """Call a function of ours for the submission; whatever is wrong with the call is told to it."""
        try:
            number = call["callback"]
            if type(number) is not int or number < 0:
                raise ValueError(f"There is no function {number!r}.")
            function = self.callbacks[number]
            if hasattr(function, "training"):
                function.training = bool(call["training"])  # train() and eval() were called over there
            return self.channel.packed({"value": function(*call["args"], **call["kwargs"])})
        except Died:
            raise
        except Exception as error:
            return self.channel.packed({"error": plain(f"{type(error).__name__}: {error}", 300)})

    def _watch(self) -> None:
        """End the process when it takes too much."""
        while not self.closed.wait(LOOK):
            self.stopped = self.started.excess()
            if self.stopped:
                return self.started.kill()

    def _read(self, count: int) -> bytearray:
        data = bytearray()  # grows with what has come, not with what was announced
        while len(data) < count:
            part = self._in_time(self.end.recv, min(1 << 20, count - len(data)))
            if not part:
                raise Died(self._why("the process ended"))
            data += part
        return data

    def _write(self, data: bytes) -> None:
        self._in_time(self.end.sendall, data)

    def _in_time(self, act: Callable, *arguments: Any) -> Any:
        left = self.deadline - time.monotonic()
        try:
            if left <= 0:
                raise TimeoutError
            self.end.settimeout(left)
            return act(*arguments)
        except TimeoutError:
            raise Died(self._why("no answer in time")) from None
        except OSError:
            raise Died(self._why("the process ended")) from None

    def _keep(self, value: Any) -> dict:
        if isinstance(value, Remote):
            return {"dict": [["id", value.remote_id]]}
        if callable(value):
            self.callbacks.append(value)  # for good: a module may keep what it was made with
            name = getattr(value, "__name__", "function")
            return {"dict": [["callback", len(self.callbacks) - 1], ["name", name]]}
        raise TypeError(f"A {type(value).__name__} cannot be sent to a submission.")

    def _find(self, reference: dict) -> Remote:
        return Remote(self, reference)


def rebuilt(error: Any) -> Exception:
    """The exception that a submission reports: a built-in one by name, else a SubmissionError.

    Not those with which Python ends a loop: one of ours would end, and what is left of it counts as right.
    """
    said = error if isinstance(error, dict) else {}
    name, text = plain(str(said.get("type")), 50), plain(str(said.get("text")), 300)
    kind = core.Mistake if name == "Mistake" else getattr(builtins, name, None)
    found: Any = SubmissionError(f"{name}: {text}")
    if isinstance(kind, type) and issubclass(kind, Exception) and kind not in LOOPS:
        with contextlib.suppress(TypeError):  # one that wants more than a text
            found = kind(text)
    found.line = plain(str(said.get("line")), TEXT)
    return found


LOOPS = (StopIteration, StopAsyncIteration)


def plain(text: str, length: int) -> str:
    """Text for a page or a table: no colours of a terminal, no characters that steer, cut short."""
    text = re.sub(r"\033\[[0-9;]*m", "", text[: 4 * length])
    kept = "".join(c for c in text if c in "\n\t" or unicodedata.category(c)[0] != "C")
    return kept if len(kept) <= length else kept[: length - 1] + "…"
