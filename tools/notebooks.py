"""The stored form of a chapter: what is compared is kept, everything else that a run leaves behind is not.

    python -m tools.notebooks [--check] [NOTEBOOK ...]

Without names: all chapters and assignments. Rewrites the notebooks, or, with --check, only says what is
wrong. What no tool can mend (an id that says nothing, a path of somebody's machine) is said in both cases.
"""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STORED = ("book/chapters/*.ipynb", "book/labs/*.ipynb", "exercises/[0-9]*/*.ipynb")
CHECKED = "nbval-check-output"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
CELL_METADATA = {"cellView", "jupyter", "mystnb", "nbgrader", "tags"}
SLUG = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
RANDOM_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f-]+)?")  # what Jupyter and nbformat make up
WIDTH = 84  # characters of code that a page of the site shows at 1280 pixels
# Files that still show wider code; the list only gets shorter.
LONGER = {
    "book/chapters/blocks.ipynb",
    "book/chapters/convolution.ipynb",
    "book/chapters/down-and-up.ipynb",
    "book/chapters/exported.ipynb",
    "book/chapters/fast.ipynb",
    "book/chapters/heads.ipynb",
    "book/chapters/images-and-masks.ipynb",
    "book/chapters/losses.ipynb",
    "book/chapters/metrics.ipynb",
    "book/chapters/own-images.ipynb",
    "book/chapters/receptive-field.ipynb",
    "book/chapters/reported-and-ours.ipynb",
    "book/chapters/reproduce.ipynb",
    "book/chapters/rsu.ipynb",
    "book/chapters/saliency-metrics.ipynb",
    "book/chapters/scaled-out.ipynb",
    "book/chapters/street-scenes.ipynb",
    "book/chapters/training-on-vessels.ipynb",
    "book/chapters/training-u2net.ipynb",
    "book/chapters/u2net.ipynb",
    "book/chapters/unet.ipynb",
    "book/labs/broken-unets.ipynb",
    "u2learn/batches.py",
    "u2learn/comparison.py",
    "u2learn/costs.py",
    "u2learn/data/augment.py",
    "u2learn/data/cityscapes.py",
    "u2learn/data/example.py",
    "u2learn/inference.py",
    "u2learn/losses.py",
    "u2learn/metrics/overlap.py",
    "u2learn/metrics/possible.py",
    "u2learn/metrics/saliency.py",
    "u2learn/models/blocks.py",
    "u2learn/models/conv.py",
    "u2learn/models/encoder.py",
    "u2learn/models/heads.py",
    "u2learn/models/official.py",
    "u2learn/models/rsu.py",
    "u2learn/models/u2net.py",
    "u2learn/models/ulevel.py",
    "u2learn/models/unet.py",
    "u2learn/optimisers.py",
    "u2learn/training.py",
}
FENCED = re.compile(r"^[ >]*(`{3,})[^\n]*\n(.*?)^[ >]*\1", re.MULTILINE | re.DOTALL)
MACHINE_PATH = re.compile(r"(?<![\w.~/])/(home|root|Users|tmp|work|content|private)/|\b[A-Z]:\\")


def tidy(notebook: dict) -> dict:
    """The notebook in its stored form."""
    cells = [tidy_cell(cell) for cell in notebook["cells"]]
    return {"cells": cells, "metadata": METADATA, "nbformat": 4, "nbformat_minor": 5}


def tidy_cell(cell: dict) -> dict:
    tidied = {
        "cell_type": cell["cell_type"],
        "id": cell.get("id", ""),
        "metadata": {key: value for key, value in cell["metadata"].items() if key in CELL_METADATA},
        "source": "".join(cell["source"]).rstrip().splitlines(keepends=True),
    }
    if cell["cell_type"] == "code":
        kept = is_checked(cell)
        tidied["execution_count"] = cell["execution_count"] if kept else None
        tidied["outputs"] = [tidy_output(output) for output in cell["outputs"]] if kept else []
    return tidied


def tidy_output(output: dict) -> dict:
    """Text alone: nbval does not compare pictures, and stored pictures make every difference unreadable."""
    if "data" in output:
        output = {
            **output,
            "data": {k: v for k, v in output["data"].items() if k == "text/plain"},
            "metadata": {},
        }
    return output


def is_checked(cell: dict) -> bool:
    return CHECKED in cell["metadata"].get("tags", [])


def dump(notebook: dict) -> str:
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def problems(text: str) -> list[str]:
    """What is wrong with a stored notebook, one sentence each."""
    notebook = json.loads(text)
    found = [] if text == dump(tidy(notebook)) else ["is not in its stored form: run `make format`"]
    ids = [cell.get("id", "") for cell in notebook["cells"]]
    for cell, name in zip(notebook["cells"], ids, strict=True):
        if not SLUG.fullmatch(name) or RANDOM_ID.fullmatch(name):
            found.append(f"cell id {name!r} says nothing: choose one as 'naive-convolution'")
        if ids.count(name) > 1:
            found.append(f"cell id {name!r} is used twice")
        if MACHINE_PATH.search(json.dumps([cell["source"], cell.get("outputs")], ensure_ascii=False)):
            found.append(f"cell {name!r} has a path of one machine in it")
        if cell["cell_type"] != "code":
            continue
        if is_checked(cell) and not (cell["outputs"] and cell["execution_count"]):
            found.append(
                f"cell {name!r} is tagged {CHECKED}, but without output and count nothing is compared"
            )
        if re.search(r"^\s*[!%]", "".join(cell["source"]), re.MULTILINE):
            found.append(f"cell {name!r} has a line that only IPython understands")
    return found


def long_lines(text: str) -> list[str]:
    """Which code of a stored notebook is wider than the page, one sentence each; that of solutions too."""
    found = []
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"])
        pieces = [source] if cell["cell_type"] == "code" else [code for _, code in FENCED.findall(source)]
        widths = [len(line) for piece in pieces for line in piece.splitlines()]
        if widths and max(widths) > WIDTH:
            found.append(f"cell {cell['id']!r} has a line of {max(widths)} characters, and {WIDTH} fit")
    return found


def main(arguments: list[str]) -> None:
    check = "--check" in arguments
    paths = [Path(a) for a in arguments if a != "--check"] or sorted(
        path for pattern in STORED for path in ROOT.glob(pattern)
    )
    found = []
    for path in paths:
        if not check:
            text = path.read_text(encoding="utf-8")
            tidied = dump(tidy(json.loads(text)))
            if tidied != text:
                path.write_text(tidied, encoding="utf-8")
        text = path.read_text(encoding="utf-8")
        shown = path.resolve().is_relative_to(ROOT / "book")
        exempt = shown and path.resolve().relative_to(ROOT).as_posix() in LONGER
        wide = long_lines(text) if shown and not exempt else []
        found += [f"{path}: {problem}" for problem in [*problems(text), *wide]]
    if found:
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main(sys.argv[1:])
