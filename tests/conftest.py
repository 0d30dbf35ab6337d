"""What all tests share: the built site, and who runs what when the tests run in parallel."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from u2learn import records

ROOT = Path(__file__).resolve().parents[1]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """The site first, as it takes longest, and what looks at it last, so that no worker waits for it."""
    order = {"test_book.py": 0, "test_browser.py": 2}
    items.sort(key=lambda item: order.get(item.path.name, 1))


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> subprocess.CompletedProcess:
    """The result of building all pages anew, warnings as errors; once, however many workers ask for it."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    note = tmp_path_factory.getbasetemp().parent / f"site-{run}.txt"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("U2LEARN_BUDGET", None)
    command = [sys.executable, "-m", "tools.book", "--all"]
    with open(note.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not note.exists():
            result = subprocess.run(
                command,
                cwd=ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            note.write_text(f"{result.returncode}\n{result.stdout}")
    code, _, output = note.read_text().partition("\n")
    return subprocess.CompletedProcess(command, int(code), output)


@pytest.fixture(scope="session")
def site(built) -> Path:
    """The folder with the pages."""
    if built.returncode:
        pytest.skip("the book was not built: see tests/test_book.py")
    return ROOT / "_build" / "html"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder of records instead of the project's."""
    place = tmp_path / "results"
    place.mkdir()
    monkeypatch.setattr(records, "records_folder", lambda: place)
    records.records.cache_clear()
    yield place
    records.records.cache_clear()
