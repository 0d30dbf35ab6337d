"""The labs: each bug gives its symptom, the right answer is taken, and a wrong one is told what is wrong."""

import json
import re
import sys
from functools import cache, partial

import pytest
from conftest import ROOT

from u2learn.checks import NotYet, labs
from u2learn.checks.core import Mistake
from u2learn.checks.labs import bench, loss, maps, scores

pytestmark = pytest.mark.course
NUMBERS = range(1, len(labs.BUGS) + 1)
NAMES = ("broken-unets", "broken-maps", "broken-scores")
PAGES = {name: ROOT / "book" / "labs" / f"{name}.ipynb" for name in NAMES}
SEEDS = (1, 2)  # the pages have seed 0


@cache
def broken(number: int, seed: int = 0) -> labs.Lab:
    return labs.broken(number, seed)


def bug(number: int):
    return labs.BUGS[number - 1]


def letter(number: int) -> str:
    (found,) = (name for name, item in broken(number).suspicions().items.items() if item.right)
    return found


# --- the bugs -----------------------------------------------------------------------------------------------


def below_zero(run, seed):
    return min(run.losses) < 0


def white(run, seed):
    p = loss.believed(run, run.images[10:])
    entropy = bench.entropy(run.labels[:10])
    return (p > 0.5).all() and bench.last(run.losses) > entropy + 0.1 and p.max() < 0.74


def perfect(run, seed):
    p = labs.probability(run.net, run.images)
    return bench.last(run.losses) < 0.05 and (p > 0.5).float().mean() > 0.9


def fog(run, seed):
    images, masks = labs.eyes(seed)
    p = labs.probability(run.net, labs.bench.normalise(images[11:] / 255, "image"))
    near = abs(bench.last(run.losses) / bench.entropy(run.labels) - 1) < 0.25
    return near and labs.dice(p, masks[11:] // 255) < 0.2


def same_map(run, seed):
    p = labs.probability(run.net, run.images)
    jumped = max(run.losses[:20]) > 2 * run.losses[0]
    return jumped and (p - p[:1]).abs().max() < 1e-3 and bench.last(run.losses) > 0.3


def never_sure(run, seed):
    p, drawn = labs.probability(run.net, run.images[10:]), run.labels[10:]
    return p.quantile(0.99) < 0.75 and labs.dice(p, drawn, 0.3) > max(0.5, labs.dice(p, drawn) + 0.1)


def ring(run, seed):
    background = maps.resize(labs.cells(seed)[1][6:, None].float(), (96, 96))[:, 0] == 0
    return maps.at_the_rim(maps.classes(run, run.images[6:]) == 1, background) > 0.15


def neighbours(run, seed):
    return (run.predict(run.images[11:])[0] - run.predict(scores.with_dark(run))[0]).abs().max() > 0.3


def good_test(run, seed):
    share = scores.shares(run, seed)
    return share["test"] > 0.85 and share["new patients"] < 0.65


SYMPTOMS = (below_zero, white, perfect, fog, same_map, never_sure, ring, neighbours, good_test)


@pytest.mark.parametrize("seed", (0, *SEEDS))
@pytest.mark.parametrize("number", NUMBERS)
def test_the_bug_gives_its_symptom_and_the_mended_line_takes_it_away(number, seed):
    lab = broken(number, seed)
    assert SYMPTOMS[number - 1](lab.run, seed)
    with pytest.raises(Mistake):
        bug(number).check(lab.run, seed)
    run = lab._with(lab._wrong_line(), bug(number).mended)
    assert bug(number).check(run, seed).endswith(".")
    assert not SYMPTOMS[number - 1](run, seed)


# --- verdicts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", NUMBERS)
def test_a_wrong_suspicion_is_told_why_the_symptom_does_not_fit(number, capsys):
    lab = broken(number)
    items = lab.suspicions().items
    assert len(items) == 5 and sum(item.right for item in items.values()) == 1
    assert len({item.why for item in items.values()}) == len({item.text for item in items.values()}) == 5
    for name, item in items.items():
        assert re.fullmatch(r"[a-z\d-].{20,}\.", item.why) and not item.text.endswith("."), item
        if item.right:
            lab.verdict(f" {name.upper()} ")
            printed = capsys.readouterr().out
            assert f"✓ Lab {number}, verdict: {item.text}. It fits: {item.why}" in printed
            assert bug(number).wrong in printed, "the script is shown"
        else:
            with pytest.raises(NotYet) as says:
                lab.verdict(name)
            assert str(says.value) == f"✗ Lab {number}, verdict: {item.text}? It does not fit: {item.why}"
            assert capsys.readouterr().out == "", "the script stays hidden"


def test_the_right_letter_is_not_always_the_same():
    assert len({letter(number) for number in NUMBERS}) == 5


def test_what_is_no_verdict(capsys):
    broken(1).verdict("")
    assert "○ Lab 1, verdict: write the letter of your suspicion." in capsys.readouterr().out
    with pytest.raises(NotYet, match="'x' is none of the letters a, b, c, d, e"):
        broken(1).verdict("x")
    with pytest.raises(ValueError, match="no lab 10; there are labs 1 to 9"):
        labs.broken(10)


def test_suspicions_are_a_list_in_text_and_open_where_there_is_html():
    lab = broken(1)
    text, html = repr(lab.suspicions()), lab.suspicions()._repr_html_()
    assert text.startswith("a  The learning rate is too high.\nb  ") and text.count("\n") == 4
    assert not any(item.why in text for item in lab.suspicions().items.values())
    assert html.count("<details><summary>") == 5 and html.count("It fits: ") == 1


def test_hints_come_one_after_the_other(capsys):
    lab = labs.Lab(1, bug(1))
    for _ in range(4):
        lab.hint()
    lines = capsys.readouterr().out.splitlines()
    assert [line[:12] for line in lines[:3]] == ["Hint 1 of 3:", "Hint 2 of 3:", "Hint 3 of 3:"]
    assert lines[3] == "There are no more hints. lab.source() shows the script of lab 1."
    assert all(len(each.hints) == 3 for each in labs.BUGS)


# --- mended lines -------------------------------------------------------------------------------------------


def mend(number: int, text: str, line: str = "", seed: int = 0) -> str:
    """What is said of a text in the place of a line, by default of the wrong one; True: it is taken."""
    lab = broken(number, seed)
    lines = [each.strip() for each in lab._lines()]
    return bug(number).check(lab._with(lines.index(line or bug(number).wrong) + 1, text), seed)


@pytest.fixture
def short(monkeypatch):
    """Trainings of a few steps, where what is said does not depend on them."""
    for module in (loss, maps, scores):
        monkeypatch.setattr(module, "fit", partial(bench.fit, steps=12))


@pytest.mark.parametrize(
    ("number", "text", "line"),
    [
        (1, "y_all = (masks[:, None] > 127).float()", ""),
        (1, "y_all = masks[:, None].float().clamp(max=1)", ""),
        (2, "loss = F.binary_cross_entropy", "loss = F.binary_cross_entropy_with_logits"),
        (3, "return F.cross_entropy(logits, y)", ""),
        (4, "pairs = list(zip(sorted(images, key=number_in), sorted(masks)))", ""),
        (5, "optimiser = torch.optim.AdamW(net.parameters(), lr=0.01)", ""),
        (6, "x[turned] = x[turned].flip(-1)\ny[turned] = y[turned].flip(-1)", ""),
        (7, "y_all = labels[:, 1::3, 1::3][:, :96, :96]", ""),
        (7, "y_all = resize(F.one_hot(labels).movedim(-1, 1).float(), (96, 96)).argmax(1)", ""),
        (8, "net.train(False)\nwith torch.inference_mode():", ""),
        (9, "train, test = (torch.where(patient % 2 == k)[0] for k in (0, 1))", ""),
    ],
)
def test_another_right_line_is_taken_too(number, text, line, monkeypatch):
    monkeypatch.setattr(
        sys.modules["__main__"], "number_in", lambda name: int(re.sub(r"\D", "", name)), raising=False
    )
    assert mend(number, text, line)


@pytest.mark.parametrize(
    ("number", "text", "says"),
    [
        (4, "pairs = list(zip(images, masks, strict=True))", "pairs do not belong together"),
        (4, "pairs = list(zip(sorted(images)[:2], sorted(masks)[:2]))", "only 2 of the 11 eyes are left"),
        (6, "x[turned], y[turned] = x[turned].flip(-1), y[turned].flip(-2)", "whose label is not"),
        (6, "pass", "the augmentation is gone"),
        (6, "x[turned] = -x[turned]", "neither as it was nor flipped"),
        (7, "y_all = resize(labels[:, None].float(), (96, 96))[:, 0].round().long()", "the id of a third"),
        (7, "y_all = labels[:, ::2, ::2]", r"the shape \(8, 128, 128\), expected \(8, 96, 96\)"),
        (7, "y_all = 2 * (resize(labels[:, None].float(), (96, 96))[:, 0] > 1).long()", "another class than"),
        (8, "with torch.inference_mode():", "Whether there are gradients does not matter"),
        (8, "for each in net.modules():\n    each.momentum = 0.0\nwith torch.no_grad():", "neighbours still"),
        (9, "train, test = order[half:], order[:half]", "still patients with patches in both parts"),
        (9, "train, test = order[patient[order] < 1], order[patient[order] >= 1]", "a part with one patient"),
        (9, "train, test = order, order[:0]", "one of the two parts is empty"),
        (9, "train, test = order, order", "a patch in both parts"),
    ],
)  # fmt: skip
def test_a_wrong_line_is_told_what_is_wrong(number, text, says, short):
    with pytest.raises(Mistake, match=says):
        mend(number, text)


@pytest.mark.parametrize(
    ("number", "text", "says", "line"),
    [
        (1, "loss = lambda z, y: F.binary_cross_entropy_with_logits(z, y).abs()", "leaves the cause",
         "loss = F.binary_cross_entropy_with_logits"),
        (1, "y_all = masks[:, None].float() / 2", "still holds values from 0 to 127.5", ""),
        (1, "y_all = masks[:, None].float() / 510", "should be 1 on a vessel and 0 elsewhere", ""),
        (1, "y_all = 1 - masks[:, None].float() / 255", "they are exchanged", ""),
        (2, "optimiser = torch.optim.AdamW(net.parameters(), lr=0.03)", "the loss still stops early",
         "optimiser = torch.optim.AdamW(net.parameters(), lr=0.01)"),
        (2, "net.head = nn.Sequential(net.head, nn.Tanh())", "it computes with probabilities from 0.2", ""),
        (2, "loss = F.mse_loss", "no cross-entropy any more", "loss = F.binary_cross_entropy_with_logits"),
        (3, "return F.cross_entropy(logits, y, ignore_index=1)", "now no pixel of a vessel counts", ""),
        (3, "return F.cross_entropy(logits, y, torch.ones(2), ignore_index=0)", "no pixel of the", ""),
        (5, "optimiser = torch.optim.SGD(net.parameters(), lr=1e-4)", "the steps are too short", ""),
        (5, "optimiser = torch.optim.SGD(net.parameters(), lr=8, momentum=0.9)", "still the same", ""),
        (8, "losses = fit(net, optimiser, batch, loss, steps=2)\nnet.eval()", "little was learned",
         "losses = fit(net, optimiser, batch, loss)"),
    ],
)  # fmt: skip
def test_a_line_that_trains_badly_is_told_so(number, text, says, line):
    with pytest.raises(Mistake, match=says):
        mend(number, text, line)


def test_a_line_that_does_not_run_is_told_where(short, capsys):
    lab = broken(1)
    assert lab.mend(0, " ") is None
    assert "○ Lab 1, mended line: give a line's number, and what it should be." in capsys.readouterr().out
    for number, text, says in (
        (99, "pass", "there is no line 99 that can be replaced"),
        (1, "pass", "there is no line 1 that can be replaced"),
        (5, " y_all =  masks[:, None].float() ", "line 5 is as it was"),
        (5, "y_all = masks[", r"this is no Python: '\[' was never closed in `y_all = masks\[`"),
        (5, "y_all = maks / 255", "the script stops at `y_all = maks / 255` with NameError: name 'maks' is"),
        (14, "return net", "the script no longer reaches its last line"),
    ):
        with pytest.raises(NotYet, match=f"✗ Lab 1, mended line: {says}"):
            lab.mend(number, text)


# --- the pages ----------------------------------------------------------------------------------------------


def cells(page) -> list[dict]:
    return json.loads(page.read_text(encoding="utf-8"))["cells"]


def source(cell: dict) -> str:
    return "".join(cell["source"])


def answers() -> dict[int, str]:
    """What is folded below each lab, by its number."""
    found = {}
    for page in PAGES.values():
        for cell in cells(page):
            if match := re.fullmatch(
                r"<details>\n<summary>Answer to lab (\d)</summary>\n\n(.*)\n\n</details>", source(cell), re.S
            ):
                found[int(match[1])] = match[2]
    return found


def test_each_lab_has_its_parts_in_order():
    ids = [cell["id"] for page in PAGES.values() for cell in cells(page)]
    for number in NUMBERS:
        order = [
            ids.index(f"lab{number}-{part}".rstrip("-"))
            for part in ("", "symptom", "look", "suspicions", "verdict", "mend", "mended", "answer")
        ]
        assert order == sorted(order)
        assert order[-1] - order[3] > 4, "the answer is not directly below the question"
    assert list(answers()) == list(NUMBERS)


def test_the_answers_are_those_that_are_taken():
    for number, answer in answers().items():
        lines = [line.strip() for line in broken(number)._lines()]
        assert answer.startswith(f"Suspicion {letter(number)}. "), number
        assert re.search(rf"\bLine {lines.index(bug(number).wrong) + 1} (becomes|ends)\b", answer), number
        if bug(number).mended != "pass":
            assert f"```python\n{bug(number).mended}\n```" in answer, number


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_scripts_and_cures_are_not_to_be_seen(page):
    seen = "\n".join(source(cell) for cell in cells(page) if not source(cell).startswith("<details>"))
    seen += json.dumps([cell.get("outputs") for cell in cells(page)])
    for each in labs.BUGS:
        for line in (each.wrong, *each.mended.split("\n")):
            assert line == "pass" or (line not in seen and json.dumps(line)[1:-1] not in seen)
        assert not any(item.why in seen for item in each.suspicions)


def test_scripts_fit_into_the_column():
    for number in NUMBERS:
        assert max(map(len, broken(number)._lines())) <= 80, f"lab {number}: 4 more are its numbers"


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_a_page_with_all_answers_filled_in(page, capsys, monkeypatch):
    """As a reader does it. What `lab` is, is asked for the right letter and line only here."""
    names = {"display": lambda *_: None}
    solved = 0
    for cell in cells(page):
        if cell["cell_type"] == "code" and cell["id"] != "install":
            code = source(cell)
            if 'lab.verdict("")' in code:
                code = f"lab.verdict({letter(names['lab'].number)!r})"
            if 'lab.mend(0, "")' in code:
                lab = names["lab"]
                code = f"figure = lab.mend({lab._wrong_line()}, {lab._bug.mended!r})"
            exec(compile(code, cell["id"], "exec"), names)
            said = capsys.readouterr().out
            if "lab.mend(" in code:
                assert f"✓ Lab {lab.number}, mended line: " in said and names["figure"].axes
                solved += 1
    assert solved == source({"source": "\n".join(map(source, cells(page)))}).count("<summary>Answer to lab")
