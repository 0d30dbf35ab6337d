"""What the process of a submission may see and use.

An engine starts Python in a place of its own. Under a seal there is Python with its libraries, the package
u2learn and an own folder of limited size; nothing else of this machine's files, no network and no socket of
anybody, only its own processes, bounds for their number and for their memory together, and no system call
that it does not need. Three engines can do that: bubblewrap, podman, docker. `find` tries them and gives the
first that does what it should; `Unsealed` does none of it.
"""

import contextlib
import ctypes
import errno
import functools
import io
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import u2learn
from tools.grading import worker

PACKAGE = Path(u2learn.__file__).resolve().parent
WORKER = Path(worker.__file__).resolve()
COURSE = "/course"  # where the package and the worker are, under a seal
HOME = "/content"
MEMORY = 3 << 30  # bytes, of all processes of a submission together
PROCESSES = 64  # with their threads
DISK = 256 << 20  # bytes in the own folder
SHARE = "/dev/shm"
SHARED = 64 << 20  # bytes that processes share there
FILES = 10_000
SOCKETS = 128  # the kernel may keep megabytes for each, which are counted for no process
USER = "1000"
TRIAL_SECONDS = 60
KILL_SECONDS = 10

# Where a system keeps programs and shared libraries.
SYSTEM = ("/usr/bin", "/usr/lib", "/usr/lib32", "/usr/lib64", "/bin", "/lib", "/lib32", "/lib64")
LIBRARIES = "/etc/ld.so.cache"  # which library lies where

# System calls that nothing in a notebook needs, and through which others got out of such places before: new
# namespaces and mounts, other processes, the kernel's keys and programs, memory that is counted for nobody.
REFUSED = """
    unshare setns mount umount umount2 pivot_root chroot move_mount open_tree fsopen fsconfig fsmount fspick
    mount_setattr open_by_handle_at name_to_handle_at fanotify_init quotactl swapon swapoff acct
    ptrace process_vm_readv process_vm_writev process_madvise kcmp pidfd_getfd
    add_key request_key keyctl bpf perf_event_open userfaultfd io_uring_setup io_uring_enter io_uring_register
    memfd_create memfd_secret shmget shmat shmctl msgget msgsnd semget semop mq_open vmsplice
    init_module finit_module delete_module kexec_load kexec_file_load reboot syslog
    sched_setaffinity sched_setscheduler sched_setattr sched_setparam
"""
NEW_NAMESPACES = (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)
FAMILIES = {1, 2, 10}  # of sockets: Unix, IP and IP 6. There are some that no network namespace covers.


class Started:
    """A process that an engine started, with its children."""

    def __init__(self, process: subprocess.Popen):
        self.process = process

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    @property
    def pid(self) -> int:
        """The process from which all others of the submission come, as seen from here."""
        return self.process.pid

    def excess(self) -> str:
        """What it has taken too much of, in words; "" if nothing."""
        return ""

    def errors(self) -> bytes:
        """What it wrote to its standard error, of one that has ended."""
        assert self.process.stderr is not None
        os.set_blocking(self.process.stderr.fileno(), False)  # whoever else holds it may live on
        return self.process.stderr.read() or b""

    def kill(self) -> None:
        """End it and all in its session."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            self.process.kill()
        self.process.wait()


class Engine(Protocol):
    """A way to start Python."""

    name: str

    def why_not(self) -> str:
        """Why it cannot be used here, as found by trying; "" if it can."""

    def start(self, arguments: Sequence[str], end: socket.socket, hide: Sequence[Path] = ()) -> Started:
        """Start Python with these arguments; `end` becomes its standard input and output.

        hide: files of the package that are empty under a seal.
        """

    def arguments(self) -> list[str]:
        """What starts the worker."""


class Unsealed:
    """As the user who grades: only for submissions that are known to be harmless."""

    name = "no seal"

    def why_not(self) -> str:
        return ""

    def arguments(self) -> list[str]:
        return [str(WORKER), str(MEMORY), "0"]

    def start(self, arguments: Sequence[str], end: socket.socket, hide: Sequence[Path] = ()) -> Started:
        folder = Path(tempfile.mkdtemp(prefix="u2learn-"))
        paths = {"PYTHONPATH": str(PACKAGE.parent), "PATH": os.environ.get("PATH", "")}
        home = {"HOME": str(folder), "TMPDIR": str(folder)}
        command = [sys.executable, *arguments]
        return InFolder(popen(command, end, ENVIRONMENT | paths | home, folder), folder)


class InFolder(Started):
    """A process with a folder that goes with it."""

    def __init__(self, process: subprocess.Popen, folder: Path):
        super().__init__(process)
        self.folder = folder

    def kill(self) -> None:
        super().kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class Bubblewrap:
    """bubblewrap: what Flatpak uses, a program of 70 kB in every distribution. It needs no rights."""

    name = "bubblewrap"

    def why_not(self) -> str:
        if not shutil.which("bwrap"):
            return "bubblewrap is not installed"
        if library() is None:
            return "the library libseccomp is not installed"
        return hindrance() or trial(self)

    def arguments(self) -> list[str]:
        return [f"{COURSE}/worker.py", str(MEMORY), str(PROCESSES)]

    def start(self, arguments: Sequence[str], end: socket.socket, hide: Sequence[Path] = ()) -> Started:
        # All namespaces are new. The root is made of memory and becomes read-only at the end, /proc as well:
        # a process whose user is root outside could set the kernel's variables there.
        seccomp, info = data_pipe(compiled()), os.pipe()
        command = [
            *(shutil.which("bwrap") or "bwrap", "--unshare-user", "--unshare-ipc", "--unshare-pid"),
            *("--unshare-net", "--unshare-uts", "--unshare-cgroup-try", "--die-with-parent"),
            *("--new-session", "--cap-drop", "ALL", "--uid", USER, "--gid", USER, "--hostname", "localhost"),
            *("--seccomp", str(seccomp), "--info-fd", str(info[1])),
        ]
        for path in map(Path, SYSTEM):
            if path.is_symlink():
                command += ["--symlink", os.readlink(path), str(path)]
            else:
                command += ["--ro-bind-try", str(path), str(path)]
        command += ["--ro-bind-try", LIBRARIES, LIBRARIES]
        for source, place in [*shown(), *emptied(hide)]:
            command += ["--ro-bind", source, place]
        command += ["--proc", "/proc", "--remount-ro", "/proc", "--dev", "/dev"]
        command += ["--size", str(SHARED), "--tmpfs", SHARE, "--remount-ro", "/dev"]
        command += ["--size", str(DISK), "--tmpfs", HOME]
        if not any(place.startswith("/tmp/") for _, place in shown()):  # an environment that lies there
            command += ["--symlink", HOME, "/tmp"]
        command += ["--remount-ro", "/", "--chdir", HOME, sys.executable, *arguments]
        process = popen(command, end, ENVIRONMENT, pass_fds=(seccomp, info[1]))
        os.close(seccomp)
        os.close(info[1])
        with open(info[0]) as file:
            said = file.read()
        return InNamespaces(process, json.loads(said)["child-pid"] if said else None)


class InNamespaces(Started):
    """What bubblewrap started: process `first` is the first of its namespaces, and all end with it."""

    def __init__(self, process: subprocess.Popen, first: int | None):
        super().__init__(process)
        self.first = first

    def excess(self) -> str:
        root = Path(f"/proc/{self.first}/root")
        try:
            ids = [entry for entry in os.listdir(root / "proc") if entry.isdigit()]
            places = [os.statvfs(f"{root}{place}") for place in (HOME, SHARE)]
            sockets = int(Path(f"/proc/{self.first}/net/sockstat").read_text().split()[2])  # sockets: used 7
        except OSError:  # it has ended
            return ""
        if sum(place.f_files - place.f_ffree for place in places) > FILES:
            return f"more than {FILES:,} files"
        if sockets > SOCKETS:
            return f"more than {SOCKETS} sockets"
        folders = [root / "proc" / entry for entry in ids[: 2 * PROCESSES]]
        states = [numbers(folder / "status") for folder in folders]
        if sum(state.get("Threads", 0) for state in states) > PROCESSES + 2:  # two are bubblewrap's own
            return f"more than {PROCESSES} processes and threads"
        # First what costs nothing to ask and counts shared memory for each, then what counts it once.
        tables = added(states, "VmPTE")  # of pages that are only read, and then are nobody's
        if tables + added(states, "RssAnon", "RssShmem", "VmSwap") > MEMORY:
            states = [numbers(folder / "smaps_rollup") for folder in folders]
            if tables + added(states, "Pss_Anon", "Pss_Shmem", "SwapPss") > MEMORY:
                return f"more than {MEMORY >> 30} GB of memory"
        return ""

    def kill(self) -> None:
        if self.first is not None and self.alive:
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.kill(self.first, signal.SIGKILL)
                self.process.wait(KILL_SECONDS)
        super().kill()


def numbers(path: Path) -> dict[str, int]:
    """The numbers in one of a process's files in /proc, by name; sizes are in kB."""
    with contextlib.suppress(OSError):
        lines = (line.split() for line in path.read_text(errors="replace").splitlines())
        return {words[0][:-1]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}
    return {}


def added(states: Sequence[dict[str, int]], *names: str) -> int:
    """The sum of these sizes, in bytes."""
    return 1024 * sum(state.get(name, 0) for state in states for name in names)


class Container:
    """podman or docker: Python of this machine in a container whose image is empty."""

    IMAGE = "localhost/u2learn-empty"

    def __init__(self, name: str):
        self.name = name

    def why_not(self) -> str:
        if not shutil.which(self.name):
            return f"{self.name} is not installed"
        try:
            return hindrance() or self._image() or trial(self)
        except subprocess.TimeoutExpired:
            return f"{self.name} does not answer"

    def _image(self) -> str:
        """Make the image unless it is there; gives what went wrong."""
        if self._told("image", "inspect", self.IMAGE).returncode == 0:
            return ""
        empty = io.BytesIO()
        tarfile.open(fileobj=empty, mode="w").close()
        made = self._told("import", "-", self.IMAGE, data=empty.getvalue())
        return "" if made.returncode == 0 else f"{self.name}: {last(made.stderr)}"

    def _told(self, *words: str, data: bytes = b"") -> subprocess.CompletedProcess:
        return subprocess.run([self.name, *words], input=data, capture_output=True, timeout=TRIAL_SECONDS)

    def arguments(self) -> list[str]:
        return [f"{COURSE}/worker.py", str(MEMORY), "0"]

    def start(self, arguments: Sequence[str], end: socket.socket, hide: Sequence[Path] = ()) -> Started:
        container = f"u2learn-{secrets.token_hex(8)}"
        folder = Path(tempfile.mkdtemp(prefix="u2learn-"))
        (folder / "seccomp.json").write_text(profile())
        command = [
            *(self.name, "run", "--rm", "--interactive", "--name", container, "--hostname", "localhost"),
            *("--network", "none", "--read-only", "--cap-drop", "all", "--user", f"{USER}:{USER}"),
            *("--security-opt", "no-new-privileges", "--security-opt", "label=disable"),
            *("--security-opt", f"seccomp={folder / 'seccomp.json'}"),
            *("--pids-limit", str(PROCESSES), "--memory", str(MEMORY), "--memory-swap", str(MEMORY)),
            *("--cpus", "1", "--shm-size", str(SHARED), "--workdir", HOME),
            *("--tmpfs", f"{HOME}:size={DISK},mode=1777"),
        ]
        system = [(path, path) for path in (*SYSTEM, LIBRARIES) if Path(path).exists()]
        for source, place in (*system, *shown(), *emptied(hide)):
            command += ["--volume", f"{source}:{place}:ro"]
        for name, value in ENVIRONMENT.items():
            command += ["--env", f"{name}={value}"]
        if self.name == "podman":
            command += ["--read-only-tmpfs=false"]  # or it adds places to write
        command += [self.IMAGE, sys.executable, *arguments]
        return InContainer(popen(command, end, dict(os.environ)), folder, self.name, container)


class InContainer(InFolder):
    """What a container engine started: it keeps to its bounds by itself, and has to be told to end it."""

    def __init__(self, process: subprocess.Popen, folder: Path, program: str, container: str):
        super().__init__(process, folder)
        self.program, self.container = program, container

    @property
    def pid(self) -> int:
        command = [self.program, "inspect", "--format", "{{.State.Pid}}", self.container]
        return int(subprocess.run(command, capture_output=True, check=True).stdout)

    def kill(self) -> None:
        if self.alive:
            subprocess.run([self.program, "kill", self.container], capture_output=True)
        super().kill()


# As at home as it costs nothing to make it: a submission has no use for knowing where it runs.
ENVIRONMENT = {
    "PATH": f"{sys.prefix}/bin:/usr/bin:/bin",
    "PYTHONPATH": COURSE,
    "HOME": HOME,
    "TMPDIR": HOME,
    "USER": "student",
    "LANG": "C.UTF-8",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "0",
    "MPLBACKEND": "Agg",
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
}


def shown() -> list[tuple[str, str]]:
    """What is to be seen beside the system's programs, and where: Python, the package, the worker."""
    real = Path(sys.executable).resolve().parents[1]
    homes = [str(path) for path in dict.fromkeys([Path(sys.base_prefix), Path(sys.prefix), real])]
    python = [(home, home) for home in homes if home != "/usr"]
    return [*python, (str(PACKAGE), f"{COURSE}/u2learn"), (str(WORKER), f"{COURSE}/worker.py")]


def emptied(paths: Sequence[Path]) -> list[tuple[str, str]]:
    """An empty file in place of each of these files of the package, wherever it is seen."""
    places = [f"{COURSE}/u2learn/{path.relative_to(PACKAGE)}" for path in paths]
    homes = [home for home, _ in shown()[:-2]]
    places += [str(path) for path in paths if any(path.is_relative_to(home) for home in homes)]
    return [(os.devnull, place) for place in places]


def hindrance() -> str:
    """Why no engine can be used here: the system, or a course that lies in Python's own folder."""
    if sys.platform != "linux":
        return "a seal needs Linux"
    course = WORKER.parents[2]
    inside = [home for home, _ in shown() if course.is_relative_to(home)]
    return f"the course lies in the folder of the environment, {inside[0]}" if inside else ""


def popen(
    command: list[str],
    end: socket.socket,
    env: dict[str, str],
    folder: Path | None = None,
    pass_fds: tuple[int, ...] = (),
) -> subprocess.Popen:
    """Start a command whose standard input and output is a socket. Its errors can be read."""
    return subprocess.Popen(
        command,
        stdin=end.fileno(),
        stdout=end.fileno(),
        stderr=subprocess.PIPE,
        env=env,
        start_new_session=True,
        cwd=folder,
        pass_fds=pass_fds,
    )


@functools.cache
def library() -> ctypes.CDLL | None:
    """libseccomp, which knows the numbers of system calls on each kind of machine."""
    try:
        found = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        return None
    found.seccomp_init.restype = ctypes.c_void_p
    return found


class Rule(NamedTuple):
    """A system call that fails with `error`: always, or if its first argument compares so with `value`."""

    name: str
    compare: str = ""
    value: int = 0
    error: int = errno.EPERM


RULES = [
    *(Rule(name) for name in REFUSED.split()),
    *(Rule("clone", "SCMP_CMP_MASKED_EQ", flag) for flag in NEW_NAMESPACES),
    Rule("clone3", error=errno.ENOSYS),  # its flags are out of sight; who finds none takes clone
    *(Rule("socket", "SCMP_CMP_EQ", family) for family in set(range(11)) - FAMILIES),
    Rule("socket", "SCMP_CMP_GT", 10),
]


class Compare(ctypes.Structure):
    """struct scmp_arg_cmp of libseccomp."""

    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


OPERATORS = {"SCMP_CMP_EQ": 4, "SCMP_CMP_GT": 6, "SCMP_CMP_MASKED_EQ": 7}  # enum scmp_compare
ALLOW, ERROR = 0x7FFF0000, 0x00050000


@functools.cache
def compiled() -> bytes:
    """The rules as the kernel loads them."""
    seccomp = library()
    assert seccomp is not None, "why_not has looked"
    context = ctypes.c_void_p(seccomp.seccomp_init(ctypes.c_uint32(ALLOW)))
    for rule in RULES:
        number = seccomp.seccomp_syscall_resolve_name(rule.name.encode())
        compares = []
        if rule.compare:
            compares.append(Compare(0, OPERATORS[rule.compare], rule.value, rule.value))
        if number != -1:  # the library is older than the call
            action, array = ctypes.c_uint32(ERROR | rule.error), (Compare * len(compares))(*compares)
            seccomp.seccomp_rule_add_array(context, action, number, len(compares), array)
    reader, writer = os.pipe()
    with open(reader, "rb") as file:
        failed = seccomp.seccomp_export_bpf(context, writer)
        os.close(writer)
        seccomp.seccomp_release(context)
        if failed:
            raise OSError(-failed, "libseccomp could not write the filter")
        return file.read()


def profile() -> str:
    """The rules as container engines read them: a JSON text."""
    calls: list[dict] = []
    for rule in RULES:
        refused = {"names": [rule.name], "action": "SCMP_ACT_ERRNO", "errnoRet": rule.error}
        compared = {"index": 0, "value": rule.value, "valueTwo": rule.value, "op": rule.compare}
        calls.append(refused | ({"args": [compared]} if rule.compare else {}))
    return json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": calls})


def data_pipe(data: bytes) -> int:
    """A descriptor to read these bytes from: fewer than a pipe holds."""
    reader, writer = os.pipe()
    os.write(writer, data)
    os.close(writer)
    return reader


# Whether the place is what it should be, seen from inside. Its arguments: a file that is there outside, and a
# socket that somebody outside listens at.
PROBE = r"""
import os, socket, sys

def refused(function, *arguments):
    try:
        function(*arguments)
    except OSError:
        return True

with open("/proc/self/status") as file:
    state = dict(line.rstrip("\n").split(":", 1) for line in file)
with open("/proc/net/dev") as file:
    devices = file.readlines()[2:]
checks = {
    "files of this machine are there": not os.path.exists(sys.argv[1]),
    "a socket of this machine is there": refused(socket.socket(socket.AF_UNIX).connect, sys.argv[2]),
    "there is a network": all(line.split(":")[0].strip() == "lo" for line in devices),
    "the root can be written to": refused(os.mkdir, "/here"),
    "the kernel's variables can be written to": refused(open, "/proc/sys/kernel/core_pattern", "r+"),
    "it has rights of an administrator": int(state["CapEff"], 16) == 0 == int(state["CapPrm"], 16),
    "it can get new rights": int(state["NoNewPrivs"]) == 1,
    "system calls are not filtered": int(state["Seccomp"]) == 2,
    "the own folder cannot be written to": not refused(open, "here", "w"),
}
print(next((fault for fault, right in checks.items() if not right), "sealed"))
"""


def trial(engine: Engine) -> str:
    """Why the engine does not seal; "" if it does."""
    ours, theirs = socket.socketpair()
    with ours, theirs, tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as outside:
        outside.bind(f"{folder}/socket")
        outside.listen()
        started = engine.start(["-I", "-S", "-c", PROBE, folder, f"{folder}/socket"], theirs)
        theirs.close()
        ours.settimeout(TRIAL_SECONDS)
        try:
            said = ours.makefile().read().strip()
        except OSError:
            said = "it does not answer"
        finally:
            started.kill()
        return "" if said == "sealed" else f"{engine.name}: {said or last(started.errors())}"


def last(text: bytes) -> str:
    """The last line of what a program wrote."""
    return (text.decode(errors="replace").strip().splitlines() or ["it ended"])[-1][:300]


ENGINES: tuple[Engine, ...] = (Bubblewrap(), Container("podman"), Container("docker"))


@functools.cache
def find() -> Engine | None:
    """The first engine that seals, found by trying; None if there is none."""
    return next((engine for engine in ENGINES if not engine.why_not()), None)


def chosen(unsealed: bool) -> Engine:
    """The engine to grade with.

    Raises:
        SystemExit: nothing here can seal a submission, and `unsealed` is not wanted.
    """
    if sys.platform == "win32":
        sys.exit("Nothing was graded: the grader does not run on Windows. Use it in WSL, as on Linux.")
    if unsealed:
        return Unsealed()
    engine = find()
    if engine is None:
        sys.exit(REFUSAL.format("; ".join(engine.why_not() for engine in ENGINES)))
    return engine


REFUSAL = """\
Nothing was graded: this machine cannot seal submissions ({}). On Linux install bubblewrap 0.7 or newer, and \
libseccomp ("apt install bubblewrap libseccomp2"); where it may not make namespaces, as on Ubuntu 24.04, \
load its AppArmor profile (bwrap-userns-restrict, in the package apparmor-profiles) or install podman. On \
macOS and Windows grade in a Linux virtual machine. With --unsealed the submissions run as you do: they can \
read and change your files, the results of other students as well, and use the network."""
