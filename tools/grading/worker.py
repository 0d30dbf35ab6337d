"""The process in which a submission runs: it executes cells and calls functions, and decides nothing.

    python worker.py MEMORY PROCESSES

Requests come on the standard input, answers leave by the standard output. What the grader and this process
say to each other is JSON and raw tensors; nothing that arrives is ever executed on the grader's side. See
sandbox.py. MEMORY is in bytes; PROCESSES is how many may run at once, 0 for as many as there may be.
"""

import io
import json
import math
import os
import signal
import struct
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from u2learn import checks
from u2learn.checks.core import MODULES, ForbidBelow, apply, gradient, last_line
from u2learn.checks.reading import Refusal

HEAD = 1 << 20  # bytes of JSON in a message: a megabyte of it becomes at most some twenty of objects
BODY = 1 << 26  # bytes of tensors in a message: the largest block of U²-Net has 40 MB
ITEMS = 10_000  # taken from an iterator
CPU_SECONDS = 1800  # of one process: what an engine may have lost sight of ends by itself
DTYPES = {"bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"}
Read = Callable[[int], bytes | bytearray]


class Channel:
    """Messages, over two functions that read and write so many bytes.

    Objects that are not data stay where they are; their number travels. Tensors travel behind the JSON, in
    the order in which it names them, so that none can be named twice.
    """

    def __init__(
        self,
        read: Read,
        write: Callable[[bytes], Any],
        keep: Callable[[Any], dict],
        find: Callable[[dict], Any],
    ):
        self.read, self.write, self.keep, self.find = read, write, keep, find

    def send(self, message: dict) -> None:
        self.write(self.packed(message))

    def packed(self, message: dict) -> bytes:
        """
        Raises:
            ValueError: the message is too long.
        """
        blocks: list[bytes] = []
        head = json.dumps(self._pack(message, blocks)).encode()
        body = sum(map(len, blocks))
        if len(head) > HEAD or body > BODY:
            raise ValueError(f"A result of {len(head) + body:,} bytes is too large.")
        return b"".join([struct.pack("!QQ", len(head), body), head, *blocks])

    def receive(self) -> dict:
        """
        Raises:
            Exception: of any kind, if the other side sends anything else than a message of ours.
        """
        head, body = struct.unpack("!QQ", self.read(16))
        if head > HEAD or body > BODY:
            raise ConnectionError("The message is too long.")
        message = json.loads(self.read(head))
        return self._unpack(message, io.BytesIO(self.read(body)))

    def _pack(self, value: Any, blocks: list[bytes]) -> Any:
        if value is None or type(value) in (bool, int, float, str):
            return value
        if type(value) in (list, tuple):
            return {type(value).__name__: [self._pack(v, blocks) for v in value]}
        if isinstance(value, dict):
            return {"dict": [[self._pack(k, blocks), self._pack(v, blocks)] for k, v in value.items()]}
        if isinstance(value, np.generic):
            return value.item()
        if isinstance(value, torch.Tensor):
            return {"tensor": self._block(value.detach().cpu().numpy(), blocks)}
        if isinstance(value, np.ndarray) and value.dtype.name in DTYPES:
            return {"array": self._block(value, blocks)}
        if isinstance(value, Iterator):
            return {"list": [self._pack(v, blocks) for _, v in zip(range(ITEMS), value, strict=False)]}
        return {"object": self.keep(value)}

    def _block(self, array: np.ndarray, blocks: list[bytes]) -> list:
        blocks.append(np.ascontiguousarray(array).tobytes())
        return [array.dtype.name, list(array.shape)]

    def _unpack(self, value: Any, body: io.BytesIO) -> Any:
        if isinstance(value, str):
            return encodable(value)
        if value is None or isinstance(value, (bool, int, float)):
            return value
        ((kind, inner),) = value.items()
        if kind in ("list", "tuple"):
            items = [self._unpack(v, body) for v in inner]
            return items if kind == "list" else tuple(items)
        if kind == "dict":
            return {self._unpack(k, body): self._unpack(v, body) for k, v in inner}
        if kind in ("tensor", "array"):
            array = self._array(inner, body)
            return torch.from_numpy(array) if kind == "tensor" else array
        if kind == "object":
            return self.find(self._unpack(inner, body))
        raise ConnectionError(f"There is no kind {kind!r}.")

    def _array(self, described: list, body: io.BytesIO) -> np.ndarray:
        name, shape = described
        if name not in DTYPES or not all(type(n) is int and 0 <= n <= BODY for n in shape):
            raise ConnectionError(f"There is no array of {name!r} and {shape!r}.")
        dtype = np.dtype(name)
        data = bytearray(body.read(math.prod(shape) * dtype.itemsize))  # of its own, and writable
        if name == "bool":  # a byte that is neither 0 nor 1 would be a truth value that equals no other
            return np.asarray(np.frombuffer(data, np.uint8).reshape(shape) != 0)
        return np.frombuffer(data, dtype).reshape(shape)


def encodable(text: str) -> str:
    """The text without halves of characters, which no file can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


class Callback(torch.nn.Module):
    """A function of the grader: a module, so that it may stand wherever a layer stands."""

    def __init__(self, channel: Channel, number: int, name: str):
        super().__init__()
        self.channel, self.number, self.__name__ = channel, number, name

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        call = {"callback": self.number, "args": args, "kwargs": kwargs, "training": self.training}
        self.channel.send(call)
        reply = self.channel.receive()
        if "error" in reply:
            raise RuntimeError(reply["error"])
        return reply["value"]


class Worker:
    """The submission's side: a table of objects, and an IPython shell for its cells."""

    def __init__(self, read: Read, write: Callable[[bytes], Any]):
        from IPython.core.interactiveshell import InteractiveShell
        from traitlets.config import Config

        config = Config()
        config.HistoryManager.enabled = False
        self.shell = InteractiveShell.instance(config=config)
        self.objects: list[Any] = []
        self.channel = Channel(read, write, self._keep, self._find)

    def _keep(self, value: Any) -> dict:
        self.objects.append(value)
        name = getattr(value, "__name__", type(value).__name__)
        return {"dict": [["id", len(self.objects) - 1], ["name", str(name)[:100]]]}

    def _find(self, reference: dict) -> Any:
        if "id" in reference:
            return self.objects[reference["id"]]
        return Callback(self.channel, reference["callback"], reference["name"])

    def serve(self) -> None:
        while True:
            request = self.channel.receive()
            try:
                signal.setitimer(signal.ITIMER_REAL, request["seconds"])
                try:
                    reply = {"value": getattr(self, f"do_{request['do']}")(request)}
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
                self.channel.send(reply)
            except (ConnectionError, SystemExit):
                raise
            except BaseException as error:
                self.channel.send({"error": describe(error)})

    def do_run(self, request: dict) -> None:
        torch.manual_seed(0)
        result = self.shell.run_cell(request["source"])
        error = result.error_before_exec or result.error_in_exec
        if error is not None:
            raise error

    def do_get(self, request: dict) -> Any:
        name = request["name"]
        if name not in self.shell.user_ns:
            raise NameError(f"name {name!r} is not defined")
        return self.shell.user_ns[name]

    def do_attribute(self, request: dict) -> Any:
        return getattr(request["object"], request["name"])

    def do_call(self, request: dict) -> Any:
        refusal = Refusal(**request["refusal"]) if request["refusal"] else None
        return apply(request["object"], request["args"], request["kwargs"], refusal)

    def do_gradient(self, request: dict) -> Any:
        return gradient(request["object"], *request["args"], **request["kwargs"])


def hide_the_checks() -> None:
    """What is right stands in the questions' modules: no submission imports them, and its own checks pass."""
    checks.check = checks.core.check = lambda *args, **kwargs: None
    for name in MODULES.values():
        sys.modules[f"u2learn.checks.{name}"] = None  # type: ignore[assignment]  # as Python marks what cannot be imported


def describe(error: BaseException) -> dict:
    """What was raised, as plain text."""
    line = last_line(error) if isinstance(error, Exception) else ""
    return {"type": type(error).__name__[:100], "text": str(error)[:2000], "line": line[:200]}


def end_with_parent() -> None:
    """This process is killed when the one that started it ends, however that ends (Linux)."""
    if sys.platform == "linux":
        import ctypes

        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def limit(memory: int, processes: int) -> None:
    """Bounds for this process and each that it starts."""
    import resource  # not on Windows, where the grader reads this file too

    bounds = {
        resource.RLIMIT_DATA: memory,
        resource.RLIMIT_FSIZE: 1 << 28,
        resource.RLIMIT_NOFILE: 256,
        resource.RLIMIT_CPU: CPU_SECONDS,
        resource.RLIMIT_CORE: 0,
        **({resource.RLIMIT_NPROC: processes} if processes else {}),
    }
    for kind, most in bounds.items():
        allowed = resource.getrlimit(kind)[1]
        value = most if allowed == resource.RLIM_INFINITY else min(most, allowed)
        resource.setrlimit(kind, (value, value))


def late(*_: object) -> None:
    raise TimeoutError("it took too long")


def main(memory: int, processes: int) -> None:
    end_with_parent()
    limit(memory, processes)
    signal.signal(signal.SIGALRM, late)
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)  # what a cell starts cannot take a request away, nor does what it prints go anywhere
    os.dup2(nothing, 1)

    def read(count: int) -> bytes:
        data = requests.read(count)
        if len(data) < count:
            os._exit(0)  # the grader has gone; an exception could be caught
        return data

    def write(data: bytes) -> None:
        answers.write(data)
        answers.flush()

    hide_the_checks()
    with ForbidBelow(()):  # loads a thousand modules the first time, in the time of whoever is called first
        torch.nn.functional.pad(torch.zeros(1, 1), (1, 1))
    worker = Worker(read, write)
    os.dup2(nothing, 2)  # until here: why it did not start
    worker.channel.send({"value": "ready"})
    worker.serve()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
