"""What all checks share: the two lines, the call of a student's function, and comparing with suspects."""

from __future__ import annotations

import contextlib
import importlib
import random
import reprlib
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import singledispatch
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from u2learn.checks.reading import Refusal, refused
from u2learn.checks.watching import Watch
from u2learn.console import print_anywhere

MODULES = {
    "1": "convolution",
    "2": "unet",
    "3": "scores",
    "4": "pairs",
    "5": "windows",
    "6": "rsu",
    "7": "u2net",
    "8": "project",
}
GREEN, RED, YELLOW, PLAIN = "\033[1;32m", "\033[1;31m", "\033[1;33m", "\033[0m"
Answer = Callable[..., Any]  # a student's function or class


@dataclass(frozen=True)
class Question:
    """A part: what is asked, the function that checks it, and what its answer may not use."""

    what: str
    check: Callable[..., str]
    refuses: Refusal | None


QUESTIONS: dict[str, Question] = {}
SHORT = reprlib.Repr()
SHORT.maxlist = SHORT.maxtuple = 12
# What a student's function may not use while it runs.
FORBIDDEN: ContextVar[Refusal | None] = ContextVar("FORBIDDEN", default=None)


class NotYet(AssertionError):
    """What a check has to say, in one sentence. A notebook shows it as one line, without a traceback."""

    colour = RED

    def _render_traceback_(self) -> list[str]:  # asked for by IPython
        return [f"{self.colour}{self}{PLAIN}"]


class NotDone(NotYet):
    """The part is as it was handed out."""

    colour = YELLOW


class Mistake(AssertionError):
    """Raised inside a question, or by a hidden test: what is wrong with the answer."""


def check(part: str, *answers: Any, seed: int | None = None) -> None:
    """Check the answers to one part of an assignment, as `check("1.2", conv2d)`.

    Prints a green line if all cases agree. The cases are new each time, unless a `seed` is given.

    Raises:
        NotYet: the answer is wrong; the message says how. Notebooks show it as one red line.
        ValueError: there is no such part.
    """
    print_anywhere()
    load(part)
    if part not in QUESTIONS:
        raise ValueError(f"There is no part {part!r}; the assignments are {', '.join(MODULES)}.")
    asked = QUESTIONS[part]
    generator = torch.Generator().manual_seed(random.getrandbits(32) if seed is None else seed)
    names = [getattr(answer, "__name__", "") for answer in answers]
    try:
        # In a notebook all cells that were run are in `In`.
        with own_work(part, names, getattr(sys.modules["__main__"], "In", ())):
            proof = asked.check(generator, *answers)
    except NotImplementedError:
        raise NotDone(
            f"○ {part} {asked.what}: not done yet. Write it in the cell above (delete the line with "
            "NotImplementedError), run that cell, then this one."
        ) from None
    except Mistake as mistake:
        raise NotYet(f"✗ {part} {asked.what}: {mistake}") from None
    print(f"{GREEN}✓ {part} {asked.what}: {proof}{PLAIN}")


def load(part: str) -> None:
    """Import the questions of the part's assignment, if there are any."""
    module = MODULES.get(part.partition(".")[0])
    if module:
        importlib.import_module(f"u2learn.checks.{module}")


def question(part: str, what: str, refuses: Refusal | None = None) -> Callable:
    """Register a question: a function of a generator and the answers that returns what it proved."""

    def register(function: Callable) -> Callable:
        QUESTIONS[part] = Question(what, function, refuses)
        return function

    return register


@contextlib.contextmanager
def own_work(part: str, names: Sequence[str], cells: Sequence[str]) -> Iterator[None]:
    """Within it the answers to a part are called, and the library's version of them is refused.

    names: of the answers. cells: the code of the notebook, in which they are defined.

    Raises:
        Mistake: they are made of something that the part refuses.
    """
    load(part)
    refuses = QUESTIONS[part].refuses if part in QUESTIONS else None
    if refuses and (why := refused(refuses, names, cells)):
        raise Mistake(why)
    token = FORBIDDEN.set(refuses)
    try:
        yield
    finally:
        FORBIDDEN.reset(token)


def call(function: Callable, *args: Any, note: str = "", **kwargs: Any) -> Any:
    """Call a student's function; what it raises becomes a sentence with the arguments and the line.

    note: said about the arguments.
    """
    if not callable(function):
        raise Mistake(f"expected a function, got {shown(function)}.")
    try:
        result = apply(function, list(map(copied, args)), kwargs, FORBIDDEN.get())
        # As a list, as it comes from another process.
        return list(islice(result, 10_000)) if isinstance(result, Iterator) else result
    except (NotImplementedError, Mistake):
        raise
    except Exception as error:
        where = getattr(error, "line", None) or last_line(error)
        given = ", ".join([shown(a) for a in args] + [f"{k}={shown(v)}" for k, v in kwargs.items()])
        name = getattr(function, "__name__", type(function).__name__)
        text = str(error).split("\n")[0][:300]
        raise Mistake(
            f"{name}({given}){note} raised {type(error).__name__}: {text}"
            + (f" (in your line `{where}`)" if where else "")
        ) from None


def copied(value: Any) -> Any:
    """An argument that may be changed: the function gets copies of tensors, as another process does."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    if type(value) in (list, tuple):
        return type(value)(map(copied, value))
    return value


@singledispatch
def apply(
    function: Callable, args: Sequence, kwargs: Mapping[str, Any], refusal: Refusal | None = None
) -> Any:
    """function(*args, **kwargs), in which PyTorch's functions and the packages of `refusal` are refused.

    Whoever checks functions that do not run in this process registers for their type, here and at `gradient`,
    how they are called. What such a function raises may carry the student's line as an attribute `line`.
    """
    if refusal is None:
        return function(*args, **kwargs)
    with contextlib.ExitStack() as modes:
        if refusal.names:
            modes.enter_context(Forbid(refusal.names))
            modes.enter_context(ForbidBelow(refusal.names))
        watch = Watch(refusal, [*args, *kwargs.values()])
        try:
            with watch:
                return function(*args, **kwargs)
        finally:
            if watch.seen:
                raise Mistake(refusal.sentence(watch.seen))


class Forbid(TorchFunctionMode):
    """While active, PyTorch functions of these names are refused."""

    def __init__(self, names: Sequence[str]):
        super().__init__()
        self.names = set(names)

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        refuse(getattr(function, "__name__", ""), self.names)
        return function(*args, **(kwargs or {}))


class ForbidBelow(TorchDispatchMode):
    """The same for the operations of which the functions are made, however they were called."""

    def __init__(self, names: Sequence[str]):
        super().__init__()
        self.names = set(names)

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Sequence = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = function._schema.name.removeprefix("aten::")
        if name == "convolution" and args[6]:  # its argument `transposed`
            name = "conv_transpose2d"
        refuse(name, self.names)
        return function(*args, **(kwargs or {}))


def refuse(name: str, names: set[str]) -> None:
    if name in names:
        raise Mistake(f"your code calls `{name}`, which is refused here: write it yourself.")


def last_line(error: Exception) -> str:
    """The line of the student's code that raised: the last one that is in a notebook's cell."""
    frames = traceback.extract_tb(error.__traceback__)
    mine = [f for f in frames if "ipykernel" in f.filename or f.filename.startswith("<")]
    return (mine[-1].line or "") if mine else ""


@singledispatch
def gradient(function: Callable, x: Tensor | list[Tensor], *args: Any, **kwargs: Any) -> Tensor:
    """d function(x, ...) / d x, for a function of a student that gives one number; x may be in a list."""
    leaf = (x[0] if isinstance(x, list) else x).clone().requires_grad_()
    value = function([leaf] if isinstance(x, list) else leaf, *args, **kwargs)
    if not isinstance(value, Tensor) or not value.requires_grad:
        raise Mistake(
            "no gradient flows back from the result: keep everything in tensors, without .item(), .detach(), "
            "argmax or a comparison."
        )
    return torch.autograd.grad(value, leaf)[0]


class Cases:
    """Compares answers case by case, and at the end says which mistake explains all of them.

    A suspect is a mistake that one often makes: what to say about it, and what it would give in this case
    (a value, or a function that computes it). It is blamed only if it gives what the student's code gave in
    every case, the right ones included.
    """

    def __init__(self, what: str = "the result", tolerance: float = 1e-4):
        self.what, self.tolerance = what, tolerance
        self.seen: list[tuple[Any, Any, Mapping[str, Any] | Callable[[], Mapping[str, Any]], str]] = []
        self.simple: list[Mapping[str, bool]] = []

    def add(
        self,
        got: Any,
        want: Any,
        suspects: Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None = None,
        case: str = "",
        simple: Mapping[str, bool] | None = None,
    ) -> None:
        """One case. `case` says to the student which one it was.

        simple: in what it is simple or not, as {"the stride is 1": True}. If the answer is right in all cases
        that are simple in one respect, and in no other, that is said where no suspect explains the rest.
        """
        self.seen.append((got, want, suspects or {}, case))
        self.simple.append(simple or {})

    def done(self, proof: str, otherwise: Callable[[], None] | None = None) -> str:
        """`proof`, if all cases agree.

        otherwise: called if they do not and no suspect explains it; it may raise something better.

        Raises:
            Mistake: they do not.
        """
        wrong = [c for c in self.seen if not self._same(c[0], c[1])]
        if not wrong:
            return proof
        got, want, _, case = wrong[0]
        for message in self._explaining():
            raise Mistake(f"{message} ({self._told(got, want, case)}).")
        if all(self._same(whole(g), w) for g, w, *_ in self.seen):
            raise Mistake(
                f"the value is right, but it is a float, and a whole number is due: divide with //, or take "
                f"int(...) ({self._told(got, want, case)})."
            )
        formed = not isinstance(want, Tensor) or (isinstance(got, Tensor) and got.shape == want.shape)
        for hint in self._hints() if formed else ():
            raise Mistake(f"{hint} ({self._told(got, want, case)}).")
        if otherwise:
            otherwise()
        if isinstance(want, Tensor):
            raise Mistake(f"{difference(got, want, self.what)}{f' ({case})' if case else ''}.")
        missing = " Is a `return` missing?" if got is None else ""
        raise Mistake(f"{self._told(got, want, case)}.{missing}")

    def _same(self, a: Any, b: Any) -> bool:
        return same(a, b, self.tolerance) if isinstance(b, Tensor) else equal(a, b)

    def _told(self, got: Any, want: Any, case: str) -> str:
        if isinstance(want, Tensor) and isinstance(got, Tensor):
            shapes = f"shape {tuple(got.shape)}, expected {tuple(want.shape)}"
            return case if got.shape == want.shape else f"{case}{': ' if case else ''}{shapes}"
        return f"{case}{': ' if case else ''}got {shown(got)}, expected {shown(want)}"

    def _explaining(self) -> list[str]:
        """The suspects that fit all cases, the best known first."""
        left: dict[str, None] | None = None
        for got, _, suspects, _ in self.seen:
            suspects = suspects() if callable(suspects) else suspects
            if suspects:
                fit = [m for m, s in suspects.items() if (left is None or m in left) and self._fits(got, s)]
                left = dict.fromkeys(fit)
        return list(left or {})

    def _hints(self) -> Iterator[str]:
        """What all cases together say about an unknown mistake."""
        right = [self._same(got, want) for got, want, *_ in self.seen]
        for name in dict.fromkeys(name for simple in self.simple for name in simple):
            among = {
                yes: [r for r, s in zip(right, self.simple, strict=True) if s[name] is yes]
                for yes in (True, False)
            }
            if len(among[True]) > 1 and all(among[True]) and not any(among[False]):
                yield f"it is right wherever {name}, and wrong everywhere else: look there"
        pairs = [(plain(got), want) for got, want, *_ in self.seen]
        if len(pairs) > 3 and all(type(x) is int for pair in pairs for x in pair):
            off = {a - b for a, b in pairs}
            if len(off) == 1:
                yield f"every result is {abs(min(off))} too {'large' if min(off) > 0 else 'small'}"

    def _fits(self, got: Any, suspect: Any) -> bool:
        if callable(suspect):
            try:
                suspect = suspect()
            except Exception:  # a mistake that cannot even be made in this case
                return False
        return self._same(got, suspect)


def grows(answer: Answer, args: Sequence, more: Sequence, due: int, what: str) -> None:
    """For counts: what one thing more costs.

    Raises:
        Mistake: another number than `due`.
    """
    low, high = plain(call(answer, *args)), plain(call(answer, *more))
    if type(low) is int and type(high) is int and high - low != due:
        raise Mistake(
            f"{what} costs {high - low} in yours, and should cost {due} "
            f"(from {low} for {args} to {high} for {more})."
        )


def expect(
    got: Any, want: Any, case: str, suspects: Mapping[str, Any] | None = None, tolerance: float = 1e-4
) -> None:
    """For hidden tests: one case, and what is said about it.

    Raises:
        Mistake: got is not what we want.
    """
    cases = Cases(tolerance=tolerance)
    cases.add(got, want, suspects, case)
    cases.done("")


def same(a: Any, b: Any, tolerance: float = 1e-4) -> bool:
    """Whether two tensors agree, to a share `tolerance` of the largest number."""
    if not isinstance(a, Tensor) or not isinstance(b, Tensor) or a.shape != b.shape:
        return False
    a, b = a.detach().double(), b.detach().double()
    scale = max(1.0, float(b.abs().nan_to_num(0, 0, 0).amax())) if b.numel() else 1.0
    return torch.allclose(a, b, rtol=0, atol=tolerance * scale, equal_nan=True)


def difference(got: Any, want: Tensor, what: str) -> str:
    """How an answer differs from the tensor that it should be, in words."""
    if got is None:
        return f"{what} is None: is a `return` missing?"
    if not isinstance(got, Tensor):
        return f"{what} should be a tensor, got {shown(got)}"
    if got.shape != want.shape:
        return f"{what} has the shape {tuple(got.shape)}, expected {tuple(want.shape)}"
    if got.is_floating_point() and not bool(got.isfinite().all()) and bool(want.isfinite().all()):
        return f"{what} holds NaN or infinity"
    a, b = got.detach().double(), want.detach().double()
    if a.numel() > 1 and float(b.abs().amin()) > 0:
        ratio = a / b
        if float(ratio.std()) < 1e-4 and abs(float(ratio.mean())) > 1e-8:
            return f"{what} is {float(ratio.mean()):.4g} times what it should be, everywhere"
    if a.numel() > 1 and float((a - b).std()) < 1e-5:
        return f"{what} is off by {float((a - b).mean()):.4g} everywhere"
    if a.ndim >= 2:
        for axis, name in ((-1, "left and right"), (-2, "top and bottom")):
            if same(got.flip(axis), want):
                return f"{what} has {name} exchanged"
        if same(got.transpose(-1, -2), want):
            return f"{what} has rows and columns exchanged"
        if min(a.shape[-2:]) > 6 and same(got[..., 2:-2, 2:-2], want[..., 2:-2, 2:-2]):
            return f"{what} is right inside and wrong at the border: look at the padding"
    place = tuple(int(i) for i in torch.unravel_index((a - b).abs().argmax(), a.shape)) if a.ndim else ()
    at = f" at {list(place)}" if place else ""
    return f"{what} has the right shape and wrong values: {a[place]:.5g}{at}, expected {b[place]:.5g}"


def equal(a: Any, b: Any) -> bool:
    """Whether two plain values agree; a number of numpy, or in a tensor, is as good as Python's own."""
    a = plain(a)
    if isinstance(b, (tuple, list)):
        return isinstance(a, (tuple, list)) and len(a) == len(b) and all(map(equal, a, b))
    if isinstance(b, float):
        number = isinstance(a, (int, float))
        return number and (abs(a - b) <= 1e-5 * max(1, abs(b)) or (a != a and b != b))
    return type(a) is type(b) and a == b


def plain(value: Any) -> Any:
    """Numbers and lists as Python's own, whatever they come in: also what arrives from another process."""
    if isinstance(value, (Tensor, np.ndarray, np.generic)):
        return value.tolist()
    return list(value) if isinstance(value, range) else value


def whole(value: Any) -> Any:
    """The same with whole numbers for floats such as 3.0."""
    value = plain(value)
    if isinstance(value, (list, tuple)):
        return [whole(x) for x in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def shown(value: Any) -> str:
    """A value in a few characters: tensors by shape."""
    if isinstance(value, Tensor):
        kind = str(value.dtype).removeprefix("torch.")
        return f"a {kind} tensor {tuple(value.shape)}" if value.ndim else f"a tensor of {value.item():.5g}"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"a {value.dtype} array {tuple(value.shape)}"
    if callable(value):
        return getattr(value, "__name__", type(value).__name__)
    if isinstance(value, float):
        return str(value) if value.is_integer() and abs(value) < 1e15 else f"{value:.5g}"
    return SHORT.repr(value)


def integers(generator: torch.Generator, *bounds: tuple[int, int]) -> list[int]:
    """A random integer for each (low, high), both included."""
    return [int(torch.randint(low, high + 1, (), generator=generator)) for low, high in bounds]


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator)


def uniform(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=generator)


def one_of(generator: torch.Generator, choices: Sequence) -> Any:
    return choices[integers(generator, (0, len(choices) - 1))[0]]
