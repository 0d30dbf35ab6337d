"""The type checker: what it says of the package and the tools, and how often it is told to be silent."""

import re
import subprocess
import sys
from importlib.metadata import version

import pytest
from conftest import ROOT
from test_project import pinned

JUDGES = ("mypy", "torch", "numpy", "matplotlib", "pillow")  # another version may see another type


@pytest.mark.skipif(
    any(version(name).partition("+")[0] != pinned(name) for name in JUDGES),
    reason="mypy, or a library whose types it reads, is not of the version in constraints.txt",
)
def test_mypy_finds_nothing():
    result = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode in (0, 1), result.stdout + result.stderr  # 2: it could not even begin
    lines = [line.replace("\\", "/") for line in result.stdout.splitlines()]
    assert re.search(r"(checked|in) \d\d+ (source )?files", lines[-1]), lines[-1]
    assert [line for line in lines if ": error:" in line] == []


def test_every_silenced_line_names_its_error_and_says_why():
    silenced = []
    for folder in ("u2learn", "tools"):
        for path in (ROOT / folder).rglob("*.py"):
            for line in path.read_text(encoding="utf-8").splitlines():
                if re.search(r"#\s*type:\s*ignore", line):
                    silenced.append(line.strip())
    assert [line for line in silenced if not re.search(r"# type: ignore\[[\w, -]+\]  # \w+", line)] == []
    assert len(silenced) <= 10
