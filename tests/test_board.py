"""The project: a score comes from a network within its limits alone; and the page that shows the scores."""

import base64
import json
import random
import re
from datetime import datetime, timezone

import pytest
import torch

from tools import assignments
from tools.assignments import Assignment, text
from tools.browser import DESKTOP, PHONE, browser, chromium, serve
from tools.grading import board, judge, meter, seal
from tools.grading.answers import student_cells
from tools.grading.gradebook import Graded, Line
from tools.grading.judge import definitions, interval, pseudonym, secret_eye, secret_eyes
from tools.grading.report import reports
from tools.grading.run import Local, Result, Sealed, Verdict, run_test
from u2learn.checks.project import weights_of
from u2learn.data import fundus
from u2learn.project import SIZE, Pace

pytestmark = pytest.mark.course

SOURCE = Assignment.read(board.PROJECT)
HIDDEN = next(t for t in SOURCE.tests if t.name == "8.4 hidden")
CELLS = [text(c) for c in student_cells(SOURCE.cells) if "demo" not in c["metadata"].get("tags", [])]
SECRET = b"of a course"
only_sealed = pytest.mark.skipif(seal.find() is None, reason="nothing here seals a submission")


@pytest.fixture(autouse=True)
def few_eyes(monkeypatch):
    monkeypatch.setattr(judge, "EYES", 4)


class Notebook(Local):
    """The solved notebook, trained once for all tests; then these cells run."""

    trained: dict[str, torch.Tensor] = {}  # noqa: RUF012

    def __init__(self, *cells: str):
        super().__init__([definition for cell in CELLS for definition in definitions([cell])])
        self.names["net"] = self.names["make_net"]()
        self.names["net"].load_state_dict(self.trained)
        self.sources = [*CELLS, *cells]
        for cell in cells:
            exec(compile(cell, "<cell>", "exec"), self.names)


@pytest.fixture(scope="module", autouse=True)
def trained():
    Notebook.trained = Local(CELLS).names["net"].state_dict()


def verdict(session, test=HIDDEN) -> Verdict:
    try:
        return run_test(test, session, SECRET + b"ada", SECRET)
    finally:
        session.close()


def test_an_honest_network_gets_a_score_that_this_side_counted():
    found = verdict(Notebook())
    score = found.score
    assert found.earned == found.points
    assert score["low"] < score["dice"] < score["high"] and score["dice"] > score["baseline"] + 0.1
    assert score["parameters"] == sum(x.numel() for x in Notebook.trained.values())
    assert score["name"] == pseudonym(SECRET + b"ada") and score["name"] in found.says
    assert "ada" not in json.dumps(score)


def test_only_the_judge_gives_a_score_and_only_to_a_test_that_passes():
    shouts = "def segment_image(net, image):\n    raise ValueError('sorry\\nleaderboard 9.9999')"
    assert (verdict(Notebook(shouts)).score, verdict(Notebook(shouts)).earned) == (None, 0)
    mine = "def judge(*_):\n    return 1\nscore = {'dice': 1.0}"
    assert verdict(Notebook(mine)).score["dice"] == verdict(Notebook()).score["dice"]
    late = assignments.Test("8.4", "hidden", 6, "judge(net, segment_image)\nassert False, 'another reason'")
    assert verdict(Notebook(), late).score is None
    talks = assignments.Test("8.4", "hidden", 6, "print('leaderboard 0.9', judge, score, net)")
    assert verdict(Notebook(mine), talks).score is None


BLANK = "net = make_net()\n"
# What was tried for a score without the work, and what the student reads.
ATTACKS = {
    "the labels, drawn again from seeds that one knows": (
        BLANK
        + """
honest = segment_image
table = {e.image.tobytes(): e.label for e in (fundus(s, SIZE) for s in (7001, 7002, 100))}
def segment_image(net, image):
    label = table.get(image.numpy().tobytes())
    return honest(net, image) if label is None else F.one_hot(torch.tensor(label).long(), 2).permute(2, 0, 1)
""",
        "name 'table' is not defined",
    ),
    "a state_dict that says nothing": ("net.state_dict = lambda: {}", "not there in the state_dict of net"),
    "100,001 numbers": (
        "had = sum(x.numel() for x in net.state_dict().values())\n"
        "net.register_buffer('spare', torch.zeros(100_001 - had))",
        "the network has 100,001 numbers, 100,000 are allowed",
    ),
    "a large network beside the small one": (
        "large, ask = unet_small(width=32), segment_image\n"
        "def segment_image(net, image):\n    return ask(large, image)",
        "name 'ask' is not defined",
    ),
    "a large network as a default argument": (  # a fresh process has only the function before it
        "large = unet_small(width=32)\n"
        "def segment_image(net, image, hidden=large):\n"
        "    return hidden(image[None].float())[0][0].softmax(dim=0)",
        "asked in a fresh process",
    ),
    "a large network as an attribute of the small one": (
        "net.hidden = [unet_small(width=32)]\n"
        "def segment_image(net, image):\n    return net.hidden[0](image[None].float())[0][0].softmax(dim=0)",
        "no attribute 'hidden'",
    ),
    "numbers in the names of buffers": (
        "net.register_buffer('w_' + '0123456789' * 50, torch.zeros(1))",
        "make_net() makes another network than `net`",
    ),
    "the trained network in the function that makes it": (  # the same
        "def make_net(made=net):\n    return made",
        "✓ Dice",
    ),
    "a network of another kind for the judge": (
        "from torch import nn\nclass Other(nn.Conv2d):\n    pass\nnet = Other(3, 2, 1)",
        "make_net() makes another network than `net`",
    ),
    "what one eye says about the next": (
        "ask = segment_image\n"
        "def segment_image(net, image, seen=[]):\n"
        "    seen.append(image)\n"
        "    return ask(net, image).roll(len(seen), -1)",
        "gets another answer the second time",
    ),
    "weights as text in a cell": (
        f"weights = {base64.b64encode(random.Random(0).randbytes(5_000))}",
        "Weights do not belong in a notebook",
    ),
    "a very long cell that compresses well": ("#" * 90_000, "Weights do not belong in a notebook"),
    "a secret eye, carried out in an error": (
        "ask = segment_image\n"
        "def segment_image(net, image):\n"
        "    if (image.numpy() == fundus(100, SIZE).image).all():\n"
        "        return ask(net, image)\n"
        "    raise ValueError(image.flatten().tolist())",
        "the numbers of `net`: segment_image fails on a secret eye. It did not fail on the eye 100.",
    ),
    "NaN": ("next(net.parameters()).data.fill_(math.nan)", "the network gives NaN"),
    "an answer of another shape": (
        "def segment_image(net, image):\n    return torch.zeros(2, 8, 8)",
        "expected probabilities (2, 144, 140)",
    ),
    "probabilities above 1": (
        "def segment_image(net, image):\n    return 5 * torch.ones(2, *SIZE)",
        "outside of [0, 1]",
    ),
    "no network": ("net = None", "expected a network, an nn.Module, got None"),
    "numbers that are no tensors": (
        "net.state_dict = lambda: {'a': 'text'}",
        "should give tensors by name",
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_gains_nothing(attack):
    cell, says = ATTACKS[attack]
    found = verdict(Notebook(cell))
    assert says in found.says
    if found.score:
        assert found.score["dice"] == verdict(Notebook()).score["dice"]


def test_a_fresh_process_gets_definitions_and_runs_no_cell():
    cells = [
        "import math as m\nfrom os import path\n%matplotlib inline\n!ls",
        "WIDTH, NAME = 8, 'a'\nmean = [0.1, -0.2]\nbig = [0.5] * 9\nact = m.sin\nhalf = lambda x: x / 2",
        "def f(x):\n    return x\nf(3)\nclass A:\n    pass\nfor i in range(3):\n    pass",
        "def broken(:",
        "(" * 5_000,
    ]
    assert definitions(cells) == [
        "import math as m",
        "from os import path",
        "WIDTH, NAME = (8, 'a')",
        "mean = [0.1, -0.2]",
        "act = m.sin",
        "half = lambda x: x / 2",
        "def f(x):\n    return x",
        "class A:\n    pass",
    ]


def test_a_number_is_four_bytes():
    net = torch.nn.Module()
    net.register_buffer("twice", torch.tensor([1 + 2.0**-40], dtype=torch.double))
    net.register_buffer("long", torch.tensor([2**40 + 5]))
    assert weights_of(net)["twice"].double().item() == 1.0
    assert weights_of(net)["long"].long().item() == 5


def test_the_eyes_are_secret_and_the_same_for_all():
    eyes = secret_eyes(SECRET)
    assert [e.image.tolist() for e in eyes] == [e.image.tolist() for e in secret_eyes.__wrapped__(SECRET)]
    assert (eyes[0].image != secret_eyes(b"of another")[0].image).any()
    key = bytes(range(32))
    plain = fundus(int.from_bytes(key[:16], "big"), SIZE)
    eye, other = secret_eye(key), secret_eye(key[:16] + bytes(16))
    for one in (eye, other):
        assert one.image.shape == plain.image.shape and one.label.sum() == plain.label.sum()
        assert min((one.image != p).mean() for p in (plain.image, plain.image[:, ::-1])) > 0.3
        lit = one.image[0] > 20
        assert one.image[1][one.label == 1].mean() < one.image[1][(one.label == 0) & lit].mean()
    assert (eye.image != other.image).mean() > 0.3


def test_no_two_students_of_a_large_class_have_the_same_name():
    """As a rule: two of 300 do in one course of 500."""
    for course in range(20):
        key = f"secret {course} student ".encode()
        assert len({pseudonym(key + bytes([i // 256, i % 256])) for i in range(300)}) == 300


def test_images_travel_and_nothing_else():
    watch = "def segment_image(*given):\n    seen.append(given)\n    return ask(*given)"
    session = Notebook("seen = []", "ask = segment_image", watch)
    assert verdict(session).score
    assert len(session.names["seen"]) == judge.EYES
    for net, image in session.names["seen"]:
        assert net is session.names["net"] and (image.dtype, image.shape) == (torch.uint8, (3, *SIZE))


def test_the_interval_holds_the_score_and_narrows_with_more_eyes():
    eye = torch.tensor([[[900, 40], [30, 60]], [[880, 60], [20, 70]], [[910, 20], [40, 50]]])
    low, high = interval(eye)
    wide = interval(eye[:2].repeat(20, 1, 1))
    assert low < 2 * 180 / (2 * 180 + 120 + 90) < high
    assert wide[1] - wide[0] < high - low


TIMED = """
import os, signal, threading, time
def burn(seconds):
    started = time.thread_time()
    while time.thread_time() - started < seconds:
        pass
threading.Thread(target=burn, args=(0.5,)).start()
"""
CHILDREN = """
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for _ in range(60):
    child = os.fork()
    if not child:
        burn(0.02)
        os._exit(0)
    try:
        while True:
            os.kill(child, 0)
            time.sleep(0.002)
    except ProcessLookupError:
        pass
"""
SPREAD = """
from pathlib import Path
for folder in (".", "/tmp", "/dev/shm", "/var/tmp", os.environ["HOME"], "/work"):
    try:
        (Path(folder) / "left.txt").write_text("weights")
    except OSError:
        pass
"""
FOUND = """
def make_net():
    import os
    from pathlib import Path
    folders = (".", "/tmp", "/dev/shm", "/var/tmp", os.environ["HOME"], "/work")
    return [folder for folder in folders if (Path(folder) / "left.txt").exists()]
"""


@only_sealed
def test_time_is_counted_in_all_cells_threads_and_children_and_nothing_is_left_behind(monkeypatch):
    monkeypatch.setattr(Pace, "slower", lambda self: 1.0)  # as the system counts
    monkeypatch.setattr(meter, "PAUSES", (0.02, 0.06))
    session = Sealed([TIMED, "burn(0.3)", "burn(0.3)", SPREAD], 60, seal.find(), metered=True)
    try:
        before = session.spent
        assert session.errors == {} and 1.0 < before < 3
        box = session.box
        box.run(CHILDREN, 60)
        assert session.spent - before > 1.3
        fresh = session.fresh(definitions([FOUND]))
        try:
            assert fresh.get("make_net")() == []
            assert fresh.spent < 1.0
        finally:
            fresh.close()
        monkeypatch.setattr(judge, "SECONDS", 1)
        session.sources = CELLS
        box.run("import torch\nnet = torch.nn.Conv2d(3, 2, 1)\nsegment_image = print")
        says = run_test(HIDDEN, session).says
        assert re.search(r"used (\d\.\d) seconds .* that is \d\.\d over the 1 that are allowed", says)
    finally:
        session.close()


def test_a_second_is_worth_more_on_a_slower_machine(monkeypatch):
    import os

    def counted(slower):
        monkeypatch.setattr(Pace, "slower", lambda self: slower)
        measured = meter.Meter(os.getpid())
        sum(i * i for i in range(6_000_000))
        measured.stop()
        return measured.seconds

    assert 1.3 < counted(1.0) / counted(2.0) < 3


def score_of(name: str, dice: float, day: int = 1) -> dict:
    return {
        "name": name,
        "dice": dice,
        "low": dice - 0.02,
        "high": dice + 0.02,
        "baseline": 0.312,
        "parameters": 6832,
        "seconds": 12.3,
        "date": f"2026-11-{day:02d}",
    }


def result(student: str, *scores: dict | None) -> Result:
    return Result(student, verdicts=[Verdict("8.4", "hidden", 6, 6, "", score) for score in scores])


NOW = datetime(2026, 11, 29, 16, 7, tzinfo=timezone.utc)
CLASS = [
    result("ada.lovelace", score_of("Amber hare 101", 0.62)),
    result("bob_4711", score_of("Brave otter 202", 0.70)),
    result("carl", None),
    result("ada.lovelace", score_of("Amber hare 101", 0.74, 3)),
    result("ada.lovelace", score_of("Amber hare 101", 0.71, 5)),
]


def test_the_page_shows_the_best_of_each_student_and_their_way_and_no_student():
    page = board.page(CLASS, {"a <b> net": score_of("-", 0.72)}, NOW)
    rows = re.findall(r"<tr.*?</tr>", page.split("<tbody>")[1], re.DOTALL)
    assert [re.findall(r"<td>(\d*)</td>", r)[0] for r in rows] == ["1", "", "2", ""]
    assert "Amber hare 101" in rows[0] and "a &lt;b&gt; net" in rows[1] and "Brave otter 202" in rows[2]
    assert "the baseline of 8.1" in rows[3] and "0.312" in rows[3]
    assert "0.740" in rows[0] and "0.720–0.760" in rows[0] and "2026-11-03" in rows[0]
    assert 'aria-label="Dice of 3 submissions, the first to the last: 0.620, 0.740, 0.710"' in rows[0]
    assert "<svg" not in rows[2]
    for word in ("ada.", "lovelace", "bob", "4711", "carl"):
        assert word not in page
    assert "No network has passed yet" in board.page([result("carl", None)], {}, NOW)


def test_the_table_for_teachers_has_the_students():
    graded = [Graded(r.student, result=r, lines=[Line(v, "") for v in r.verdicts]) for r in CLASS]
    files = reports(SOURCE, graded[1:4])
    assert files["leaderboard.csv"] == "rank,student,score\n1,ada.lovelace,0.7400\n2,bob_4711,0.7000\n"
    assert "leaderboard.csv" not in reports(SOURCE, graded[2:3])


def test_equal_scores_share_a_rank():
    page = board.page([result(n, score_of(n, d)) for n, d in (("a", 0.7), ("b", 0.7), ("c", 0.6))], {}, NOW)
    assert re.findall(r"<td>(\d)</td><th", page) == ["1", "1", "3"]


def test_references_are_graded_once(tmp_path):
    graded = []

    def grade(assignment, name, notebook):
        graded.append(name)
        assert json.loads(notebook)["cells"]
        return result(name, score_of("-", 0.7))

    names = [r["name"] for r in SOURCE.settings["references"]]
    for secret in (b"a", b"a", b"b"):
        path = board.write_board(CLASS, tmp_path, secret, grade)
    assert graded == names * 2
    assert all(name in path.read_text(encoding="utf-8") for name in names)
    late = Result("r", verdicts=[Verdict("8.4", "hidden", 6, 0, "too slow")])
    with pytest.raises(RuntimeError, match="does not pass: too slow"):
        board.write_board(CLASS, tmp_path, b"c", lambda *_: late)


@pytest.mark.browser
@pytest.mark.skipif(not chromium(), reason="no Chromium on the search path, nor in the variable CHROMIUM")
def test_the_page_fits_a_phone_and_asks_nobody(tmp_path):
    scores = [score_of(f"Curious cricket {i}", 0.5 + i / 100) for i in range(25)]
    many = [result(str(i), {**score, "dice": 0.4}, score) for i, score in enumerate(scores)]
    (tmp_path / "index.html").write_text(board.page(many, {}, NOW), encoding="utf-8")
    with serve(tmp_path) as address, browser() as chrome:
        for size in (DESKTOP, PHONE):
            page = chrome.new_page(viewport=size)
            asked = []
            page.on("request", lambda request, asked=asked: asked.append(request.url))
            page.goto(f"{address}/index.html#curious-cricket-7", wait_until="networkidle")
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert page.locator("tr:target th a").inner_text() == "Curious cricket 7"
            assert all(url.startswith(address) for url in asked)
