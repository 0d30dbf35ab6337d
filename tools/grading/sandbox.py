"""Run what others wrote, and ask it questions, without believing a word.

A submission runs in a process of its own (worker.py). The checks run here, on the grader's side, and
call the submission's functions through a socket that carries only numbers, text and tensors. A submission
can so give wrong answers, hang, or die; it cannot change what is compared with what, because the code that
compares is not in its process.

Where Linux lets an ordinary user make namespaces, the process is sealed as well: no network, every file
read-only but its own temporary folder, the folders of solutions and of other submissions empty, no other
process in sight, and all of its children end with it.
"""

import builtins
import contextlib
import functools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import u2learn
from tools.grading.worker import Channel
from u2learn.checks import core

WORKER = Path(__file__).resolve().with_name("worker.py")
PATIENCE = 5  # seconds for a process to report that its time is up, before it is killed
START = 120  # seconds in which it must have started
MEMORY = 3 << 30

# In namespaces of its own: all is read-only but the work folder ($1), what is to be hidden ($3 ...) empty.
SEAL = """
work=$1; count=$2; shift 2
set -e
mount --make-rprivate /
mount --bind "$work" "$work"
while read -r _ _ _ _ place _; do
  place=$(printf '%b' "$place")
  [ "$place" = "$work" ] || mount -o remount,bind,ro "$place" 2>/dev/null || true
done < /proc/self/mountinfo
while [ "$count" -gt 0 ]; do
  if [ -d "$1" ]; then mount -t tmpfs -o ro tmpfs "$1"; else mount --bind /dev/null "$1"; fi
  shift; count=$((count - 1))
done
mount -t proc proc /proc
cd "$work"
exec setpriv --no-new-privs --bounding-set=-all --inh-caps=-all "$@"
"""
NAMESPACES = ["--user", "--map-root-user", "--mount", "--net", "--ipc", "--pid", "--fork", "--kill-child"]


class Died(Exception):
    """The process of the submission ended, or did not answer in time."""


class SubmissionError(Exception):
    """Something that was raised in the submission and has no name of Python's own."""


class Remote:
    """An object that lives in the submission's process. Calls and attributes are asked for there."""

    def __init__(self, sandbox: "Sandbox", reference: dict):
        self.remote_sandbox, self.remote_id = sandbox, int(reference["id"])
        self.__name__ = str(reference["name"])[:100]

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
def apply(function: Remote, args: Sequence, kwargs: Mapping[str, Any], forbid: Sequence[str] = ()) -> Any:
    return function.remote_sandbox.ask(
        "call", object=function, args=list(args), kwargs=kwargs, forbid=list(forbid)
    )


@core.gradient.register(Remote)
def gradient(function: Remote, *args: Any, **kwargs: Any) -> Any:
    return function.remote_sandbox.ask("gradient", object=function, args=list(args), kwargs=kwargs)


class Sandbox:
    """One process of a submission; `with Sandbox(...) as box:` ends it, its children and its folder."""

    def __init__(self, hide: Sequence[Path] = (), seconds: float = 20, memory: int = MEMORY):
        self.seconds = seconds
        self.callbacks: list[Callable] = []
        self.folder = Path(tempfile.mkdtemp(prefix="u2learn-"))
        ours, theirs = socket.socketpair()
        self.end = ours
        self.channel = Channel(ours, self._keep, self._find)
        command = [sys.executable, str(WORKER), str(theirs.fileno()), str(memory)]
        if sealed():
            hidden = [str(p) for p in hide if p.exists()]
            command = [
                *("unshare", *NAMESPACES, "sh", "-c", SEAL, "seal", str(self.folder)),
                *(str(len(hidden)), *hidden, *command),
            ]
        self.process = subprocess.Popen(
            command,
            env=environment(self.folder),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL if "U2LEARN_WORKER_ERRORS" not in os.environ else None,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
        theirs.close()
        try:
            self._hear(START)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def close(self) -> None:
        kill(self.process)
        self.end.close()
        shutil.rmtree(self.folder, ignore_errors=True)

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
        limit = limit or self.seconds
        try:
            self.end.settimeout(limit + PATIENCE)
            self.channel.send({"do": do, "seconds": limit, **request})
            reply = self._hear(limit + PATIENCE)
            while "callback" in reply:
                self.channel.send(self._serve(reply))
                reply = self._hear(limit + PATIENCE)
        except Died:
            kill(self.process)
            raise
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:  # gone, or talks nonsense
            kill(self.process)
            raise Died(f"the process ended ({type(error).__name__})") from None
        if "error" in reply:
            raise rebuilt(reply["error"])
        return reply.get("value")

    def _serve(self, reply: dict) -> dict:
        function = self.callbacks[reply["callback"]]
        if hasattr(function, "training"):
            function.training = bool(reply["training"])  # train() and eval() were called over there
        try:
            return {"value": function(*reply["args"], **reply["kwargs"])}
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}"}

    def _hear(self, seconds: float) -> dict:
        self.end.settimeout(seconds)
        try:
            reply = self.channel.receive()
        except TimeoutError:
            raise Died(f"no answer within {seconds:.0f} seconds") from None
        except ConnectionError:
            raise Died("the process ended") from None
        if not isinstance(reply, dict):
            raise Died("the process sent nonsense")
        return reply

    def _keep(self, value: Any) -> dict:
        if isinstance(value, Remote):
            return {"dict": [["id", value.remote_id]]}
        if callable(value):
            self.callbacks.append(value)  # for good: a module may keep what it was made with
            name = getattr(value, "__name__", "function")
            return {"dict": [["callback", len(self.callbacks) - 1], ["name", name]]}
        raise TypeError(f"A {type(value).__name__} cannot be sent to a submission.")

    def _find(self, reference: dict) -> Remote:
        return Remote(self, dict(reference["dict"]))


def rebuilt(error: dict) -> Exception:
    """The exception that a submission reports: a built-in one by name, else a SubmissionError."""
    kind = core.Mistake if error["type"] == "Mistake" else getattr(builtins, str(error["type"]), None)
    text = str(error["text"])
    found: Any = SubmissionError(f"{error['type']}: {text}")
    if isinstance(kind, type) and issubclass(kind, Exception):
        with contextlib.suppress(TypeError):  # one that wants more than a text
            found = kind(text)
    found.line = str(error["line"])
    return found


def kill(process: subprocess.Popen) -> None:
    """End the process and all in its session."""
    try:
        os.killpg(process.pid, 9)
    except (ProcessLookupError, PermissionError):
        process.kill()
    process.wait()


def environment(folder: Path) -> dict[str, str]:
    """Nothing of the grader's own variables but where programs are."""
    return {
        "PATH": os.environ.get("PATH", ""),
        "LANG": os.environ.get("LANG", "C.UTF-8"),
        "PYTHONPATH": str(Path(u2learn.__file__).parents[1]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "IPYTHONDIR": str(folder),
        "MPLBACKEND": "Agg",
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "U2LEARN_BUDGET": "smoke",
    }


@functools.cache
def sealed() -> bool:
    """Whether this machine lets us seal a process: it is tried once, with a file that must stay unwritten."""
    if not all(map(shutil.which, ("unshare", "setpriv", "mount", "sh"))):
        return False
    with tempfile.TemporaryDirectory() as work, tempfile.TemporaryDirectory() as other:
        script = '! touch "$0/x" 2>/dev/null && touch here'
        command = ["unshare", *NAMESPACES, "sh", "-c", SEAL, "seal", work, "0", "sh", "-c", script, other]
        tried = subprocess.run(command, capture_output=True)
        return tried.returncode == 0 and (Path(work) / "here").exists()
