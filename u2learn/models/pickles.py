"""Pickled weights, of PyTorch and of Paddle, read without running anything.

A pickle is a list of calls to functions that it names. Here no function of a name is ever called: the few
that make a tensor or an array are answered by stand-ins that keep the numbers, and all others by one that
keeps nothing.
"""

import io
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
import torch
from torch import Tensor

LEGACY = 0x1950A86A20F9469CFC6C  # PyTorch's files before version 1.6 begin with this number, pickled

# Storages in a file, each named after the type of its numbers.
STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}

# What a checkpoint calls its weights, the usual names first; a running mean of them if there is nothing else.
WRAPPERS = ["state_dict", "model_state_dict", "model", "net", "network", "params", "weights"]
WRAPPERS += ["params_ema", "state_dict_ema", "ema_state_dict", "model_ema", "ema"]

# Modules whose functions act. A file that names one is no file of weights, and whoever opens it should know.
ACTING = ["builtins", "io", "_io", "os", "posix", "nt", "sys", "subprocess", "shutil", "importlib", "runpy"]
ACTING += ["socket", "webbrowser", "numpy"]
DATA = re.compile(  # what they hold besides: types, and how a method is written down
    r"builtins\.(bool|int|float|complex|str|bytes|bytearray|list|tuple|dict|set|frozenset|slice|range|object"
    r"|getattr)|numpy\.(bool|u?int|float|complex)\w*"
)
TWO = {"__builtin__": "builtins", "copy_reg": "copyreg"}  # modules as Python 2 calls them


class CodeError(pickle.UnpicklingError):
    """A file would have to be run; its argument says what of it."""


class Inert:
    """Stands for whatever a file names: made of anything, given anything, it keeps nothing."""

    def __init__(self, *_: Any, **__: Any):
        pass

    def __setstate__(self, given: Any) -> None:
        pass

    def __setitem__(self, key: Any, given: Any) -> None:
        pass

    append = extend = add = __setstate__


class Dictionary(dict):
    """Stands for an ordered dictionary, without the attributes that PyTorch gives to one."""

    def __setstate__(self, state: Any) -> None:
        pass


class Array(Inert):
    """Stands for a NumPy array: made empty, then given its shape, type and bytes. `array` is None without."""

    array: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, fortran, raw = state
        if kind.dtype is not None:
            array = np.frombuffer(raw, kind.dtype).reshape(shape, order="F" if fortran else "C")
            self.array = array.astype(kind.dtype.newbyteorder("="), order="C")  # in memory of its own


class NumberType(Inert):
    """Stands for the type of an array's numbers: "f4" and the like, then the order of their bytes."""

    def __init__(self, code: str, *_: Any):
        numbers = re.fullmatch(r"f[248]|i[1248]|u1|b1", code)
        self.dtype = np.dtype(code) if numbers else None

    def __setstate__(self, state: tuple) -> None:
        self.dtype = self.dtype and self.dtype.newbyteorder(state[1])


class Storage:
    """A row of numbers that lies elsewhere in the file, and is read when a tensor of it is asked for."""

    def __init__(self, dtype: torch.dtype, key: str, count: int):
        self.dtype, self.key, self.count = dtype, key, count
        self.numbers: Tensor | None = None

    def read(self, data: Callable[["Storage"], bytes]) -> Tensor:
        if self.numbers is None:
            raw = bytearray(data(self)) if self.count else bytearray(self.dtype.itemsize)
            self.numbers = torch.frombuffer(raw, dtype=self.dtype, count=self.count or 1)[: self.count]
        return self.numbers  # (count,)


class StoredTensor(Inert):
    """Stands for a tensor: where its numbers lie, and how they are laid out."""

    def __init__(self, storage: Storage, offset: int, size: tuple, stride: tuple, *_: Any):
        self.storage, self.layout = storage, (size, stride, offset)


class First(Inert):
    """Stands for what only wraps a tensor, as nn.Parameter does."""

    def __new__(cls, wrapped: Any, *_: Any) -> Any:
        return wrapped


class Retyped(Inert):
    """Stands for a tensor that carries attributes: `make(*arguments)`, where `make` is a stand-in, too."""

    def __new__(cls, make: Any, _: Any, arguments: tuple, *__: Any) -> Any:
        return make(*arguments)


class WeightsUnpickler(pickle.Unpickler):
    """Reads one pickle; what is not a plain value, an array or a tensor becomes `Inert`.

    Raises:
        CodeError: it names a function that acts, as `exec` does: not executed, but no file of weights.
        Exception: of any kind, if the file is damaged.
    """

    STAND_INS: ClassVar[dict[str, Any]] = {
        "collections.OrderedDict": Dictionary,
        "builtins.tuple": tuple,
        "numpy.dtype": NumberType,
        "numpy.ndarray": Array,
        "numpy.core.multiarray._reconstruct": Array,  # NumPy 1
        "numpy._core.multiarray._reconstruct": Array,  # NumPy 2
        "_codecs.encode": str.encode,  # protocol 2 writes bytes as text
        "torch._utils._rebuild_tensor": StoredTensor,
        "torch._utils._rebuild_tensor_v2": StoredTensor,
        "torch._utils._rebuild_parameter": First,
        "torch._utils._rebuild_parameter_with_state": First,
        "torch._tensor._rebuild_from_type_v2": Retyped,
        **{f"{place}.{name}": kind for place in ("torch", "torch.cuda") for name, kind in STORAGES.items()},
    }

    def __init__(self, file: BinaryIO):
        super().__init__(file, encoding="latin1")  # which has a letter for each byte that Python 2 wrote
        self.storages: dict[tuple[str, torch.dtype], Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        module = TWO.get(module, module)
        full = f"{module}.{name}"
        if full in self.STAND_INS:
            return self.STAND_INS[full]
        if module in ACTING and not DATA.fullmatch(full):
            raise CodeError(full.removeprefix("builtins."))
        return Inert

    def persistent_load(self, saved: tuple) -> Any:
        if saved[0] == "module":  # a whole model, with its source
            return saved[1]
        _, kind, key, _, count, *view = saved
        if not isinstance(kind, torch.dtype) or any(view):  # numbers of another kind, or a part of a storage
            return Inert()
        return self.storages.setdefault((key, kind), Storage(kind, key, count))


def read_pickled(path: Path) -> dict[str, Tensor]:
    """The weights in a .pth or a .pdparams, whatever it is called, by the names in it; {} if there are none.

    They may lie in a wrapper such as "state_dict"; an epoch or an optimiser beside them is passed over.

    Raises:
        CodeError: the file would have to be run.
        Exception: of any kind, if the file is damaged.
    """
    if not zipfile.is_zipfile(path):
        with open(path, "rb") as file:
            return _read_stream(file)
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        root = next((name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")), None)
        if root is None:
            return {}
        if f"{root}constants.pkl" in names:
            raise CodeError("TorchScript program")
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
            raise ValueError("big end first")
        content = WeightsUnpickler(io.BytesIO(archive.read(f"{root}data.pkl"))).load()
        return _tensors(content, lambda storage: archive.read(f"{root}data/{storage.key}"))


def _read_stream(file: BinaryIO) -> dict[str, Tensor]:
    """Pickles behind one another, and the storages of the last: PyTorch before 1.6. Or one: Paddle."""
    content, places = WeightsUnpickler(file).load(), {}
    if content == LEGACY:
        _version, _system = (WeightsUnpickler(file).load() for _ in range(2))
        unpickler = WeightsUnpickler(file)
        content, keys = unpickler.load(), WeightsUnpickler(file).load()
        sizes = {key: kind.itemsize for key, kind in unpickler.storages}
        for key in keys:
            count = int.from_bytes(file.read(8), "little")
            places[key] = file.tell()
            file.seek(count * sizes[key], io.SEEK_CUR)
        if file.tell() > file.seek(0, io.SEEK_END):
            raise EOFError("storages")

    def data(storage: Storage) -> bytes:
        file.seek(places[storage.key])
        return file.read(storage.count * storage.dtype.itemsize)

    return _tensors(content, data)


def _tensors(content: Any, data: Callable[[Storage], bytes]) -> dict[str, Tensor]:
    """The weights in what was read; `data` fetches the bytes of a storage."""
    if not isinstance(content, dict):
        return {}
    for name in WRAPPERS:
        inner = _tensors(content.get(name), data)
        if inner:
            return inner
    tensors = {}
    for name, x in content.items():
        x = x[1] if isinstance(x, tuple) and len(x) == 2 else x  # Paddle also writes (name, array)
        if isinstance(x, StoredTensor) and isinstance(x.storage, Storage):
            tensors[str(name)] = x.storage.read(data).as_strided(*x.layout)
        elif isinstance(x, Array) and x.array is not None:
            tensors[str(name)] = torch.from_numpy(x.array)
    return tensors
