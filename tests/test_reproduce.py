"""The chapter that makes one row, as on Colab: installed, outside of the checkout, killed twice."""

import json
import os
import queue
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT
from hatchling.builders.wheel import WheelBuilder
from jupyter_client.manager import start_new_kernel

pytestmark = pytest.mark.slow

NOTEBOOK = ROOT / "book" / "chapters" / "reproduce.ipynb"
# What Colab has and we have not: it hands files to the browser. Here they are copied into a folder.
COLAB = """
import os, shutil, sys, types
colab, files = types.ModuleType("google.colab"), types.ModuleType("google.colab.files")
files.download = lambda path: shutil.copy(path, os.environ["DOWNLOADS"])
colab.files = files
google = types.ModuleType("google")
google.colab = colab
sys.modules |= {"google": google, "google.colab": colab, "google.colab.files": files}
"""


@pytest.fixture(scope="module")
def colab(tmp_path_factory):
    """A folder outside of the checkout, and the environment of kernels that have the wheel installed."""
    root = tmp_path_factory.mktemp("colab")
    wheel = next(WheelBuilder(str(ROOT)).build(directory=str(root), versions=["standard"]))
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", root / "site", wheel]
    subprocess.run(install, check=True)
    (root / "site" / "sitecustomize.py").write_text(COLAB)
    for name in ("home", "content", "downloads"):
        (root / name).mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("U2LEARN")}
    return root, kept | {
        "PYTHONPATH": str(root / "site"),
        "HOME": str(root / "home"),
        "DOWNLOADS": str(root / "downloads"),
        "U2LEARN_BUDGET": "smoke",
        "U2LEARN_RUNS": str(root / "drive"),
    }


class Session:
    """A notebook in a kernel: cells run from the top, and the kernel may be killed while one of them runs."""

    def __init__(self, root: Path, env: dict[str, str]):
        self.manager, self.client = start_new_kernel(
            kernel_name="python3", env=env, cwd=str(root / "content")
        )
        self.printed: dict[str, str] = {}
        self.seconds: dict[str, float] = {}

    def run(self, cell: dict, kill_when=None) -> bool:
        """Run a cell; False if it was killed, which happens as soon as `kill_when()` is true."""
        started, text = time.monotonic(), []
        self.client.execute("".join(cell["source"]))
        while True:
            if kill_when is not None and kill_when():
                self.close()
                return False
            try:
                message = self.client.get_iopub_msg(timeout=0.2)
            except queue.Empty:
                assert time.monotonic() < started + 300, f"{cell['id']} takes for ever"
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "stream":
                text.append(content["text"])
            if kind == "display_data":
                text.append(content["data"]["text/plain"])
            assert kind != "error", f"{cell['id']}: {content.get('evalue')}"
            if kind == "status" and content["execution_state"] == "idle":
                break
        self.printed[cell["id"]], self.seconds[cell["id"]] = "".join(text), time.monotonic() - started
        return True

    def close(self) -> None:
        self.manager.shutdown_kernel(now=True)
        self.client.stop_channels()


def test_a_row_from_nothing_through_two_disconnects(colab):
    root, env = colab
    cells = [
        cell
        for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
        if cell["cell_type"] == "code"
    ]
    run, weights = root / "drive" / "runs" / "chase-fcn-ce-seed0", root / "drive" / "data" / "weights"
    kills = {
        "official": lambda: (weights / "unet_s5_d16.pth").exists(),  # fetched, and about to be tested
        "train": (run / "checkpoint.safetensors").exists,  # half of the training is saved
    }
    for killed_in in (*kills, None):
        session = Session(root, env)
        for cell in cells:
            if not session.run(cell, kills[killed_in] if cell["id"] == killed_in else None):
                break
        else:
            assert killed_in is None
    try:
        where = {"id": "where", "source": "import u2learn; print(u2learn.__file__)"}
        session.run(where)
        assert session.printed["where"].startswith(str(root / "site"))
        printed = session.printed
        # what was there was not fetched or trained again
        assert printed["data"] == "chase: complete\n"
        assert "6/12" in printed["train"]  # where the bar begins: at the checkpoint
        log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        assert [line["iteration"] for line in log if "dice" in line] == [6, 12]
        # the row, with both numbers in it
        assert "after 12 of 12 steps" in printed["test"]
        dice = next(line for line in printed["test"].splitlines() if line.startswith("Dice")).split()
        assert dice[1] == "80.24" and float(dice[2]) >= 0 and float(dice[3]) >= 0 and "short" in dice
        assert "authors' weights 0." in printed["tuned"]
        # the record is kept, and handed to the browser
        names = {path.name for path in (root / "drive" / "records").iterdir()}
        assert names == {
            f"{name}.json"
            for name in ("chase-fcn-ce-official", "chase-fcn-ce-seed0", "ecssd-u2net-small-official")
        }
        record = json.loads((root / "downloads" / "chase-fcn-ce-seed0.json").read_text())
        assert record["scores"]["image"]["dice"] == pytest.approx(float(dice[3]) / 100, abs=1e-4)
        assert not (root / "content" / "runs").exists()
    finally:
        session.close()
    print("\n".join(f"{name:10} {seconds:6.1f} s" for name, seconds in session.seconds.items()))
