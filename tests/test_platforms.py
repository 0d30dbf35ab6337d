"""What Moodle, Canvas and nbgrader take: held to their importers' rules, as their source states them."""

import csv
import io
import json
import re
import zipfile
from decimal import Decimal

import pytest
from test_gradebook import NAME, SOURCE, TESTS, handed_in, mark, result

from tools.grading.__main__ import main
from tools.grading.gradebook import ADJUSTMENT, Gradebook, Person
from tools.grading.platforms import (
    canvas_feedback,
    canvas_gradebook,
    canvas_plain,
    moodle_feedback,
    moodle_gradebook,
    moodle_worksheet,
    nbgrader,
    summary,
)
from tools.grading.sheets import Unreadable

pytestmark = pytest.mark.course

MOODLE = """Identifier,"Full name","Email address",Status,Grade,"Maximum Grade","Grade can be changed",\
"Last modified (submission)","Last modified (grade)","Feedback comments"
"Participant 417","Anna Meier",a@x,"Submitted for grading",,26.00,Yes,"Monday, 2 March 2026, 9:00 AM",-,
"Participant 583","Anna Meier",b@x,Submitted,3.00,26.00,Yes,-,"Tuesday, 3 March 2026, 9:00 AM","Well, well"
"Participant 600","Carl Gauss",c@x,"No submission",,26.00,Yes,-,-,
"""
CANVAS = """Student,ID,SIS User ID,SIS Login ID,Section,Notes,Other (11),{title} (12),Current Score
,,,,,,,Manual Posting,
    Points Possible,,,,,,10,26.0,(read only)
"Lovelace, Ada",4711,s1,ada@x,S1,=SUM(A1),9,,90
"Neil, Bob",12,s2,bob@x,S1,,8,EX,80
"Gauss, Carl",13,s3,carl@x,S1,,7,5.00,70
"""


def rows(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


@pytest.fixture
def moodle(tmp_path):
    """Two of the same name; the words of one of them wait."""
    book = Gradebook(tmp_path / "course")
    for number in ("417", "583"):
        folder = f"Anna Meier_{number}_assignsubmission_file_"
        book.receive(NAME, [handed_in(f"Anna Meier_{number}", "moodle", "Anna Meier", number, origin=folder)])
        book.keep(NAME, result(f"Anna Meier_{number}"), "x")
    book.enter([mark("Anna Meier_417", "2.5", "no <loss> & co")])
    yield book
    book.close()


@pytest.fixture
def canvas(tmp_path):
    """Ada has all her points, Bob's words wait, Carl's are graded."""
    book = Gradebook(tmp_path / "course")
    for name, number in (("lovelaceada", "4711"), ("neilbob", "12"), ("gausscarl", "13")):
        key, origin = f"{name}_{number}", f"{name}_{number}_90{number}_01-convolution-1.ipynb"
        book.receive(NAME, [handed_in(key, "canvas", name, number, origin=origin)])
        book.keep(NAME, result(key), "x")
    book.enter([mark("lovelaceada_4711", "2.5"), mark("gausscarl_13", "0")])
    yield book
    book.close()


def importer_of_moodle(text: str, maximum: int, changed: str = "") -> dict[str, tuple[str, str]]:
    """What Moodle takes, by importgradeslib.php and locallib.php: grade and comment by the identifier.

    changed: a participant whose grade was changed in Moodle after the worksheet was downloaded.
    """
    head, *lines = rows(text)
    grade, who, date = (head.index(name) for name in ("Grade", "Identifier", "Last modified (grade)"))
    taken = {}
    for line in lines:
        value = line[grade]
        stale = line[who].endswith(changed) if changed else False
        assert line[date] == "-" or re.match(r"\w+, \d+ \w+ \d{4}", line[date]), "strtotime reads it"
        if value and not stale and 0 <= float(value) <= maximum:
            taken[line[who]] = (value, line[head.index("Feedback comments")])
    return taken


def test_moodles_worksheet_is_filled_in(moodle, tmp_path):
    path = tmp_path / "worksheet.csv"
    path.write_text(MOODLE, encoding="utf-8-sig")
    filled = moodle_worksheet(path, SOURCE, moodle.graded(NAME))
    before, after = rows(MOODLE), rows(filled.text)
    assert after[0] == before[0] and [line[:4] for line in after] == [line[:4] for line in before]
    assert [line[8] for line in after] == [line[8] for line in before], "Moodle compares the dates"
    taken = importer_of_moodle(filled.text, 26)
    assert taken["Participant 417"][0] == str(TESTS + 2.5)
    assert "1.6: 2.5 of 4. no &lt;loss&gt; &amp; co" in taken["Participant 417"][1]
    assert taken["Participant 583"] == ("3.00", "Well, well"), "it waits, and the teacher's own comment stays"
    assert "Participant 600" not in taken and filled.entered == 1 and filled.left_out == []
    path.write_text(filled.text)
    moodle.enter([mark("Anna Meier_417", "3", "read again")])
    again = moodle_worksheet(path, SOURCE, moodle.graded(NAME))
    assert "read again" in rows(again.text)[1][9] and "no &lt;loss" not in again.text, "ours is written anew"


def test_moodles_worksheet_finds_people_of_other_folders_by_their_address(tmp_path):
    book = Gradebook(tmp_path / "course")
    for student in ("carl", "eve"):
        book.keep(NAME, result(student), "x")
        book.enter([mark(student, "4")])
    book.enrol([Person("carl", "Carl Gauss", "C@x")], {})
    (tmp_path / "w.csv").write_text(MOODLE)
    filled = moodle_worksheet(tmp_path / "w.csv", SOURCE, book.graded(NAME))
    assert [line[4] for line in rows(filled.text)[1:]] == ["", "3.00", str(TESTS + 4)]
    assert filled.left_out == ["eve: not in the table"]


def test_a_group_is_no_participant_of_the_same_number(moodle, tmp_path):
    moodle.receive(NAME, [handed_in("Group A_600", "moodle", "Group A", "600")])
    moodle.keep(NAME, result("Group A_600"), "x")
    moodle.enter([mark("Group A_600", "4")])
    path = tmp_path / "w.csv"
    path.write_text(MOODLE)
    filled = moodle_worksheet(path, SOURCE, moodle.graded(NAME))
    assert rows(filled.text)[3][4] == "" and filled.left_out == ["Group A_600: not in the table"]
    path.write_text(MOODLE.replace('"Carl Gauss"', '"A: Group/A"').replace('"Anna Meier"', "Anna"))
    filled = moodle_worksheet(path, SOURCE, moodle.graded(NAME))
    assert filled.entered == 0, "other names, other people"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("Identifier", "Identificador", "no column 'Identifier' .set Moodle to English"),
        ('"Last modified (grade)"', "Date", "no column 'Last modified .grade.'"),
        ("26.00", "100.00", "Moodle's maximum grade is 100.00, and 01-convolution has 26 points"),
    ],
)
def test_another_table_is_no_worksheet(moodle, tmp_path, old, new, says):
    (tmp_path / "w.csv").write_text(MOODLE.replace(old, new))
    with pytest.raises(Unreadable, match=says):
        moodle_worksheet(tmp_path / "w.csv", SOURCE, moodle.graded(NAME))


def test_more_than_the_maximum_is_not_lost_in_silence(moodle, tmp_path):
    moodle.enter([mark("Anna Meier_417", "20", "a bonus", ADJUSTMENT)])
    (tmp_path / "w.csv").write_text(MOODLE)
    filled = moodle_worksheet(tmp_path / "w.csv", SOURCE, moodle.graded(NAME))
    assert rows(filled.text)[1][4] == "" and "more than Moodle takes" in filled.left_out[0]


def test_moodles_gradebook_has_no_empty_grade(moodle):
    moodle.enrol([Person("a", "Anna Meier", "a@x"), Person("b", "Anna Meier", "b@x")], {
        (NAME, "moodle 417"): "a", (NAME, "moodle 583"): "b",
    })  # fmt: skip
    head, *lines = rows(moodle_gradebook(SOURCE, moodle.graded(NAME)))
    assert head == ["ID number", "Email address", "Full name", SOURCE.title, "Feedback"]
    assert [line[:4] for line in lines] == [["a", "a@x", "Anna Meier", str(TESTS + 2.5)]]


def test_moodle_takes_the_feedback_back(moodle):
    """By importziplib.php: the first part of a path with the participant's number second, and a "
    "plugin's name."""
    archive = zipfile.ZipFile(io.BytesIO(moodle_feedback(SOURCE, moodle.graded(NAME))))
    found = {}
    for name in archive.namelist():
        folder, file = name.split("/")
        _, participant, subtype, plugin, _ = folder.split("_", 4)
        assert (subtype, plugin, file) == ("assignsubmission", "file", f"{NAME}.html")
        found[participant] = archive.read(name).decode()
    assert found.keys() == {"417", "583"} and "no &lt;loss&gt; &amp; co (2.5 of 4)" in found["417"]


def importer_of_canvas(text: str) -> dict[str, str]:
    """What Canvas takes, by the rules of gradebook_importer.rb: the grade of assignment 12 by the "
    "account's number."""
    head, *lines = rows(text)
    assert "Student" in head[0] and "ID" in head[1] and head[2:4] == ["SIS User ID", "SIS Login ID"]
    assert "Section" in head[4], "the last column about the student"
    (place,) = (i for i, name in enumerate(head) if re.search(r" \(12\)$", name))
    lines = [
        line for line in lines if not all(re.fullmatch(r"\s*(Muted|Manual Posting.*)?\s*", c) for c in line)
    ]
    assert "Points Possible" in lines[0][0] and float(lines[0][place]) == SOURCE.points
    return {line[1]: line[place] for line in lines[1:]}


@pytest.mark.parametrize("separator", [",", ";"])
def test_canvas_gradebook_is_filled_in(canvas, tmp_path, separator):
    path = tmp_path / "export.csv"
    table = io.StringIO()
    csv.writer(table, delimiter=separator).writerows(rows(CANVAS.format(title=SOURCE.title)))
    path.write_text(table.getvalue(), encoding="utf-8-sig")
    filled = canvas_gradebook(path, SOURCE, canvas.graded(NAME))
    assert importer_of_canvas(filled.text) == {"4711": str(TESTS + 2.5), "12": "EX", "13": str(TESTS)}
    assert "Other (11)" not in filled.text, (
        "grades of others that changed meanwhile in Canvas are not set back"
    )


def test_a_grade_that_waits_stays_as_it_is_in_canvas(canvas, tmp_path):
    canvas.keep(NAME, result("gausscarl_13", "another answer"), "y")
    (tmp_path / "e.csv").write_text(CANVAS.format(title=SOURCE.title).replace("EX", ""))
    filled = canvas_gradebook(tmp_path / "e.csv", SOURCE, canvas.graded(NAME))
    assert importer_of_canvas(filled.text) == {"4711": str(TESTS + 2.5), "12": "", "13": "5.00"}


def test_a_column_of_another_name_is_named(canvas, tmp_path):
    (tmp_path / "e.csv").write_text(CANVAS.format(title="Homework 1"))
    with pytest.raises(Unreadable, match=r"Columns of assignments are: Other \(11\); Homework 1 \(12\)"):
        canvas_gradebook(tmp_path / "e.csv", SOURCE, canvas.graded(NAME))
    for column in ("Homework 1", "homework 1 (12)"):
        assert canvas_gradebook(tmp_path / "e.csv", SOURCE, canvas.graded(NAME), column).entered == 2


def test_other_points_in_canvas_are_said(canvas, tmp_path):
    (tmp_path / "e.csv").write_text(CANVAS.format(title=SOURCE.title).replace("26.0", "100"))
    with pytest.raises(Unreadable, match="in Canvas 100 points are possible, and 01-convolution has 26"):
        canvas_gradebook(tmp_path / "e.csv", SOURCE, canvas.graded(NAME))


def test_canvas_without_its_gradebook(canvas):
    text = canvas_plain(SOURCE, canvas.graded(NAME))
    taken = importer_of_canvas(text.replace(SOURCE.title, f"{SOURCE.title} (12)"))
    assert taken == {"4711": str(TESTS + 2.5), "12": "", "13": str(TESTS)}


def test_canvas_takes_the_feedback_back(canvas):
    """By assignment.rb: the first two numbers between underscores; the student sees it under their own "
    "file's name."""
    archive = zipfile.ZipFile(io.BytesIO(canvas_feedback(SOURCE, canvas.graded(NAME))))
    found = {}
    for name in archive.namelist():
        user, attachment = [part for part in name.split("_") if part.isdigit()][:2]
        assert attachment == f"90{user}" and name.endswith("_01-convolution-1.ipynb")
        found[user] = json.loads(archive.read(name))["cells"][0]["source"]
    assert found.keys() == {"4711", "12", "13"} and f"{TESTS + 2.5} of 26 points" in found["4711"]


def test_nbgraders_columns(canvas):
    canvas.enrol([Person("ada", "Ada Lovelace", "a@x", "4711"), Person("eve", "Eve")], {})
    canvas.enter([mark("lovelaceada_4711", "-2", "late", ADJUSTMENT)])
    head, *lines = rows(nbgrader({NAME: canvas.graded(NAME)}, lambda name: SOURCE.points))
    found = {line[3]: dict(zip(head, line, strict=True)) for line in lines}
    assert head[0] == "assignment" and head[-4:] == [
        "raw_score",
        "late_submission_penalty",
        "score",
        "max_score",
    ]
    ada = found["ada"]
    assert (ada["last_name"], ada["first_name"], ada["email"]) == ("Lovelace", "Ada", "a@x")
    raw, penalty, score = (Decimal(ada[name]) for name in head[-4:-1])
    assert (raw - penalty, penalty, ada["max_score"]) == (score, 2, "26")
    assert found["neilbob_12"]["score"] == "" and found["eve"]["score"] == "0"


def test_a_summary_says_what_is_open(canvas):
    ada, bob = (next(o for o in canvas.graded(NAME) if o.student.startswith(s)) for s in ("love", "neil"))
    assert "1.2: 6 of 6." in summary(ada) and "1.6: 2.5 of 4." in summary(ada)
    assert summary(bob).endswith("1.6: still open.")


def test_the_command_writes_them_all(canvas, tmp_path, capsys):
    (tmp_path / "e.csv").write_text(CANVAS.format(title=SOURCE.title))
    course = ["--course", str(canvas.folder), "--assignment", NAME]
    main(["export", "canvas", "--into", str(tmp_path / "e.csv"), *course])
    said = capsys.readouterr().out
    assert "2 grades are in it." in said and "waits for a person: neilbob_12." in said
    main(["export", "canvas", *course])
    main(["export", "moodle", *course])
    main(["export", "nbgrader", *course])
    assert {path.name for path in (canvas.folder / NAME).iterdir()} == {
        "canvas-gradebook.csv", "canvas.csv", "canvas-feedback.zip",
        "moodle-gradebook.csv", "moodle-feedback.zip",
    }  # fmt: skip
    assert (canvas.folder / "nbgrader.csv").exists()
