"""What a process costs: processor time of its threads and children, in seconds of the reference machine."""

import contextlib
import random
import threading
import time

import psutil

from u2learn.project import Pace

PAUSES = 0.1, 0.4  # seconds between two looks at the processes, drawn anew: nobody can work between them
PACED = 2.0  # seconds between two looks at the machine's pace


class Meter:
    """Measures a process from now on, and all that it starts, from outside.

    Linux counts each process with its threads, those that ended too. A child that is gone when we look again
    is charged the whole time since the last look, as nobody knows when it ended. So short children gain
    nothing: as a rule they are seen in the share of looks in which they live.

    How busy the machine is changes what a second is worth; the same small step of training, done every two
    seconds beside the process, tells by how much.
    """

    def __init__(self, pid: int):
        self.root = psutil.Process(pid)
        self.pace = Pace()
        self.used: dict[psutil.Process, float] = {}  # processor seconds of each process, as last seen
        self.alive: set[psutil.Process] = set()
        self.gone = 0.0  # seconds charged for the ends of children
        self.looked = time.monotonic()
        self.counted = self._look()  # of which are in `total` already, or were there before
        self.total = 0.0  # in seconds of the reference machine
        self.lock, self.ended = threading.Lock(), threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    @property
    def seconds(self) -> float:
        """What the process has used since it is measured."""
        with self.lock:
            self._charge()
            return self.total

    def stop(self) -> None:
        self.ended.set()

    def _watch(self) -> None:
        last = time.monotonic()
        while not self.ended.wait(random.uniform(*PAUSES)):
            with self.lock:
                self._look()
                if time.monotonic() - last > PACED:
                    self._charge()
                    last = time.monotonic()

    def _charge(self) -> None:
        seen = self._look()
        self.total += (seen - self.counted) / self.pace.slower()
        self.counted = seen

    def _look(self) -> float:
        """Processor seconds so far, of the reference machine or not."""
        found = set()
        with contextlib.suppress(psutil.NoSuchProcess):
            found = {self.root, *self.root.children(recursive=True)}
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                self.used[process] = times.user + times.system
        now = time.monotonic()
        self.gone += len(self.alive - found - {self.root}) * (now - self.looked)
        self.alive, self.looked = found, now
        return sum(self.used.values()) + self.gone
