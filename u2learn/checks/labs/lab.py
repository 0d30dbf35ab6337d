"""A lab as a reader has it: a run with a bug, a verdict on it, and a mended line that is tried at once."""

from __future__ import annotations

import html
import inspect
import sys
import textwrap
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from u2learn.checks.core import GREEN, PLAIN, YELLOW, Mistake, NotYet
from u2learn.checks.labs.bench import Run
from u2learn.console import print_anywhere

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Suspicion:
    """What may be wrong, and in one sentence why the symptom fits that or does not."""

    text: str
    why: str
    right: bool = False


@dataclass(frozen=True)
class Bug:
    """A script with one wrong line.

    script: called with what `data(seed)` gives, and with the seed. wrong, mended: the line, and ours in its
    place. check: of a mended run and its seed; says in what it is right, or raises Mistake. draw: the picture
    of the run, and of the mended one where there is one.
    """

    script: Callable[..., Run]
    data: Callable[[int], Sequence[Any]]
    wrong: str
    mended: str
    suspicions: Sequence[Suspicion]
    hints: Sequence[str]
    check: Callable[[Run, int], str]
    draw: Callable[[Run, Run | None, int], Figure]


class Suspicions:
    """A list with letters. Where HTML is shown, each can be opened: there stands whether it fits."""

    def __init__(self, items: Sequence[Suspicion]):
        self.items = dict(zip("abcdefgh", items, strict=False))

    def __repr__(self) -> str:
        return "\n".join(f"{letter}  {item.text}." for letter, item in self.items.items())

    def _repr_html_(self) -> str:
        rows = [
            f"<details><summary>{letter}. {html.escape(item.text)}.</summary>"
            f"<p>{'It fits' if item.right else 'It does not fit'}: {html.escape(item.why)}</p></details>"
            for letter, item in self.items.items()
        ]
        return "\n".join(rows)


class Lab:
    """A broken training that has run.

    run: what the script left behind, to look into. The script itself is shown after the right verdict, or by
    `source`.
    """

    def __init__(self, number: int, bug: Bug, seed: int = 0):
        print_anywhere()
        self.number, self.seed, self._bug = number, seed, bug
        self.run = bug.script(*bug.data(seed), seed)
        self._mended: Run | None = None
        self._hints = 0

    def __repr__(self) -> str:
        return f"Lab {self.number}: {len(self.run.losses)} steps were trained, without an error message."

    def symptom(self) -> Figure:
        """The picture of the run."""
        return self._bug.draw(self.run, None, self.seed)

    def suspicions(self) -> Suspicions:
        """What may be wrong, with a letter each. One is right."""
        return Suspicions(self._bug.suspicions)

    def hint(self) -> None:
        """Print the next hint."""
        hints = self._bug.hints
        if self._hints == len(hints):
            print(f"There are no more hints. lab.source() shows the script of lab {self.number}.")
            return
        print(f"Hint {self._hints + 1} of {len(hints)}: {hints[self._hints]}")
        self._hints += 1

    def verdict(self, letter: str) -> None:
        """Judge a suspicion, by its letter. The right one shows the script.

        Raises:
            NotYet: another one; the message says why the symptom does not fit it.
        """
        letter = letter.strip().lower()
        if not letter:
            print(f"{YELLOW}○ {self._name('verdict')}: write the letter of your suspicion.{PLAIN}")
            return
        items = self.suspicions().items
        if letter not in items:
            raise NotYet(f"✗ {self._name('verdict')}: {letter!r} is none of the letters {', '.join(items)}.")
        item = items[letter]
        if not item.right:
            raise NotYet(f"✗ {self._name('verdict')}: {item.text}? It does not fit: {item.why}")
        print(f"{GREEN}✓ {self._name('verdict')}: {item.text}. It fits: {item.why}{PLAIN}\n")
        self.source()

    def source(self) -> None:
        """Print the script with the numbers of its lines."""
        for number, line in enumerate(self._lines(), start=1):
            print(f"{number:2}  {line}".rstrip())

    def mend(self, number: int, text: str) -> Figure | None:
        """Train again with `text` in the place of the line `number`, and check what comes out.

        text: one line, or several; they are indented as the line was. It may use functions of the notebook.
        Returns the picture of both runs, or None where no text is given.

        Raises:
            NotYet: the script no longer runs, or is not right yet; the message says why.
        """
        name = self._name("mended line")
        if not text.strip():
            print(f"{YELLOW}○ {name}: give a line's number, and what it should be.{PLAIN}")
            return None
        try:
            run = self._with(number, text)
            proof = self._bug.check(run, self.seed)
        except Mistake as mistake:
            raise NotYet(f"✗ {name}: {mistake}") from None
        self._mended = run
        print(f"{GREEN}✓ {name}: {proof}{PLAIN}")
        return self.mended()

    def mended(self) -> Figure:
        """The picture of the broken run and of the mended one: yours, or ours where there is none yet."""
        if self._mended is None:
            self._mended = self._with(self._wrong_line(), self._bug.mended)
        return self._bug.draw(self.run, self._mended, self.seed)

    def _name(self, what: str) -> str:
        return f"Lab {self.number}, {what}"

    def _lines(self) -> list[str]:
        return inspect.getsource(self._bug.script).splitlines()

    def _wrong_line(self) -> int:
        return [line.strip() for line in self._lines()].index(self._bug.wrong) + 1

    def _with(self, number: int, text: str) -> Run:
        """The run of the script with a line replaced.

        Raises:
            Mistake: there is no such line, or the script stops.
        """
        lines, script = self._lines(), self._bug.script
        if not 1 < number <= len(lines) or not lines[number - 1].strip():
            raise Mistake(f"there is no line {number} that can be replaced: lab.source() shows the numbers.")
        old = lines[number - 1]
        if " ".join(text.split()) == " ".join(old.split()):
            raise Mistake(f"line {number} is as it was.")
        indent = old[: len(old) - len(old.lstrip())]
        new = textwrap.indent(textwrap.dedent(text).strip(), indent).splitlines()
        code = "\n".join([*lines[: number - 1], *new, *lines[number:]])
        file = f"<lab {self.number}>"
        names = vars(sys.modules["__main__"]) | script.__globals__  # the reader may have written a function
        try:
            exec(compile(code, file, "exec", dont_inherit=True), names)
            run = names[script.__name__](*self._bug.data(self.seed), self.seed)
        except SyntaxError as error:
            raise Mistake(f"this is no Python: {error.msg} in `{(error.text or '').strip()}`.") from None
        except Exception as error:
            frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
            at = code.splitlines()[(frames[-1].lineno or 1) - 1].strip()
            says = str(error).split("\n")[0][:300]
            raise Mistake(f"the script stops at `{at}` with {type(error).__name__}: {says}") from None
        if not isinstance(run, Run):
            raise Mistake("the script no longer reaches its last line, which returns the run.")
        return run
