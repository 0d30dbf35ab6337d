"""The process in which a submission runs: it executes cells and calls functions, and decides nothing.

    python worker.py FD MEMORY

FD is a socket to the grader, MEMORY the limit in bytes. What the grader and this process say to each other is
JSON and raw tensors; nothing that arrives is ever executed on the grader's side. See sandbox.py.
"""

import json
import signal
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from u2learn import checks
from u2learn.checks.core import MODULES, apply, gradient, last_line

LIMIT = 1 << 28  # bytes of one message
DTYPES = {"bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"}


class Channel:
    """Messages over a socket. Objects that are not data stay where they are; their number travels."""

    def __init__(self, end: socket.socket, keep: Callable[[Any], dict], find: Callable[[dict], Any]):
        self.end, self.keep, self.find = end, keep, find

    def send(self, message: dict) -> None:
        blocks: list[bytes] = []
        head = json.dumps(self._pack(message, blocks)).encode()
        size = len(head) + sum(map(len, blocks))
        if size > LIMIT:
            raise ValueError(f"A result of {size:,} bytes is too large.")
        self.end.sendall(b"".join([struct.pack("!QQ", len(head), size - len(head)), head, *blocks]))

    def receive(self) -> dict:
        head, rest = struct.unpack("!QQ", self._read(16))
        if head + rest > LIMIT:
            raise ConnectionError("The message is too long.")
        message = json.loads(self._read(head))
        return self._unpack(message, memoryview(self._read(rest)))

    def _read(self, count: int) -> bytearray:
        data = bytearray()
        while len(data) < count:
            part = self.end.recv(min(1 << 20, count - len(data)))
            if not part:
                raise ConnectionError("The other side is gone.")
            data += part
        return data

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
            return {"list": [self._pack(v, blocks) for _, v in zip(range(10_000), value, strict=False)]}
        return {"object": self.keep(value)}

    def _block(self, array: np.ndarray, blocks: list[bytes]) -> list:
        start = sum(map(len, blocks))
        blocks.append(np.ascontiguousarray(array).tobytes())
        return [array.dtype.name, list(array.shape), start]

    def _unpack(self, value: Any, data: memoryview) -> Any:
        if not isinstance(value, dict):
            return value
        ((kind, inner),) = value.items()
        if kind in ("list", "tuple"):
            items = [self._unpack(v, data) for v in inner]
            return items if kind == "list" else tuple(items)
        if kind == "dict":
            return {self._unpack(k, data): self._unpack(v, data) for k, v in inner}
        if kind in ("tensor", "array"):
            name, shape, start = inner
            if name not in DTYPES:
                raise ConnectionError(f"There is no type {name!r}.")
            dtype, count = np.dtype(name), int(np.prod(shape, dtype=np.int64))
            array = np.frombuffer(data, dtype, count, start).reshape(shape).copy()
            return torch.from_numpy(array) if kind == "tensor" else array
        return self.find(inner)


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

    def __init__(self, end: socket.socket):
        from IPython.core.interactiveshell import InteractiveShell
        from traitlets.config import Config

        config = Config()
        config.HistoryManager.enabled = False
        self.shell = InteractiveShell.instance(config=config)
        self.objects: list[Any] = []
        self.channel = Channel(end, self._keep, self._find)

    def _keep(self, value: Any) -> dict:
        self.objects.append(value)
        name = getattr(value, "__name__", type(value).__name__)
        return {"dict": [["id", len(self.objects) - 1], ["name", str(name)]]}

    def _find(self, reference: dict) -> Any:
        reference = dict(reference["dict"])
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
        return apply(request["object"], request["args"], request["kwargs"], request["forbid"])

    def do_gradient(self, request: dict) -> Any:
        return gradient(request["object"], *request["args"], **request["kwargs"])


def hide_the_checks() -> None:
    """What is right stands in the questions' modules: no submission imports them, and its own checks pass."""
    checks.check = checks.core.check = lambda *args, **kwargs: None
    for name in set(MODULES.values()) - {"project"}:  # whose scores the project's notebook uses itself
        sys.modules[f"u2learn.checks.{name}"] = None  # type: ignore[assignment]  # as Python marks what cannot be imported


def describe(error: BaseException) -> dict:
    """What was raised, as plain text."""
    line = last_line(error) if isinstance(error, Exception) else ""
    return {"type": type(error).__name__, "text": str(error)[:2000], "line": line[:200]}


def late(*_: object) -> None:
    raise TimeoutError("it took too long")


if __name__ == "__main__":
    import resource  # not on Windows, where the grader reads this file too

    resource.setrlimit(resource.RLIMIT_DATA, (int(sys.argv[2]),) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 28,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, late)
    hide_the_checks()
    worker = Worker(socket.socket(fileno=int(sys.argv[1])))
    worker.channel.send({"value": "ready"})
    worker.serve()
