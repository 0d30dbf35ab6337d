"""What all tests share: the built site, and who runs what when the tests run in parallel."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items):
    """One worker a file (the cells of a chapter share a kernel), the site first: it takes longest."""

    def needs_site(item):
        return "built" in getattr(item, "fixturenames", ())

    items.sort(key=lambda item: not needs_site(item))
    for item in items:
        item.add_marker(pytest.mark.xdist_group("site" if needs_site(item) else item.path.name))


@pytest.fixture(scope="session")
def built() -> subprocess.CompletedProcess:
    """The result of building all pages anew, with warnings as errors."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("U2LEARN_BUDGET", None)
    command = [sys.executable, "-m", "tools.book", "--all"]
    return subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.fixture(scope="session")
def site(built) -> Path:
    """The folder with the pages."""
    if built.returncode:
        pytest.skip("the book was not built: see tests/test_book.py")
    return ROOT / "_build" / "html"
