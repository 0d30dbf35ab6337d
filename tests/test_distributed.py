"""Several processes give what one gives: real processes, started by torchrun, and one of them is killed."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import several
import torch
from conftest import ROOT
from safetensors.torch import load_file
from torch.distributed.run import get_args_parser

from benchmarks.scaling import arithmetic
from u2learn import cli, devices, distributed, measure, training
from u2learn.data.augment import Draws
from u2learn.registry import LOSSES

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="processes are killed as on Linux and macOS"),
]
IMAGES = {"train": 5, "test": 5, "size": (64, 64), "seed": 0}  # an odd number
STEPS, PROCESSES = 16, 2


@pytest.fixture(scope="module", autouse=True)
def recipe():
    """A run that is evaluated twice; as long as it is needed, what recipes here name is known."""
    with pytest.MonkeyPatch.context() as patch:
        several.register(patch.setitem)
        yield several.recipe("binary", data_options=IMAGES, iterations=STEPS, evaluations=2)


def position(folder: Path) -> dict:
    return json.loads(training.read_tensors(folder / "checkpoint.safetensors")[1]["position"])


@pytest.fixture
def in_double(monkeypatch):
    several.in_double(monkeypatch.setattr)


@pytest.fixture(scope="module")
def place(tmp_path_factory, recipe) -> Path:
    """Where one process begins a run, so that several may go on with it."""
    folder = tmp_path_factory.mktemp("several")
    (folder / "recipe.json").write_text(recipe.to_json(), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(training.TimeIsUpError):
        several.in_double(patch.setattr)
        patch.setattr(training, "SAVE_SECONDS", 0)
        training.train(recipe, folder / "run", device="cpu", progress=False, minutes=0)
    return folder


@pytest.fixture(scope="module")
def killed(place):
    """What several processes, of which the first is killed, leave behind: answers, output, errors, status."""
    answers = place / "all.json"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={PROCESSES}"]
    command += [ROOT / "tests" / "several.py", answers, "train", place / "recipe.json"]
    command += ["--folder", place / "run", "--device", "cpu"]
    ours = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "U2LEARN_RECORDS": str(place / "records")}
    process = subprocess.run(command, env=os.environ | ours, capture_output=True, text=True, timeout=300)
    ended, killed_at = time.time(), place / "all.json.time"
    assert killed_at.exists(), process.stderr
    return json.loads(answers.read_text()), process, ended - float(killed_at.read_text())


@pytest.fixture(scope="module")
def told(killed) -> dict:
    return killed[0]


# --- the same numbers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", several.LOSS_NAMES)
def test_gradients_of_every_loss_are_those_of_one_process(told, name):
    """In double precision: in single, one process is as far from the truth as two, some 1e-4."""
    assert told[f"gradients {name}"] < 1e-9


def test_no_loss_of_ours_is_left_out():
    ours = {name for name, loss in LOSSES.items() if loss.__module__ == "u2learn.losses"}
    assert ours <= set(several.LOSS_NAMES)


@pytest.mark.parametrize("name", several.VARIANTS)
def test_weights_after_some_steps_are_those_of_one_process(told, name):
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


def test_the_benchmark_counts_the_messages_of_a_step(told):
    assert told["messages"] == arithmetic(several.recipe("binary"), PROCESSES)["messages"] > 10


def test_a_frozen_norm_stays_frozen(told):
    assert told["frozen"]


@pytest.mark.parametrize("task", ["binary", "classes", "saliency"])
def test_no_image_is_scored_twice_or_left_out(told, task):
    """Five images and two processes: all scores are equal, to the last digit."""
    assert told[f"scores {task}"] == 0


def test_what_cannot_be_shared_is_refused(told):
    windows, dropout, data = told["refused"]
    assert f"7 windows cannot be shared evenly by {PROCESSES} processes: start one of 1, 7" in windows
    assert data == windows and "0 is a Dropout" in dropout


# --- a process dies -----------------------------------------------------------------------------------------


def test_a_process_that_dies_ends_the_others_in_one_sentence(killed):
    """The first one, which writes."""
    _, process, seconds = killed
    said = [line for line in process.stderr.splitlines() if line.startswith("u2learn:")]
    assert said == [f"u2learn: {distributed.LOST}"]
    assert process.returncode != 0 and seconds < 30 and "Root Cause" in process.stderr


def test_another_number_of_processes_goes_on_to_the_same_weights(killed, in_double, recipe, place):
    """One process began; two went on until their minutes were over, and again until one was killed."""
    output, run = killed[1].stdout, place / "run"
    stopped = int(re.search(r"Time is up at iteration (\d+) of", output)[1])
    assert 2 < stopped < several.KILLED_AT, "--minutes stops all processes, and the same command goes on"
    assert output.count("Time is up") == 1, "one process prints"
    before = position(run)
    assert before["iteration"] == several.KILLED_AT - 1
    assert before["device"].startswith(f"{PROCESSES} x CPU")
    assert not list(run.glob("*.tmp"))
    for folder in (run, place / "alone"):
        training.train(recipe, folder, device="cpu", progress=False)
    ours, due = (load_file(folder / "checkpoint.safetensors") for folder in (run, place / "alone"))
    assert set(ours) == set(due)
    assert several.distance(ours, due) < 1e-9
    logs = [(folder / "log.jsonl").read_text().splitlines() for folder in (run, place / "alone")]
    assert len(logs[0]) == len(logs[1]) == 8
    for line, expected in zip(*logs, strict=True):
        line, expected = json.loads(line), json.loads(expected)
        assert line["iteration"] == expected["iteration"]
        assert line["loss"] == pytest.approx(expected["loss"], abs=1e-9)


def test_the_record_of_several_processes_has_the_scores_of_one(killed, place, monkeypatch):
    monkeypatch.setattr(measure, "SPEED_SECONDS", 0.05)
    (path,) = (place / "records").iterdir()
    ours, due = json.loads(path.read_text()), measure.measure(place / "measured", "cpu", progress=False)
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


def test_a_batch_in_three_parts_is_put_together_in_its_order(monkeypatch):
    x = torch.randn(12, 4, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = x * torch.arange(1, 13)[:, None, None, None]  # windows that differ in spread
    parts = [x[first::3] for first in range(3)]
    moments = [
        torch.stack([part.mean((0, 2, 3)), part.var((0, 2, 3), unbiased=False)]).double() for part in parts
    ]
    monkeypatch.setattr(distributed, "size", lambda: 3)
    for mine in range(3):
        monkeypatch.setattr(distributed, "rank", lambda mine=mine: mine)
        monkeypatch.setattr(distributed, "_gathered", lambda _: list(parts))
        assert torch.equal(distributed.whole(parts[mine]), x)
        monkeypatch.setattr(distributed, "_gathered", lambda here, mine=mine: exchanged(moments, mine, here))
        mean, var = distributed.statistics(parts[mine])
        torch.testing.assert_close(mean, x.mean((0, 2, 3)))
        torch.testing.assert_close(var, x.var((0, 2, 3), unbiased=False))


def exchanged(moments: list[torch.Tensor], mine: int, here: torch.Tensor) -> list[torch.Tensor]:
    """What three processes get that exchange their moments, of which this one computed its own."""
    torch.testing.assert_close(here, moments[mine])
    return moments


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


def test_the_script_for_slurm_starts_a_training_that_ends_before_its_job(tmp_path):
    """Run where `srun` says what it is given: torchrun knows the options, and so does the training."""
    for name, says in {"srun": 'printf "%s\\n" "$@"', "scontrol": "printf 'one\\ntwo\\n'"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{says}\n")
        (tmp_path / name).chmod(0o755)
    script = Path(distributed.__file__).parent / "assets" / "slurm.sh"
    job = {"SLURM_NNODES": "2", "SLURM_JOB_ID": "41002", "SLURM_JOB_NODELIST": "[one-two]"}
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    ran = subprocess.run(
        ["bash", "-u", script, "drive-fcn-ce"],
        env=os.environ | job | {"PATH": path},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    given = ran.stdout.splitlines()
    torchrun = get_args_parser().parse_args(given[given.index("torchrun") + 1 :])
    assert (torchrun.nnodes, torchrun.nproc_per_node, torchrun.rdzv_endpoint) == ("2", "4", "one:29502")
    assert torchrun.module and torchrun.training_script == "u2learn" and torchrun.max_restarts == 0
    training_of = cli._parser().parse_args(torchrun.training_script_args)
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)$", script.read_text(), re.MULTILINE))
    hours, minutes, _ = map(int, asked["time"].split(":"))
    assert 0 < training_of.minutes < 60 * hours + minutes
    assert (asked["nodes"], asked["gpus-per-node"]) == ("2", torchrun.nproc_per_node)


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
