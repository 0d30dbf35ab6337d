"""An assignment as a student sees it: opened in JupyterLab, the first part written, the green line read."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

from tools.assignments import EXERCISES, Assignment, text
from tools.browser import browser, chromium

pytestmark = [
    pytest.mark.course,
    pytest.mark.browser,
    pytest.mark.skipif(
        not chromium() and not os.environ.get("CI"),
        reason="no Chromium on the search path, nor in the variable CHROMIUM",
    ),
]
NAME = "01-convolution"


@contextlib.contextmanager
def jupyterlab(folder: Path) -> Iterator[str]:
    """A server in `folder`; gives its address once it answers."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.token="]
    command += ["--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", f"--ServerApp.root_dir={folder}"]
    environment = {**os.environ, "JUPYTER_CONFIG_DIR": str(folder / ".config"), "HOME": str(folder)}
    with open(folder / "server.log", "w", encoding="utf-8") as log:
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 300
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/api/status", timeout=10):
                break
            assert server.poll() is None and time.monotonic() < deadline, (folder / "server.log").read_text(
                encoding="utf-8"
            )
            time.sleep(0.5)
        yield address
    finally:
        server.terminate()
        server.wait(30)


def test_the_first_part_turns_green(tmp_path):
    notebook = json.loads((EXERCISES / "release" / f"{NAME}.ipynb").read_text(encoding="utf-8"))
    notebook["cells"] = notebook["cells"][:6]  # Lab draws what is on the screen; the first part fits
    (tmp_path / f"{NAME}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    answer = text(Assignment.read(NAME).solution("1.1"))
    with jupyterlab(tmp_path) as address, browser() as chrome:
        page = chrome.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(120_000)
        page.goto(f"{address}/lab/tree/{NAME}.ipynb?reset")
        page.wait_for_selector(".jp-Notebook .jp-Cell")
        page.wait_for_selector("text=Python 3 (ipykernel) | Idle")  # sooner, Lab asks which kernel

        imports, task, check = (f".jp-CodeCell >> nth={i}" for i in (1, 2, 3))  # 0 installs
        page.wait_for_selector(f"{check} >> text=out_size")

        def run(cell: str) -> None:
            page.locator(f"{cell} >> .cm-content").click()
            page.keyboard.press("Control+Enter")
            page.wait_for_selector(f"{cell} >> .jp-InputPrompt >> text=/[0-9]/")  # it has run

        run(imports)
        run(task)
        run(check)
        page.wait_for_selector(f"{check} >> text=not done yet")
        yellow = page.locator(f"{check} >> .jp-OutputArea").inner_text()
        assert yellow.count("\n") <= 2 and "Traceback" not in yellow, "one line, without a traceback"

        page.locator(f"{task} >> .cm-content").click()
        page.keyboard.press("Control+a")
        page.keyboard.insert_text(answer)
        run(task)
        run(check)
        page.wait_for_selector(f"{check} >> text=40 random windows")
        line = page.locator(f"{check} >> [class*=ansi-green]")
        assert "✓ 1.1 out_size" in line.first.inner_text()
        (ROOT / "_build").mkdir(exist_ok=True)
        page.locator(check).scroll_into_view_if_needed()
        page.screenshot(path=ROOT / "_build" / "lab.png")
