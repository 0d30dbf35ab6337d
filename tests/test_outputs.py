"""Chapters are executed once: what nbval got is what the site shows, and nothing else is kept."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import nbclient
import nbformat
import pytest
from conftest import ROOT
from jupyter_client.provisioning.local_provisioner import LocalPortCache

from tools import kernels as forks
from tools import outputs, solutions
from tools.outputs import Site

# Says what the kernel sees, and leaves a line in a file each time that it runs.
WITNESS = """import os
with open({log!r}, "a") as file:
    file.write({name!r} + "\\n")
print(os.listdir(), os.environ["U2LEARN_PUBLISH"], os.environ["U2LEARN_BUDGET"])"""
# What it says in words is not what it prints.
CLAIM = """````{solution} how-many
```python
print(6 * 7)
```

It is 43.
````"""
# Points the tools to another folder than the project's, before nbval begins.
ELSEWHERE = """from pathlib import Path
from tools import kernels, outputs
kernels.LOADED = []  # these kernels need nothing
outputs.ROOT = Path({root!r})
outputs.TESTED = outputs.Site(outputs.ROOT, "smoke")
"""


@pytest.fixture
def site(tmp_path, monkeypatch, kernels) -> Site:
    """The site of an empty project in place of ours."""
    monkeypatch.setattr(outputs, "ROOT", tmp_path)
    it = Site(tmp_path, "smoke")
    for name, value in it.environment.items():
        monkeypatch.setenv(name, value)
    it.forget_stale()
    return it


def write(
    site: Site, name: str, *sources: str, folder: str = "book/chapters", checked: str = "", prose: str = ""
) -> Path:
    """A notebook of these code cells, and prose; the last cell should show the text `checked`, if any."""
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    if prose:
        cells.insert(0, nbformat.v4.new_markdown_cell(prose))
    if checked:
        cells[-1].metadata.tags, cells[-1].execution_count = ["nbval-check-output"], 1
        cells[-1].outputs = [nbformat.v4.new_output("stream", text=checked)]
    path = site.output / folder / f"{name}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def kept(site: Site, path: Path) -> list[list]:
    """The outputs that the site will show."""
    _, notebook = site.cache.merge_match_into_notebook(nbformat.read(path, as_version=4))
    return [cell.outputs for cell in notebook.cells]


def texts(site: Site, path: Path) -> list[str]:
    return ["".join(output.text for output in cell) for cell in kept(site, path)]


@pytest.mark.slow
def test_what_nbval_got_is_kept_and_not_executed_again(site):
    log = site.output / "log.txt"

    def witness(name: str) -> str:
        return WITNESS.format(log=str(log), name=name)

    solution = "raise SystemError('a solution that is wrong')"
    good = write(site, "good", witness("good"), "print(1 + 1)", checked="2\n")
    write(site, "good", witness("good"), "print(1 + 1)", solution, folder="_build/solved")
    differs = write(site, "differs", witness("differs"), "print(1 + 1)", checked="3\n")
    write(site, "differs", witness("differs"), "print(1 + 1)", folder="_build/solved", checked="3\n")
    raises = write(site, "raises", witness("raises"), "1 / 0", "print('on')", folder="book/labs")
    write(site, "no-page", witness("no-page"), folder="exercises")
    claims = write(site, "claims", witness("claims"), prose=CLAIM)
    copy = solutions.solved(json.loads(claims.read_text(encoding="utf-8")))
    (site.output / "_build/solved/claims.ipynb").write_text(json.dumps(copy), encoding="utf-8")
    (site.output / "elsewhere.py").write_text(ELSEWHERE.format(root=str(site.output)), encoding="utf-8")
    (site.output / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")

    options = ["-p", "elsewhere", "-p", "tools.validation", "-n", "2", "--dist", "loadfile"]
    options += ["--nbval-lax", "--nbval-current-env", "_build/solved", "book/labs", "exercises"]
    found = os.pathsep.join([str(site.output), str(ROOT)])
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *options],
        cwd=site.output,
        env={**os.environ, "PYTHONPATH": found, "U2LEARN_BUDGET": "cpu", "U2LEARN_PUBLISH": "0"},
        capture_output=True,
        text=True,
    )
    assert "4 failed, 7 passed" in result.stdout, result.stdout + result.stderr
    assert "how-many: '43' is typed, and its code does not print it: It is 43." in result.stdout
    assert texts(site, good) == ["[] 1 smoke\n", "2\n"], "in an empty folder, as published"
    assert [path for path in outputs.pages().values() if not site.has(path)] == [differs, raises]

    ran = sorted(log.read_text(encoding="utf-8").split())
    assert ran == ["claims", "differs", "good", "no-page", "raises"]
    (complaint,) = site.execute_missing()
    assert complaint.startswith("book/labs/raises.ipynb stops with an error:")
    assert "ZeroDivisionError" in complaint
    assert sorted(log.read_text(encoding="utf-8").split()) == sorted([*ran, "differs", "raises"])
    assert texts(site, differs) == ["[] 1 smoke\n", "2\n"]


def test_outputs_belong_to_the_code_that_made_them(site):
    path = write(site, "chapter", "x = 1", "print(x)")
    site.keep(path, [[], [nbformat.v4.new_output("stream", text="1\n")]])
    assert site.has(path) and texts(site, path) == ["", "1\n"]
    with pytest.raises(ValueError, match="shorter"):
        site.keep(path, [[]])
    write(site, "chapter", "x = 1", "print(x + 1)")
    assert not site.has(path)


@pytest.mark.parametrize(
    "changed, executes", [("u2learn/losses.py", True), ("results/a.json", True), ("book/_ext/api.py", False)]
)
def test_what_is_kept_is_forgotten_when_the_code_behind_it_changes(site, changed, executes):
    path = write(site, "chapter", "print(1)")
    site.keep(path, [[]])
    pages = site.folder / ".doctrees" / "chapter"
    pages.mkdir(parents=True)
    site.forget_stale()
    assert site.has(path) and pages.exists()
    (site.output / changed).parent.mkdir(parents=True, exist_ok=True)
    (site.output / changed).write_text("1", encoding="utf-8")
    site.forget_stale()
    assert site.has(path) != executes
    assert not pages.exists()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="kernels are forks only where the system has them")
def test_a_port_that_somebody_took_stops_no_chapter(kernels, tmp_path, monkeypatch):
    """Many kernels start side by side, and each looks for free ports some time before it opens them."""
    monkeypatch.setattr(forks, "LOADED", [])
    forks.fork_kernels()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(LocalPortCache, "find_available_port", lambda *_: taken.getsockname()[1])
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("print(6 * 7)")])
        nbclient.NotebookClient(notebook, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert notebook.cells[0].outputs[0].text == "42\n"
