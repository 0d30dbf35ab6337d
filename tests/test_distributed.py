"""Several processes give what one gives: real processes, started by torchrun, and one of them is killed."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import several
import torch
from conftest import ROOT
from safetensors.torch import load_file

from u2learn import cli, devices, distributed, measure, training
from u2learn.data.augment import Draws
from u2learn.registry import LOSSES

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="processes are killed as on Linux and macOS"),
]
IMAGES = {"train": 5, "test": 5, "size": (64, 64), "seed": 0}  # an odd number
STEPS = 16


@pytest.fixture(scope="module", autouse=True)
def recipe():
    """A run that is evaluated twice; as long as it is needed, what recipes here name is known."""
    with pytest.MonkeyPatch.context() as patch:
        several.register(patch.setitem)
        yield several.recipe("binary", data_options=IMAGES, iterations=STEPS, evaluations=2)


def start(processes: int, answers: Path, folder: Path) -> subprocess.Popen:
    place = answers.parent
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command += [ROOT / "tests" / "several.py", answers, "train", place / "recipe.json"]
    command += ["--folder", folder, "--device", "cpu"]
    return subprocess.Popen(
        command,
        env=os.environ
        | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "U2LEARN_RECORDS": str(place / "records")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def position(folder: Path) -> dict:
    return json.loads(training.read_tensors(folder / "checkpoint.safetensors")[1]["position"])


@pytest.fixture(scope="module")
def place(tmp_path_factory, recipe) -> Path:
    folder = tmp_path_factory.mktemp("several")
    (folder / "recipe.json").write_text(recipe.to_json(), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def killed(place):
    """What two processes found, of which one is killed in their training; how they ended, and how soon."""
    answers, folder = place / "all.json", place / "run"
    process = start(2, answers, folder)
    checkpoint, end = folder / "checkpoint.safetensors", time.monotonic() + 300
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    if process.poll() is None:
        os.kill(int((place / "all.json.1.pid").read_text()), signal.SIGKILL)
    killed_at = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert answers.exists(), errors
    return json.loads(answers.read_text()), errors, time.monotonic() - killed_at, process.returncode


@pytest.fixture(scope="module")
def told(killed) -> dict:
    return killed[0]


@pytest.fixture(scope="module")
def resumed(killed, place):
    """What three processes say that take the run of the two to its end, and score it."""
    if not killed[3]:
        pytest.fail("the run was done before it could be killed")
    before = position(place / "run")["iteration"]
    process = start(3, place / "three.json", place / "run")
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return json.loads((place / "three.json").read_text()), output, before


@pytest.fixture
def in_double(monkeypatch):
    several.in_double(monkeypatch.setattr)


# --- the same numbers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", several.LOSS_NAMES)
def test_gradients_of_every_loss_are_those_of_one_process(told, name):
    """In double precision: in single, one process is as far from the truth as two, some 1e-4."""
    assert told[f"gradients {name}"] < 1e-9


def test_no_loss_of_ours_is_left_out():
    ours = {name for name, loss in LOSSES.items() if loss.__module__ == "u2learn.losses"}
    assert ours <= set(several.LOSS_NAMES)


@pytest.mark.parametrize("name", several.VARIANTS)
def test_weights_after_twenty_steps_are_those_of_one_process(told, name):
    """And running statistics, and the running mean; of every task, in parts, and with cut gradients."""
    assert told[f"steps {name}"] < 1e-7


def test_windows_look_the_same_whoever_cuts_them(told):
    assert told["batches"] == 0


@pytest.mark.parametrize(
    ("case", "most"),
    [
        ("float", 1e-6),
        ("double", 1e-13),
        ("channels last", 1e-5),
        ("far from zero", 0.01),
        ("bfloat16", 0.02),
    ],
)
def test_batch_norm_is_that_of_the_whole_batch(told, case, most):
    assert told[f"norm {case}"] < most


def test_half_precision_is_no_obstacle(told):
    assert told["half precision"] < 0.02


def test_the_compiler_makes_one_graph_of_it(told):
    assert told["compiled"] < 1e-6


def test_a_frozen_norm_stays_frozen(told):
    assert told["frozen"]


@pytest.mark.parametrize("task", ["binary", "classes", "saliency"])
def test_no_image_is_scored_twice_or_left_out(told, task):
    """Five images and two processes: all scores are equal, to the last digit."""
    assert told[f"scores {task}"] == 0


def test_what_cannot_be_shared_is_refused(told, resumed):
    for said, processes in ((told["refused"], 2), (resumed[0]["refused"], 3)):
        windows, dropout, data = said
        assert f"7 windows cannot be shared evenly by {processes} processes: start one of 1, 7" in windows
        assert data == windows and "0 is a Dropout" in dropout


# --- a process dies -----------------------------------------------------------------------------------------


def test_a_process_that_dies_ends_the_others_in_one_sentence(killed):
    _, errors, seconds, status = killed
    ours = [line for line in errors.splitlines() if line.startswith("u2learn:")]
    assert ours == [f"u2learn: {distributed.LOST}"]
    assert status != 0 and seconds < 30 and "Root Cause" in errors


def test_another_number_of_processes_goes_on_to_the_same_weights(resumed, in_double, recipe, place):
    alone = place / "alone"
    training.train(recipe, alone, device="cpu", progress=False)  # nothing disturbs it
    _, output, before = resumed
    assert 0 < before < STEPS
    stopped = int(re.search(r"Time is up at iteration (\d+) of", output)[1])
    assert before < stopped < STEPS, "--minutes stops all processes, and the same command goes on"
    assert output.count("Trained.") == 1 and output.count("Time is up") == 1, "one process prints"
    ours, due = (load_file(folder / "checkpoint.safetensors") for folder in (place / "run", alone))
    assert set(ours) == set(due)
    assert several.distance(ours, due) < 1e-9
    logs = [(folder / "log.jsonl").read_text().splitlines() for folder in (place / "run", alone)]
    assert len(logs[0]) == len(logs[1]) == 8
    for line, expected in zip(*logs, strict=True):
        line, expected = json.loads(line), json.loads(expected)
        assert line["iteration"] == expected["iteration"]
        assert line["loss"] == pytest.approx(expected["loss"], abs=1e-9)
    assert position(place / "run")["device"].startswith("3 x CPU")
    assert not list((place / "run").glob("*.tmp"))


def test_the_record_of_several_processes_has_the_scores_of_one(resumed, place):
    (path,) = (place / "records").iterdir()
    ours, due = json.loads(path.read_text()), measure.measure(place / "run", "cpu", progress=False)
    assert ours["scores"] == json.loads(json.dumps(due["scores"]))
    assert ours["threshold"] == due["threshold"] and ours["interval"] == due["interval"]
    assert ours["speed"]["device"] == due["speed"]["device"]


# --- in one process -----------------------------------------------------------------------------------------


def test_one_process_does_nothing_of_it():
    x, model = torch.ones(3), torch.nn.BatchNorm2d(3)
    assert distributed.whole(x) is x and distributed.gathered(x) == [x]
    distributed.synchronise(model)
    assert (
        type(model) is torch.nn.BatchNorm2d
        and distributed.leads()
        and distributed.share(7) == slice(0, None, 1)
    )


def test_draws_of_every_share_are_those_of_the_whole():
    from u2learn.data.augment import _uniform

    due = _uniform(torch.Generator().manual_seed(5), 1, 3, 4, 6, 2, windows=1)
    for first in range(3):
        some = Draws("cpu")
        some.share = slice(first, None, 3)
        assert torch.equal(_uniform(some.manual_seed(5), 1, 3, 4, 2, 2, windows=1), due[:, first::3])


def test_commands_that_are_not_shared_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit, match="`train` and `evaluate` alone"):
        cli.main(["reproduce", "synthetic-small"])
    with pytest.raises(SystemExit, match="leave 'cuda:1' out"):
        cli.main(["train", "synthetic-small", "--device", "cuda:1"])
    with pytest.raises(ValueError, match="add --device cpu"), distributed.joined("mps"):
        pass


def test_each_process_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(devices, "available", lambda: ["cuda", "cpu"])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices.pick_device(None) == "cuda"
    monkeypatch.setenv("WORLD_SIZE", "3")
    for rank in ("0", "1"):
        monkeypatch.setenv("LOCAL_RANK", rank)
        assert devices.pick_device(None) == devices.pick_device("cuda") == f"cuda:{rank}"
        assert devices.pick_device("cpu") == "cpu"
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ValueError, match="more processes than this machine has GPUs, 2"):
        devices.pick_device(None)
