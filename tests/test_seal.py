"""Attacks on the grader: none gives points, and none stops or slows what others handed in."""

import contextlib
import json
import os
import random
import socket
import sqlite3
import struct
import subprocess
import sys
import textwrap
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from puppet import SOURCE, Puppet, calling, frame, grade_stubs, hand_in, runs, value, waiting_class

from tools import assignments
from tools.assignments import Assignment
from tools.grading import pool, run, sandbox, seal
from tools.grading.__main__ import main
from tools.grading.run import Sealed, grade_notebook
from tools.grading.sandbox import Died, Sandbox, SubmissionError, plain, rebuilt
from tools.grading.worker import BODY, HEAD
from u2learn.files import write_text

pytestmark = [
    pytest.mark.course,
    pytest.mark.skipif(sys.platform != "linux", reason="the seals are Linux's"),
]
ENGINE = seal.find()
only_sealed = pytest.mark.skipif(ENGINE is None, reason="nothing here seals a submission")


@pytest.mark.skipif("CI" not in os.environ, reason="who develops need not have a seal")
def test_continuous_integration_has_a_seal():
    """Or the tests of it are skipped, and nobody knows."""
    assert ENGINE is not None, [engine.why_not() for engine in seal.ENGINES]


# What a submission can reach. All of it runs in one process.


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    """What this machine has that is nobody's business: a secret, other clones, other grades, two sockets."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "key").write_text("PRIVATE KEY")
    with socket.socket(socket.AF_UNIX) as named, socket.socket(socket.AF_UNIX) as abstract:
        named.bind(str(folder / "agent"))
        abstract.bind(f"\0u2learn-{os.getpid()}")
        for each in (named, abstract):
            each.listen()
            each.settimeout(0)
        yield {"folder": str(folder), "abstract": f"\0u2learn-{os.getpid()}"}
        for each in (named, abstract):
            with pytest.raises(BlockingIOError):
                each.accept()


@pytest.fixture(scope="module")
def box(outside):
    if ENGINE is None:
        pytest.skip("nothing here seals a submission")
    with Sandbox(ENGINE, seconds=20) as found:
        found.run(f"OUTSIDE = {outside!r}\nROOT = {str(ROOT)!r}\nPID = {os.getpid()}\n{HELPERS}")
        yield found


HELPERS = '''
import ctypes, os, pathlib, signal, socket, subprocess, sys, time

libc = ctypes.CDLL(None, use_errno=True)

def refused(function, *arguments):
    """Whether the system says no."""
    try:
        function(*arguments)
    except OSError:
        return True
    return False

def call(name, *arguments):
    """A system call by its number, as C sees it."""
    numbers = {"x86_64": X86, "aarch64": ARM}[os.uname().machine]
    if libc.syscall(numbers[name], *arguments) == -1:
        raise OSError(ctypes.get_errno(), name)

X86 = dict(ptrace=101, unshare=272, setns=308, mount=165, pivot_root=155, keyctl=250, add_key=248, bpf=321,
           perf_event_open=298, userfaultfd=323, io_uring_setup=425, memfd_create=319, shmget=29, msgget=68,
           process_vm_readv=310, pidfd_getfd=438, open_by_handle_at=304, clone3=435)
ARM = dict(ptrace=117, unshare=97, setns=268, mount=40, pivot_root=41, keyctl=219, add_key=217, bpf=280,
           perf_event_open=241, userfaultfd=282, io_uring_setup=425, memfd_create=279, shmget=194, msgget=186,
           process_vm_readv=270, pidfd_getfd=438, open_by_handle_at=265, clone3=435)
'''

REACH = {
    "the network": "assert refused(socket.create_connection, ('1.1.1.1', 53), 3)",
    "the loopback of this machine": """
        with open('/proc/net/tcp') as file:
            assert len(file.readlines()) == 1
        assert refused(socket.create_connection, ('127.0.0.1', 22), 3)
    """,
    "a socket in the file system": """
        assert refused(socket.socket(socket.AF_UNIX).connect, OUTSIDE['folder'] + '/agent')
    """,
    "a socket without a file": "assert refused(socket.socket(socket.AF_UNIX).connect, OUTSIDE['abstract'])",
    "sockets that no namespace covers": """
        for family in (socket.AF_VSOCK, socket.AF_ALG, socket.AF_NETLINK, socket.AF_PACKET):
            assert refused(socket.socket, family, socket.SOCK_DGRAM), family
    """,
    "a secret": """
        for path in (OUTSIDE['folder'] + '/key', '/etc/shadow', '/root/.ssh', '/var/run'):
            assert not os.path.exists(path), path
    """,
    "solutions, in this clone or another": """
        tops = {*os.listdir('/')} - {'proc', 'usr'}
        found = [f for top in tops for _, _, files in os.walk('/' + top) for f in files]
        assert not any('-unet' in f or 'mistakes.yml' in f for f in found) and len(found) > 1000
        assert not os.path.exists(ROOT + '/exercises') and not os.path.exists(ROOT + '/.git')
        assert not os.path.exists('/course/tools') and set(os.listdir('/course')) == {'u2learn', 'worker.py'}
    """,
    "other processes": """
        assert all(refused(os.kill, PID, number) for number in (0, 9)) or PID < 64
        assert len([p for p in os.listdir('/proc') if p.isdigit()]) <= 3
        os.kill(1, signal.SIGTERM); os.kill(1, signal.SIGKILL); os.kill(1, signal.SIGSTOP)
        assert refused(os.listdir, '/proc/1/root/home') or os.listdir('/proc/1/root/home') == ['student']
        assert b'SSH' not in pathlib.Path('/proc/self/environ').read_bytes()
    """,
    "the grader's descriptors": """
        kinds = {os.readlink('/proc/self/fd/' + fd).split(':')[0] for fd in os.listdir('/proc/self/fd')
                 if os.path.islink('/proc/self/fd/' + fd)}
        files = {kind for kind in kinds if kind.startswith('/')}
        assert kinds - files <= {'socket', 'pipe', 'anon_inode'}, kinds
        assert files <= {'/dev/null', '/proc', '/dev/urandom'} or not any(ROOT in f for f in files), files
    """,
    "a request, from a child": """
        done = subprocess.run(['cat'], stdout=subprocess.PIPE, timeout=5)
        assert done.stdout == b''
    """,
    "places to write": """
        written = []
        for line in open('/proc/self/mountinfo'):
            place = line.split()[4]
            if not refused(os.mkdir, place + '/stolen'):
                written.append(place)
        assert set(written) <= {'/content', '/dev/shm'}, written
        assert refused(open, '/dev/sda', 'w') and refused(os.mknod, 'disk', 0o60600, os.makedev(8, 0))
    """,
    "the package that others import": "import u2learn; assert refused(open, u2learn.__file__, 'a')",
    "the kernel's variables": """
        # A process that is root outside, and here only has no rights, could name a program there that the
        # kernel starts as root when a process crashes.
        for name in ('kernel/core_pattern', 'vm/overcommit_memory', 'kernel/modprobe'):
            assert refused(open, '/proc/sys/' + name, 'r+'), name
    """,
    "rights": """
        assert refused(os.setuid, 0) and refused(os.chroot, '/')
        state = dict(line.split(':', 1) for line in open('/proc/self/status'))
        assert [int(state[k], 16) for k in ('CapEff', 'CapPrm', 'CapInh', 'CapAmb')] == [0] * 4
        assert int(state['NoNewPrivs']) == 1 and int(state['Seccomp']) == 2
        assert not os.path.exists('/usr/bin/su') or subprocess.run(['/usr/bin/su', '-c', 'true']).returncode
    """,
    "new namespaces": """
        for flag in (0x10000000, 0x20000, 0x40000000, 0x20000000):
            assert refused(call, 'unshare', flag), flag
        assert refused(call, 'setns', 0, 0) and refused(call, 'clone3', 0, 0)
    """,
    "mounts": "assert refused(call, 'mount', 0, 0, 0, 0, 0) and refused(call, 'pivot_root', 0, 0)",
    "the memory of others": """
        for name in ('ptrace', 'process_vm_readv', 'pidfd_getfd', 'userfaultfd', 'open_by_handle_at'):
            assert refused(call, name, 0, 1, 0, 0, 0, 0), name
    """,
    "the kernel's keys and programs": """
        for name in ('keyctl', 'add_key', 'bpf', 'perf_event_open', 'io_uring_setup'):
            assert refused(call, name, 0, 0, 0, 0, 0), name
    """,
    "memory that is counted for nobody": """
        assert refused(call, 'memfd_create', b'x', 0)
        assert refused(call, 'shmget', 0, 1 << 30, 0o1600) and refused(call, 'msgget', 0, 0o1600)
    """,
    "another core": "assert refused(os.sched_setaffinity, 0, range(os.cpu_count()))",
    "more memory than there is": """
        for get in (lambda: bytearray(10**10), lambda: __import__('torch').zeros(10**11)):
            try:
                get()
            except (MemoryError, RuntimeError):
                continue
            raise AssertionError
    """,
    "all of the disk": """
        for folder in ('/content', '/dev/shm', '/tmp', '/', '/dev', '/course'):
            size = 0
            try:
                with open(folder + '/filled', 'wb') as file:
                    while size < 1000:
                        file.write(bytes(1 << 20)); file.flush(); size += 1
            except OSError:
                pass
            if os.path.exists(folder + '/filled'):
                os.remove(folder + '/filled')
            assert size <= 256, (folder, size)
    """,
    "what it needs is there": """
        import matplotlib.pyplot, numpy, torch
        assert subprocess.run('echo hello', shell=True, stdout=subprocess.PIPE).stdout == b'hello\\n'
        open('mine.txt', 'w').write('the own folder is there to be used')
        assert os.environ['HOME'] == os.getcwd() and 'U2LEARN_BUDGET' not in os.environ
    """,
}


@pytest.mark.parametrize("name", REACH)
def test_out_of_reach(box, name):
    box.run(textwrap.dedent(REACH[name]))


@only_sealed
@pytest.mark.parametrize(
    ("attack", "says"),
    {
        "processes": ("""
            import os, time
            try:
                for _ in range(400):
                    if os.fork() == 0:
                        time.sleep(60)
                        os._exit(0)
            except OSError:
                raise SystemError("no more processes")
            time.sleep(60)
        """, "64 processes|no more processes"),
        "memory of several": ("""
            import os, time
            for _ in range(8):
                if os.fork() == 0:
                    x = b"1" * (200 << 20)
                    time.sleep(60)
                    os._exit(0)
            time.sleep(60)
        """, "GB of memory"),
        "page tables, of memory that is only read": ("""
            import mmap, time
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000  # no reserve
            m = mmap.mmap(-1, 1 << 40, flags=flags, prot=mmap.PROT_READ)
            for i in range(0, 1 << 40, 1 << 21):
                m[i]
            time.sleep(60)
        """, "GB of memory"),
        "small files": ("""
            import os, time
            for i in range(30_000):
                os.mkdir(f"d{i}")
            time.sleep(60)
        """, "10,000 files"),
        "small files in two places": ("""
            import os, time
            for i in range(8_000):
                os.mkdir(f"d{i}")
                os.mkdir(f"/dev/shm/d{i}")
            time.sleep(60)
        """, "10,000 files"),
        "sockets, each with what the kernel keeps for it": ("""
            import socket, time
            held = [socket.socketpair() for _ in range(70)]
            time.sleep(60)
        """, "128 sockets"),
    }.values(),
)  # fmt: skip
def test_what_takes_too_much_is_ended(monkeypatch, attack, says):
    monkeypatch.setattr(seal, "MEMORY", 1 << 30)
    began = time.monotonic()
    with Sandbox(ENGINE) as box, pytest.raises((Died, SystemError), match=says):
        box.run(textwrap.dedent(attack), seconds=50)
    assert time.monotonic() - began < 60


@only_sealed
def test_a_child_that_answers_and_a_child_that_stays():
    """What a forked child says on the channel counts as an answer of the submission, and ends with it."""
    source = """
        import gc, os, subprocess, time, types
        def find(o):
            return type(o).__name__ == "Worker"
        channel = next(o for o in gc.get_objects() if find(o)).channel
        def one():
            return 1
        if os.fork() == 0:
            time.sleep(0.3)
            channel.send({"value": "forged"})
            os._exit(0)
        stays = subprocess.Popen(["sleep", "600.25"])
    """
    with Sandbox(ENGINE) as box:
        box.run(textwrap.dedent(source))
        one = box.get("one")
        time.sleep(0.6)
        assert [one(), one(), one()] == ["forged", 1, 1]
        assert runs("600.25")
        first = box.started.first
    assert gone(lambda: runs("600.25"))
    assert gone(lambda: Path(f"/proc/{first}").exists())


def gone(there: Callable[[], bool], seconds: float = 10) -> bool:
    until = time.monotonic() + seconds
    while there() and time.monotonic() < until:
        time.sleep(0.05)
    return not there()


@only_sealed
def test_nothing_is_left_when_the_grader_is_killed():
    script = """
        from tools.grading import seal
        from tools.grading.sandbox import Sandbox
        with Sandbox(seal.find()) as box:
            box.run("import subprocess; child = subprocess.Popen(['sleep', '600.75'])")
            print("ready", flush=True)
            box.run("while True: pass", seconds=600)
    """
    grader = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert grader.stdout.readline() == "ready\n"
    assert runs("600.75")
    grader.kill()
    grader.communicate()
    assert gone(lambda: runs("600.75"))


# What a submission can say. Its process is a puppet here.


NONSENSE = {
    "noise": b"\xff" * 100,
    "a message of a terabyte": struct.pack("!QQ", 1 << 40, 0),
    "a body of a terabyte": struct.pack("!QQ", 2, 1 << 40) + b"{}",
    "30 MB of empty dictionaries": frame("[" + "{}," * 10_000_000 + "{}]"),
    "a class with a name of 30 MB": frame('{"dict": [["error", {"dict": [["type", "' + "x" * 30_000_000),
    "no JSON": frame("{"),
    "a list": frame("[]"),
    "a number": frame("3"),
    "nested": frame("[" * 500_000),
    "nested, as a value": value('{"list": [' * 50_000 + "]}" * 50_000),
    "two kinds": value('{"list": [], "dict": []}'),
    "an unknown kind": value('{"pickle": "gASVAAAA"}'),
    "a key that is a list": value('{"dict": [[{"list": []}, 1]]}'),
    "pairs of three": value('{"dict": [[1, 2, 3]]}'),
    "a shape below zero": value('{"tensor": ["float32", [-1]]}', bytes(8)),
    "two signs below zero": value('{"tensor": ["float32", [-2, -1]]}', bytes(8)),
    "a shape of an exabyte": value('{"tensor": ["float32", [1000000, 1000000, 1000000]]}', bytes(8)),
    "a shape of zero and an exabyte": value('{"tensor": ["float32", [0, 1000000000000000000000]]}'),
    "a shape of truth values": value('{"tensor": ["float32", [true]]}', bytes(4)),
    "one tensor twice": value(
        '{"list": [{"tensor": ["float32", [2]]}, {"tensor": ["float32", [2]]}]}', bytes(8)
    ),
    "an array of objects": value('{"array": ["object", [1]]}', bytes(8)),
    "a structured array": value('{"array": ["i4,i4", [1]]}', bytes(8)),
    "a type that is no text": value('{"array": [{"list": []}, [1]]}', bytes(8)),
    "an object without a number": value('{"object": {"dict": [["name", "f"]]}}'),
    "an object whose number is text": value('{"object": {"dict": [["id", "x"], ["name", "f"]]}}'),
    "an integer of 5000 digits": value("1" * 5000),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_on_the_wire_ends_the_process_and_not_the_grader(name):
    with Sandbox(Puppet(NONSENSE[name])) as box:
        with pytest.raises(Died):
            box.get("x")
        assert not box.alive


def said(text: str, body: bytes = b"") -> object:
    """What the grader understands."""
    with Sandbox(Puppet(value(text, body))) as box:
        return box.get("x")


def test_a_megabyte_of_brackets_costs_some_megabytes():
    """Whatever can be said in a message costs the grader little."""
    text = '{"list": [' + ",".join(['{"list":[]}'] * 80_000) + "]}"
    assert len(text) < HEAD
    tracemalloc.start()
    assert len(said(text)) == 80_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6
    assert said('{"tensor": ["uint8", [67108864]]}', bytes(BODY)).nbytes == BODY


def test_odd_values_are_values_and_nothing_else():
    assert torch.equal(said('{"tensor": ["bool", [3]]}', b"\0\1\2"), torch.tensor([False, True, True]))
    assert said("NaN") != said("NaN") and said("1e999") == float("inf") and said("-0.0") == 0
    assert said("1" * 4000) == int("1" * 4000)
    half = said(r'"a\ud800b"')  # half of a character, which no file can hold
    assert half.encode() == b"a?b"
    named = said(r'{"object": {"dict": [["id", 3], ["name", "\ud800\u202e\u001b[31mf"]]}}')
    assert named.__name__.encode() == b"?f"
    assert named != 3 and not isinstance(named, Callable.__class__)
    with pytest.raises(TypeError):
        float(named)


def error(kind: str, text: str) -> bytes:
    told = [["type", kind], ["text", text], ["line", text]]
    return frame(json.dumps({"dict": [["error", {"dict": told}]]}))


def test_what_is_raised_over_there_ends_no_loop_here():
    """A test that asks `all(map(one, cases))` would take the end of the map for its success."""
    for kind in ("StopIteration", "StopAsyncIteration", "GeneratorExit", "KeyboardInterrupt", "SystemExit"):
        with (
            Sandbox(Puppet(error(kind, "over"))) as box,
            pytest.raises(SubmissionError, match=f"{kind}: over"),
        ):
            all(map(box.get, ["a", "b"]))
    assert isinstance(rebuilt({"type": "ValueError", "text": "no"}), ValueError)
    for odd in (None, 3, [], {"type": {}, "text": None}, {"type": "__import__", "text": "os"}):
        assert isinstance(rebuilt(odd), SubmissionError)


def test_what_a_submission_says_is_short_and_steers_nothing():
    hidden = "\u202e\u2066\x1b]0;title\x07\x00\x9b31m" + "a" * 5000
    found = rebuilt({"type": "x" * 5000, "text": hidden, "line": hidden})
    assert len(str(found)) < 400 and len(found.line) <= 200
    assert all(c.isprintable() for c in str(found))
    assert plain("\033[1;32mgreen\033[0m", 100) == "green"
    assert plain("a" * 300, 200) == "a" * 199 + "…"


# Time.


LONG = 15  # seconds that a puppet plays: a grader that would wait for ever fails the test, and does not hang


def drip(end: socket.socket) -> None:
    """A message of some kilobytes, a byte at a time."""
    for byte in value('"' + "x" * 4000 + '"')[: LONG * 20]:
        end.sendall(bytes([byte]))
        time.sleep(0.05)
    end.close()


def call_for_ever(end: socket.socket) -> None:
    """What a constructor does that calls again whatever is raised."""
    until = time.monotonic() + LONG
    while time.monotonic() < until:
        end.sendall(calling())
        end.recv(1 << 20)
    end.close()


def silence(end: socket.socket) -> None:
    time.sleep(LONG)
    end.close()


def deaf(end: socket.socket) -> None:
    """Calls back, and reads no answer: until the socket is full."""
    end.settimeout(LONG)
    while True:
        end.sendall(calling())


@pytest.mark.parametrize("play", [drip, call_for_ever, silence, deaf])
def test_a_request_has_one_deadline(monkeypatch, play):
    monkeypatch.setattr(sandbox, "PATIENCE", 0.3)
    with Sandbox(Puppet(play), seconds=0.5) as box:
        began = time.monotonic()
        with pytest.raises(Died, match="no answer in time"):
            box.ask("call", object=lambda a, b: "x" * 1000)
        assert 0.7 < time.monotonic() - began < 3
        assert not box.alive


def test_a_function_of_ours_that_asks_back_has_no_new_deadline(monkeypatch):
    """A call that leads to a call back that leads to a call is one request."""
    monkeypatch.setattr(sandbox, "PATIENCE", 0.3)
    with Sandbox(Puppet(calling(), silence), seconds=0.5) as box:
        began = time.monotonic()
        with pytest.raises(Died):
            box.ask("call", object=lambda a, b: box.ask("get", limit=60, name="x"))
        assert time.monotonic() - began < 3


def test_a_notebook_has_a_deadline_with_all_its_starts(monkeypatch):
    monkeypatch.setattr(sandbox, "PATIENCE", 0.2)
    monkeypatch.setattr(run, "NOTEBOOK", 3)
    began = time.monotonic()
    session = Sealed(["while True: pass"] * 50, 0.5, Puppet(silence))
    for _ in range(20):
        session.mend()
        with pytest.raises((NameError, Died)):
            session.get("x")
    session.close()
    assert time.monotonic() - began < 8
    late = Sandbox(Puppet(), until=time.monotonic() - 1)
    with late, pytest.raises(Died, match="whole notebook"):
        late.run("x = 1")


def test_forged_calls_back_are_told_so():
    seen = []
    odd = [calling(number) for number in ("-1", "99", "true", '"0"', '{"list": []}', "null")]
    with Sandbox(Puppet(*odd, calling(args="3"), value('"done"'))) as box:
        assert box.ask("call", object=lambda *args: seen.append(args)) == "done"
    assert seen == []


# A class.


def test_a_failure_is_the_submission_s_own(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(pool, "START", 0)
    monkeypatch.setattr(pool, "NOTEBOOK", 0)
    monkeypatch.setattr(pool, "GRACE", 10)
    words = {"ada": "core", "bob": "die", "carl": "loop", "dora": "deep", "eve": "greedy", "finn": "fine"}
    submissions = hand_in(tmp_path / "class", words)
    found = grade_stubs(submissions, tmp_path)
    notes = {student: result.note for student, result in found.items()}
    assert notes["ada"] == "1" and notes["finn"] == "fine"
    assert notes["bob"].endswith("please look: the grader's own process ended on it, with status -9.")
    assert (tmp_path / "ids").read_text() == "bob\nbob\n"
    assert notes["carl"].endswith("its tests did not end in the grader's own process.")
    assert "RecursionError" in notes["dora"] and str(ROOT) not in notes["dora"]
    assert notes["eve"] in ("done 2", "done 3")
    assert [v.earned for v in found["finn"].verdicts] == [0] * len(SOURCE.tests)
    assert [v.earned for v in found["bob"].verdicts] == [None] * len(SOURCE.tests), "a person looks"

    before = kept(tmp_path)
    grade_stubs(submissions, tmp_path)
    assert kept(tmp_path) == before
    with pytest.raises(SystemExit, match=r"did not start .* What is graded is kept"):
        grade_stubs(hand_in(tmp_path / "class", {"zoe": "no start"}) + submissions, tmp_path)
    capfd.readouterr()  # what the processes said to the one who grades


def kill_and_go_on(folder: Path, count: int, kills: int) -> None:
    """Kill the command at random moments, and start it again until it is through."""
    folder.mkdir()
    command = [sys.executable, ROOT / "tests" / "puppet.py", folder, str(count)]
    for kill in range(kills + 1):
        process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
        if kill < kills:
            due = count * (kill + random.random()) / (kills + 1)
            while len(kept(folder)) < due:
                assert process.poll() is None, "it ended before it could be killed"
                time.sleep(0.02)
            process.kill()
        assert process.wait() == (-9 if kill < kills else 0)
        ids = {int(line) for line in (folder / "ids").read_text().split()}
        assert gone(lambda ids=ids: any(Path(f"/proc/{each}").exists() for each in ids))


def test_a_class_that_is_killed_has_the_same_results(tmp_path):
    kill_and_go_on(tmp_path / "killed", 24, 1)
    (tmp_path / "whole").mkdir()
    whole = waiting_class(tmp_path / "whole", 24)
    assert (
        waiting_class(tmp_path / "killed", 24) == whole and len(kept(tmp_path / "killed")) == len(whole) == 24
    )


def kept(folder: Path) -> list[tuple]:
    """The results in a book, the oldest first."""
    with contextlib.suppress(sqlite3.OperationalError):
        uri = f"file:{folder / 'grades.sqlite'}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as db:
            return db.execute("SELECT id, student, time FROM results ORDER BY id").fetchall()
    return []


def cell(source: str, part: str = "") -> dict:
    data = {"grade_id": "q" + part.replace(".", "-"), "grade": False, "solution": True} if part else {}
    return {"cell_type": "code", "metadata": {"nbgrader": data}, "source": source}


@only_sealed
def test_what_reaches_a_page_is_short_and_of_an_own_cell(tmp_path):
    key = tmp_path / "key"
    key.write_text("PRIVATE KEY")
    sources = [
        f"raise ValueError(open({str(key)!r}).read())",
        "raise type('E' * 30_000_000, (Exception,), {})('x')",
        "raise ValueError('sorry\\nleaderboard 9.9999 ' + 'secret ' * 9999)",
        "class E(Exception):\n    def __str__(self): raise SystemExit\nraise E",
        "def loud():\n    raise ValueError('\\ud800\\u202e' + 'y' * 5000)",
        "x = '\ud800'",
        "#" * 200_000,
        *["pass"] * 400,
    ]
    answer = {
        "cell_type": "markdown",
        "metadata": {"nbgrader": {"grade_id": "q1-6"}},
        "source": "\ud800" * 50_000,
    }
    notebook = {"cells": [*map(cell, sources), answer]}
    result = grade_notebook(SOURCE, "eve\udcff", json.dumps(notebook).encode(), ENGINE)
    errors = [each["error"] for each in result.cells]
    assert "FileNotFoundError" in errors[0] and "PRIVATE" not in errors[0]
    assert errors[1].startswith("Cell 2: EEE") and errors[2].startswith(
        "Cell 3: ValueError: sorry leaderboard"
    )
    assert errors[6].startswith("Cell 7: It has more than 100,000 characters")
    assert max(map(len, errors)) < 220 and not any("\n" in each for each in errors)
    assert len(result.cells) == 300 and "the first 300 count" in result.note
    text = json.dumps([result.cells, result.words, [v.says for v in result.verdicts]], ensure_ascii=False)
    write_text(tmp_path / "page.html", text)  # in UTF-8, which has no halves of characters
    assert len(text) < 200_000 and str(ROOT) not in text


def test_brackets_without_end_are_a_result():
    for data in (b"[" * 200_000, b'{"cells": ' + b"[" * 200_000, b'{"cells": [3]}'):
        result = grade_notebook(SOURCE, "eve", data, Puppet())
        assert result.automatic == 0 and "no notebook" in result.note


def test_no_hidden_test_takes_a_library_from_a_submission():
    """Its own `torch.equal` would say yes to all."""
    for name in assignments.names():
        asked = {
            n for t in Assignment.read(name).tests if t.kind != "words" for n in run.names_asked_for(t.source)
        }
        assert not asked & {"torch", "np", "numpy", "nn", "F", "math", "u2learn", "time"}, name


# Which seal there is.


def test_without_a_seal_nothing_is_graded(monkeypatch, tmp_path):
    class Broken(Puppet):
        def why_not(self) -> str:
            return "puppet is not installed"

    (tmp_path / "class" / "ada").mkdir(parents=True)
    (tmp_path / "class" / "ada" / "x.ipynb").write_text(json.dumps({"cells": [cell("x = 1", "1.1")]}))
    monkeypatch.setattr(seal, "ENGINES", (Broken(),))
    seal.find.cache_clear()
    try:
        with pytest.raises(SystemExit, match=r"puppet is not installed.*bubblewrap.*--unsealed"):
            main(["grade", str(tmp_path / "class"), "--course", str(tmp_path / "course")])
        assert seal.chosen(unsealed=True).name == "no seal"
    finally:
        seal.find.cache_clear()


def test_an_engine_that_does_not_seal_is_not_taken_for_one(monkeypatch):
    assert "files of this machine are there" in seal.trial(seal.Unsealed())
    monkeypatch.setattr(seal, "TRIAL_SECONDS", 0.5)
    assert seal.trial(Puppet(silence)) == "puppet: it does not answer"
