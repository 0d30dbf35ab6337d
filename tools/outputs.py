"""What the chapters' cells gave: kept once, and taken from there by whoever builds the pages.

It lies in Jupyter's cache, from which Jupyter Book takes what it would otherwise execute. There are two
sites. The one that is PUBLISHED shows what a CPU computes; `make book` executes the chapters that it lacks,
side by side. The one that is TESTED shows what nbval got when it compared the chapters' text
(tools/validation.py), so `make test` executes no chapter twice. These are quick runs: a training is shorter,
and what a page is made of is the same.
"""

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import nbformat
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn, JupyterCacheAbstract
from jupyter_cache.executors.utils import single_nb_execution
from nbformat import NotebookNode

from tools.kernels import fork_kernels

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("book/chapters/*.ipynb", "book/labs/*.ipynb")
# What is kept, and the code that it depends on beside the chapters.
CODE = {".jupyter_cache": ("u2learn", "results"), ".doctrees": ("u2learn", "results", "book/_ext")}
TIMEOUT = 600  # seconds of one cell


@dataclass(frozen=True)
class Site:
    """Where the pages are built, below `output`, and how much the chapters compute for it."""

    output: Path
    budget: str

    @property
    def folder(self) -> Path:
        """The folder that Jupyter Book makes, with the pages in html/."""
        return self.output / "_build"

    @property
    def environment(self) -> dict[str, str]:
        """The pages show synthetic pictures only: the same site on every machine."""
        return {"U2LEARN_PUBLISH": "1", "U2LEARN_BUDGET": self.budget}

    @property
    def cache(self) -> JupyterCacheAbstract:
        return get_cache(str(self.folder / ".jupyter_cache"))

    def forget_stale(self) -> None:
        """Empty the caches whose code changed: the package and the records, and for pages the extensions too.

        The caches of Jupyter and Sphinx look at the chapters alone.
        """
        for cache, folders in CODE.items():
            digest = hashlib.sha256(sys.version.encode())
            for folder in folders:
                for path in sorted((ROOT / folder).rglob("*")):
                    if path.is_file() and path.suffix != ".pyc":
                        digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
            stamp = self.folder / f"{cache[1:]}.sha256"
            if not stamp.exists() or stamp.read_text(encoding="utf-8") != digest.hexdigest():
                shutil.rmtree(self.folder / cache, ignore_errors=True)
                self.folder.mkdir(parents=True, exist_ok=True)
                stamp.write_text(digest.hexdigest(), encoding="utf-8")

    def keep(self, page: Path, got: Sequence[list[NotebookNode]]) -> None:
        """Keep what the code cells of a page gave, in order."""
        notebook = nbformat.read(page, as_version=4)
        cells = (cell for cell in notebook.cells if cell.cell_type == "code")
        for count, (cell, outputs) in enumerate(zip(cells, got, strict=True), start=1):
            cell.execution_count, cell.outputs = count, nbformat.from_dict(outputs)
        self.cache.cache_notebook_bundle(CacheBundleIn(notebook, str(page)), overwrite=True)

    def has(self, page: Path) -> bool:
        try:
            self.cache.match_cache_notebook(nbformat.read(page, as_version=4))
        except KeyError:
            return False
        return True

    def execute_missing(self) -> list[str]:
        """Execute what is not kept, as many pages at a time as there are cores; gives what went wrong."""
        complaints = []
        fork_kernels()
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            running = {pool.submit(execute, page): page for page in pages().values() if not self.has(page)}
            for done in as_completed(running):
                page, (got, complaint) = running[done], done.result()
                name = page.relative_to(ROOT).as_posix()
                if complaint:
                    complaints.append(f"{name} stops with an error:\n{complaint}")
                else:
                    self.keep(page, got)
                    print(f"Executed {name}", flush=True)
        return complaints


PUBLISHED = Site(ROOT, "cpu")
TESTED = Site(ROOT / "_build" / "tested", "smoke")


def execute(page: Path) -> tuple[list[list[NotebookNode]], str]:
    """Run a page in an empty folder; gives the outputs of its cells and, if it stopped, the traceback."""
    notebook = nbformat.read(page, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        result = single_nb_execution(notebook, folder, TIMEOUT, allow_errors=False)
    return [cell.outputs for cell in notebook.cells if cell.cell_type == "code"], result.exc_string or ""


def pages() -> dict[str, Path]:
    """The notebooks that are pages of the site, by their names."""
    return {path.name: path for pattern in PAGES for path in sorted(ROOT.glob(pattern))}


def code(page: Path) -> list[str]:
    """The sources of its code cells."""
    return [cell.source for cell in nbformat.read(page, as_version=4).cells if cell.cell_type == "code"]
