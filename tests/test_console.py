"""Consoles that do not know every sign: what is printed there is similar, and nothing ends in an error."""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tqdm import tqdm

from u2learn import cli
from u2learn.checks import NotYet, check
from u2learn.console import hide_bar, printable

ROOT = Path(__file__).parent.parent
OUT_SIZE = """
def out_size(n, kernel, stride=1, padding=0, dilation=1):
    return (n + 2 * padding - dilation * (kernel - 1) - 1) // stride + {one}
"""
CONSOLES = {
    "cp1252": {"PYTHONIOENCODING": "cp1252"},
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "the C locale": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}


def console(encoding: str) -> io.TextIOWrapper:
    """A stream as strict as the stdout of a console with this encoding."""
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)


def program(*arguments: object, **environment: str) -> subprocess.CompletedProcess:
    names = ("PYTHONIOENCODING", "PYTHONUTF8", "PYTHONCOERCECLOCALE", "LC_ALL")
    clean = {name: value for name, value in os.environ.items() if name not in names}
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        env=clean | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"} | environment,
    )


@pytest.mark.parametrize(
    ("encoding", "text", "due"),
    [
        ("utf-8", "✓ U²-Net 3 × 3 ± 1 – grün \udcff", "✓ U²-Net 3 × 3 ± 1 – grün ?"),
        ("cp1252", "✓ U²-Net 3 × 3 ± 1 – grün → Łódź", "ok U²-Net 3 × 3 ± 1 – grün -> ?ódz"),
        ("ascii", "✓ U²-Net 3 × 3 ± 1 – grün", "ok U2-Net 3 x 3 +- 1 - grun"),
        ("ascii", "gru\u0308n ½ 目 ‘a’", "grun 1/2 ? 'a'"),  # an umlaut as macOS writes it
        ("cp437", "✗ ○ ß", "no: -- ß"),
    ],
)
def test_what_an_encoding_lacks_becomes_similar_signs(encoding, text, due):
    assert printable(text, console(encoding)) == due


@pytest.mark.parametrize("name", CONSOLES)
def test_a_check_says_right_and_wrong_on_any_console(name):
    """Green on stdout; red and yellow go through exceptions, here to stderr, in IPython to stdout."""
    code = f"""
from u2learn.checks import NotYet, check
{OUT_SIZE.format(one=1)}
check('1.1', out_size)
def rsu(*args, **kwargs):
    raise NotImplementedError
try:
    check('6.2', rsu)
except NotYet as error:
    print(*error._render_traceback_())
{OUT_SIZE.format(one=2)}
check('1.1', out_size)"""
    done = program("-c", code, **CONSOLES[name])
    assert b"ok 1.1 out_size: " in done.stdout and b"-- 6.2 RSU: not done yet" in done.stdout
    assert done.returncode == 1 and b"NotYet: no: 1.1 out_size: " in done.stderr
    assert b"UnicodeEncodeError" not in done.stderr


def test_in_python_a_check_says_the_same_everywhere(monkeypatch):
    """What a grader reads is the exception's text, and that is no matter of consoles."""
    monkeypatch.setattr(sys, "stdout", console("ascii"))
    monkeypatch.setattr(sys, "stderr", console("ascii"))
    with pytest.raises(NotYet, match=r"✗ 1\.1"):
        check("1.1", lambda n, kernel, stride=1, padding=0, dilation=1: 0)


def test_the_program_itself_prints_on_a_console_of_ascii():
    done = program("-m", "u2learn", "--help", **CONSOLES["the C locale"])
    assert done.returncode == 0 and done.stderr == b"" and b"U-Net and U2-Net" in done.stdout


@pytest.mark.parametrize("encoding", ["cp1252", "cp850", "ascii"])
@pytest.mark.parametrize(
    "arguments", [["--help"], ["predict", "--help"], ["data", "list"], ["report", "--check"]], ids=" ".join
)
def test_every_console_can_print_what_the_program_says(encoding, arguments, monkeypatch):
    if arguments[0] == "report" and not (ROOT / "README.md").exists():
        pytest.skip("no README: these tests run outside of a checkout")
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "stdout", out := console(encoding))
    with contextlib.suppress(SystemExit):  # of --help
        cli.main(arguments)
    said = out.buffer.getvalue().decode(encoding)
    assert len(said) > 20 and "U\\xb2" not in said
    if arguments == ["--help"]:
        assert ("U2-Net" if encoding == "ascii" else "U²-Net") in said


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_names_of_files_may_be_in_any_script(encoding, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out, error = console(encoding), console(encoding)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", error)
    Image.fromarray(np.zeros((9, 9), np.uint8)).save("größe²_目.png")
    cli.main(["predict", "größe²_目.png", "--output", "ergebnis ✓"])
    assert (tmp_path / "ergebnis ✓").is_dir() and len(list((tmp_path / "ergebnis ✓").iterdir())) == 2
    assert "_?" in out.buffer.getvalue().decode(encoding)
    with pytest.raises(SystemExit) as stop:
        cli.main(["predict", "größe²_目.gif"])
    print(stop.value.code, file=error)  # as Python does at the end
    assert "u2learn: gr" in error.buffer.getvalue().decode(encoding)


@pytest.mark.parametrize("progress", [True, False])
@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar_is_drawn_on_a_terminal_and_never_into_a_file(progress, terminal, monkeypatch):
    """What a program prints into a file is read by people, and by the next program."""
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    stream = io.StringIO()
    stream.isatty = lambda: terminal
    for _ in tqdm(range(3), disable=hide_bar(progress), file=stream, mininterval=0):
        pass
    assert ("3/3" in stream.getvalue()) is (progress and terminal)
    assert (terminal and progress) or stream.getvalue() == ""


def test_whoever_wants_no_bars_gets_none(monkeypatch):
    """As tqdm itself promises of this variable, but only where nothing else is said to it."""
    monkeypatch.setenv("TQDM_DISABLE", "1")
    assert hide_bar(True) is True
    monkeypatch.delenv("TQDM_DISABLE")
    assert hide_bar(True) is None
