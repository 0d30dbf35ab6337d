"""The stored form of the chapters, and the check itself."""

import ast
import copy
import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT
from PIL import Image

from tools import notebooks, solutions
from u2learn import recipes
from u2learn.data.local import MissingDataset, find

CHAPTERS = sorted((ROOT / "book" / "chapters").glob("*.ipynb"))
LABS = sorted((ROOT / "book" / "labs").glob("*.ipynb"))


@pytest.mark.parametrize("path", CHAPTERS + LABS, ids=lambda path: path.stem)
def test_stored_form(path):
    assert notebooks.problems(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", CHAPTERS + LABS, ids=lambda path: path.stem)
def test_enough_outputs_are_compared(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert sum(notebooks.is_checked(cell) for cell in cells if cell["cell_type"] == "code") >= 5


@pytest.mark.parametrize("path", CHAPTERS + LABS, ids=lambda path: path.stem)
def test_what_is_asserted_does_not_depend_on_the_budget(path):
    """`make test` runs the notebooks with the smallest."""
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            for node in ast.walk(ast.parse("".join(cell["source"]))):
                if isinstance(node, ast.If) and "budget()" in ast.unparse(node.test):
                    assert not any(isinstance(inner, ast.Assert) for inner in ast.walk(node)), cell["id"]


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_parts_of_a_chapter(path):
    prose = [c for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "markdown"]
    text = "\n".join("".join(cell["source"]) for cell in prose)
    assert "After this chapter you can" in text
    for heading in ("## Summary", "## Exercises", "## Sources"):
        assert text.count(heading) == 1, f"{heading!r} is there {text.count(heading)} times"
    assert 3 <= text.count("{exercise}") == text.count("{solution}")
    assert "**Assignment.** In [Assignment" in text and "(../back/students.md)" in text


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_the_code_of_solutions_is_run(path):
    """What `make test` executes: the chapter, and behind it every line of Python that a solution shows."""
    chapter = json.loads(path.read_text(encoding="utf-8"))
    cells = solutions.solved(chapter)["cells"]
    assert cells[: len(chapter["cells"])] == chapter["cells"]
    run = "".join("".join(cell["source"]) for cell in cells[len(chapter["cells"]) :])
    text = "\n".join("".join(c["source"]) for c in chapter["cells"] if c["cell_type"] == "markdown")
    shown, inside, fence = [], False, False
    for line in text.splitlines():
        inside = line.startswith("````{solution}") or (inside and line != "````")
        fence = line == "```python" or (fence and line != "```")
        if inside and fence and line != "```python":
            shown.append(line)
    assert len(shown) > 10 and run.splitlines() == shown
    ids = [cell["id"] for cell in cells]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_no_verdict_is_typed_into_a_solution(path):
    """Numbers too, where the code is run: see tools/validation.py."""
    assert solutions.unproved(json.loads(path.read_text(encoding="utf-8"))) == []


EXERCISE = """```{exercise} One seed
:label: one-seed

How often is one of 5 seeds of DRIVE, STARE and CHASE_DB1 within 0.30 points?
```

````{solution} one-seed
:class: dropdown

Under a normal law:

```python
for dataset, share in shares.items():
    print(dataset, f"{share:.3f}", "decides" if share < 0.5 else "is better than a coin")
```

THE CONCLUSION
````"""


@pytest.mark.parametrize(
    ("conclusion", "typed"),
    [
        ("On STARE more often than not: a single run there says nothing.", "'more often'"),
        ("A single run there decides nothing, and never did.", "'never'"),
        ("A single run on STARE is clearly not enough.", "'clearly'"),
        ("It takes 25 seeds.", "'25'"),
        ("That happens in 29 % of the cases.", "'29'"),
        ("The share is 0.20 on STARE.", ""),
        ("On STARE that is 19.2 %, so about 19 % of the pairs of 5 seeds.", ""),
        ("A run that decides is the one that is printed; within 0.3 points.", ""),
        ("Two runs of 10 say less than all: see `17` and {cite}`someone2019`.", "'less than'"),
    ],
)
def test_a_conclusion_must_come_out_of_the_code(conclusion, typed):
    text = EXERCISE.replace("THE CONCLUSION", conclusion)
    chapter = {"cells": [{"cell_type": "markdown", "source": text}]}
    found = solutions.unproved(chapter, {"one-seed-1": "drive 0.000 decides\nstare 0.192 decides\n"})
    assert [claim.split(": ")[1].split(" is typed")[0] for claim in found] == ([typed] if typed else [])


@pytest.fixture
def parts_of_drive(tmp_path, monkeypatch):
    """A part of each photograph of DRIVE, from its left edge, in the place of all of it."""
    try:
        whole = find("drive")
    except MissingDataset as error:
        pytest.skip(str(error))
    for path in [*whole.rglob("*.tif"), *whole.rglob("*.gif")]:
        target = tmp_path / "DRIVE" / path.relative_to(whole)
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as picture:
            grey = path.suffix == ".gif"  # a drawing or a mask
            (picture.convert("L") if grey else picture).crop((0, 150, 256, 406)).save(target, "PNG")
    monkeypatch.setenv("U2LEARN_DATA", str(tmp_path))
    assert recipes.get("drive-small").examples("test")[0].image.shape == (3, 256, 256)


@pytest.mark.slow
def test_a_chapter_says_the_same_of_real_photographs(parts_of_drive):
    """Elsewhere chapters run as published, on drawn pictures; a reader who has DRIVE trains on it."""
    chapter = "book/chapters/training-on-vessels.ipynb"
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--nbval-lax", "--nbval-current-env", chapter],
        cwd=ROOT,
        env={**os.environ, "U2LEARN_BUDGET": "smoke", "U2LEARN_PUBLISH": "0"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-3000:]


GOOD = {
    "cells": [
        {"cell_type": "markdown", "id": "title", "metadata": {}, "source": ["# 1. A title"]},
        {
            "cell_type": "code",
            "id": "one-and-one",
            "metadata": {"tags": [notebooks.CHECKED]},
            "source": ["1 + 1"],
            "execution_count": 1,
            "outputs": [
                {
                    "output_type": "execute_result",
                    "execution_count": 1,
                    "metadata": {},
                    "data": {"text/plain": ["2"]},
                }
            ],
        },
        {
            "cell_type": "code",
            "id": "plot",
            "metadata": {},
            "source": ["plot()"],
            "execution_count": None,
            "outputs": [],
        },
    ],
    "metadata": notebooks.METADATA,
    "nbformat": 4,
    "nbformat_minor": 5,
}


def broken(change) -> str:
    notebook = copy.deepcopy(GOOD)
    change(notebook)
    return notebooks.dump(notebook)


def test_a_good_notebook_passes():
    assert notebooks.problems(notebooks.dump(GOOD)) == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda n: n["cells"][2].update(outputs=GOOD["cells"][1]["outputs"]), "stored form"),
        (lambda n: n["cells"][2].update(execution_count=3), "stored form"),
        (lambda n: n["cells"][1]["outputs"][0]["data"].update({"image/png": "iVBO"}), "stored form"),
        (lambda n: n["metadata"]["language_info"].update(version="3.11.7"), "stored form"),
        (lambda n: n["cells"][2]["metadata"].update(collapsed=True), "stored form"),
        (lambda n: n["cells"][0].update(source=["# 1. A title  \n", "\n"]), "stored form"),
        (lambda n: n["cells"][0].update(id="0a1b2c3d"), "says nothing"),
        (lambda n: n["cells"][0].update(id="deadbeef"), "says nothing"),
        (lambda n: n["cells"][0].update(id="d2fbd3a9-94c2-4f3e-9a10-0d2e4e0b7c55"), "says nothing"),
        (lambda n: n["cells"][0].update(id="VSC-Id"), "says nothing"),
        (lambda n: n["cells"][0].update(id="plot"), "twice"),
        (
            lambda n: n["cells"][1]["outputs"][0]["data"].update({"text/plain": ["'/home/me/data'"]}),
            "path of one machine",
        ),
        (lambda n: n["cells"][2].update(source=["open('/Users/me/x.png')"]), "path of one machine"),
        (lambda n: n["cells"][1].update(outputs=[]), "nothing is compared"),
        (lambda n: n["cells"][1].update(execution_count=None), "nothing is compared"),
        (lambda n: n["cells"][2].update(source=["!pip install u2learn"]), "only IPython"),
        (lambda n: n["cells"][2].update(source=["%matplotlib inline"]), "only IPython"),
    ],
)
def test_each_fault_is_found(change, complaint):
    assert complaint in "\n".join(notebooks.problems(broken(change)))


def test_tidying_mends_what_can_be_mended():
    def spoil(notebook):
        notebook["cells"][2].update(execution_count=7, outputs=GOOD["cells"][1]["outputs"])
        notebook["cells"][1]["outputs"][0]["data"]["image/png"] = "iVBO"
        notebook["metadata"] = {"kernelspec": {"name": "mine"}, "colab": {}}

    assert notebooks.tidy(json.loads(broken(spoil))) == GOOD
