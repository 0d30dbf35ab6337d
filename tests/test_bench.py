"""Costs and how they are measured: ways in turns, the same maps from all of them, goals, and exponents."""

import pytest
import torch
from torch import nn

from benchmarks import fast, growth
from u2learn import studies, unet_small
from u2learn.benchmark import copy_speed, in_turns, shares
from u2learn.costs import image_flops


def test_all_ways_take_turns_and_the_first_round_does_not_count():
    called = []
    ways = {name: lambda name=name: called.append(name) for name in ("a", "b")}
    times = in_turns(ways, 3)
    assert called == ["a", "b"] * 4
    assert [len(seconds) for seconds in times.values()] == [3, 3]
    assert all(0 <= t < 1 for seconds in times.values() for t in seconds)


def test_a_share_compares_times_of_one_round():
    times = {"base": [1.0, 10.0, 2.0], "other": [0.5, 4.0, 1.2]}
    assert shares(times, "base") == {"base": (1, 1, 1), "other": (0.5, 0.4, 0.6)}


def test_a_copy_has_a_speed():
    assert 1e7 < copy_speed("cpu", 1 << 22) < 1e13


def test_every_way_makes_the_published_map(monkeypatch):
    monkeypatch.setattr(fast, "NETS", {"small": studies.get("objects-small").build_model})
    monkeypatch.setattr(fast, "SIDE", 64)
    monkeypatch.setattr(fast, "image_of", lambda side=64, f=fast.image_of: f(side))
    possible = fast.possible
    monkeypatch.setattr(fast, "possible", lambda *asked: set(possible(*asked)) - {"onnxruntime"})
    found = fast.timed("cpu", 1, 1)
    rows = found["small"]
    assert found["peak"] > 1e8
    assert {"as published", "no gradient", "norms folded", "channels last", "fast"} <= set(rows)
    assert rows["as published"]["share"] == 1 and rows["as published"]["away"] == 0
    rough = {"fast, 16 bits": 0.2, "8 bits": 0.6}  # of maps from 0 to 1, from weights that nobody trained
    for way, row in rows.items():
        assert row["away"] <= rough.get(way, 1e-3), way
        assert row["seconds"] > 0 and row["spread"][0] <= row["share"] <= row["spread"][1]
    model = fast.trained("small")
    logits = model(fast.image_of(64))[0]
    assert logits.std() > 1, "a flat map would hide a difference"


def test_compiling_for_minutes_is_asked_for():
    assert "compiled" not in fast.possible("cpu", False) and "compiled" in fast.possible("cpu", True)


def test_a_compiled_net_makes_the_map_of_the_model(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda net, mode: net)  # which compiles for a minute
    model = unet_small(width=4).eval()
    image = fast.image_of(32)
    torch.testing.assert_close(fast.compiled(model, image)(image), model(image)[0], rtol=1e-4, atol=1e-4)


def test_onnxruntime_makes_the_map_of_the_model():
    pytest.importorskip("onnxruntime")

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 1, 3, padding=1)

        def forward(self, image):
            return [self.conv(image)]

    net, image = Net().eval(), fast.image_of(32)
    found = fast.by_onnxruntime(net, image)(image)
    torch.testing.assert_close(found, net(image)[0].detach(), rtol=1e-4, atol=1e-5)


def found() -> dict:
    rows = {
        way: {"seconds": 1.0, "share": share, "spread": [share, share], "away": 1e-5}
        for way, share in {"as published": 1.0, "fast": 0.5, "8 bits": 0.3}.items()
    }
    return {
        "kind": "cpu", "device": "CPU",
        "timed": {"1": {"peak": 1e11, "u2net": rows}},
        "operations": {"u2net": 5 * 10**10},
        "memory": {"u2net": {"as published": 100, "no gradient": 50, "fast": 50}},
        "quality": {"scores": {"float": {"max_f": 0.95, "mae": 0}, "8 bits": {"max_f": 0.94, "mae": 0}}},
    }  # fmt: skip


def test_goals_stand_beside_figures_and_what_is_missed_is_marked():
    assert "its arithmetic alone, in a product of matrices: 0.500 seconds" in fast.table(found())
    said = fast.table(found()).splitlines()[1:6]
    assert {line[:58].strip(): line.endswith("missed") for line in said} == {
        "fast, share of the time, u2net, 1 thread(s)": False,
        "fast, furthest pixel, u2net, 1 thread(s)": False,
        "8 bits, share of the time, u2net, 1 thread(s)": True,
        "fast, share of the memory, u2net": True,
        "8 bits, what max F loses on 100 photographs": True,
    }


def test_operations_are_those_that_the_book_counts():
    assert fast.operations("u2net_small") == image_flops(studies.get("ecssd-u2net-small"))


def test_uneven_kernels_and_drifting_means_are_told_in_the_order_of_the_network():
    model = studies.get("objects-small").build_model().eval()
    images = fast.image_of(64)
    exact = fast.eight.IntU2Net(model, fast.eight.observe(model, images)).eval()
    drift, uneven = fast.drift(exact, exact, images), fast.uneven(exact)
    assert len(drift) == len(uneven) == sum(isinstance(m, fast.eight.IntConv) for m in exact.modules())
    assert min(uneven) >= 1
    last = [m for m in exact.modules() if isinstance(m, fast.eight.IntConv)][-1]
    last.bias += 100 * last.scale_out  # of the last one alone the mean is off
    moved = fast.drift(exact, exact, images)
    assert moved[:-1] == drift[:-1] and moved[-1] > drift[-1] + 0.1


def test_an_exponent_is_the_slope_of_the_last_points():
    points = [{"x": x, "seconds": 3 * x**2.5 if x > 4 else 1.0, "bytes": 0.0} for x in (1, 2, 4, 8, 16, 32)]
    assert growth.exponent(points) == pytest.approx(2.5, abs=1e-3)
    assert growth.exponent(points, "bytes") is None and growth.power(None) == "-"


def test_what_would_take_minutes_is_left_out(monkeypatch):
    monkeypatch.setattr(growth, "clocked", lambda run, device: run())
    points = growth.points(lambda x: lambda: float(x), (1, 10, 20, 30), "cpu")
    assert [p["x"] for p in points] == [1, 10, 20]


@pytest.mark.parametrize("what", growth.MEASURED)
def test_every_cost_grows(what, monkeypatch):
    monkeypatch.setattr(growth, "SIDES", (32, 64))
    monkeypatch.setattr(growth, "BATCHES", (1, 4))
    monkeypatch.setattr(growth, "WINDOW", 32)
    monkeypatch.setattr(growth, "STRIDE", 24)
    monkeypatch.setattr(growth, "trained", lambda name: unet_small(width=4))
    measure, name = growth.MEASURED[what]
    points = measure(name, "cpu")
    assert len(points) > 1 and points[-1]["seconds"] > 0
    assert what in growth.table({what: {"points": points, "time": 1.0, "memory": None}})
