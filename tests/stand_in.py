"""A stand-in for a GPU: the device "cuda" on a machine that has none, with the CPU behind it.

    with StandIn() as card:
        train(recipe, folder, device="cuda")
    card.waits                          # how often the program waited for the device, by place

A tensor that came into being there is a tensor of the CPU whose storage bears a mark. So all numbers are
those of the CPU, and what a GPU refuses is refused: an operation on tensors of both devices, numbers read
without `.cpu()`, random numbers of the other device's generator. What a program waits for is counted.

Not stood in for: speed, memory, the compiler (a compiled model is the model itself), 16-bit arithmetic (off,
or with `fast` that of the CPU's autocast), and random numbers, which a GPU draws in its own way.

`python tests/stand_in.py MODULE ARGUMENTS` runs a program of the project on it, as `python -m MODULE` would.
"""

import runpy
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

CARD, NAME = torch.device("cuda", 0), "Stand-in GPU"
ANSWERS = {"device": CARD, "is_cuda": True, "is_cpu": False}
REAL = {"generator": torch.Generator, "autocast": torch.autocast}
ROOT = Path(__file__).resolve().parents[1]
OURS, TESTS = (str(ROOT / folder) for folder in ("u2learn", "tests"))
# Kernels whose result's size, or whose result itself, the CPU has to know: it waits until the GPU is there.
WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "bincount", "_unique2"}
WAITING |= {"unique_consecutive", "unique_dim", "repeat_interleave"}
COPIES = {"copy_", "_foreach_copy_", "set_"}  # from one device to the other is what they are for
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}  # take indices of the CPU, and fetch them
JOINS = {"cat", "stack"}  # where others take a single number of the CPU, these do not


def is_card(device: object) -> bool:
    """Is this a name of the stand-in, as "cuda" or torch.device("cuda", 0)?"""
    return isinstance(device, (str, torch.device)) and torch.device(device).type == "cuda"


def tensors_in(*values: Any) -> Iterator[Tensor]:
    """The tensors among arguments, which are not on "meta"."""
    for value in values:
        if isinstance(value, Tensor):
            if value.device.type == "cpu":
                yield value
        elif isinstance(value, (tuple, list)):
            yield from tensors_in(*value)
        elif isinstance(value, dict):
            yield from tensors_in(*value.values())


def on_card(x: Tensor) -> bool:
    """Does this tensor lie on the stand-in? Views share their storage, and its mark with it."""
    return getattr(x.untyped_storage(), "on_card", False)


def put(values: Any, card: bool = True) -> Any:
    """Mark all tensors among the values as lying on the stand-in, or on the CPU."""
    for x in tensors_in(values):
        x.untyped_storage().on_card = card
    return values


class Waits(Counter[str]):
    """How often the program waited for the device, by place and reason: "training._loop: tolist"."""

    on = True  # off while a kernel looks at numbers that it would not look at on a GPU

    def note(self, reason: str) -> None:
        if self.on:
            self[f"{self.place()}: {reason}"] += 1

    @staticmethod
    def place() -> str:
        """The innermost function of the project that is at work, else of the tests."""
        frame, test = sys._getframe(), "somewhere"
        while frame is not None:
            code = frame.f_code
            place = f"{Path(code.co_filename).stem}.{code.co_name}"
            if code.co_filename.startswith(OURS):
                return place
            if test == "somewhere" and code.co_filename.startswith(TESTS) and code.co_filename != __file__:
                test = place
            frame = frame.f_back
        return test


class Kernels(TorchDispatchMode):
    """Below: every kernel. Its results lie where its arguments lie, and those must lie on one device."""

    def __init__(self, waits: Waits):
        super().__init__()
        self.waits, self.inside = waits, 0  # inside: how many calls are at work on tensors of the stand-in

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        tensors = list(tensors_in(args, kwargs))
        here = any(map(on_card, tensors))
        if here:
            indices = [x for x in args[1] if x is not None] if name in INDEXING else []
            self._refuse_both(name, tensors, indices)
            if name in WAITING or any(x.dtype == torch.bool for x in indices):
                self.waits.note(name)
        out = func(*args, **(kwargs or {}))
        if name in COPIES:  # into a tensor that stays where it is
            return out
        # What a function makes from nothing on its way, it makes on the device of its arguments.
        return put(out) if here or (self.inside and not tensors) else out

    def _refuse_both(self, name: str, tensors: list[Tensor], indices: list[Tensor]) -> None:
        others = [x for x in tensors if not on_card(x) and (x.ndim or name in JOINS)]
        if not others or name in COPIES:
            return
        if on_card(tensors[0]) and all(any(x is index for index in indices) for x in others):
            self.waits.note(f"{name}, its indices on the CPU")
            return
        places = (f"{tuple(x.shape)} on {'cuda' if on_card(x) else 'cpu'}" for x in tensors)
        raise RuntimeError(f"Stand-in GPU: {name} got tensors of both devices: {', '.join(places)}")


class Calls(TorchFunctionMode):
    """Above: every call. The name "cuda" is taken out of it, and a tensor says "cuda" when it is asked."""

    def __init__(self, kernels: Kernels):
        super().__init__()
        self.kernels, self.waits = kernels, kernels.waits

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        if name == "__get__":
            asked = func.__self__.__name__
            return ANSWERS[asked] if asked in ANSWERS and on_card(args[0]) else func(*args, **kwargs)
        card = any(map(on_card, tensors_in(args, kwargs)))
        if name in ("numpy", "__array__") and card:
            raise TypeError("Stand-in GPU: can't convert a tensor of the device to numpy; use .cpu() first.")
        if name in ("to", "cpu", "cuda", "as_tensor", "asarray", "tensor"):
            return self._moved(func, name, args, kwargs)
        device = kwargs.get("device")
        if is_card(device):
            kwargs["device"] = "cpu"
        drawn_by = kwargs.get("generator")
        if drawn_by is not None and isinstance(drawn_by, Generator) != (card or is_card(device)):
            raise RuntimeError(f"Stand-in GPU: {name} got one device, and the generator of the other.")
        if name == "tolist" and card and args[0].ndim:  # of one number, a kernel waits
            self.waits.note(name)
        out = self._called(func, args, kwargs, card, counting=name != "one_hot")
        if name == "__deepcopy__":  # copies the storage, past all kernels
            return put(out, card)
        return out if device is None else put(out, is_card(device))

    def _called(self, func: Any, args: Any, kwargs: Any, card: bool, counting: bool = True) -> Any:
        """The function's result. one_hot looks for the largest number on a CPU only: that is not counted."""
        before, self.waits.on = self.waits.on, self.waits.on and counting
        self.kernels.inside += card
        try:
            return func(*args, **kwargs)
        finally:
            self.kernels.inside -= card
            self.waits.on = before

    def _moved(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        """A call that may change the device: what comes from the other one is a copy, and waited for."""
        names = [x for x in (*args[1:], *kwargs.values()) if isinstance(x, (str, torch.device))]
        like = next((x for x in args[1:] if isinstance(x, Tensor)), None)
        before = any(map(on_card, tensors_in(args[0])))
        after = before
        if names or name in ("cpu", "cuda"):
            after = name == "cuda" or any(map(is_card, names))
        elif like is not None:
            after = on_card(like)
        if any(map(is_card, names)):
            args, kwargs = tree_map_only((str, torch.device), lambda _: "cpu", (args, kwargs))
        out = args[0] if name in ("cpu", "cuda") else self._called(func, args, kwargs, before)
        if after == before:
            return out
        self.waits.note(f"{name}, to the {'device' if after else 'CPU'}")
        return put(out.clone(memory_format=torch.preserve_format), after)


class Generator(torch.Generator):
    """Random numbers of the stand-in: those of the CPU, under the device's name."""

    def __new__(cls, device: Any = "cpu") -> torch.Generator:  # type: ignore[misc]
        return REAL["generator"].__new__(cls) if is_card(device) else REAL["generator"](device)

    @property
    def device(self) -> torch.device:
        return CARD


class StandIn:
    """Inside of it there is a device "cuda"; after it, all is as before.

    fast: the type of its 16-bit arithmetic, torch.bfloat16 or torch.float16 (default: none, as a CPU's).

    Attributes:
        waits: how often the program waited for the device, by place.
    """

    def __init__(self, fast: torch.dtype | None = None):
        self.fast, self.waits = fast, Waits()

    def _autocast(self, device: str, dtype: torch.dtype | None = None, **rest: Any) -> torch.autocast:
        if not is_card(device):
            return REAL["autocast"](device, dtype, **rest)
        return REAL["autocast"]("cpu", self.fast or torch.bfloat16, enabled=self.fast is not None)

    def __enter__(self) -> "StandIn":
        kernels, self.patches = Kernels(self.waits), ExitStack()
        cuda = {
            "is_available": lambda: True,
            "device_count": lambda: 1,
            "get_device_name": lambda device=None: NAME,
            "get_device_properties": lambda device=None: SimpleNamespace(name=NAME, total_memory=16 << 30),
            "is_bf16_supported": lambda including_emulation=True: self.fast != torch.float16,
            "is_current_stream_capturing": lambda: False,
            "synchronize": lambda device=None: None,
            "max_memory_allocated": lambda device=None: 0,
            "mem_get_info": lambda device=None: (2**40, 2**40),
            "reset_peak_memory_stats": lambda device=None: None,
        }
        everywhere = {
            "Generator": Generator,
            "autocast": self._autocast,
            "compile": lambda model, **options: model,
        }
        compiler = {"reset": lambda: None}
        for module, changes in ((torch.cuda, cuda), (torch, everywhere), (torch.compiler, compiler)):
            for name, value in changes.items():
                self.patches.enter_context(mock.patch.object(module, name, value))
        self.patches.enter_context(kernels)
        self.patches.enter_context(Calls(kernels))
        return self

    def __exit__(self, *error: object) -> None:
        self.patches.close()


if __name__ == "__main__":
    sys.path[0] = str(ROOT)
    del sys.argv[0]
    with StandIn():
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
