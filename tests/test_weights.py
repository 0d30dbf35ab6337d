"""Files of weights: written whole on every system, told by their content, read without running anything."""

import argparse
import collections
import datetime
import errno
import functools
import gzip
import io
import json
import os
import pathlib
import pickle
import subprocess
import sys
import threading
import types
import zipfile

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from u2learn import files, load_official, to_official, u2net_small, unet_paddle
from u2learn.files import remove_leftovers, write_text
from u2learn.inference import load_model, pretrained, save_model
from u2learn.models import weights
from u2learn.models.conv import FloorPool, double_conv
from u2learn.models.unet import UNet, nest
from u2learn.models.weights import read_tensors, read_weights, write_tensors

POSIX = os.name == "posix"
MAPS = pathlib.Path("/proc/self/maps")  # what this process has mapped into memory


def small(num_classes=1):
    return u2net_small(num_classes, mid_channels=2, out_channels=4)


def filled(model, seed=0):
    torch.manual_seed(seed)
    for x in model.state_dict().values():
        x.uniform_(0.5, 1) if x.is_floating_point() else x.fill_(7)
    return model.eval()


@functools.cache
def theirs():
    """The network of most files here, which nobody changes."""
    return filled(small())


def same(model, other):
    own, due = model.state_dict(), other.state_dict()
    return own.keys() == due.keys() and all(torch.equal(own[name], due[name]) for name in due)


def sentence(error):
    text = str(error.value)
    assert "\n" not in text and text.endswith(".") and len(text) < 500, text
    return text


# --- writing ------------------------------------------------------------------------------------------------

WRITERS = {
    "tensors": lambda path, value: write_tensors(path, {"a": torch.full((50,), value)}, {}),
    "text": lambda path, value: write_text(path, f"{value}\n" * 100),
}


def content(path):
    return read_tensors(path)[0]["a"][0].item() if path.suffix == ".bin" else float(path.read_text()[:3])


@pytest.fixture(params=WRITERS)
def write(request, tmp_path):
    """A function that writes 1.0 and the like into the file that is returned with it."""
    path = tmp_path / ("w.bin" if request.param == "tensors" else "w.txt")
    return path, lambda value: WRITERS[request.param](path, value)


@pytest.mark.skipif(not POSIX, reason="rights as on Linux and macOS")
@pytest.mark.parametrize(("umask", "due"), [(0o022, 0o644), (0o007, 0o660), (0o077, 0o600)])
def test_rights_are_those_of_the_umask(write, umask, due):
    path, put = write
    old = os.umask(umask)
    try:
        put(1.0)
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == due


@pytest.mark.skipif(not POSIX, reason="asks the system for a handle's mode")
def test_what_is_flushed_may_be_written(write, monkeypatch):
    """Windows: "Bad file descriptor" for a handle that can only be read."""
    import fcntl

    flushed = []

    def fsync(handle):
        if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(9, "Bad file descriptor")
        flushed.append(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    path, put = write
    put(1.0)
    assert flushed and content(path) == 1.0


@pytest.mark.skipif(not MAPS.exists(), reason="Linux says what is mapped")
def test_tensors_that_were_read_hold_no_file(tmp_path, monkeypatch):
    """Windows: a file that is mapped cannot be replaced."""
    path, replace = tmp_path / "held.safetensors", os.replace

    def as_on_windows(source, target):
        if str(target) in MAPS.read_text():
            raise PermissionError(13, "Access is denied")
        replace(source, target)

    monkeypatch.setattr("u2learn.files.WAITS", ())
    monkeypatch.setattr(os, "replace", as_on_windows)
    due = torch.rand(100_000)
    write_tensors(path, {"a": due}, {"turn": "1"})
    with weights.safe_open(path, framework="pt") as file:
        held = file.get_tensor("a")
    assert str(path) in MAPS.read_text()  # this is how it would be
    with pytest.raises(PermissionError):
        write_tensors(path, {"a": due}, {})
    del held, file
    tensors, _ = read_tensors(path)
    assert str(path) not in MAPS.read_text()
    write_tensors(path, {"a": due + 1}, {"turn": "2"})
    assert torch.equal(tensors["a"], due) and torch.equal(read_tensors(path)[0]["a"], due + 1)


@pytest.mark.parametrize("refusals", [1, 3, 99])
def test_a_file_that_another_program_has_open_is_tried_again(write, refusals, monkeypatch):
    path, put = write
    put(1.0)
    replace, tries = os.replace, []

    def busy(source, target):
        tries.append(target)
        if len(tries) <= refusals:
            raise PermissionError(13, "Access is denied")
        replace(source, target)

    monkeypatch.setattr(os, "replace", busy)
    monkeypatch.setattr("u2learn.files.WAITS", (0, 0, 0, 0))
    if refusals < 5:
        put(2.0)
    else:
        with pytest.raises(PermissionError, match="Access is denied") as error:
            put(2.0)
        assert str(path) in sentence(error) and len(tries) == 5
    assert content(path) == (2.0 if refusals < 5 else 1.0)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


FULL = """
import resource, sys, torch
from pathlib import Path
from u2learn.files import write_text
from u2learn.models.weights import write_tensors
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
folder = Path(sys.argv[1])
for write, path, value in (
    (lambda p, x: write_tensors(p, x, {}), folder / "w.bin", {"a": torch.zeros(25_000)}),
    (write_text, folder / "w.txt", "x" * 100_000),
):
    try:
        write(path, value)
    except OSError as error:
        print(error)
"""


@pytest.mark.skipif(not POSIX, reason="a limit to files as Linux and macOS have it")
def test_a_full_disk_is_a_sentence_and_the_old_file_stays(tmp_path):
    for name, value in (("w.bin", "tensors"), ("w.txt", "text")):
        WRITERS[value](tmp_path / name, 1.0)
    run = subprocess.run([sys.executable, "-c", FULL, tmp_path], capture_output=True, text=True)
    lines = run.stdout.splitlines()
    assert run.returncode == 0 and len(lines) == 2, run.stderr
    for name, line in zip(("w.bin", "w.txt"), lines, strict=True):
        assert str(tmp_path / name) in line and "File too large" in line and "100,000 bytes" in line
        assert "is whole" in line and line.endswith(".")
        assert content(tmp_path / name) == 1.0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["w.bin", "w.txt"]


def test_an_error_of_safetensors_is_an_oserror(tmp_path, monkeypatch):
    def fail(*_):
        raise SafetensorError("I/O error: Disk quota exceeded (os error 122)")

    monkeypatch.setattr(weights, "save_file", fail)
    with pytest.raises(OSError, match="quota"):
        write_tensors(tmp_path / "a.bin", {"a": torch.ones(1)}, {})
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_is_a_sentence(tmp_path):
    for write in WRITERS.values():
        with pytest.raises(FileNotFoundError) as error:
            write(tmp_path / "none" / "w.bin", 1.0)
        assert str(tmp_path / "none" / "w.bin") in sentence(error)


def test_two_who_write_the_same_file_do_not_meet(write):
    path, put = write
    failed = []

    def again(value):
        try:
            for _ in range(40):
                put(value)
        except OSError as error:
            failed.append(error)

    threads = [threading.Thread(target=again, args=(float(i),)) for i in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if path.exists():
            assert content(path) in (0, 1, 2, 3)
    assert not failed and [p.name for p in path.parent.iterdir()] == [path.name]


def test_text_is_utf_8_with_plain_line_ends_whatever_the_system_prefers(tmp_path):
    code = "import sys, pathlib; from u2learn.files import write_text; "
    code += r"write_text(pathlib.Path(sys.argv[1]), '\xfc\xd7\u2713\n')"
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", code, tmp_path / "a.txt"], check=True, env=environment)
    assert (tmp_path / "a.txt").read_bytes() == "ü×✓\n".encode()


def test_leftovers_go_and_nothing_else(tmp_path):
    for name in ("w.safetensors.1a2b.tmp", ".tmpA1b2C3", "w.safetensors", "log.jsonl", "tmp.txt"):
        (tmp_path / name).write_text("x")
    remove_leftovers(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log.jsonl", "tmp.txt", "w.safetensors"]


@pytest.fixture
def drive(tmp_path, monkeypatch):
    """Google Drive as Colab mounts it, and what its bin holds of files that were deleted or replaced."""
    place = tmp_path / "drive"
    place.mkdir()
    monkeypatch.setattr(files, "DRIVE", place)
    bin, unlink, replace = [], pathlib.Path.unlink, os.replace

    def deleted(path, **options):
        if path.exists() and path.parent == place:
            bin.append(path.read_text())
        unlink(path, **options)

    def replaced(source, target):
        if pathlib.Path(target).exists():
            bin.append(pathlib.Path(target).read_text())
        replace(source, target)

    monkeypatch.setattr(pathlib.Path, "unlink", deleted)
    monkeypatch.setattr(files.os, "replace", replaced)
    return place, bin


def test_old_checkpoints_do_not_fill_the_bin_of_a_drive(drive):
    place, bin = drive
    for i in range(3):
        write_text(place / "w", f"{i}")
        assert (place / "w").read_text() == f"{i}"
    assert [p.name for p in place.iterdir()] == ["w"]
    assert bin == ["", ""]


def test_a_file_on_a_drive_outlives_a_process_that_is_killed_or_fails(drive, monkeypatch):
    """Between the two names, where `w` is gone for a moment."""
    place, _ = drive
    write_text(place / "w", "old")
    (place / "w").rename(place / f"w{files.ASIDE}")  # so far it came; the new file has its temporary name
    (place / "w.1a2b.tmp").write_text("new")
    remove_leftovers(place)
    assert [(p.name, p.read_text()) for p in place.iterdir()] == [("w", "old")]
    (place / f"w{files.ASIDE}").write_text("older")  # it came one step farther
    remove_leftovers(place)
    assert [(p.name, p.read_text()) for p in place.iterdir()] == [("w", "old")]

    replace = files.os.replace

    def fails(source, target):
        if pathlib.Path(source).read_text() == "new":
            raise OSError(errno.EIO, "Transport endpoint is not connected")
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", fails)
    with pytest.raises(OSError, match="Transport endpoint"):
        write_text(place / "w", "new")
    assert [(p.name, p.read_text()) for p in place.iterdir()] == [("w", "old")]


@pytest.mark.parametrize(
    "name", ["mine.pth", "mine", "mine.pt", "MINE.SAFETENSORS", "mine.pdparams", "a.b.c"]
)
def test_what_is_saved_loads_whatever_its_ending(name, tmp_path):
    model, recipe = pretrained()
    save_model(tmp_path / name, model, recipe)
    loaded, its_recipe = load_model(tmp_path / name)
    assert same(loaded, model) and its_recipe == recipe


# --- what PyTorch writes, read as PyTorch reads it ----------------------------------------------------------


def all_kinds():
    """Tensors of every type, and laid out in every way."""
    torch.manual_seed(0)
    base = torch.rand(4, 5, 6)
    state = collections.OrderedDict(
        float=base,
        view=base[1:3, :, ::2],
        turned=base.permute(2, 0, 1),
        last=torch.rand(1, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        row=base[0, 0].expand(3, 6),
        scalar=torch.tensor(2.5),
        empty=torch.empty(0, 3),
        parameter=nn.Parameter(torch.rand(3)),
        bits=torch.tensor([True, False]),
    )
    for kind in ["float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8"]:
        state[kind] = (torch.rand(7) * 100).to(getattr(torch, kind))
    state["marked"] = torch.rand(2)
    state["marked"].note = "an attribute of a tensor"
    state._metadata = {"": {"version": 1}}  # which nn.Module.state_dict gives
    return state


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("new", [True, False], ids=["zip", "before 1.6"])
def test_tensors_are_read_as_pytorch_reads_them(tmp_path, new, protocol):
    path, state = tmp_path / "x", all_kinds()
    torch.save(state, path, pickle_protocol=protocol, _use_new_zipfile_serialization=new)
    due = torch.load(path, weights_only=False)
    found, metadata = read_weights(path)
    assert found.keys() == due.keys() and metadata == {}
    for name, x in due.items():
        assert found[name].dtype == x.dtype and found[name].stride() == x.stride(), name
        assert torch.equal(found[name], x), name


def test_tensors_that_share_their_numbers_are_read_once(tmp_path):
    whole = torch.rand(1000, 1000)
    torch.save({"a": whole[:10], "b": whole[5:], "optimizer": {"state": whole * 2}}, tmp_path / "x")
    found, _ = read_weights(tmp_path / "x")
    assert found["a"].untyped_storage().data_ptr() == found["b"].untyped_storage().data_ptr()
    assert torch.equal(found["a"], whole[:10]) and torch.equal(found["b"], whole[5:])


# --- wrappers, prefixes, endings ----------------------------------------------------------------------------

ENDINGS = [
    "u2netp.pt",
    "u2netp.pth.tar",
    "U2NETP.PTH",
    "u2netp",
    "u2net_bce_itr_8000_tar_0.024132",
    "x.safetensors",
]


@pytest.mark.parametrize("name", ENDINGS)
@pytest.mark.parametrize("kind", ["zip", "before 1.6", "safetensors"])
def test_a_u2net_is_told_by_its_content(name, kind, tmp_path):
    due, path = theirs(), tmp_path / name
    if kind == "safetensors":
        save_file(to_official(due), path)
    else:
        torch.save(to_official(due), path, _use_new_zipfile_serialization=kind == "zip")
    model, recipe = load_model(path)
    assert recipe is None and not model.training and same(model, due)
    assert same(load_official(small(), path), due)


WRAPPED = {
    "alone": lambda x: x,
    "with an epoch": lambda x: {**x, "epoch": 3, "lr": 0.1, "name": "u2net", "best": None},
    **{
        name: lambda x, name=name: {"epoch": 3, name: x, "optimizer": {"state": {0: {"step": torch.ones(1)}}}}
        for name in ("state_dict", "model_state_dict", "model", "net", "params", "params_ema", "model_ema")
    },
    "nested": lambda x: {"state_dict": {"net": {"model": x}}, "epoch": 1},
    "of settings too": lambda x: {"model": {"type": "u2net", "width": 4}, "net": x},
    "a running mean": lambda x: {"ema": {k: v + 1 for k, v in x.items()}, "state_dict": x},
    "trained in parallel": lambda x: {f"module.{k}": v for k, v in x.items()},
    "compiled": lambda x: {"model": {f"_orig_mod.{k}": v for k, v in x.items()}},
    "compiled and in parallel": lambda x: {f"_orig_mod.module.{k}": v for k, v in x.items()},
    "Lightning's": lambda x: {
        "state_dict": {**{f"model.{k}": v for k, v in x.items()}, "loss.pos_weight": torch.ones(1)},
        "pytorch-lightning_version": "2.5.0",
        "callbacks": {"EarlyStopping": {"best_score": torch.tensor(1.0)}},
        "hyper_parameters": {"lr": 0.1},
    },
    "Lightning's, of another name": lambda x: {"state_dict": {f"net.u2net.{k}": v for k, v in x.items()}},
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_weights_are_found_in_what_trainers_write(kind, tmp_path):
    due, path = theirs(), tmp_path / "x.ckpt"
    torch.save(WRAPPED[kind](to_official(due)), path)
    assert same(load_model(path)[0], due)
    assert same(load_official(small(), path), due)


def test_prefixes_of_the_other_networks_go_too(tmp_path):
    paddle = filled(narrow_paddle())
    arrays = {f"module.{name}": x.numpy() for name, x in to_official(paddle).items()}
    (tmp_path / "m").write_bytes(pickle.dumps({"model": arrays, "epoch": 1}, protocol=4))
    loaded = load_official(narrow_paddle(), tmp_path / "m")
    found = to_official(loaded)
    assert all(torch.equal(x, found[name]) for name, x in to_official(paddle).items())


def narrow_paddle(num_classes=2):
    body = nest([2, 4, 4], [2, 2], double_conv, down=FloorPool)
    return UNet(body, head=nn.Conv2d(2, num_classes, 3, padding=1))


def test_a_network_that_is_known_is_named_with_what_takes_it(tmp_path):
    from test_official import narrow

    torch.save({"state_dict": to_official(narrow())}, tmp_path / "a.pth")
    arrays = {name: x.numpy() for name, x in to_official(narrow_paddle()).items()}
    (tmp_path / "b.pdparams").write_bytes(pickle.dumps(arrays, protocol=4))
    for name, whose in (("a.pth", "OpenMMLab's UNet-S5-D16"), ("b.pdparams", "PaddleSeg's UNet")):
        with pytest.raises(ValueError) as error:
            load_model(tmp_path / name)
        text = sentence(error)
        assert str(tmp_path / name) in text and whose in text
        assert "u2learn evaluate --weights" in text and "--recipe" in text and "--from" in text
        with pytest.raises(ValueError, match="another network") as error:
            load_official(small(), tmp_path / name)
        assert whose in sentence(error)


# --- other people's classes, and traps ----------------------------------------------------------------------


@pytest.fixture
def foreign(tmp_path, monkeypatch):
    """A module that is there while a file is written; to import it later, or to use its classes, tells."""
    marker = tmp_path / "ran"
    module = types.ModuleType("foreignlab.history")

    class Buffer:
        def __init__(self):
            self.log, self.methods = np.arange(3.0), {"min": Buffer.smallest}

        def smallest(self):
            return self.log.min()

        def __setstate__(self, state):
            marker.write_text("a class of the file ran")

    class Bag(dict):
        def __setitem__(self, key, value):
            marker.write_text("a class of the file ran")

    class Row(list):
        pass

    for kind in (Buffer, Bag, Row):
        kind.__module__, kind.__qualname__ = module.__name__, kind.__name__
        setattr(module, kind.__name__, kind)
    Buffer.smallest.__module__, Buffer.smallest.__qualname__ = module.__name__, "Buffer.smallest"
    home = tmp_path / "foreignlab"
    home.mkdir()
    (home / "__init__.py").write_text(f"open({str(marker)!r}, 'w')")
    (home / "history.py").write_text(f"open({str(marker)!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "foreignlab", types.ModuleType("foreignlab"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    yield module
    assert not marker.exists()


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("new", [True, False], ids=["zip", "before 1.6"])
def test_other_peoples_objects_are_passed_over(foreign, tmp_path, monkeypatch, new, protocol):
    """OpenMMLab's HistoryBuffer is of this kind, and so are NumPy's numbers in a log."""
    row = foreign.Row()
    row.append(1)
    bag = foreign.Bag()
    dict.__setitem__(bag, "a", 1)
    extras = {
        "message_hub": {"loss": foreign.Buffer(), "row": row, "bag": bag},
        "best": np.float64(0.5),
        "count": np.int64(3),
        "scores": np.array([1.0, 2.0]),
        "names": np.array(["a", "b"]),
        "things": np.array([{}, None], object),
        "kind": np.float32,
        "args": argparse.Namespace(lr=0.1),
        "path": pathlib.PurePosixPath("/a/b"),
        "when": datetime.datetime(2020, 1, 1),
        "sets": [{1, 2}, frozenset({3}), collections.Counter("aab"), collections.defaultdict(list, a=[1])],
        "device": torch.device("cpu"),
        "dtype": torch.float16,
        "size": torch.Size([1, 2]),
        "schedule": torch.optim.lr_scheduler.StepLR(torch.optim.SGD([torch.ones(1)], 0.1), 3),
    }
    due, path = theirs(), tmp_path / "iter_40000.pth"
    torch.save(
        {"meta": extras, "state_dict": to_official(due)} | extras,
        path,
        pickle_protocol=protocol,
        _use_new_zipfile_serialization=new,
    )
    monkeypatch.delitem(sys.modules, "foreignlab.history")
    monkeypatch.delitem(sys.modules, "foreignlab")
    assert same(load_official(small(), path), due)
    assert "foreignlab" not in sys.modules


class Call:
    """Pickled, this is an order to call a function that is named "module name"."""

    def __init__(self, name, *arguments):
        self.name, self.arguments = name, arguments


def ordered(call):
    """A pickle of {"a": CALL} in the first protocol with binary opcodes, written by hand."""
    module, name = call.name.split()
    arguments = pickle.dumps(call.arguments, protocol=2)[2:-1]
    return b"\x80\x02}X\x01\x00\x00\x00ac" + f"{module}\n{name}\n".encode() + arguments + b"Rs."


ACTS = [
    "os system",
    "posix system",
    "nt system",
    "subprocess Popen",
    "builtins eval",
    "__builtin__ eval",
    "sys exit",
]
ACTS += [
    "io open",
    "builtins open",
    "importlib import_module",
    "runpy run_path",
    "shutil rmtree",
    "numpy load",
]


@pytest.mark.parametrize("name", ACTS)
def test_what_would_act_is_refused_with_what_to_do(name, tmp_path):
    (tmp_path / "w").write_bytes(ordered(Call(name, "echo")))
    with pytest.raises(ValueError) as error:
        read_weights(tmp_path / "w")
    text = sentence(error)
    assert "is refused" in text and name.split()[1] in text and "torch.save(model.state_dict()" in text


@pytest.mark.parametrize(
    "call", ["foreignlab.history Buffer", "antigravity anything", "turtle Turtle", "pty spawn"]
)
def test_no_name_is_imported_and_nothing_called(foreign, call, tmp_path):
    before = set(sys.modules)
    (tmp_path / "w").write_bytes(ordered(Call(call, "touch", str(tmp_path / "ran"))))
    with pytest.raises(ValueError, match="no dictionary of weights"):
        read_weights(tmp_path / "w")
    assert set(sys.modules) == before and not (tmp_path / "ran").exists()


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_a_torchscript_program_is_refused(tmp_path):
    torch.jit.trace(nn.Conv2d(1, 1, 1), torch.rand(1, 1, 2, 2)).save(tmp_path / "script.pt")
    with pytest.raises(ValueError, match="TorchScript program would have to run") as error:
        load_model(tmp_path / "script.pt")
    assert "torch.save(model.state_dict()" in sentence(error)


@pytest.mark.parametrize("new", [True, False], ids=["zip", "before 1.6"])
def test_a_whole_model_says_how_to_save_its_weights(tmp_path, new):
    torch.save(nn.Sequential(nn.Conv2d(1, 1, 1)), tmp_path / "m.pt", _use_new_zipfile_serialization=new)
    with pytest.raises(ValueError, match=r"whole model.*torch\.save\(model\.state_dict\(\)") as error:
        load_model(tmp_path / "m.pt")
    sentence(error)


def test_a_dictionary_inside_itself_is_no_endless_loop(tmp_path):
    state = {}
    state["state_dict"] = state
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"w\.pth") as error:
        read_weights(tmp_path / "w.pth")
    sentence(error)


# --- files that are none ------------------------------------------------------------------------------------


def zipped(**members):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return data.getvalue()


WHOLE = io.BytesIO()
torch.save(to_official(theirs()), WHOLE)
NONE = {
    "empty": (b"", "is empty"),
    "a web page": (b"<!DOCTYPE html><title>404</title>", "is a web page"),
    "a web page of Windows": (b"\xef\xbb\xbf\r\n  <html><body>Quota exceeded</body></html>", "is a web page"),
    "a pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 4700000\n",
        "git lfs pull",
    ),
    "ONNX": (b"\x08\x06\x12\x07pytorch\x1a\x031.9:\xa1\xf0\x90\x01\n6", "ONNX"),
    "ONNX of another maker": (b"\x08\x0a:\x10\x0a\x04abcd", "ONNX"),
    "Keras": (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
    "packed": (gzip.compress(WHOLE.getvalue()), "unpack"),
    "an archive": (zipped(**{"u2netp.pth": "x"}), "unpack it if it is an archive"),
    "text": (b"epoch,loss\n1,0.5\n", "cut short or no checkpoint"),
    "half a file": (WHOLE.getvalue()[:-1000], "cut short"),
    "one byte": (b"P", "cut short"),
    "zeros": (bytes(5000), "cut short"),
    "half a safetensors": (b"\x40\0\0\0\0\0\0\0" + b'{"a":{"dtype":"F32"', "cut short"),
    "a picture": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "cut short or no checkpoint"),
}


@pytest.mark.parametrize("ending", [".pth", ".pdparams", ".safetensors", ""])
@pytest.mark.parametrize("kind", NONE)
def test_what_holds_no_weights_is_named_for_what_it_is(kind, ending, tmp_path):
    data, words = NONE[kind]
    path = tmp_path / f"weights{ending}"
    path.write_bytes(data)
    for load in (load_model, lambda path: load_official(theirs(), path)):
        with pytest.raises(ValueError) as error:
            load(path)
        text = sentence(error)
        assert str(path) in text and words in text and "delete" not in text


def test_a_safetensors_file_cut_anywhere_is_a_sentence_without_bad_advice(tmp_path):
    path = tmp_path / "w.safetensors"
    write_tensors(path, {"a": torch.arange(1000.0)}, {"recipe": "{}"})
    whole = path.read_bytes()
    for length in (1, 8, 9, 50, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        for read in (read_weights, read_tensors):
            with pytest.raises(ValueError, match="cut short") as error:
                read(path)
            assert "delete" not in sentence(error)


def test_a_run_folder_stands_for_its_best_weights_or_its_checkpoint(tmp_path):
    for name, value in (("checkpoint", 1.0), ("best", 2.0)):
        write_tensors(
            tmp_path / f"{name}.safetensors", {"a": torch.full((2,), value)}, {"recipe": json.dumps({})}
        )
        tensors, metadata = read_weights(tmp_path)
        assert torch.equal(tensors["a"], torch.full((2,), value)) and metadata == {"recipe": "{}"}


def test_a_full_unet_of_paddles_is_not_taken_for_anything_else(tmp_path):
    with torch.device("meta"):
        arrays = {name: np.zeros(x.shape, np.float16) for name, x in to_official(unet_paddle(19)).items()}
    (tmp_path / "model").write_bytes(pickle.dumps(arrays, protocol=4))
    with pytest.raises(ValueError, match="PaddleSeg's UNet"):
        load_model(tmp_path / "model")
