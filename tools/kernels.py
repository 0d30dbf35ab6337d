"""Kernels that start in half a second: each is a fork of one process that has loaded what chapters import."""

import multiprocessing
import os
import signal
import tempfile
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Any

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning import KernelProvisionerFactory, LocalProvisioner

LOADED = ["tools.kernels", "u2learn.show", "torch._dynamo", "matplotlib.figure", "ipykernel.ipkernel"]
if TYPE_CHECKING or "forkserver" in multiprocessing.get_all_start_methods():
    from multiprocessing.context import ForkServerProcess
else:  # Windows
    ForkServerProcess = object


class Fork(ForkServerProcess):
    """A process with the names that Jupyter uses for one."""

    stdin = stdout = stderr = None

    def poll(self) -> int | None:
        return self.exitcode

    def wait(self) -> int | None:
        self.join()
        return self.exitcode

    def send_signal(self, number: int) -> None:
        if self.pid and self.is_alive():
            os.kill(self.pid, number)


class ForkProvisioner(LocalProvisioner):
    """How Jupyter starts a kernel: see its documentation on kernel provisioning."""

    process: Any = None  # a Fork
    sockets: Any = None  # a folder

    async def pre_launch(self, **options: Any) -> dict[str, Any]:
        """Talk through files: a port that is free now may be another kernel's when this one starts."""
        if not self.sockets:
            self.sockets = tempfile.TemporaryDirectory(prefix="kernel-", ignore_cleanup_errors=True)
            manager: Any = self.parent
            manager.transport, manager.ip = "ipc", f"{self.sockets.name}/socket"
        return await super().pre_launch(**options)

    async def launch_kernel(self, cmd: list[str], **options: Any) -> KernelConnectionInfo:
        multiprocessing.set_forkserver_preload(LOADED)
        connection = cmd[cmd.index("-f") + 1]
        self.process = Fork(target=serve, args=(connection, options["cwd"], options["env"]), daemon=True)
        self.process.start()
        self.pid = self.process.pid
        return self.connection_info

    async def cleanup(self, restart: bool = False) -> None:
        await super().cleanup(restart)
        if not restart:
            self.sockets.cleanup()


def serve(connection: str, folder: str, environment: dict[str, str]) -> None:
    """Be a kernel in this folder, that says nothing but what its cells print."""
    import matplotlib
    from ipykernel.kernelapp import IPKernelApp

    # Pictures go into the notebook. Jupyter asks for it by a variable, but matplotlib is loaded already.
    matplotlib.rcParams["backend"] = "module://matplotlib_inline.backend_inline"
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    # What a chapter ran is nobody's history; kernels that start together would lock each other out of it.
    IPKernelApp.launch_instance(argv=["-f", connection, "--HistoryManager.hist_file=:memory:"])


def fork_kernels() -> None:
    """Make all kernels that this process starts forks, where the system has them."""
    if ForkServerProcess is not object:
        factory = KernelProvisionerFactory.instance()
        point = EntryPoint("fork", f"{__name__}:{ForkProvisioner.__name__}", factory.GROUP_NAME)
        factory.provisioners[point.name] = point
        factory.default_provisioner_name = point.name
