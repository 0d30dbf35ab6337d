"""What all tests share: the built site, and who runs what when the tests run in parallel."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from u2learn import measure, records
from u2learn.data.example import Example

ROOT = Path(__file__).resolve().parents[1]
# The site first, as others wait for it, then what takes long; small files last, so that the workers end
# together.
ORDER = ("site", "slow", "course", "browser")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: [not item.get_closest_marker(name) for name in ORDER])


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> subprocess.CompletedProcess:
    """The result of building all pages anew, warnings as errors; once, however many workers ask for it."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    note = tmp_path_factory.getbasetemp().parent / f"site-{run}.txt"
    command = [sys.executable, "-m", "tools.book", "--all", "--tested"]
    with FileLock(note.with_suffix(".lock")):
        if not note.exists():
            result = subprocess.run(
                command,
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
            )
            note.write_text(f"{result.returncode}\n{result.stdout}", encoding="utf-8")
    code, _, output = note.read_text(encoding="utf-8").partition("\n")
    return subprocess.CompletedProcess(command, int(code), output)


@pytest.fixture(scope="session")
def site(built) -> Path:
    """The folder with the pages."""
    from tools.outputs import TESTED

    if built.returncode:
        pytest.skip("the book was not built: see tests/test_book.py")
    return TESTED.folder / "html"


@pytest.fixture(autouse=True)
def measured_shortly(monkeypatch):
    """No test needs an exact speed, and many make records."""
    monkeypatch.setattr(measure, "SPEED_SECONDS", 0.05)


@pytest.fixture
def kernels(monkeypatch):
    """How kernels start in a test (tools/kernels.py) is forgotten after it."""
    factory = pytest.importorskip("jupyter_client.provisioning").KernelProvisionerFactory.instance()
    monkeypatch.setattr(factory, "default_provisioner_name", factory.default_provisioner_name)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder of records instead of the project's."""
    place = tmp_path / "results"
    place.mkdir()
    monkeypatch.setattr(records, "records_folder", lambda: place)
    records.forget()
    yield place
    records.forget()


def cross(seed: int, size: tuple[int, int] = (40, 44), bright: int = 60) -> Example:
    """Two lines on noise, by so many grey levels brighter; the whole image is seen, by two who agree."""
    rng = np.random.default_rng(seed)
    label = np.zeros(size, np.uint8)
    label[rng.integers(4, size[0] - 4) + np.arange(2)] = 1
    label[:, rng.integers(4, size[1] - 4) + np.arange(2)] = 1
    image = rng.integers(0, 240 - bright, (3, *size)) + bright * label
    return Example(f"cross-{seed}", image.astype(np.uint8), label, np.ones(size, bool), label)
