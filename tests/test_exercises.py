"""The assignments: right answers get all points, wrong ones lose exactly theirs, and are told why."""

import copy
import functools
import importlib.metadata
import importlib.util
import json
import re
import shutil
import subprocess
import zipfile

import pytest

import u2learn
from tools import assignments, links, notebooks
from tools.assignments import Assignment, Mistake, released, text
from tools.grading import seal
from tools.grading.answers import student_cells
from tools.grading.run import Local, grade_cells, grade_notebook, names_asked_for, run_test
from u2learn import data
from u2learn.checks import NotYet, check

pytestmark = pytest.mark.course

NAMES = assignments.names()
MISTAKES = [(name, mistake) for name in NAMES for mistake in Assignment.read(name).mistakes]


@functools.cache
def read(name: str) -> Assignment:
    return Assignment.read(name)


drawn = functools.cache(data.fundus)


@pytest.fixture(autouse=True)
def eyes_are_drawn_once(monkeypatch):
    """Each solution that trains asks for the same eyes; it gets copies of its own."""
    monkeypatch.setattr(data, "fundus", lambda *which: copy.deepcopy(drawn(*which)))


def sources(assignment: Assignment, mistake: Mistake | None = None) -> list[str]:
    """The cells of the solved notebook, without pictures; with a mistake in one of them."""
    cells = [c for c in student_cells(assignment.cells) if "demo" not in c["metadata"].get("tags", [])]
    if mistake and mistake.part != slow(assignment):
        cells = [c for c in cells if assignments.part_of(c) != slow(assignment)]
    wrong = mistake and assignment.solution(mistake.part)
    return [mistake.applied_to(text(c)) if c is wrong else text(c) for c in cells]


@functools.cache
def solved(name: str) -> Local:
    return Local(sources(read(name)))


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_gets_all_points(name):
    session = solved(name)
    verdicts = grade_cells(read(name), session)
    assert session.errors == {}
    assert [v.says for v in verdicts if v.earned != v.points] == []
    assert sum(v.earned for v in verdicts) + words_points(name) == read(name).points


@pytest.mark.parametrize("name", NAMES)
def test_the_empty_release_gets_none(name):
    student = Assignment(read(name).path, released(read(name).cells)["cells"])
    session = Local(sources(student))
    verdicts = grade_cells(read(name), session)
    assert all(isinstance(error, NotImplementedError) for error in session.errors.values())
    assert sum(v.earned for v in verdicts) == 0
    assert all("not done" in v.says for v in verdicts)


@pytest.mark.parametrize(("name", "mistake"), MISTAKES, ids=[f"{m.part} {m.mistake}" for _, m in MISTAKES])
def test_a_wrong_answer_loses_its_points_and_is_told_why(name, mistake):
    session = Local(sources(read(name), mistake))
    assert session.errors == {}
    verdicts = [run_test(t, session) for t in read(name).tests if t.part == mistake.part]
    lost = [v for v in verdicts if v.earned < v.points]
    assert sum(v.points for v in lost) == mistake.loses, [v.says for v in verdicts]
    assert mistake.says in lost[0].says, lost[0].says
    assert is_generic(lost[0].says) == mistake.generic, lost[0].says


def is_generic(says: str) -> bool:
    """Whether a line shows two values only, without a sentence that says more."""
    two_values = re.search(r"got [^()]*, expected [^()?]*$", says)
    return "right shape and wrong values" in says or bool(two_values)


@pytest.mark.parametrize("name", NAMES)
def test_every_part_has_four_wrong_answers(name):
    assignment = read(name)
    for part in {t.part for t in assignment.tests if t.kind != "words"}:
        of_part = [m for m in assignment.mistakes if m.part == part]
        assert len({m.mistake for m in of_part}) >= 4, part
        assert {t.kind for t in assignment.tests if t.part == part} == {"check", "hidden"}, part


def test_a_grade_id_of_another_kind_is_named():
    cell = {
        "cell_type": "code",
        "metadata": {"nbgrader": {"grade": True, "grade_id": "task-3"}},
        "source": "",
    }
    with pytest.raises(ValueError, match=r"'task-3'; it should be as q1-2"):
        Assignment(read(NAMES[0]).path, [cell]).tests  # noqa: B018


@pytest.mark.parametrize("name", NAMES)
def test_form_of_the_source(name):
    assert notebooks.problems(read(name).path.read_text(encoding="utf-8")) == []
    kinds = [t.kind for t in read(name).tests]
    assert kinds.count("words") == 1
    assert all("Rubric" in rubric for rubric in read(name).rubric.values()) and read(name).rubric
    for test in read(name).tests:
        if test.kind != "words":
            asked = names_asked_for(test.source)
            own = [n for n in asked if defines(read(name).solution(test.part), n)]
            cells = [c for c in read(name).cells if assignments.part_of(c)]
            assert own and all(any(defines(c, n) for c in cells) for n in asked), test.name


def defines(cell: dict, name: str) -> bool:
    return bool(re.search(rf"^(def|class) {name}\b|^{name} =", text(cell), re.MULTILINE))


def slow(assignment: Assignment) -> str | None:
    """A part whose cell trains a network: left out where the mistakes of other parts are tried."""
    return str(assignment.settings.get("slow"))


def words_points(name: str) -> int:
    return sum(t.points for t in read(name).tests if t.kind == "words")


RELEASE = assignments.EXERCISES / "release"


def test_the_student_notebooks_are_up_to_date():
    assert {p.name for p in RELEASE.glob("*.ipynb")} == {f"{name}.ipynb" for name in NAMES}
    for path, content in assignments.wanted().items():
        assert path.read_text(encoding="utf-8") == content, "run `make release`"


def test_the_table_of_mistakes_is_up_to_date(capsys):
    assignments.main(["table", "--check"])
    guide = assignments.GUIDE.read_text(encoding="utf-8")
    assert all(mistake.mistake in guide for _, mistake in MISTAKES)
    assert assignments.summary() in capsys.readouterr().out


def test_few_messages_are_generic():
    wrong = [mistake for name in NAMES for mistake in read(name).wrong]
    assert sum(m.generic for m in wrong) < len(wrong) / 10


@pytest.mark.parametrize("name", NAMES)
def test_the_package_for_students_holds_a_notebook_and_a_readme(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(assignments, "ZIPS", tmp_path)
    assignments.main(["release"])
    with zipfile.ZipFile(tmp_path / f"{name}.zip") as archive:
        assert archive.namelist() == [f"{name}/{name}.ipynb", f"{name}/README.md"]
        assert "BEGIN SOLUTION" not in archive.read(f"{name}/{name}.ipynb").decode()
        assert "pip install" in archive.read(f"{name}/README.md").decode()


@pytest.mark.parametrize("name", NAMES)
def test_a_student_notebook_says_what_it_is(name):
    """Badge, points, times and release in the head, and the release in the metadata, for the grader."""
    notebook = json.loads((RELEASE / f"{name}.ipynb").read_text(encoding="utf-8"))
    release, minutes = links.release(assignments.ROOT), read(name).minutes
    due = {"assignment": name, "release": release, "minutes": minutes}
    assert release == u2learn.__version__ and notebook["metadata"]["u2learn"] == due
    head = "".join(notebook["cells"][0]["source"])
    assert head.startswith(f"# {read(name).title}\n\n[![Open in Colab]")
    for word in (f"/exercises/release/{name}.ipynb)", f"{read(name).points} points", f"Release {release}."):
        assert word in head
    assert f"About {minutes[0]} minutes" in head and f" {minutes[1]} if PyTorch is new" in head
    assert re.search(r"\[[Cc]hapter \d+\]\(https://\S+/chapters/\S+\.html\)", head) or name == "08-project"


def test_the_example_for_those_who_are_new_to_pytorch_runs(capsys):
    page = (assignments.ROOT / "book" / "back" / "students.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(example, {})
    shapes = re.findall(r"Size\(\[([\d, ]+)\]\)", capsys.readouterr().out)
    assert shapes == ["2, 3, 32, 40", "3", "2, 3, 16, 20", "2, 8, 32, 40", "8, 3, 3, 3"]


def test_the_sheet_for_oral_checks_has_five_questions_for_each_assignment():
    sheet = (assignments.ROOT / "book" / "back" / "oral.md").read_text(encoding="utf-8")
    sections = sheet.split("\n## ")[1:]
    titles = [assignment.title.removeprefix("Assignment ").split(":")[0] for assignment in map(read, NAMES)]
    assert [section.partition("\n")[0].split(":")[0] for section in sections] == titles
    assert all(len(re.findall(r"^\| [^|]+\? ?.*\| .+ \|$", section, re.M)) == 5 for section in sections)


@pytest.mark.parametrize(
    ("installed", "tags", "commands"),
    [("0.0.9", True, 1), ("0.0.9", False, 2), (None, True, 1), ("99.0.1.dev3", True, 0)],
)
def test_the_first_cell_installs_the_release_and_updates_an_older_one(installed, tags, commands, monkeypatch):
    run = []

    def version(name):
        if installed is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed

    def install(command, **_):
        run.append(command[-1])
        return subprocess.CompletedProcess(command, 0 if tags or len(run) == 2 else 1, stderr="no such tag")

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(subprocess, "run", install)
    exec(links.install("https://github.com/somebody/unets", "0.1.0"), {})
    addresses = ["u2learn @ git+https://github.com/somebody/unets@v0.1.0"]
    assert run == [*addresses, "u2learn @ git+https://github.com/somebody/unets"][:commands]


def test_where_nothing_can_be_installed_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.0.1")
    failed = subprocess.CompletedProcess("pip", 1, stderr="Could not resolve host: github.com")
    monkeypatch.setattr(subprocess, "run", lambda command, **_: failed)
    with pytest.raises(RuntimeError, match="could not be installed"):
        exec(links.install("https://github.com/somebody/unets", "0.1.0"), {})
    assert "Could not resolve host" in capsys.readouterr().out


def test_a_folder_of_ones_own_is_released_without_a_link_to_ours(tmp_path, monkeypatch, capsys):
    """`make release EXERCISES=private`: with another solution, another question, and more points."""
    monkeypatch.setattr(assignments, "ZIPS", tmp_path / "zips")
    private = tmp_path / "private"
    shutil.copytree(assignments.EXERCISES / NAMES[0], private / NAMES[0])
    path = private / NAMES[0] / f"{NAMES[0]}.ipynb"
    path.write_text(path.read_text(encoding="utf-8").replace('"points": 2', '"points": 20'), encoding="utf-8")
    assignments.main(["release", "--exercises", str(private)])
    student = (private / "release" / f"{NAMES[0]}.ipynb").read_text(encoding="utf-8")
    assert '"points": 20' in student and "BEGIN SOLUTION" not in student and "colab" not in student
    assert [p.name for p in (tmp_path / "zips").iterdir()] == [f"{NAMES[0]}.zip"]
    with pytest.raises(SystemExit, match="There is no assignment in"):
        assignments.main(["release", "--exercises", str(tmp_path / "nothing")])


@pytest.mark.parametrize("name", NAMES)
def test_no_solution_is_left_in_the_release(name):
    student = (RELEASE / f"{name}.ipynb").read_text(encoding="utf-8")
    for word in ("BEGIN SOLUTION", "END SOLUTION", "HIDDEN TESTS", "Rubric"):
        assert word not in student
    regions = assignments.SOLUTION, assignments.HIDDEN
    kept = "\n".join(regions[1].sub("", regions[0].sub("", text(c))) for c in read(name).cells)
    kept = {line.strip() for line in kept.splitlines()}
    secret = [
        line.strip()
        for c in read(name).cells
        for pattern in regions
        for region in pattern.finditer(text(c))
        for line in region[0].splitlines()[1:-1]
    ]
    assert len(secret) > 20
    assert [line for line in secret if len(line) > 12 and line not in kept and line in student] == []


@pytest.mark.parametrize("name", NAMES)
def test_the_cases_are_new_each_time_and_the_verdict_is_not(name):
    """Ten times with cases of their own, as for students: the right answer is never called wrong."""
    session = solved(name)
    for part, names in checks_of(name).items():
        for _ in range(2 if part == slow(read(name)) else 10):
            check(part, *map(session.get, names))


@pytest.mark.parametrize("name", NAMES)
def test_a_mistake_is_seen_with_any_cases(name):
    for mistake in read(name).mistakes:
        if mistake.loses < sum(t.points for t in read(name).tests if t.part == mistake.part):
            continue  # one that only the hidden tests see, or only the check
        if mistake.part == slow(read(name)):
            continue  # its eyes are the same each time
        session = Local(sources(read(name), mistake))
        with pytest.raises(NotYet) as caught:
            check(mistake.part, *map(session.get, checks_of(name)[mistake.part]))
        assert mistake.says in str(caught.value), mistake.mistake


def checks_of(name: str) -> dict[str, list[str]]:
    """The names that each part's check is called with."""
    return {t.part: names_asked_for(t.source) for t in read(name).tests if t.kind == "check"}


@pytest.mark.parametrize("name", NAMES)
def test_the_solved_notebook_gets_all_points_in_the_sandbox(name):
    """As it is handed in, in a process of its own: whatever the checks ask for goes over the wire."""
    result = grade_notebook(
        read(name), "the author", read(name).path.read_bytes(), seal.find() or seal.Unsealed()
    )
    assert [cell["error"] for cell in result.cells if cell["error"]] == []
    assert [v.says for v in result.verdicts if v.kind != "words" and v.earned != v.points] == []
    assert set(result.words) == set(read(name).rubric)
