"""What all tests share: the built site, and who runs what when the tests run in parallel."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from u2learn import records
from u2learn.data.example import Example

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


def cross(seed: int, size: tuple[int, int] = (40, 44), bright: int = 60) -> Example:
    """Two lines on noise, by so many grey levels brighter; the whole image is seen, by two who agree."""
    rng = np.random.default_rng(seed)
    label = np.zeros(size, np.uint8)
    label[rng.integers(4, size[0] - 4) + np.arange(2)] = 1
    label[:, rng.integers(4, size[1] - 4) + np.arange(2)] = 1
    image = rng.integers(0, 240 - bright, (3, *size)) + bright * label
    return Example(f"cross-{seed}", image.astype(np.uint8), label, np.ones(size, bool), label)
