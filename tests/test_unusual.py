"""Solutions that one does not expect: right ones are green at home and at the grader, wrong ones are told.

And the doors to the library's version of what a part asks for: each is shut, and none of them catches
somebody who has done the work.
"""

import functools
import sys

import pytest
import torch
from test_exercises import is_generic

import u2learn
from tools import assignments
from tools.assignments import Assignment, Mistake, part_of, text
from tools.grading import seal
from tools.grading.answers import student_cells
from tools.grading.run import Local, names_asked_for, run_test
from tools.grading.sandbox import Sandbox
from u2learn.checks import NotYet, check, core
from u2learn.checks.reading import refused

pytestmark = pytest.mark.course

read = functools.cache(Assignment.read)
CASES = [(name, case) for name in assignments.names() for case in read(name).unusual]
RIGHT = [(name, case) for name, case in CASES if not case.loses]
WRONG = [(name, case) for name, case in CASES if case.loses]
PARTS = [(n, t.part) for n in assignments.names()[:7] for t in read(n).tests if t.kind == "check"]
HEAD = "import torch\nfrom torch import nn\nfrom torch.nn import functional as F"


def ids(cases: list) -> list[str]:
    return [f"{case.part} {case.mistake}" for _, case in cases]


def sources(name: str, case: Mistake) -> list[str]:
    """The notebook's imports, and the cell of the one part, with this solution in it."""
    cells = [c for c in student_cells(read(name).cells) if "demo" not in c["metadata"].get("tags", [])]
    return [
        case.applied_to(text(c)) if part_of(c) else text(c) for c in cells if part_of(c) in ("", case.part)
    ]


def verdicts(name: str, part: str, session, key: bytes = b"") -> list:
    return [run_test(test, session, key) for test in of_part(name, part)]


def of_part(name: str, part: str) -> list:
    return [test for test in read(name).tests if test.part == part]


def answers(name: str, part: str) -> list[str]:
    """The names that the part's check is called with."""
    return names_asked_for(of_part(name, part)[0].source)


@pytest.mark.parametrize(("name", "case"), WRONG, ids=ids(WRONG))
def test_a_wrong_one_loses_its_points_and_is_told_why(name, case):
    session = Local(sources(name, case))
    assert session.errors == {}
    found = verdicts(name, case.part, session)
    lost = [v for v in found if v.earned < v.points]
    assert sum(v.points for v in lost) == case.loses, [v.says for v in found]
    assert case.says in lost[0].says
    assert is_generic(lost[0].says) == case.generic, lost[0].says


@pytest.fixture(scope="module")
def box():
    with Sandbox(seal.find() or seal.Unsealed()) as sandbox:
        yield sandbox


class Wire:
    """A session in a sandbox that others have used before: what one of them defined is defined anew."""

    def __init__(self, box: Sandbox, cells: list[str]):
        self.sources, self.errors, self.get = cells, {}, box.get
        for cell in cells:
            box.run(cell)

    def mend(self) -> None: ...


@pytest.mark.parametrize(("name", "case"), RIGHT, ids=ids(RIGHT))
def test_a_right_one_is_green_at_home_and_at_the_grader(name, case, box):
    session = Local(sources(name, case))
    assert session.errors == {}
    for key in (b"", b"one", b"another"):
        assert [v.says for v in verdicts(name, case.part, session, key) if v.earned < v.points] == []
    remote = Wire(box, sources(name, case))
    assert [v.says for v in verdicts(name, case.part, remote) if v.earned < v.points] == []


def test_a_submission_does_not_import_the_questions_and_its_own_checks_do_no_harm(box):
    box.run("from u2learn.checks import check\ncheck('1.1', None)")
    for module in set(core.MODULES.values()) - {"project"}:
        with pytest.raises(ImportError):
            box.run(f"import u2learn.checks.{module}")


def test_there_are_many_and_most_wrong_ones_have_a_diagnosis():
    for name in assignments.names()[:7]:
        assert len(read(name).unusual) >= {"02-unet": 30, "06-rsu": 27}.get(name, 8)
    of_the_report = [case for name, case in WRONG if name in ("02-unet", "06-rsu")]
    assert sum(not case.generic for case in of_the_report) >= 50 / 57 * len(of_the_report)


# Doors to F.conv2d, F.batch_norm and the package's own pieces: (part, answer's name, cells).
DOORS = {
    "by its name": ("1.2", "conv2d", ["def conv2d(x, w, b):\n    return F.conv2d(x, w, b)"]),
    "imported within": (
        *("1.2", "conv2d"),
        ["def conv2d(x, w, b):\n    from torch.nn.functional import conv2d as f\n    return f(x, w, b)"],
    ),
    "through a helper": (
        *("1.2", "conv2d"),
        ["f = F.conv2d", "def g(*a):\n    return f(*a)", "def conv2d(*a):\n    return g(*a)"],
    ),
    "in a container": (
        "1.2",
        "conv2d",
        ["t = {}", "t['f'] = F.conv2d", "def conv2d(*a):\n    return t['f'](*a)"],
    ),
    "in a class": (
        *("1.2", "conv2d"),
        ["class T:\n    f = staticmethod(F.conv2d)", "t = T()", "def conv2d(*a):\n    return t.f(*a)"],
    ),
    "as a default": ("1.2", "conv2d", ["def conv2d(x, w, b, f=F.conv2d):\n    return f(x, w, b)"]),
    "as a layer": ("1.2", "conv2d", ["def conv2d(x, w, b):\n    return nn.Conv2d(2, 3, 3)(x)"]),
    "by an operation": ("1.2", "conv2d", ["def conv2d(*a):\n    return torch.ops.aten.conv2d(*a)"]),
    "with a star": ("1.2", "f", ["from torch.nn.functional import *", "def f(*a):\n    return conv2d(*a)"]),
    "getattr": ("1.2", "conv2d", ["def conv2d(*a):\n    return getattr(F, 'conv2d')(*a)"]),
    "getattr, computed": ("1.2", "conv2d", ["def conv2d(*a):\n    return getattr(F, 'con' + 'v2d')(*a)"]),
    "vars": ("1.2", "conv2d", ["def conv2d(*a):\n    return vars(F)['con' + 'v2d'](*a)"]),
    "its dict": ("1.2", "conv2d", ["def conv2d(*a):\n    return F.__dict__['con' + 'v2d'](*a)"]),
    "importlib": (
        *("1.2", "conv2d"),
        ["import importlib", "def conv2d(*a):\n    return importlib.import_module('torch').conv2d(*a)"],
    ),
    "eval": ("1.2", "conv2d", ["def conv2d(*a):\n    return eval('F.con' + 'v2d')(*a)"]),
    "exec": ("1.2", "conv2d", ["def conv2d(*a):\n    exec('y = 1')"]),
    "an alias": ("1.2", "conv2d", ["conv2d = F.conv2d"]),
    "a lambda": ("1.2", "conv2d", ["conv2d = lambda *a: F.conv2d(*a)"]),
    "a partial": ("1.2", "conv2d", ["from functools import partial", "conv2d = partial(F.conv2d)"]),
    "below a magic": ("1.2", "conv2d", ["%%time\nconv2d = F.conv2d"]),
    "in the line of a magic": ("1.2", "conv2d", ["%time conv2d = F.conv2d"]),
    "below a line that begins with a percent sign": ("1.2", "conv2d", ["n = (7\n% 2)\nconv2d = F.conv2d"]),
    "in a cell that is indented": ("1.2", "conv2d", ["    conv2d = F.conv2d\n    n = 1"]),
    "behind prompts": ("1.2", "conv2d", [">>> conv2d = F.conv2d\n>>> n = 1"]),
    "below a command that goes on": ("1.2", "conv2d", ["!echo \\\nx y\nconv2d = F.conv2d"]),
    "beside a magic": ("1.2", "conv2d", ["files = !ls\n%matplotlib inline\nconv2d = F.conv2d"]),
    "in a condition": ("1.2", "conv2d", ["if True:\n    conv2d = F.conv2d\nelse:\n    conv2d = None"]),
    "another function changed": (
        *("1.2", "conv2d"),
        ["torch.einsum = F.conv2d", "def conv2d(*a):\n    return torch.einsum(*a)"],
    ),
    "another function set": (
        *("1.2", "conv2d"),
        ["setattr(torch, 'einsum', F.conv2d)", "def conv2d(*a):\n    return torch.einsum(*a)"],
    ),
    "functions switched off": (
        *("1.2", "conv2d"),
        ["def conv2d(*a):\n    with torch._C.DisableTorchFunction():\n        return g(*a)"],
    ),
    "the guard changed": (
        *("1.2", "conv2d"),
        ["import __main__", "def conv2d(*a):\n    __main__.Forbid = None"],
    ),
    "imported as the answer": ("6.2", "RSU", ["class RSU:\n    pass", "from u2learn import RSU"]),
    "imported with all else": ("2.3", "resize_like", ["from u2learn.models.conv import *"]),
    "a module of one's own": (
        *("6.2", "RSU"),
        ["%%writefile mine.py\nfrom u2learn import RSU", "from mine import RSU"],
    ),
    "all of a module of one's own": ("6.2", "RSU", ["open('mine.py', 'w').write('')", "from mine import *"]),
    "among the subclasses": ("6.2", "RSU", ["RSU = nn.Module.__subclasses__()[-1]"]),
    "out of a library's function": ("1.2", "conv2d", ["conv2d = F.relu.__globals__['con' + 'v2d']"]),
    "getattr by another name": ("1.2", "conv2d", ["g = getattr", "conv2d = g(F, 'con' + 'v2d')"]),
    "getattr, handed on": (
        *("1.2", "conv2d"),
        ["from functools import reduce", "conv2d = reduce(getattr, ['con' + 'v2d'], F)"],
    ),
    "attrgetter": (
        *("1.2", "conv2d"),
        ["from operator import attrgetter", "conv2d = attrgetter('con' + 'v2d')(F)"],
    ),
    "by a match": (
        *("1.2", "conv2d"),
        ["def conv2d(*a):\n    match F:\n        case object(conv2d=f):\n            return f(*a)"],
    ),
    "by a loop": ("1.2", "conv2d", ["for conv2d in [F.conv2d]:\n    pass"]),
    "by a context": (
        *("1.2", "conv2d"),
        ["from contextlib import nullcontext", "with nullcontext(F.conv2d) as conv2d:\n    pass"],
    ),
    "in a condition's test": ("1.2", "conv2d", ["if (conv2d := F.conv2d):\n    pass"]),
    "changed by a function": (
        *("1.2", "conv2d"),
        ["def conv2d(*a):\n    return a", "def f():\n    global conv2d\n    conv2d = F.conv2d", "f()"],
    ),
    "a layer for the norm": ("2.1", "batch_norm", ["def batch_norm(x):\n    return nn.BatchNorm2d(3)(x)"]),
    "the package's block": (
        "2.2",
        "Block",
        ["from u2learn import ConvBlock", "class Block(ConvBlock):\n    pass"],
    ),
    "the checks' helper, as the answer": (
        "8.1",
        "darkness",
        ["from u2learn.checks.project import dark_map as darkness"],
    ),
    "the checks' helper": (
        *("2.3", "join"),
        ["import u2learn.checks.unet as c", "def join(a, b):\n    return torch.cat([c.up(a, b), b], 1)"],
    ),
    "the handed-out starts": (
        *("5.1", "window_starts"),
        ["from u2learn.inference import window_starts as s", "def window_starts(*a):\n    return s(*a)"],
    ),
    "the package's window": (
        *("5.2", "slide"),
        ["import u2learn", "def slide(m, x, w, s):\n    return u2learn.predict(m, x, w, s)"],
    ),
    "counted": (
        *("6.4", "count"),
        ["import u2learn", "def count(*a):\n    return sum(p.numel() for p in u2learn.RSU(*a).parameters())"],
    ),
}
# Work of one's own that only looks like it.
HONEST = {
    "experiments": (
        *("1.2", "conv2d"),
        [
            "x = torch.rand(1, 1, 3, 3)\nwant = F.conv2d(x, x)",
            "def conv2d(x, w, b):\n    want = x\n    return want",
            "torch.testing.assert_close(conv2d(x, x, None), F.conv2d(x, x))",
            "for k in (1, 2):\n    y = F.conv2d(x, x)\n    assert torch.allclose(y, conv2d(x, x, None))",
            "F.conv2d(x, x).sum()",
            "%timeit F.conv2d(x, x)",
        ],
    ),
    "written anew": (
        *("1.2", "conv2d"),
        ["def conv2d(x, w, b):\n    return F.conv2d(x, w, b)", "def conv2d(x, w, b):\n    return x"],
    ),
    "names of one's own": (
        *("1.4", "input_gradient"),
        [
            "from torch.autograd import grad",
            "def input_gradient(grad, w):\n    return F.conv2d(grad, w) + grad.sum()",
        ],
    ),
    "layers by their numbers": (
        *("6.2", "RSU"),
        [
            "from u2learn import ConvBlock",
            "class RSU(nn.Module):\n    def __init__(self, conv=ConvBlock):\n        super().__init__()\n"
            "        for i in range(3):\n            setattr(self, f'e{i}', conv(1, 1))\n"
            "    def forward(self, x):\n        return getattr(self, f'e{0}')(x)",
        ],
    ),
    "the handed-out starts": (
        *("5.2", "slide"),
        ["from u2learn.inference import window_starts as s", "def slide(*a):\n    return s(*a)"],
    ),
    "the handed-out starts, by their module": (
        *("5.2", "slide"),
        ["import u2learn.inference as u", "def slide(*a):\n    return u.window_starts(*a)"],
    ),
    "the package's blocks, which are given": (
        *("6.2", "RSU"),
        [
            "import u2learn",
            "from u2learn import RSU",
            "class RSU(nn.Module):\n    c = u2learn.ConvBlock(3, 4)",
        ],
    ),
    "another part may have it": (
        *("2.1", "batch_norm"),
        ["class Block(nn.Module):\n    norm = nn.BatchNorm2d(3)", "def batch_norm(x):\n    return x"],
    ),
    "a broken cell": ("1.2", "conv2d", ["def broken(:", "def conv2d(x):\n    return x"]),
    "eval mode": ("5.4", "flip_test", ["def flip_test(model, x):\n    model.eval()\n    return model(x)"]),
}


@pytest.mark.parametrize("door", DOORS)
def test_each_door_is_shut(door):
    assert "which is refused here" in refusal(*DOORS[door])


@pytest.mark.parametrize("work", HONEST)
def test_own_work_is_not_refused(work):
    assert refusal(*HONEST[work]) == ""


def refusal(part: str, name: str, cells: list[str]) -> str:
    core.load(part)
    return refused(core.QUESTIONS[part].refuses, [name], [HEAD, *cells])


def test_at_home_the_cells_are_read_too(monkeypatch):
    """In a notebook those that were run are in the list In."""
    cells = ["from torch.nn import functional as F", "def conv2d(*a):\n    return F.conv2d(*a)"]
    monkeypatch.setattr(sys.modules["__main__"], "In", cells, raising=False)
    with pytest.raises(NotYet, match=r"`torch\.nn\.functional\.conv2d`, which is refused here"):
        check("1.2", Local(cells).get("conv2d"))


HIDDEN = {  # what cannot be read: the operation is seen while the function runs
    "1.2": (
        "def conv2d(x, w, b, stride=1, padding=0, dilation=1):\n"
        "    return F.conv2d(x, w, b, stride, padding, dilation)"
    ),
    "1.4": "def input_gradient(grad, w, padding=0):\n    return F.conv_transpose2d(grad, w, padding=padding)",
    "2.1": (
        "def batch_norm(x, weight, bias, mean, var, training, eps=1e-5):\n"
        "    mean, var = mean.clone(), var.clone()\n"
        "    return F.batch_norm(x, mean, var, weight, bias, training, eps=eps), mean, var"
    ),
    "3.1": (
        "def cross_entropy(x, label, ignore=255):\n    return F.cross_entropy(x, label, ignore_index=ignore)"
    ),
}


@pytest.mark.parametrize("part", HIDDEN)
@pytest.mark.parametrize("switched_off", [False, True])
def test_the_operation_is_seen_at_run_time(part, switched_off):
    name = next(n for n, p in PARTS if p == part)
    cell = HIDDEN[part]
    if switched_off:
        cell = cell.replace("return F", "with torch._C.DisableTorchFunction():\n        return F")
    session = Local([HEAD, cell])
    session.sources = []
    found = verdicts(name, part, session)
    assert [v.earned for v in found] == [0, 0]
    assert all("your code calls" in v.says and "refused here" in v.says for v in found)


WRITTEN = {  # the package's own, behind a module that the notebook writes: what it says is read by nobody
    "2.2": (
        "from u2learn import ConvBlock\n"
        "def Block(inputs, outputs, *more, **named):\n    return ConvBlock(inputs, outputs)"
    ),
    "2.3": (
        "import torch\nfrom u2learn.models.conv import resize_like\n"
        "def join(deep, skip):\n    return torch.cat([resize_like(deep, skip), skip], 1)"
    ),
    "5.1": "from u2learn.inference import window_starts",
    "6.2": "import functools\nimport u2learn\nRSU = functools.partial(u2learn.RSU)",
    "6.4": (
        "def count(height, inputs, mid, out):\n"
        "    import u2learn\n    made = u2learn.RSU(height, inputs, mid, out)\n"
        "    return sum(p.numel() for p in made.parameters())"
    ),
}


@pytest.mark.parametrize("part", WRITTEN)
def test_the_package_is_seen_at_run_time(part, box):
    name = next(n for n, p in PARTS if p == part)
    (answer,) = answers(name, part)
    cells = [
        HEAD,
        f"%%writefile mine.py\n{WRITTEN[part]}",
        f"import sys\nsys.path.insert(0, '.')\nsys.modules.pop('mine', None)\nfrom mine import {answer}",
    ]
    remote = Wire(box, cells)
    for session in (remote, Local([HEAD, WRITTEN[part]])):
        session.sources = []
        found = verdicts(name, part, session)
        assert [v.earned for v in found] == [0, 0]
        told = ["your code uses `u2learn." in v.says and "refused here" in v.says for v in found]
        assert told[0] and (told[1] or session is not remote), "at home a hidden test calls it directly"


def test_what_was_handed_to_an_answer_may_be_called():
    """The network that it is asked about is the package's, and so may be a layer that the part gives."""
    core.load("6.2")
    net, x = u2learn.unet_small(), torch.rand(1, 3, 32, 32)
    refusal = core.QUESTIONS["6.2"].refuses
    assert core.apply(lambda net, x: net.eval()(x)[0], (net, x), {}, refusal).shape[0] == 1
    assert core.apply(lambda x: u2learn.ConvBlock(3, 4)(x), (x,), {}, refusal).shape[1] == 4
    with pytest.raises(core.Mistake, match=r"`u2learn\.models\.unet\..*which is refused here"):
        core.apply(lambda x: net(x), (x,), {}, refusal)
    with pytest.raises(core.Mistake, match=r"`u2learn\.models\.rsu\."):
        core.apply(lambda x: [u2learn.RSU(3, 3, 4, 4), 1 / 0], (x,), {}, refusal)


@pytest.mark.parametrize("part", ["1.1", "1.5", "2.5", "5.1", "6.1", "6.4"])
def test_a_table_of_known_cases_wins_nothing(part):
    """One student's cases, written down with their answers, are not those of another."""
    name = next(n for n, p in PARTS if p == part)
    session = Local(sources(name, Mistake(part, "", code=text(read(name).solution(part)))))
    (answer,) = answers(name, part)
    right, table = session.get(answer), {}

    def write_down(*args, **kwargs):
        return table.setdefault(repr((args, kwargs)), right(*args, **kwargs))

    def look_up(*args, **kwargs):
        return table.get(repr((args, kwargs)))

    session.names[answer] = write_down
    assert all(v.earned for v in verdicts(name, part, session, b"secret ada"))
    session.names[answer] = look_up
    assert all(v.earned for v in verdicts(name, part, session, b"secret ada"))
    assert [v.earned for v in verdicts(name, part, session, b"secret bob")] == [0, 0]


@pytest.mark.parametrize(("name", "part"), PARTS, ids=[part for _, part in PARTS])
def test_the_hidden_tests_draw_their_cases_too(name, part):
    """Whatever they ask of the answer, with another key they ask something else."""
    asked = []
    session = Local(sources(name, Mistake(part, "", code=text(read(name).solution(part)))))
    (answer,) = answers(name, part)
    right = session.get(answer)

    class Listening(torch.nn.Module):
        def __init__(self, *args, **kwargs):
            super().__init__()
            asked.append(args)
            self.made = right(*args, **kwargs)

    def listen(*args, **kwargs):
        asked.append(args)
        return right(*args, **kwargs)

    session.names[answer] = listen
    hidden = of_part(name, part)[1]
    told = []
    for key in (b"ada", b"bob", b"ada"):
        asked.clear()
        assert run_test(hidden, session, key).earned
        told.append(repr(asked))
    assert told[0] == told[2] or "object at" in told[0] or "function" in told[0]
    assert told[0] != told[1]


def test_whatever_a_number_comes_in():
    """numpy's numbers, and those in tensors, are as good as Python's own; a float is no whole number."""
    import numpy as np

    for three in (3, np.int64(3), np.uint8(3), torch.tensor(3), np.array(3)):
        assert core.equal(three, 3)
    for wrong in (3.0, np.float64(3), torch.tensor(3.0), True, np.bool_(True), None, "3"):
        assert not core.equal(wrong, 3)
    for half in (0.5, np.float32(0.5), torch.tensor(0.5)):
        assert core.equal(half, 0.5)
    for row in (
        [1, 2],
        (1, 2),
        np.array([1, 2]),
        torch.tensor([1, 2]),
        [np.int64(1), torch.tensor(2)],
        range(1, 3),
    ):
        assert core.equal(row, [1, 2])
    with pytest.raises(core.Mistake, match=r"the value is right, but it is a float.*got 3\.0, expected 3"):
        core.expect(3.0, 3, "three")


def test_an_unknown_mistake_is_told_by_where_it_is_right_and_by_what_one_more_costs():
    """Where no suspect explains it, the cases together do."""

    def out_size(n, kernel, stride=1, padding=0, dilation=1):
        return (n + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1 + 7 * (dilation > 1)

    def off(n, kernel, stride=1, padding=0, dilation=1):
        return (n + 2 * padding - dilation * (kernel - 1) - 1) // stride + 5

    def count(channels, inputs, classes):
        right = sum(9 * (a + b) * b + 4 * b for a, b in zip([inputs, *channels], channels, strict=False))
        return right + channels[0] * classes + 3 * classes

    def cost(layers, size):
        return sum(a * b * k * k + b * k for a, b, k, *_ in layers), 0

    for part, answer, says in [
        ("1.1", out_size, "it is right wherever the dilation is 1, and wrong everywhere else"),
        ("1.1", off, "every result is 4 too large"),
        ("1.5", cost, "a kernel of 3 in place of 1, with padding 1 costs 54 in yours, and should cost 48"),
        ("2.5", count, "one class more costs 11 in yours, and should cost 9"),
        ("6.4", lambda h, i, m, o: 9 * i * o + 4 * m, "one level more costs 0 in yours"),
    ]:
        with pytest.raises(NotYet) as caught:
            check(part, answer)
        assert says in str(caught.value)
        assert not is_generic(str(caught.value))
