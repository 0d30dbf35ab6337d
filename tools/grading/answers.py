"""What is in a submitted notebook: the student's cells, and their answers in words."""

import ast
import io
import json
import re
import zipfile
from collections.abc import Sequence
from pathlib import PurePosixPath

from tools.assignments import GRADE_ID, Assignment, grade_id, nbgrader_of, part_of, released, text

LARGEST = 100_000_000  # bytes of a notebook, unpacked; pictures in outputs make some of them large
VALUES = 3_000_000  # in a notebook: in memory each takes a hundred bytes or two
MOST_CELLS = 10_000
MEMBERS = 10_000  # of a zip file
PLACE = "YOUR ANSWER HERE"
LIMIT = re.compile(r"(\d+) to (\d+) words")  # how a question says how long an answer should be
LONGEST = 10_000  # characters of a code cell that may be an answer in words


class NotANotebook(ValueError):
    """The bytes are no notebook; the text says what they are, in a sentence for the person who grades."""


def read(data: bytes) -> list[dict]:
    """The cells of a notebook, or of the only one in a zip file: each with a type, a source and metadata.

    Raises:
        NotANotebook: it is something else, whatever it is.
    """
    found = unpacked(data)
    if len(found) != 1:
        raise NotANotebook(f"This zip file holds {len(found)} notebooks, and one is due.")
    (data,) = found.values()
    if not data.strip():
        raise NotANotebook("This file is empty.")
    if sum(map(data.count, b"[{,")) > VALUES:
        raise NotANotebook(f"This file holds more than {VALUES:,} values, and was not read.")
    try:
        notebook = json.loads(decoded(data))
    except (ValueError, RecursionError, MemoryError):
        raise NotANotebook("This file is no notebook: it is not JSON, as every .ipynb is.") from None
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if isinstance(cells, list) and len(cells) > MOST_CELLS:
        raise NotANotebook(f"This notebook has more than {MOST_CELLS:,} cells, and was not read.")
    mine = [settled(cell) for cell in cells if isinstance(cell, dict)] if isinstance(cells, list) else []
    if not mine:
        raise NotANotebook("This file is no notebook: it has no cells.")
    return mine


def unpacked(data: bytes) -> dict[str, bytes]:
    """The notebooks in a zip file by their names; what is no zip file is given back under the name "".

    Raises:
        NotANotebook: the zip file is broken, locked, or larger than `LARGEST`.
    """
    if not data.startswith(b"PK\x03\x04"):
        return {"": data}
    if data.count(b"PK\x01\x02") > MEMBERS:
        raise NotANotebook(f"This zip file holds more than {MEMBERS:,} files.")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [m for m in archive.infolist() if is_notebook(PurePosixPath(m.filename))]
            found, left = {}, LARGEST
            for member in members:
                with archive.open(member) as file:
                    found[member.filename] = file.read(left + 1)  # a header may lie about the size
                left -= len(found[member.filename])
                if left < 0:
                    raise NotANotebook(f"This zip file holds more than {LARGEST:,} bytes.")
            return found
    except NotANotebook:
        raise
    except Exception as error:  # zipfile raises a dozen kinds, as the bytes may be anything
        raise NotANotebook(f"This zip file cannot be read ({type(error).__name__}).") from None


def is_notebook(path: PurePosixPath) -> bool:
    return path.suffix.lower() == ".ipynb" and not is_hidden(path)


def is_hidden(path: PurePosixPath) -> bool:
    """Whether a system or Jupyter put it there: .ipynb_checkpoints, __MACOSX, .DS_Store."""
    return any(part.startswith((".", "__")) for part in path.parts)


def decoded(data: bytes) -> str:
    """The text of a file in UTF-8, UTF-16 or UTF-32, with a mark at its beginning or none, or in Latin-1."""
    try:
        return data.decode(json.detect_encoding(data))
    except UnicodeDecodeError:
        return data.decode("latin-1")


def settled(cell: dict) -> dict:
    """A cell that has all that is asked of one, whatever the notebook has there."""
    source = cell.get("source")
    lines = source if isinstance(source, list) else [source]
    joined = "".join(line for line in lines if isinstance(line, str))
    metadata = cell.get("metadata")
    return {
        "cell_type": str(cell.get("cell_type")),
        "metadata": metadata if isinstance(metadata, dict) else {},
        "source": joined.encode("utf-8", "replace").decode("utf-8"),  # halves of characters go
    }


def student_cells(cells: Sequence[dict]) -> list[dict]:
    """The code cells of a submission that are the student's: all but the tests, which the grader brings."""
    return [cell for cell in cells if cell["cell_type"] == "code" and not is_locked(cell)]


def is_locked(cell: dict) -> bool:
    """Whether a cell holds a test."""
    data = nbgrader_of(cell)
    return bool(data.get("grade") and not data.get("solution"))


def words(cells: Sequence[dict], assignment: Assignment, part: str) -> str:
    """The answer in words; "" where none is found, which a person should look at.

    It is all text between the question and the next test that was not handed out: in the cell that is there
    for it, in another one, of whatever type, below the question itself. Students move and change cells, and
    editors lose their metadata.
    """
    handed_out = released(assignment.cells)["cells"]
    asked = question_of(assignment, part).partition("\n")[0].strip()
    begin = next(
        (i for i, c in enumerate(cells) if text(c).strip().partition("\n")[0].strip() == asked), None
    )
    within = begin is not None
    if begin is None:
        begin = next((i for i, c in enumerate(cells) if part_of(c) == part), None)
    if begin is None:
        begin = max((i + 1 for i, c in enumerate(cells) if is_locked(c) and before(c, part)), default=0)
    end = next((i for i in range(begin, len(cells)) if is_locked(cells[i])), len(cells))
    known = {line.strip() for c in handed_out for line in text(c).splitlines()} - {""}
    found = []
    for i, cell in enumerate(cells):
        mine = part_of(cell) == part
        if mine or (begin <= i < end and is_text(cell, code_too=within)):
            lines = [line for line in text(cell).splitlines() if line.strip() not in known]
            found.append("\n".join(lines).replace(PLACE, "").strip())
    return "\n\n".join(filter(None, found))


def question_of(assignment: Assignment, part: str) -> str:
    """What an answer in words is asked for: the text of the cell before its own."""
    place = next(i for i, cell in enumerate(assignment.cells) if part_of(cell) == part)
    return text(assignment.cells[place - 1]).strip()


def before(cell: dict, part: str) -> bool:
    """Whether a test belongs to an earlier part."""
    found = GRADE_ID.fullmatch(grade_id(cell))
    return found is not None and int(found[2]) < int(part.partition(".")[2])


def is_text(cell: dict, code_too: bool) -> bool:
    """Whether a cell is for people to read; `code_too`: or a code cell into which somebody wrote text."""
    if cell["cell_type"] != "code":
        return True
    source = text(cell)
    if not code_too or len(source) > LONGEST or source.lstrip().startswith(("%", "!")):
        return False
    try:
        statements = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return True
    return all(
        isinstance(s, ast.Expr) and (isinstance(s.value, ast.Name) or is_string(s.value)) for s in statements
    )


def is_string(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def count(answer: str) -> int:
    """How many words it has."""
    return len(answer.split())


def limit_of(question: str) -> tuple[int, int] | None:
    """How many words a question asks for, from and to; None if it does not say."""
    found = LIMIT.search(question)
    return (int(found[1]), int(found[2])) if found else None
