"""Write each chapter once more, with the code of its exercises' solutions as cells at its end, for the tests.

    python -m tools.solutions

A solution is text that is folded, which nothing would run. `make test` runs these copies, in
_build/solved, in place of the chapters. What the text of a solution claims about its own code must come out
of that code: `unproved` finds what does not.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tools.notebooks import ROOT, dump
from tools.references import LINK

SOLVED = ROOT / "_build" / "solved"
# A heading, the text, and the answer in <details>; no other heading of a chapter stands in between.
EXERCISE = re.compile(
    r"^### Exercise(?: \d+\.\d+)?\. (?P<title>[^\n]+)\n(?P<text>(?:(?!^##).)*?)"
    r"^<details>\n<summary>Solution</summary>\n(?P<answer>.*?)^</details>$",
    re.MULTILINE | re.DOTALL,
)
CODE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
STRING = re.compile(r"\"[^\"\n]*\"|'[^'\n]*'")
NUMBER = re.compile(r"(?<![\w.])\d+(?:,\d{3})*(?:\.\d+)?")
SENTENCE = re.compile(r"(?<=[.:;?!])\s+")
COUNTED = 10  # up to here a number may count things of the text: "of the two", "a 3x3 kernel"
VERDICT = re.compile(
    r"\b(better|worse|more often|less often|wins?|loses?|beats?|decides?|ahead|behind|improves?"
    r"|clearly|by far|hardly|never|always|as good as|less than|nothing is left)\b",
    re.IGNORECASE,
)
# Solutions with such words that no run could refute, and why.
REASONED = {
    "unpooling-in-place-of-skips": "a count: the map has one number in a cell of four",
    "focal-loss": "the loss of a sure pixel is multiplied by nearly nothing: a formula",
    "iou-as-a-loss": "Dice and IoU of one pair of masks rank alike: a formula",
    "the-third-order": "a mean of maxima is not below the maximum of the mean",
    "a-suspicious-row": "IoU = Dice / (2 - Dice) is not above Dice",
}


@dataclass(frozen=True)
class Exercise:
    title: str
    text: str
    answer: str

    @property
    def name(self) -> str:
        """As "how-many-seeds": what the cells with its solution are called."""
        return re.sub("[^a-z0-9]+", "-", re.sub("['’]", "", self.title.lower())).strip("-")

    @property
    def code(self) -> list[str]:
        """The pieces of Python in the answer."""
        return CODE.findall(self.answer)


def solved(notebook: dict) -> dict:
    """The notebook, and behind it a cell for each piece of Python in its solutions."""
    cells: list[dict[str, Any]] = [
        {
            "cell_type": "code",
            "execution_count": None,
            "id": f"{exercise.name}-{number}",
            "metadata": {},
            "outputs": [],
            "source": code,
        }
        for exercise in exercises(notebook)
        for number, code in enumerate(exercise.code, start=1)
    ]
    return {**notebook, "cells": notebook["cells"] + cells}


def exercises(notebook: dict) -> list[Exercise]:
    return [Exercise(**match.groupdict()) for match in EXERCISE.finditer(prose(notebook))]


def prose(notebook: dict) -> str:
    return "\n".join("".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "markdown")


def printed(outputs: Iterable[Mapping[str, Any]]) -> str:
    """The text that a cell left behind."""
    texts = []
    for output in outputs:
        data = output.get("data", {})
        texts += [output.get("text", ""), data.get("text/plain", ""), data.get("text/markdown", "")]
    return "\n".join("".join(text) for text in texts)


def unproved(notebook: dict, said: Mapping[str, str] | None = None) -> list[str]:
    """What solutions with code claim in words, and neither their code nor their exercise says.

    A verdict ("more often than not") has to be printed by the code, or be REASONED. So has a number, up to
    rounding, unless it stands in the exercise or the code; numbers are looked at if `said` has what the cells
    of `solved` printed, by their ids.
    """
    found = []
    for exercise in exercises(notebook):
        name, pieces = exercise.name, exercise.code
        if not pieces:
            continue
        code = "\n".join(pieces)
        own = [said.get(f"{name}-{i}", "") for i in range(1, len(pieces) + 1)] if said else []
        shown = "\n".join([*STRING.findall(code), *own]).lower()
        words = LINK.sub("", CODE.sub("", exercise.answer))
        known = [value for _, value in numbers("\n".join([exercise.text, code, *own]))]
        for sentence in SENTENCE.split(" ".join(words.split())):
            claims = [m[0] for m in VERDICT.finditer(sentence) if m[0].lower() not in shown]
            typed = [] if name in REASONED else claims
            if said:
                plain = re.sub(r"`[^`]*`", "", sentence)
                typed += [
                    digits
                    for digits, value in numbers(plain)
                    if value > COUNTED and not any(rounds_to(other, digits) for other in known)
                ]
            found += [f"{name}: {it!r} is typed, and its code does not print it: {sentence}" for it in typed]
    return found


def numbers(text: str) -> list[tuple[str, float]]:
    """The numbers in a text, each as it stands there and its value."""
    return [(match, float(match.replace(",", ""))) for match in NUMBER.findall(text)]


def rounds_to(result: float, digits: str) -> bool:
    """Whether a number rounds to the one in the text, as it is or in per cent."""
    places = len(digits.partition(".")[2])
    value = float(digits.replace(",", ""))
    return any(abs(value - scale * result) <= 0.5001 * 10**-places for scale in (1, 100))


def main() -> None:
    SOLVED.mkdir(parents=True, exist_ok=True)
    for old in SOLVED.glob("*.ipynb"):
        old.unlink()
    for path in sorted((ROOT / "book" / "chapters").glob("*.ipynb")):
        chapter = json.loads(path.read_text(encoding="utf-8"))
        (SOLVED / path.name).write_text(dump(solved(chapter)), encoding="utf-8")


if __name__ == "__main__":
    main()
