"""What is in a submitted notebook: the student's cells, and their answers in words."""

import json
from collections.abc import Sequence

from tools.assignments import nbgrader_of, part_of, text


def read(data: bytes) -> list[dict]:
    """The cells of a notebook.

    Raises:
        Exception: of any kind, as the bytes may be anything.
    """
    return json.loads(data.decode("utf-8"))["cells"]


def student_cells(cells: Sequence[dict]) -> list[dict]:
    """The code cells of a submission that are the student's: all but the tests, which the grader brings."""
    return [
        cell
        for cell in cells
        if cell.get("cell_type") == "code"
        and not (nbgrader_of(cell).get("grade") and not nbgrader_of(cell).get("solution"))
    ]


def words(cells: Sequence[dict], part: str) -> str:
    """The answer in words, or "" if it is as it was handed out."""
    found = [text(c) for c in cells if c.get("cell_type") == "markdown" and part_of(c) == part]
    answer = "\n\n".join(found).replace("YOUR ANSWER HERE", "").strip()
    return "" if answer in ("", "### BEGIN SOLUTION\n### END SOLUTION") else answer
