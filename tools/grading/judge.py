"""Judge the network of the project: how good it is on secret eyes, how large, and what it cost.

No word of the submission is believed. What is asked of whom, in this order:

1. The notebook's cells ran in a process of their own; its processor time was counted from outside, over all
   cells, threads and children. The code of the cells must be short, so that it holds no weights.
2. The numbers in `net.state_dict()` travel to this side and are counted here, four bytes each. From this
   moment on the network is fixed; the time is what was used until now.
3. A fresh process gets the notebook's imports, functions, classes and constants, but runs no cell. There
   `make_net()` makes the network anew, the numbers are loaded into it, and `segment_image` is asked for each
   eye. It cannot know anything that the numbers do not hold, whatever a cell had made, kept or hidden, and
   has no time to learn it. Names and shapes hold nothing either: they must be those that make_net() gives.
4. The first process is asked for the same eyes in the other order and must give the same answers. So no
   answer depends on other eyes than its own.

The eyes come from the course's secret and this process alone makes them. Only images leave it. All students
of a course meet the same eyes. What a submission says about them is kept back, or it could carry them out
in its error messages, piece by piece. The eye 100, which all may see, is asked first and tells what is wrong.
"""

import ast
import contextlib
import hmac
import zlib
from collections.abc import Sequence
from datetime import datetime, timezone
from functools import cache, partial
from typing import Any, Protocol, TypedDict

import numpy as np
import torch
from torch import Tensor

from u2learn.checks.core import Mistake
from u2learn.checks.project import judged, load, repeated, segmented, weights_of
from u2learn.checks.reading import statements
from u2learn.data import Example, fundus
from u2learn.project import CODE, SECONDS, SIZE, dice, known

EYES = 20
BUILD = 5  # seconds for the definitions and make_net() in the fresh process
IMAGE = 1  # seconds for segment_image, on average
NAMES = """\
amber azure brave bright brisk calm clever coral crisp curious daring eager early fair gentle glad
badger beaver bison crane cricket deer dolphin eagle falcon finch gecko hare heron koala lark lynx otter"""


class Score(TypedDict):
    """What the leaderboard says about a network that passed."""

    name: str  # a pseudonym
    dice: float  # of the vessels, pixel totals over the secret eyes, threshold 1/2
    low: float  # and its 95 % interval, if other eyes were drawn
    high: float
    baseline: float  # Dice of the baseline on these eyes
    parameters: int  # numbers in the state_dict
    seconds: float  # processor time of all cells, on the reference machine
    date: str  # as 2026-11-29


class Process(Protocol):
    """What the judge asks of a session: see run.py."""

    sources: Sequence[str]  # of the cells

    @property
    def spent(self) -> float: ...

    def get(self, name: str) -> Any: ...

    def fresh(self, sources: Sequence[str]) -> Any: ...


class Judge:
    """Given to a hidden test as `judge`: `judge(net, segment_image)` prints what it found.

    secret: the course's, without which anybody could draw the eyes; key: the student's, made from it.

    Attributes:
        score: for the leaderboard, once the network has passed.
    """

    def __init__(self, session: Process, secret: bytes, key: bytes):
        self.session, self.secret, self.key = session, secret, key
        self.score: Score | None = None

    def __call__(self, net: Any, segment: Any) -> None:
        """Judge the network.

        Raises:
            AssertionError: it is against the rules, or not better than the baseline; in words for a student.
        """
        try:
            self.score = self._judged(net, segment)
        except Mistake as mistake:
            raise AssertionError(str(mistake)) from None
        e = self.score
        print(
            f"✓ Dice {e['dice']:.3f} ({e['low']:.3f} to {e['high']:.3f}) on {EYES} secret eyes, the baseline "
            f"has {e['baseline']:.3f}; {e['parameters']:,} numbers, {e['seconds']:.0f} of {SECONDS} seconds. "
            f"On the leaderboard you are {e['name']}."
        )

    def _judged(self, net: Any, segment: Any) -> Score:
        short(self.session.sources)
        weights = weights_of(net)
        seconds = self.session.spent
        if seconds > SECONDS:
            raise Mistake(
                f"your cells used {seconds:.1f} seconds of processor time (of all threads, on the reference "
                f"machine); that is {seconds - SECONDS:.1f} over the {SECONDS} that are allowed."
            )
        eyes = secret_eyes(self.secret)
        with contextlib.closing(self.session.fresh(definitions(self.session.sources))) as fresh:
            try:
                answers = answered(fresh, weights, eyes)
            except Mistake as mistake:
                raise Mistake(
                    f"in a fresh process, which has your imports, functions, classes and constants, and the "
                    f"numbers of `net`: {mistake}"
                ) from None
        try:
            repeated(partial(secretly, net, segment), answers, eyes)
        except Mistake as mistake:
            raise Mistake(
                f"asked in a fresh process, which has your functions and the numbers of `net` alone, and "
                f"then in your notebook: {mistake} Nothing but `net` may carry what was learned."
            ) from None
        counted, baseline = judged(answers, eyes)
        low, high = interval(counted)
        return {
            "name": pseudonym(self.key),
            "dice": dice(counted),
            "low": low,
            "high": high,
            "baseline": baseline,
            "parameters": sum(x.numel() for x in weights.values()),
            "seconds": seconds,
            "date": datetime.now(timezone.utc).date().isoformat(),
        }


def short(sources: Sequence[str]) -> None:
    """See that the code of the cells is too short to hold weights.

    Raises:
        Mistake: it is not.
    """
    code = "\n".join(sources).encode(errors="replace")
    size = len(zlib.compress(code, 9))
    if size > CODE or len(code) > 20 * CODE:
        raise Mistake(
            f"the code of your cells has {len(code):,} bytes, and {size:,} when compressed (zlib); "
            f"{20 * CODE:,} and {CODE:,} are allowed. Weights do not belong in a notebook: train them there."
        )


def definitions(sources: Sequence[str]) -> list[str]:
    """Of all cells: imports, functions, classes, and names that are given to a constant, a lambda or a name.

    Each stands alone, so that one that fails, as it needs what a cell has made, costs no other.
    """
    found = []
    for source in sources:
        found += [ast.unparse(node) for node in statements(source) if defines(node)]
    return found


def defines(node: ast.stmt) -> bool:
    match node:
        case ast.Import() | ast.ImportFrom() | ast.FunctionDef() | ast.ClassDef():
            return True
        case ast.Assign(value=ast.Lambda() | ast.Name() | ast.Attribute()):
            return True
        case ast.Assign(value=value):
            with contextlib.suppress(ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
                ast.literal_eval(value)
                return True
    return False


def answered(fresh: Any, weights: dict[str, Tensor], eyes: Sequence[Example]) -> list[Tensor]:
    """Ask a fresh process, in which nothing was trained.

    Raises:
        Mistake: it does not get along with what it has, or takes too long.
    """
    copy = load(weights, fresh.get("make_net"))
    built = fresh.spent
    if built > BUILD:
        raise Mistake(f"the definitions and make_net() took {built:.1f} seconds, {BUILD} are allowed.")
    segment = fresh.get("segment_image")
    segmented(copy, segment, known(100))
    answers = [secretly(copy, segment, eye) for eye in eyes]
    each = (fresh.spent - built) / len(eyes)
    if each > IMAGE:
        raise Mistake(f"segment_image took {each:.1f} seconds for an eye, {IMAGE} is allowed.")
    return answers


def secretly(net: Any, segment: Any, eye: Example) -> Tensor:
    """`segmented`, but not a word of the submission gets out.

    Raises:
        Mistake: what it gives is no prediction.
    """
    try:
        return segmented(net, segment, eye)
    except Mistake:
        raise Mistake("segment_image fails on a secret eye. It did not fail on the eye 100.") from None


@cache
def secret_eyes(secret: bytes) -> list[Example]:
    """The eyes of a course. Neither their seeds nor what is done to them can be guessed: 128 bits each."""
    return [secret_eye(hmac.digest(secret, f"eye {i}".encode(), "sha256")) for i in range(EYES)]


def secret_eye(key: bytes) -> Example:
    """An eye as any other, but none that `fundus` gives: perhaps upside down, in another light, noisier.

    All of this varies by more from one drawn eye to the next, so that a network sees no difference; and who
    had the seed would not have the picture.
    """
    eye = fundus(int.from_bytes(key[:16], "big"), SIZE)
    rng = np.random.default_rng(int.from_bytes(key[16:], "big"))
    turn = slice(None, None, -1 if rng.random() < 0.5 else 1)
    light = rng.uniform(0.96, 1.04, (3, 1, 1))
    noisy = np.clip(eye.image * light + rng.normal(0, 1, eye.image.shape), 0, 255).astype(np.uint8)
    image = np.where(eye.field, noisy, eye.image)[:, turn]
    return Example("secret", image.copy(), eye.label[turn].copy())


def interval(counted: Tensor) -> tuple[float, float]:
    """Where 95 % of the Dice lie if the eyes are drawn again from these (bootstrap, 2000 times)."""
    g = torch.Generator().manual_seed(0)
    drawn = torch.randint(len(counted), (2000, len(counted)), generator=g)
    each = counted[drawn].sum(1).double()  # (2000, 2, 2)
    found = 2 * each[:, 1, 1] / (2 * each[:, 1, 1] + each[:, 0, 1] + each[:, 1, 0])
    low, high = found.quantile(torch.tensor([0.025, 0.975], dtype=torch.double)).tolist()
    return low, high


def pseudonym(key: bytes) -> str:
    """A name that says nothing about a student, and stays the same in a course."""
    number = int.from_bytes(hmac.digest(key, b"pseudonym", "sha256")[:8], "big")
    chosen = []
    for words in map(str.split, NAMES.splitlines()):
        number, which = divmod(number, len(words))
        chosen.append(words[which])
    return f"{' '.join(chosen)} {number % 90_000 + 10_000}".capitalize()
