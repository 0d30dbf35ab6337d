"""What the example of a service holds: requests a second, the time to an answer, and memory.

    python -m benchmarks.service --seconds 10 --record

It is started with an exported `drive-small`, in one process, and asked for the maps of drawn photographs of
the size of DRIVE's by 1, 8 and 50 clients at once. Each client asks again as soon as it has its answer; the
clients take some of the same machine's time. A time is that of one request, from the first byte that is sent
to the last that is received.
"""

from __future__ import annotations

import argparse
import io
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import numpy as np
from PIL import Image

from u2learn import export, pretrained, records
from u2learn.data.drawn.retina import fundus
from u2learn.devices import device_name

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "service"
NET, SIZE = "drive-small", (584, 565)  # and the photographs of DRIVE, height and width
CLIENTS = (1, 8, 50)
PATIENCE = 120.0  # seconds that a client waits for an answer


@contextmanager
def served(model: Path) -> Iterator[tuple[str, subprocess.Popen]]:
    """The service on a free port of this machine, with this file of ONNX: its address and its process.

    Raises:
        RuntimeError: it does not start.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "app:app", "--port", str(port), "--log-level", "warning"]
    process = subprocess.Popen(command, cwd=EXAMPLE, env=os.environ | {"MODEL": str(model.resolve())})
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                httpx.get(address)
                break
            except httpx.ConnectError:
                if process.poll() is not None:
                    raise RuntimeError("The service did not start; what it wrote says why.") from None
                time.sleep(0.1)
        yield address, process
    finally:
        process.kill()
        process.wait()


def encoded(photograph: np.ndarray, kind: str = "PNG") -> bytes:
    """A photograph, uint8 (3, H, W), as the bytes of a file."""
    file = io.BytesIO()
    Image.fromarray(photograph.transpose(1, 2, 0)).save(file, kind)
    return file.getvalue()


def memory(process: int) -> dict[str, int]:
    """The bytes that a process holds now, and held at most; nothing where the system does not tell."""
    status = Path(f"/proc/{process}/status")
    if not status.exists():
        return {}
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return {name: 1024 * int(lines[key].split()[0]) for name, key in (("now", "VmRSS"), ("largest", "VmHWM"))}


def load(address: str, photographs: list[bytes], clients: int, seconds: float) -> dict[str, Any]:
    """What so many clients at once get within some seconds; the last answers may come later."""
    stop = time.perf_counter() + seconds

    def client(number: int) -> list[tuple[int, float]]:
        answers: list[tuple[int, float]] = []
        while not answers or time.perf_counter() < stop:
            data = photographs[(number + len(answers)) % len(photographs)]
            asked = time.perf_counter()
            status = session.post(f"{address}/map", content=data).status_code
            answers.append((status, time.perf_counter() - asked))
        return answers

    started = time.perf_counter()
    # one session, as the certificates that it reads take it longer than some requests
    everything = httpx.Client(timeout=PATIENCE, verify=False, limits=httpx.Limits())
    with everything as session, ThreadPoolExecutor(clients) as pool:
        answers = [answer for each in pool.map(client, range(clients)) for answer in each]
    took = time.perf_counter() - started
    times = sorted(t for status, t in answers if status == 200)
    if not times:
        raise RuntimeError(f"No request was answered with a map: {sorted({s for s, _ in answers})}.")
    return {
        "answers": len(times),
        "refused": len(answers) - len(times),
        "per_second": len(times) / took,
        "median": statistics.median(times),
        "p99": float(np.quantile(times, 0.99)),
    }


def measured(model: Path, photographs: list[bytes], clients: list[int], seconds: float) -> dict[str, Any]:
    """The service under the load of each number of clients in turn."""
    with served(model) as (address, process):
        for data in photographs:
            httpx.post(f"{address}/map", content=data, timeout=PATIENCE).raise_for_status()  # to warm up
        before = memory(process.pid)
        found = {str(count): load(address, photographs, count, seconds) for count in clients}
        after = memory(process.pid)
    held = {"before": before["now"], "after": after["now"], "largest": after["largest"]} if before else {}
    return {"clients": found, "memory": held}


def table(found: dict[str, Any]) -> str:
    """A line for each number of clients, and one for the memory."""
    lines = [f"{'clients':>7}{'answers':>9}{'refused':>9}{'a second':>10}{'median':>10}{'99 %':>10}"]
    for clients, row in found["clients"].items():
        lines.append(
            f"{clients:>7}{row['answers']:9}{row['refused']:9}{row['per_second']:10.2f}"
            f"{row['median']:8.3f} s{row['p99']:8.3f} s"
        )
    held = [f"{value / 1e6:.0f} MB {what}" for what, value in found["memory"].items()]
    return "\n".join([*lines, f"memory: {', '.join(held) or 'not known here'}"])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=10, help="for each number of clients (default 10)")
    parser.add_argument("--clients", type=int, nargs="+", default=CLIENTS, help="default: 1 8 50")
    parser.add_argument("--record", action="store_true", help="also write the record into results/")
    options = parser.parse_args(arguments)
    busy = os.getloadavg() if hasattr(os, "getloadavg") else ()
    photographs = [encoded(fundus(seed, SIZE).image, "JPEG") for seed in range(4)]
    with TemporaryDirectory() as folder:
        model = Path(folder) / "model.onnx"
        net, recipe = pretrained(NET)
        assert recipe is not None  # it is in every file that ships
        export.export(net, recipe, model)
        found = measured(model, photographs, options.clients, options.seconds)
    print(f"{NET}, photographs of {SIZE[0]} x {SIZE[1]}, one process on {os.cpu_count()} cores")
    print(table(found))
    if options.record:
        record = {
            "service": NET,
            **records.provenance(device_name("cpu")),
            "cores": os.cpu_count(),
            "load": list(busy),  # of the machine before it began, over 1, 5 and 15 minutes
            "size": list(SIZE),
            "seconds": options.seconds,
            **records.rounded(found),
        }
        print(f"Written: {records.write_record('service', record)}")


if __name__ == "__main__":
    main()
