"""The example of a service: right maps under load, and a broken upload gets one sentence."""

import asyncio
import importlib.util
import io
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from PIL import Image
from test_export import noise, small

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")
pytest.importorskip("onnxruntime")

from benchmarks import service as bench  # noqa: E402  (after what it needs)
from benchmarks.service import EXAMPLE as SERVICE  # noqa: E402
from benchmarks.service import encoded, memory, served  # noqa: E402
from u2learn import export as exports  # noqa: E402

# For all requests: a client of its own for each would spend the time on certificates.
CLIENT = httpx.Client(timeout=60, verify=False, limits=httpx.Limits())


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """The service on a port of its own: (its address, its process, the module of its net, its file)."""
    folder = tmp_path_factory.mktemp("service")
    torch.manual_seed(0)
    model = small().build_model().eval()
    exports.export(model, small(), folder / "model.onnx")
    with served(folder / "model.onnx") as (address, process):
        yield address, process, exports.FromPhotograph(model, small()), folder / "model.onnx"


def ask(service, data, **options) -> "httpx.Response":
    return CLIENT.post(f"{service[0]}/map", content=data, **options)


def check(service, photograph: np.ndarray, answer: "httpx.Response") -> None:
    assert answer.status_code == 200 and answer.headers["content-type"] == "image/png"
    found = np.asarray(Image.open(io.BytesIO(answer.content)))
    with torch.inference_mode():
        due = service[2](torch.from_numpy(photograph)[None])[0, 1]
    assert found.shape == photograph.shape[1:]
    assert np.abs(found / 255 - due.numpy()).max() <= 0.51 / 255


def test_a_photograph_comes_back_as_its_map(service):
    photograph = noise(3, 61, 90).numpy()
    check(service, photograph, ask(service, encoded(photograph)))


def test_it_is_turned_as_its_camera_says(service):
    photograph = noise(3, 61, 90).numpy()
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it by 90 degrees
    Image.fromarray(photograph.transpose(1, 2, 0)).save(file, "PNG", exif=exif)
    check(service, np.rot90(photograph, -1, (1, 2)).copy(), ask(service, file.getvalue()))


def test_fifty_at_once_get_theirs_and_the_memory_stays(service):
    photographs = [noise(3, 70 + k, 80).numpy() for k in range(50)]
    before = memory(service[1].pid)
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda x: ask(service, encoded(x)), photographs))
    for photograph, answer in zip(photographs, answers, strict=True):
        check(service, photograph, answer)
    if before:
        assert memory(service[1].pid)["now"] < before["now"] + 100e6


def test_a_client_that_stops_sending_is_left_and_one_too_many_is_told_to_come_again(service, monkeypatch):
    monkeypatch.setenv("MODEL", str(service[3]))
    specification = importlib.util.spec_from_file_location("service_app", SERVICE / "app.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    monkeypatch.setattr(module, "MAX_SECONDS", 1.0)
    monkeypatch.setattr(module, "MAX_WAITING", 2)

    async def stops():
        yield b"\xff\xd8"
        await asyncio.sleep(30)

    async def asked():
        transport = httpx.ASGITransport(module.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            slow = [asyncio.create_task(client.post("/map", content=stops())) for _ in range(2)]
            while module.waiting < 2:
                await asyncio.sleep(0.01)
            third = await client.post("/map", content=PHOTOGRAPH)
            left = await asyncio.gather(*slow)
            return third, *left, await client.post("/map", content=PHOTOGRAPH)

    third, *left, later = asyncio.run(asyncio.wait_for(asked(), 20))
    assert (third.status_code, "Too many photographs are waiting" in third.text) == (503, True)
    for answer in left:
        assert answer.status_code == 503 and "Not done within 1 s" in answer.json()["detail"]
    assert later.status_code == 200 and module.waiting == 0


def test_the_load_is_counted_and_recorded(service, tmp_path, monkeypatch, capsys):
    @contextmanager
    def running(model):
        assert model.name == "model.onnx"
        yield service[:2]

    monkeypatch.setenv("U2LEARN_RECORDS", str(tmp_path))
    monkeypatch.setattr(bench, "served", running)
    monkeypatch.setattr(bench.export, "export", lambda model, recipe, path: None)
    monkeypatch.setattr(bench, "SIZE", (40, 50))
    bench.main(["--seconds", "0.2", "--clients", "1", "3", "--record"])
    record = json.loads((tmp_path / "service.json").read_text())
    assert (record["service"], record["size"], list(record["clients"])) == (bench.NET, [40, 50], ["1", "3"])
    assert "commit" in record and "load" in record
    told = capsys.readouterr().out.splitlines()
    for clients, row in record["clients"].items():
        assert row["answers"] >= int(clients) and row["refused"] == 0
        assert 0 < row["median"] <= row["p99"]
        assert 0.1 < row["per_second"] * row["median"] / int(clients) < 10  # each waits for its own
        assert [line.split()[1] for line in told if line.split()[0] == clients] == [str(row["answers"])]
    held = record["memory"]
    assert not held or 0 < held["before"] <= held["largest"] >= held["after"]


def test_an_answer_that_is_no_map_is_not_counted(service, monkeypatch):
    good, broken = encoded(noise(3, 40, 50).numpy()), b"How are you?"
    found = bench.load(service[0], [good, broken], 1, 0.2)
    assert found["answers"] - found["refused"] in (0, 1)  # in turns
    with pytest.raises(RuntimeError, match=r"No request was answered with a map: \[415\]"):
        bench.load(service[0], [broken], 2, 0.01)


def bomb() -> bytes:
    """A small file of a photograph that is too large."""
    file = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(file, "PNG")
    return file.getvalue()


PHOTOGRAPH = encoded(noise(3, 40, 60).numpy(), "JPEG")
BROKEN = {
    "nothing": (b"", 415, "no photograph of JPEG, PNG, WEBP"),
    "a text": (b"How are you?", 415, "no photograph"),
    "half a file": (PHOTOGRAPH[: len(PHOTOGRAPH) // 2], 415, "no photograph"),
    "another format": (encoded(noise(3, 40, 60).numpy(), "GIF"), 415, "no photograph"),
    "too many pixels": (bomb(), 413, "may have 12,000,000 pixels"),
    "too many bytes": (b"\xff\xd8" + bytes(11_000_000), 413, "may have 10,000,000 bytes"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_upload_gets_one_sentence_and_the_next_one_its_map(service, name):
    data, status, words = BROKEN[name]
    answer = ask(service, data)
    assert (answer.status_code, words in answer.json()["detail"]) == (status, True), answer.text
    photograph = noise(3, 40, 60).numpy()
    check(service, photograph, ask(service, encoded(photograph)))


def test_the_image_holds_what_the_service_needs():
    said = (SERVICE / "Dockerfile").read_text(encoding="utf-8")
    program = (SERVICE / "app.py").read_text(encoding="utf-8")
    for package in ("fastapi", "onnxruntime", "numpy", "PIL"):
        assert f"{package}" in program and {"PIL": "pillow"}.get(package, package) in said
    assert "torch" not in program.replace("PyTorch", "")
