"""Write each chapter once more, with the code of its exercises' solutions as cells at its end, for the tests.

    python -m tools.solutions

On a page a solution is text behind a toggle, which nothing would run. `make test` runs these copies, in
_build/solved, in place of the chapters.
"""

import json
import re

from tools.notebooks import ROOT, dump

SOLVED = ROOT / "_build" / "solved"
SOLUTION = re.compile(r"^(`{3,})\{solution\} ([\w-]+)\n(.*?)^\1$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def solved(notebook: dict) -> dict:
    """The notebook, and behind it a cell for each piece of Python in its solutions."""
    prose = "\n".join("".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "markdown")
    cells = [
        {
            "cell_type": "code",
            "execution_count": None,
            "id": f"{solution[2]}-{number}",
            "metadata": {},
            "outputs": [],
            "source": code,
        }
        for solution in SOLUTION.finditer(prose)
        for number, code in enumerate(CODE.findall(solution[3]), start=1)
    ]
    return {**notebook, "cells": notebook["cells"] + cells}


def main() -> None:
    SOLVED.mkdir(parents=True, exist_ok=True)
    for old in SOLVED.glob("*.ipynb"):
        old.unlink()
    for path in sorted((ROOT / "book" / "chapters").glob("*.ipynb")):
        chapter = json.loads(path.read_text(encoding="utf-8"))
        (SOLVED / path.name).write_text(dump(solved(chapter)), encoding="utf-8")


if __name__ == "__main__":
    main()
