"""Saliency of a photograph, step by step as published, and the authors' own maps where they are at hand."""

import dataclasses
import hashlib
import math
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest
import torch
from PIL import Image
from test_u2net import FlatU2Net, randomised, table
from torch import nn

import u2learn
from u2learn import cli, measure, records, saliency, to_official, u2net_small, unet_s5_d16
from u2learn.data import catalogue, download, local
from u2learn.data.augment import resize
from u2learn.data.published import PUBLISHED
from u2learn.inference import load_model


class Net(nn.Module):
    """What it sees, it remembers; its map is a function of the image that this test knows."""

    def __init__(self, classes=1):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.7, -0.4, 0.5]))
        self.classes, self.seen, self.modes = classes, [], []
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x):
        self.seen.append(x)
        self.modes.append(self.norm.training)
        logit = (x * self.weight[:, None, None]).sum(1, keepdim=True)
        return [logit.expand(-1, self.classes, -1, -1), torch.full((1, 1, 1, 1), math.nan)]


def photograph(height, width, channels=3, low=0, high=256, seed=0):
    return np.random.default_rng(seed).integers(low, high, (channels, height, width), np.uint8)


def read_points(image, side):
    """Bilinear at single points, 0 outside, clipped to the image's own range: pixel by pixel."""
    channels, height, width = image.shape
    out = np.zeros((channels, side, side))
    for i in range(side):
        for j in range(side):
            y, x = (i + 0.5) * height / side - 0.5, (j + 0.5) * width / side - 0.5
            top, left = math.floor(y), math.floor(x)
            for row in (top, top + 1):
                for column in (left, left + 1):
                    if 0 <= row < height and 0 <= column < width:
                        share = (1 - abs(y - row)) * (1 - abs(x - column))
                        out[:, i, j] += share * image[:, row, column]
    return out.clip(image.min(), image.max())


MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


@pytest.mark.parametrize("size", [(40, 57), (9, 13), (24, 24), (1, 1), (100, 3)])
@pytest.mark.parametrize("low", [0, 30])
def test_as_published_by_loops(size, low):
    image, side, net = photograph(*size, low=low, high=200), 24, Net()
    got = saliency(net, image, side=side)
    x = read_points(image / 255, side)
    x = x / x.max()
    x = (x - MEAN[:, None, None]) / STD[:, None, None]
    np.testing.assert_allclose(net.seen[0][0].numpy(), x, rtol=1e-4, atol=1e-5)
    p = 1 / (1 + np.exp(-np.tensordot([0.7, -0.4, 0.5], x, 1)))
    p = (p - p.min()) / (p.max() - p.min())
    due = Image.fromarray((p * 255).astype(np.uint8)).resize(size[::-1], Image.Resampling.BILINEAR)
    assert got.dtype == torch.float32 and got.shape == size
    levels = got.numpy() * 255
    assert np.abs(levels - levels.round()).max() < 1e-3  # 8 bits, as in a PNG
    error = np.abs(levels - np.asarray(due))  # truncation turns 1e-6 into one level, here and there
    assert error.max() <= 1.001 and error.mean() < 0.05


def test_grey_photographs_take_the_numbers_of_red():
    image, net = photograph(30, 20, channels=1), Net()
    saliency(net, image, side=16)
    x = read_points(image / 255, 16)[0]
    due = (x / x.max() - 0.485) / 0.229
    for channel in net.seen[0][0].numpy():
        np.testing.assert_allclose(channel, due, rtol=1e-4, atol=1e-5)


def test_the_sane_way_averages_and_does_not_stretch():
    image, net = photograph(64, 96), Net()
    got = saliency(net, image, as_published=False, side=16)
    x = resize(torch.from_numpy(image).double() / 255, (16, 16)).numpy()
    np.testing.assert_allclose(  # 4 x 6 pixels fall together, and those around have a little share
        x[:, 8, 8].mean(), image[:, 30:38, 45:57].mean() / 255, atol=0.05
    )
    x = (x / x.max() - MEAN[:, None, None]) / STD[:, None, None]
    p = torch.from_numpy(1 / (1 + np.exp(-np.tensordot([0.7, -0.4, 0.5], x, 1))))
    torch.testing.assert_close(got, resize(p[None].float(), (64, 96))[0], rtol=1e-4, atol=1e-5)


def test_fine_stripes_vanish_or_become_false_ones():
    """Why averaging: every second column is white; read at single points, some period remains."""
    image, net = np.zeros((3, 64, 64), np.uint8), Net()
    image[:, :, ::2] = 255
    saliency(net, image, side=24)
    saliency(net, image, side=24, as_published=False)
    published, averaged = (x[0, 0].std() for x in net.seen)
    assert published > 5 * averaged


@pytest.mark.parametrize("size", [(1, 1), (17, 5)])
@pytest.mark.parametrize("as_published", [True, False])
def test_black_and_flat_photographs_are_no_division_by_zero(size, as_published):
    for value in (0, 128, 255):
        got = saliency(Net(), np.full((3, *size), value, np.uint8), as_published, side=8)
        assert got.shape == size and got.isfinite().all()
        assert got.min() >= 0 and got.max() <= 1
        if as_published:
            assert not got.any()  # nothing stands out


def test_where_nothing_stands_out_only_the_sane_map_stays_dark():
    class Dark(Net):
        def forward(self, x):
            return [super().forward(x)[0] * 1e-3 - 6]

    image = photograph(20, 30)
    assert saliency(Dark(), image, side=16).max() > 0.5
    assert saliency(Dark(), image, as_published=False, side=16).max() < 0.01


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_in_its_mode(training):
    net = Net().train(training)
    net.norm.eval()
    saliency(net, photograph(8, 9), side=8)
    assert net.training is training and net.norm.training is False and net.modes == [False]
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((3, 8, 8), np.float32),
        torch.rand(3, 8, 8),
        np.zeros((8, 8), np.uint8),
        np.zeros((1, 3, 8, 8), np.uint8),
    ],
)
def test_what_is_no_photograph_is_refused(image):
    with pytest.raises(ValueError, match=r"uint8 image \(3, H, W\) or \(1, H, W\) or a PIL image, got .*\.$"):
        saliency(Net(), image)


def test_a_model_of_several_classes_is_refused():
    with pytest.raises(ValueError, match="one map; this one has 3 classes"):
        saliency(Net(3), photograph(8, 8))


def test_a_real_network_at_any_size():
    torch.manual_seed(0)
    model = u2net_small(mid_channels=2, out_channels=4)
    for size in ((1, 1), (3, 5), (97, 131)):
        got = saliency(model, torch.from_numpy(photograph(*size)))
        assert got.shape == size and 0 <= got.min() <= got.max() <= 1
    assert u2learn.saliency is u2learn.inference.saliency


# --- weights from their home, and the authors' maps ---------------------------------------------------------

WEIGHTS = local.data_root() / "U2Net_official" / "weights" / "u2netp_fp16_bnfolded.pth"


def official_file(path, mid=2, out=4, seed=0):
    """A file as the authors publish it, of a thin net, and that net written flat."""
    net = randomised(FlatU2Net(table(mid, out)), seed).eval()
    torch.save(net.state_dict(), path)
    return net


def test_which_net_it_is_is_read_in_the_file(tmp_path):
    net = official_file(tmp_path / "thin.pth")
    model, recipe = load_model(tmp_path / "thin.pth")
    assert recipe is None and not model.training
    x = torch.rand(1, 3, 40, 40)
    with torch.no_grad():
        torch.testing.assert_close(model(x)[0], net(x)[0], rtol=1e-4, atol=1e-4)
    torch.save(to_official(u2net_small(3)), tmp_path / "three.pth")
    assert sum(p.numel() for p in load_model(tmp_path / "three.pth")[0].parameters()) > 1_131_181
    torch.save({"state_dict": to_official(unet_s5_d16())}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth holds no U²-Net"):
        load_model(tmp_path / "other.pth")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
        load_model(tmp_path / "nowhere.pth")


def test_pretrained_fetches_checks_and_loads(tmp_path, monkeypatch):
    """From a web server, as in the tests of data sets; what cannot be fetched says where to put it."""
    (tmp_path / "home").mkdir()
    net = official_file(tmp_path / "home" / "u2netp.pth")
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path / "home")
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    monkeypatch.setenv("U2LEARN_DATA", str(tmp_path / "data"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        home = f"http://127.0.0.1:{server.server_port}/u2netp.pth#/u2netp.pth"
        digest = hashlib.sha256((tmp_path / "home" / "u2netp.pth").read_bytes()).hexdigest()
        archive = catalogue.Archive((home,), sha256=digest)
        offered = dataclasses.replace(PUBLISHED["u2net_small"], archive=archive)
        monkeypatch.setitem(PUBLISHED, "u2net_small", offered)
        model, _ = u2learn.pretrained("u2net_small", progress=False)
    finally:
        server.shutdown()
        server.server_close()
    x = torch.rand(1, 3, 40, 40)
    with torch.no_grad():
        torch.testing.assert_close(model(x)[0], net(x)[0], rtol=1e-4, atol=1e-4)
    place = tmp_path / "data" / "weights" / "u2netp.pth"
    assert u2learn.pretrained("u2net_small", progress=False)[1] is None  # without the server
    place.unlink()
    monkeypatch.setattr(download.time, "sleep", lambda _: None)
    with pytest.raises(ConnectionError, match="by hand") as error:
        u2learn.pretrained("u2net_small", progress=False)
    assert str(place) in str(error.value)


def test_an_unknown_name_is_answered_with_all_names():
    with pytest.raises(KeyError, match=r"'u9net'.*drive-small.*u2net, u2net_small"):
        u2learn.pretrained("u9net")


def run(*arguments):
    cli.main([str(argument) for argument in arguments])


def failure(*arguments):
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    assert isinstance(stop.value.code, str) and "\n" not in stop.value.code
    return stop.value.code


@pytest.fixture(scope="module")
def published_maps(tmp_path_factory):
    """Two photographs, and maps of them from the flat net and loops."""
    net, pairs = official_file(tmp_path_factory.mktemp("weights") / "u2netp.pth"), []
    for seed, size in enumerate([(30, 41), (25, 20)]):
        image = photograph(*size, seed=seed)
        x = read_points(image / 255, 320)
        x = (x / x.max() - MEAN[:, None, None]) / STD[:, None, None]
        with torch.no_grad():
            p = net(torch.from_numpy(x).float()[None])[0][0, 0].sigmoid().numpy()
        p = (p - p.min()) / (p.max() - p.min())
        theirs = Image.fromarray((p * 255).astype(np.uint8)).resize(size[::-1], Image.Resampling.BILINEAR)
        pairs.append((Image.fromarray(image.transpose(1, 2, 0)), theirs.convert("RGB")))
    return pairs


@pytest.fixture
def demo(published_maps, tmp_path, monkeypatch):
    """They as files, in folders as in the authors' repository."""
    monkeypatch.setenv("U2LEARN_DATA", str(tmp_path / "data"))
    folder = tmp_path / "data" / "U2Net_official" / "test_data"
    for name, column in (("test_images", 0), ("u2netp_results", 1)):
        (folder / name).mkdir(parents=True)
        for i, pair in enumerate(published_maps):
            pair[column].save(folder / name / f"{i}.png")
    official_file(tmp_path / "u2netp.pth")
    return folder


def test_the_table_of_the_authors_maps(demo, tmp_path, capsys):
    run("evaluate", "--maps", "u2net_small", "--weights", tmp_path / "u2netp.pth")
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines[1:]]
    assert lines[0].split()[-2:] == ["mean", "largest"]
    assert [row[:-2] for row in rows] == [["0.png"], ["1.png"], ["worst", "of", "2"]]
    assert all(float(row[-2]) < 0.1 and int(row[-1]) <= 1 for row in rows)
    official_file(tmp_path / "other.pth", seed=3)
    run("evaluate", "--maps", "u2net_small", "--weights", tmp_path / "other.pth")
    assert float(capsys.readouterr().out.split()[-2]) > 2  # other weights, other maps


def test_the_record_of_the_authors_maps(demo, folder, tmp_path, capsys):
    weights = tmp_path / "other.pth"
    official_file(weights, seed=3)
    due = measure.compare_maps(load_model(weights)[0], "u2net_small")
    run("evaluate", "--maps", "u2net_small", "--weights", weights, "--record")
    printed = [line.split() for line in capsys.readouterr().out.splitlines()[1:3]]
    (record,) = records.records().values()
    assert [*records.records()] == ["u2net-small-maps"] and record["maps"] == "u2net_small"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert record["weights"] == {"file": "other.pth", "sha256": digest}
    assert {"commit", "versions", "device"} <= record.keys()
    assert [*due] == ["0.png", "1.png"] == [*record["differences"]]
    for name, difference in record["differences"].items():
        assert (difference["mean"], difference["largest"]) == pytest.approx(due[name], abs=1e-6)
    assert printed == [[name, f"{mean:.2f}", f"{largest:.0f}"] for name, (mean, largest) in due.items()]


def test_mistakes_with_maps_are_sentences(demo, tmp_path, monkeypatch):
    weights = tmp_path / "u2netp.pth"
    assert "--maps" in failure("evaluate", "runs", "--maps", "u2net_small")
    Image.new("L", (5, 5)).save(demo / "u2netp_results" / "0.png")
    assert "differ in their size" in failure("evaluate", "--maps", "u2net_small", "--weights", weights)
    (demo / "u2netp_results" / "0.png").unlink()
    assert "no map of" in failure("evaluate", "--maps", "u2net_small", "--weights", weights)
    monkeypatch.setenv("U2LEARN_DATA", str(tmp_path / "empty"))
    message = failure("evaluate", "--maps", "u2net_small", "--weights", weights)
    assert "u2learn data fetch u2net-demo" in message


def test_predict_with_a_file_of_the_authors(demo, tmp_path):
    photo = demo / "test_images" / "0.png"
    run("predict", photo, "--weights", tmp_path / "u2netp.pth", "--output", tmp_path / "maps")
    found = {path.name: np.asarray(Image.open(path)) for path in (tmp_path / "maps").iterdir()}
    assert found.keys() == {"0-saliency.png", "0-mask.png"}
    theirs = np.asarray(Image.open(demo / "u2netp_results" / "0.png"))[..., 0].astype(int)
    assert np.abs(found["0-saliency.png"] - theirs).max() <= 1
    assert ((found["0-mask.png"] == 255) == (found["0-saliency.png"] > 127)).all()


@pytest.mark.slow
@pytest.mark.skipif(not WEIGHTS.exists(), reason="the official photographs, maps and weights are not here")
def test_the_18_official_maps_within_two_grey_levels(capsys):
    """Half-precision weights with folded norms; a change of the weights of that size does as much."""
    run("evaluate", "--maps", "u2net_small", "--weights", WEIGHTS)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert len(rows) == 19
    assert all(float(row[-2]) < 2 for row in rows)
