"""For nbval: what it got from a chapter becomes its page in the site that is tested (tools/outputs.py).

    python -m pytest -p tools.validation --nbval-lax --nbval-current-env _build/solved

nbval executes each cell, and compares the text of those that are tagged. A chapter is kept once all of its
own cells have passed; behind them in its copy (tools/solutions.py) stands the code of its solutions. When the
last of these has passed, what the solutions say in words is held against what they printed.
"""

import json
import os
import tempfile
from collections.abc import Generator

import pytest
from nbval import plugin
from nbval.kernel import RunningKernel

from tools import solutions
from tools.kernels import fork_kernels
from tools.outputs import TESTED, code, pages

# These take longest. They go first, so that the workers end together.
FIRST = ("training-u2net", "u2net", "own-images", "scaled-out", "exported")
PASSED = pytest.StashKey[list[plugin.IPyNbCell]]()


class FarAway(RunningKernel):
    """A kernel in an empty folder: a chapter relies on the installed package and nothing beside it."""

    def __init__(self, *args: str, cwd: str, **options: float) -> None:
        self.folder = tempfile.TemporaryDirectory()
        super().__init__(*args, cwd=self.folder.name, **options)

    def stop(self) -> None:
        super().stop()
        self.folder.cleanup()


def pytest_configure(config: pytest.Config) -> None:
    fork_kernels()
    os.environ.update(TESTED.environment)
    plugin.RunningKernel = FarAway
    if not hasattr(config, "workerinput"):  # once, before there are workers
        TESTED.forget_stale()
        TESTED.cache.db  # noqa: B018  (made by looking at it)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in FIRST)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    yield  # raises what the cell raised
    page = pages().get(item.path.name)
    if page and isinstance(item, plugin.IPyNbCell):
        passed = item.parent.stash.setdefault(PASSED, [])
        passed.append(item)
        if [cell.cell.source for cell in passed] == code(page):
            TESTED.keep(page, [cell.test_outputs for cell in passed])
        if len(passed) > len(code(page)) and len(passed) == len(code(item.path)):
            said = {cell.cell.id: solutions.printed(cell.test_outputs) for cell in passed}
            claims = solutions.unproved(json.loads(page.read_text(encoding="utf-8")), said)
            assert not claims, "\n".join(claims)
