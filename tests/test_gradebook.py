"""The grades: what a teacher enters is never lost, whatever is graded, imported, killed or saved anew."""

import json
import re
import sqlite3
import subprocess
import sys
import time
import zipfile
from decimal import Decimal
from pathlib import Path

import pytest
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tools.assignments import Assignment, released
from tools.grading import seal
from tools.grading.__main__ import COURSE, main
from tools.grading.answers import NotANotebook, limit_of, question_of, read, words
from tools.grading.gradebook import ADJUSTMENT, LATE, Entry, Gradebook, Graded, Person
from tools.grading.imports import MARKS, marks_table, read_marks, read_roster, take_marks
from tools.grading.report import course_table, feedback, points
from tools.grading.run import Result, Verdict
from tools.grading.sheets import Unreadable, number, read_table, shown, table_text
from tools.grading.store import FILE, Refused
from tools.grading.submissions import Key, Submission, Unclear

pytestmark = pytest.mark.course

NAME = "01-convolution"
SOURCE = Assignment.read(NAME)
WORDS = "1.6 words"
TESTS = sum(t.points for t in SOURCE.tests if t.kind != "words")


def result(student: str, answer: str = "an answer", code: str = "pass", earned: int | None = None) -> Result:
    """As a run gives it: all tests passed, or `earned` points for each."""
    verdicts = [
        Verdict.on(t, None if t.kind == "words" else t.points if earned is None else earned, f"says {t.name}")
        for t in SOURCE.tests
    ]
    cells = [{"part": "1.2", "source": code, "error": ""}]
    return Result(student, verdicts=verdicts, cells=cells, words={"1.6": answer})


def mark(student: str, points: str | None, comment: str = "", what: str = WORDS, **more) -> Entry:
    return Entry(NAME, student, what, None if points is None else Decimal(points), comment, **more)


@pytest.fixture
def book(tmp_path):
    book = Gradebook(tmp_path / "course")
    yield book
    book.close()


@pytest.fixture
def two(book):
    """A book with the results of ada and bob."""
    for student in ("ada", "bob"):
        book.keep(NAME, result(student), "first")
    return book


def of(book: Gradebook, student: str) -> Graded:
    return next(one for one in book.graded(NAME) if one.student == student)


def test_points_by_hand_count_in_halves_and_the_rest_waits(two):
    two.enter([mark("ada", "2.5", "no loss is named")])
    assert (of(two, "ada").total, of(two, "ada").final) == (TESTS + Decimal("2.5"),) * 2
    assert (of(two, "bob").total, of(two, "bob").final) == (TESTS, None)


def test_a_run_that_grades_one_student_changes_nothing_of_the_others(two):
    two.enter([mark("ada", "3"), mark("bob", "4", "very good")])
    two.keep(NAME, result("carl"), "late")
    assert [shown(one.final) for one in two.graded(NAME)] == [str(TESTS + 3), str(TESTS + 4), ""]


def test_a_changed_answer_asks_again_and_shows_the_old_mark(two):
    two.enter([mark("ada", "3", "good")])
    two.keep(NAME, result("ada", "another answer"), "second")
    ada = of(two, "ada")
    (line,) = ada.waiting
    assert line.outdated and line.entry.points == 3 and line.entry.comment == "good" and ada.final is None
    assert "3 points were given" in ada.notes[0] and ",3: good," in marks_table(SOURCE, [ada])
    two.enter([mark("ada", "1")])
    assert of(two, "ada").final == TESTS + 1
    two.keep(NAME, result("ada"), "third")
    assert of(two, "ada").final == TESTS + 3, "the first answer is there again, and so are its points"


def test_an_answer_that_is_gone_keeps_its_mark_and_asks(two):
    two.enter([mark("ada", "3")])
    two.keep(NAME, result("ada", ""), "second")
    assert of(two, "ada").waiting[0].entry.points == 3


def test_an_override_has_a_reason_and_is_asked_again_when_the_code_changes(two):
    with pytest.raises(Refused, match="a reason is due"):
        two.enter([mark("ada", "1", what="1.2 hidden")])
    two.enter([mark("ada", "1", "a cast was forgotten", what="1.2 hidden")])
    assert of(two, "ada").total == TESTS - 1
    two.keep(NAME, result("ada", code="x = 1"), "second")
    assert [line.what for line in of(two, "ada").waiting] == ["1.2 hidden", WORDS]
    two.enter([mark("ada", None, what="1.2 hidden")])
    assert of(two, "ada").total == TESTS and len(of(two, "ada").waiting) == 1
    two.keep(NAME, result("ada"), "third")
    assert of(two, "ada").total == TESTS - 1


def test_an_adjustment_and_lateness_stay_over_all_runs(two):
    two.enter([mark("ada", "-1.5", "two days late", ADJUSTMENT), mark("ada", None, "2 days", LATE)])
    two.keep(NAME, result("ada", "another"), "second")
    assert of(two, "ada").total == TESTS - Decimal("1.5") and of(two, "ada").late == "2 days"
    assert "Handed in late: 2 days." in feedback(SOURCE, of(two, "ada"))
    two.enter([mark("ada", "-100", "copied", ADJUSTMENT)])
    assert of(two, "ada").total == 0


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (mark("eve", "1"), "no such student"),
        (mark("ada", "5"), "0 to 4 are possible"),
        (mark("ada", "-1"), "0 to 4 are possible"),
        (mark("ada", "1.005"), "two decimals"),
        (mark("ada", "1", what="1.7 words"), "no such test; there are: 1.1 check"),
        (mark("ada", "1", "", ADJUSTMENT), "a reason is due"),
        (mark("ada", "1", "", LATE), "lateness has no points"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_entered(two, entry, says):
    with pytest.raises(Refused, match=says):
        two.enter([mark("bob", "2"), entry])
    assert two.entries(NAME) == []


def test_what_was_entered_cannot_be_deleted_or_changed_in_the_file(two):
    two.enter([mark("ada", "3")])
    for change in ("DELETE FROM entries", "UPDATE entries SET hundredths = 0"):
        with pytest.raises(sqlite3.IntegrityError, match="never"):
            two.db.execute(change)
    assert of(two, "ada").final == TESTS + 3


def test_an_entry_whose_test_is_gone_is_still_told(two):
    two.enter([mark("ada", "3")])
    short = result("ada")
    short.verdicts = [v for v in short.verdicts if v.kind != "words"]
    two.keep(NAME, short, "second")
    assert "3 points were given, but there is no such test now" in of(two, "ada").notes[0]


def test_a_result_of_another_release_is_read(two):
    two.keep(NAME, result("ada"), "x")
    text = json.loads(two.rows("SELECT result FROM results")[0]["result"])
    text["verdicts"][0]["new"] = text["new"] = 1
    del text["note"]
    two._add("results", "", NAME, "ada", "y", "9.9", json.dumps(text))
    assert of(two, "ada").release == "9.9" and of(two, "ada").total == TESTS


def test_a_file_of_a_newer_version_and_a_broken_one_are_refused(tmp_path):
    book = Gradebook(tmp_path)
    book.db.execute("PRAGMA user_version = 99")
    book.close()
    with pytest.raises(Refused, match="newer version"):
        Gradebook(tmp_path)
    (tmp_path / FILE).write_bytes(b"no database at all" * 100)
    with pytest.raises(Refused, match="put a copy from"):
        Gradebook(tmp_path)


def test_the_secret_is_made_once_and_is_another_in_each_course(tmp_path):
    first, again, other = (Gradebook(tmp_path / name) for name in ("a", "a", "b"))
    assert first.secret == again.secret != other.secret and len(first.secret) == 32


def test_the_copy_holds_all(two):
    two.enter([mark("ada", "3")])
    copy = two.backup()
    two.enter([mark("ada", "1")])
    copy.rename(copy.parent / FILE)
    assert of(Gradebook(copy.parent), "ada").final == TESTS + 3
    assert of(two, "ada").final == TESTS + 1


WRITER = """
import sys
from decimal import Decimal
from pathlib import Path
from tools.grading.gradebook import Entry, Gradebook
book = Gradebook(Path(sys.argv[1]))
for i in range(10_000):
    book.enter([Entry("01-convolution", "ada", "1.6 words", Decimal(i % 9) / 2, str(i))])
    print(i, flush=True)
"""


def test_a_killed_process_loses_nothing_that_it_had_entered(two):
    command = [sys.executable, "-c", WRITER, str(two.folder)]
    writer = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    for _ in range(5):
        writer.stdout.readline()
    time.sleep(0.02)
    writer.kill()
    said = writer.stdout.read().split()
    writer.wait()
    entered = [int(entry.comment) for entry in two.entries(NAME)]
    assert entered == list(range(len(entered))) and len(entered) >= 5 + len(said)
    two.enter([mark("ada", "4")])
    assert of(two, "ada").final == TESTS + 4
    assert two.rows("PRAGMA integrity_check")[0][0] == "ok"


STUDENTS = ("ada", "=bob", "@Zoë")
ANSWERS = ("one", "two", "")
DOINGS = st.one_of(
    st.tuples(st.just("grade"), st.sampled_from(STUDENTS), st.sampled_from(ANSWERS)),
    st.tuples(st.just("mark"), st.sampled_from(STUDENTS), st.integers(0, 8)),
    st.tuples(st.just("sheet"), st.sampled_from(STUDENTS), st.integers(0, 8)),
    st.tuples(st.just("a sheet is opened"), st.just(""), st.just("")),
    st.tuples(st.just("old sheet"), st.sampled_from(STUDENTS), st.integers(0, 8)),
    st.tuples(st.just("bad sheet"), st.sampled_from(STUDENTS), st.integers(0, 8)),
    st.tuples(st.just("killed"), st.sampled_from(STUDENTS), st.integers(0, 8)),
    st.tuples(st.just("open again"), st.just(""), st.just("")),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    doings=st.lists(DOINGS, min_size=1, max_size=14),
    encoding=st.sampled_from(["utf-8-sig", "utf-16", "cp1252"]),
)
def test_no_order_of_grading_marking_importing_and_killing_loses_a_mark(doings, encoding, tmp_path_factory):
    """A plain model in memory says what must be there: the last mark of each answer of each student."""
    folder = tmp_path_factory.mktemp("course")
    book, sheet = Gradebook(folder), folder / "sheet.csv"
    answers: dict[str, str] = {}
    due: dict[tuple[str, str], Decimal] = {}
    entered = 0
    for student in STUDENTS:
        answers[student] = "one"
        book.keep(NAME, result(student, "one"), "one")
    old, old_answers, old_due = marks_table(SOURCE, book.graded(NAME)), dict(answers), dict(due)
    for what, student, value in doings:
        if what == "grade":
            answers[student] = value
            book.keep(NAME, result(student, value), value)
        elif what == "mark":
            book.enter([mark(student, str(Decimal(value) / 2))])
            due[student, answers[student]] = Decimal(value) / 2
        elif what == "a sheet is opened":
            old, old_answers, old_due = marks_table(SOURCE, book.graded(NAME)), dict(answers), dict(due)
        elif what in ("sheet", "old sheet", "bad sheet"):
            text = marks_table(SOURCE, book.graded(NAME)) if what != "old sheet" else old
            of_answer = answers[student] if what != "old sheet" else old_answers[student]
            before = (old_due if what == "old sheet" else due).get((student, of_answer))
            given = Decimal(value) / 2 if what != "bad sheet" else Decimal(99)
            sheet.write_bytes(filled(text, student, shown(given)).replace(",", ";").encode(encoding))
            if what == "bad sheet":
                with pytest.raises((Unreadable, Refused)):
                    take_marks(sheet, book, SOURCE)
            else:
                take_marks(sheet, book, SOURCE)
                if given != before:
                    due[student, of_answer] = given
        elif what == "killed":
            with pytest.raises(KeyboardInterrupt), book.transaction():
                book.enter([mark(student, str(Decimal(value) / 2))])
                raise KeyboardInterrupt
        else:
            book.close()
            book = Gradebook(folder)
        assert len(book.entries(NAME)) >= entered, "history shrank"
        entered = len(book.entries(NAME))
        for one in book.graded(NAME):
            (line,) = (line for line in one.lines if line.is_words)
            assert line.earned == due.get((one.student, answers[one.student])), (what, one.student)
            if any(key[0] == one.student for key in due):
                assert line.given, "an old mark is not shown any more"
    book.close()


def filled(table: str, student: str, points: str) -> str:
    """The table with the points of a student filled in, as somebody does in a spreadsheet."""
    lines = table.splitlines()
    place = MARKS.index("points")
    for i, line in enumerate(lines):
        cells = line.split(",")
        if cells[0].lstrip("'") == student:
            cells[place] = points
            lines[i] = ",".join(cells)
    return "\n".join(lines) + "\n"


# Tables from spreadsheets


SHEET = "student,part,of,points,comment\nZoë,1.6,4,3,good\n"


@pytest.mark.parametrize(
    "data",
    [
        SHEET.encode(),
        SHEET.encode("utf-8-sig"),
        SHEET.replace(",", ";").encode("cp1252"),
        SHEET.replace(",", "\t").encode("utf-16"),
        ("sep=;\r\n" + SHEET.replace(",", ";").replace("\n", "\r\n")).encode("utf-8-sig"),
        SHEET.replace("1.6", "1.60").encode(),
        SHEET.replace("1.6", '"1,6"').replace(",3,", ",3.0,").encode("cp1252"),
        SHEET.replace(",3,", ',"3,00",').encode(),
        SHEET.replace("1.6", "1.6 words").encode(),
        b"comment,POINTS,Test,Student\ngood,3,1.6 words, Zo\xc3\xab \n,,,\n",
        b'"student";"part";"of";"points";"comment"\n"Zo\xeb";"1.6";"4";"3";"good"\n',
    ],
)
def test_points_as_any_spreadsheet_saves_them(book, tmp_path, data):
    book.keep(NAME, result("Zoë"), "x")
    path = tmp_path / "manual.csv"
    path.write_bytes(data)
    assert take_marks(path, book, SOURCE) == 1
    (entry,) = book.entries(NAME)
    assert (entry.student, entry.what, entry.points, entry.comment) == ("Zoë", WORDS, 3, "good")
    assert take_marks(path, book, SOURCE) == 0, "the second time it says nothing new"
    assert len(list((book.folder / "backups").iterdir())) == 1


@pytest.mark.parametrize("student", ["@eve", "-x", "+x", "=x", "'=x", "'s Gravenmade"])
def test_names_that_are_formulas_come_back(book, tmp_path, student):
    book.keep(NAME, result(student), "x")
    path = tmp_path / "marks.csv"
    path.write_text(marks_table(SOURCE, book.graded(NAME)).replace(",1.6 words,4,,", ",1.6 words,4,2.5,"))
    assert take_marks(path, book, SOURCE) == 1 and of(book, student).final == TESTS + Decimal("2.5")


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (SHEET.replace("Zoë", "Zoe"), r"line 2: There is no student 'Zoe'"),
        (SHEET.replace("1.6", "1.7"), r"line 2: '1.7' is no test of 01-convolution; there are: 1.1 check"),
        (SHEET.replace(",3,", ",three,"), r"line 2: 'three' is no number of points"),
        (SHEET.replace(",3,", ",5,"), r"5 points, but 0 to 4 are possible"),
        (SHEET.replace(",3,", ",1.2.3,"), r"'1.2.3' is no number"),
        (SHEET + "Zoë,1.6,4,2,\n", r"line 3: Zoë, 1.6 words stands here twice"),
        ("student;points\nZoë;3\n", r"needs the columns student, test and points"),
        ("", "is empty"),
    ],
)
def test_a_table_with_an_error_is_not_taken_at_all(book, tmp_path, table, says):
    for student in ("Zoë", "ada"):
        book.keep(NAME, result(student), "x")
    path = tmp_path / "manual.csv"
    path.write_text(table + "ada,1.6,4,4,fine\n" if "part" in table else table, encoding="utf-8")
    with pytest.raises((Unreadable, Refused), match=says):
        take_marks(path, book, SOURCE)
    assert book.entries(NAME) == []


def test_a_workbook_is_refused_in_a_sentence(tmp_path):
    (tmp_path / "marks.xlsx").write_bytes(b"PK\x03\x04 and so on")
    with pytest.raises(Unreadable, match="save it as CSV"):
        read_table(tmp_path / "marks.xlsx")


def test_a_comment_without_points_is_kept_and_does_not_confirm_old_points(two, tmp_path):
    two.enter([mark("ada", "3", "good")])
    path = tmp_path / "m.csv"
    path.write_text(marks_table(SOURCE, two.graded(NAME)).replace(",3,good,", ",3,very good,"))
    assert take_marks(path, two, SOURCE) == 1 and of(two, "ada").final == TESTS + 3
    two.keep(NAME, result("ada", "another"), "second")
    path.write_text(
        marks_table(SOURCE, two.graded(NAME)).replace(",4,,,3: very good", ",4,,read again,3: very good")
    )
    assert take_marks(path, two, SOURCE) == 1
    (line,) = of(two, "ada").waiting
    assert line.entry.comment == "read again" and of(two, "ada").final is None


def test_a_line_that_nobody_touched_sets_nothing_back(two, tmp_path):
    two.enter([mark("ada", "2")])
    path = tmp_path / "m.csv"
    path.write_text(
        marks_table(SOURCE, two.graded(NAME)).replace("bob,,1.6 words,4,,", "bob,,1.6 words,4,3,")
    )
    two.enter([mark("ada", "4")])
    assert take_marks(path, two, SOURCE) == 1
    assert (of(two, "ada").final, of(two, "bob").final) == (TESTS + 4, TESTS + 3)


def test_points_come_back_as_they_were_written():
    for text, value in [
        ("2,5", "2.5"),
        ("2.50", "2.5"),
        ("3.", "3"),
        ("0", "0"),
        ("10", "10"),
        ("100", "100"),
    ]:
        assert shown(number(text)) == value
    assert [number(text) for text in ("", "x", "1/2", "1.005", "1e3", "½")] == [None] * 6
    assert table_text(["student"], [["=1+1"], ["@x"], ["Ada, the first"]]) == (
        "student\n'=1+1\n'@x\n\"Ada, the first\"\n"
    )


# Who the students are


def handed_in(text: str, platform: str = "folder", name: str = "", number: str = "", **more) -> Submission:
    return Submission(Key(text, platform, name or text, number), Path(text), **more)


def test_a_roster_shows_who_did_not_hand_in_and_who_is_unknown(two):
    two.enrol([Person("ada", "Ada Lovelace"), Person("c@x.org", "Carl Gauss", "c@x.org")], {})
    ada, carl, bob = sorted(two.graded(NAME), key=lambda one: (one.student == "bob", one.name))
    assert (ada.name, carl.name, bob.name) == ("Ada Lovelace", "Carl Gauss", "")
    assert carl.notes == ["Not handed in."] and bob.notes == ["Not on the roster."]
    table = points(SOURCE, two.graded(NAME))
    assert "c@x.org,Carl Gauss," in table and "Not handed in." in table
    two.enter([mark("c@x.org", "10", "an oral examination", ADJUSTMENT)])
    assert of(two, "c@x.org").final == 10
    two.receive(NAME, [handed_in("Carl Gauss_12", "moodle", "Carl Gauss", "12")])
    assert of(two, "Carl Gauss_12").notes == ["Not graded yet."]
    two.keep(NAME, result("Carl Gauss_12", earned=0), "x")
    assert of(two, "Carl Gauss_12").total == 10, "what was entered before stays with the person"
    assert two.find(NAME, "carl gauss") == two.find(NAME, "C@X.org") == "Carl Gauss_12"


def test_two_of_the_same_name_are_two_and_are_told_by_their_keys(book):
    annas = [handed_in(f"Anna Meier_{n}", "moodle", "Anna Meier", n) for n in ("417", "583")]
    book.receive(NAME, annas)
    assert len(book.graded(NAME)) == 2
    with pytest.raises(Unclear, match="are both Anna Meier of the roster"):
        book.enrol([Person("a@x", "Anna Meier")], {})
    assert book.people() == [], "nothing of a roster that would merge students is taken"
    people = [Person("a@x", "Anna Meier"), Person("b@x", "Anna Meier")]
    book.enrol(people, {})
    assert set(book.students(NAME).values()) == {None, *people}
    book.enrol(people, {(NAME, "moodle 417"): "b@x", ("", "Anna Meier_583"): "a@x"})
    assert book.students(NAME) == {"Anna Meier_417": people[1], "Anna Meier_583": people[0]}


def test_the_platforms_number_decides(book):
    first = handed_in("lovelaceada_4711", "canvas", "lovelaceada", "4711", late=True, origin="x")
    book.receive(NAME, [first])
    (again,) = book.receive(NAME, [handed_in("kingada_4711", "canvas", "kingada", "4711")])
    assert again.student == "lovelaceada_4711"
    (moodle,) = book.receive(NAME, [handed_in("Ada_4711", "moodle", "Ada", "4711")])
    (other,) = book.receive("02-unet", [handed_in("Bob_4711", "moodle", "Bob", "4711")])
    assert (moodle.student, other.student) == ("Ada_4711", "Bob_4711")
    with pytest.raises(Unclear, match="under two names"):
        book.receive(NAME, [first, handed_in("kingada_4711", "canvas", "kingada", "4711")])


def test_a_second_submission_of_a_person_under_another_name_stops_the_run(book):
    book.enrol([Person("ada", "Ada Lovelace")], {})
    book.receive(NAME, [handed_in("Ada Lovelace_417", "moodle", "Ada Lovelace", "417")])
    with pytest.raises(Unclear, match="are both Ada Lovelace of the roster"):
        book.receive(NAME, [handed_in("ada")])
    assert list(book.students(NAME)) == ["Ada Lovelace_417"]


def test_a_group_prefix_and_an_account_lead_to_the_person(book):
    people = [Person("a", "Ada Lovelace"), Person("b", "Bob", number="4711")]
    book.enrol(people, {})
    keys = [
        ("Group 1-Ada Lovelace_417", "moodle", "Group 1-Ada Lovelace", "417"),
        ("bobby_4711", "canvas", "bobby", "4711"),
    ]
    book.receive(NAME, [handed_in(*key) for key in keys])
    assert list(book.students(NAME).values()) == people


@pytest.mark.parametrize(
    ("table", "people", "links"),
    [
        (
            "id;name;email;key\ns1;Ada;a@x;Ada_417|Ada_9\ns2;Bob;;\n",
            [("s1", "Ada", "a@x", ""), ("s2", "Bob", "", "")],
            2,
        ),
        (
            "Student,ID,SIS User ID,SIS Login ID,Section,A (12)\n    Points Possible,,,,,26\n"
            '"Lovelace, Ada",4711,,ada@x,S1,\n',
            [("ada@x", "Lovelace, Ada", "ada@x", "4711")],
            0,
        ),
        (
            "First name\tLast name\tEmail address\nAda\tLovelace\ta@x\n",
            [("a@x", "Ada Lovelace", "a@x", "")],
            0,
        ),
        (
            "Identifier,Full name,Email address,Grade\nParticipant 417,Ada,a@x,\n",
            [("a@x", "Ada", "a@x", "")],
            1,
        ),
    ],
)
def test_rosters_of_all_kinds(tmp_path, table, people, links):
    (tmp_path / "roster.csv").write_text(table)
    found, keys = read_roster(tmp_path / "roster.csv", NAME)
    assert found == [Person(*fields) for fields in people] and len(keys) == links


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("id,name\ns1,Ada\ns1,Bob\n", "line 3: 's1' stands in the roster twice"),
        ("id,name,key\ns1,Ada,k\ns2,Bob,k\n", "line 3: the key 'k' belongs to 's1'"),
        ("points\n3\n", "line 2: neither an id nor a name"),
        ("Identifier,Full name\nParticipant 417,Ada\n", "with --assignment"),
    ],
)
def test_a_roster_with_an_error_is_refused(tmp_path, table, says):
    (tmp_path / "roster.csv").write_text(table)
    with pytest.raises(Unreadable, match=says):
        read_roster(tmp_path / "roster.csv")


def test_all_assignments_side_by_side(two):
    two.keep("02-unet", result("Ada_9"), "x")
    two.enrol([Person("ada", "Ada")], {("02-unet", "Ada_9"): "ada"})
    two.enter([mark("ada", "4"), mark("bob", "1")])
    assert course_table(two).splitlines() == [
        "student,name,01-convolution,02-unet,total,complete",
        f"ada,Ada,{TESTS + 4},{TESTS},{2 * TESTS + 4},no",
        f"bob,,{TESTS + 1},,{TESTS + 1},no",
    ]


# Answers in words


def handed_out() -> list[dict]:
    return json.loads(json.dumps(released(SOURCE.cells)))["cells"]


ANSWER = "A 61x61 kernel costs far more, and a deep stack sees the same."
QUESTION, PLACE = len(SOURCE.cells) - 3, len(SOURCE.cells) - 2


def cell(source: str, kind: str = "markdown", metadata: dict | None = None) -> dict:
    return {"cell_type": kind, "metadata": metadata or {}, "source": source}


def bare(cells: list[dict]) -> list[dict]:
    return [{**c, "metadata": {}} for c in cells]


def with_answer(change) -> list[dict]:
    cells = handed_out()
    change(cells)
    return cells


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c[PLACE].update(source=ANSWER),
        lambda c: c[PLACE].update(source=f"YOUR ANSWER HERE\n\n{ANSWER}"),
        lambda c: c[PLACE].update(source=ANSWER, metadata={}),
        lambda c: c.insert(PLACE + 1, cell(ANSWER)),
        lambda c: c.insert(PLACE, cell(ANSWER)),
        lambda c: c[PLACE].update(source=ANSWER, cell_type="raw"),
        lambda c: c[PLACE].update(source=ANSWER, cell_type="code"),
        lambda c: c.insert(PLACE + 1, cell(f"# {ANSWER}", "code")),
        lambda c: c.insert(PLACE + 1, cell(f'"""{ANSWER}"""', "code")),
        lambda c: c.append(cell(ANSWER)),
        lambda c: c[QUESTION].update(source=text_of(c[QUESTION]) + f"\n\n{ANSWER}"),
        lambda c: c[-1].update(source=f"{ANSWER}\n\n" + text_of(c[-1])),
        lambda c: c.__setitem__(slice(None), [*bare(c[:PLACE]), cell(ANSWER), *bare(c[PLACE + 1 :])]),
        lambda c: (c.pop(QUESTION), c[PLACE - 1].update(source=ANSWER)),
        lambda c: (c.pop(QUESTION), c[PLACE - 1].update(source=ANSWER, metadata={})),
        lambda c: c.insert(4, {**c.pop(PLACE), "source": ANSWER}),
    ],
)
def test_an_answer_is_found_wherever_it_went(change):
    answer = words(with_answer(change), SOURCE, "1.6")
    assert answer.strip("#\" '") == ANSWER


def text_of(one: dict) -> str:
    return "".join(one["source"])


@pytest.mark.parametrize(
    "change",
    [lambda c: None, lambda c: c.pop(PLACE), lambda c: c[PLACE].update(source=" \n"), lambda c: c.clear()],
)
def test_no_answer_is_no_answer(change):
    assert words(with_answer(change), SOURCE, "1.6") == ""


def test_code_behind_the_question_and_notes_before_it_are_no_answer():
    cells = handed_out()
    cells.insert(PLACE + 1, cell("print(field_of([(3, 1, 1, 1)], 20))", "code"))
    cells.insert(PLACE + 1, cell("%timeit x", "code"))
    cells.insert(5, cell("Note to myself: padding!"))
    assert words(cells, SOURCE, "1.6") == ""


def test_what_stands_behind_the_next_test_is_no_answer():
    cells = handed_out()
    cells[PLACE]["source"] = ANSWER
    cells += [cell("check()", "code", {"nbgrader": {"grade": True, "solution": False}}), cell("A note.")]
    assert words(cells, SOURCE, "1.6") == ANSWER


def test_the_limit_of_words_is_read_from_the_question():
    assert limit_of(question_of(SOURCE, "1.6")) == (150, 250)
    assert limit_of("Say why.") is None


NOTEBOOK = json.dumps({"cells": [cell("Größe", "code")]}, ensure_ascii=False)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1"])
def test_notebooks_in_any_encoding(encoding):
    assert read(NOTEBOOK.encode(encoding))[0]["source"] == "Größe"


ODD_CELLS = [
    None, 3, [], {}, {"cell_type": "code"}, {"cell_type": "code", "source": None}, {"source": [1, "a", None]},
    {"cell_type": 7, "metadata": [], "source": "a"}, {"cell_type": "code", "metadata": {"nbgrader": 3},
    "source": "\ud800"}, {"cell_type": "markdown", "metadata": {"nbgrader": {"grade_id": ["q1-6"], "grade":
1}}, "source": {}}, ]  # fmt: skip


def test_cells_of_any_form_are_read_and_searched():
    cells = read(json.dumps({"cells": ODD_CELLS}).encode())
    assert len(cells) == 7 and words(cells, SOURCE, "1.6") == "a\n\na"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b"[" * 200_000, "not JSON"),
        (b'{"cells": ' * 50_000, "not JSON"),
        (b"def conv2d(x):\n    return x\n", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[]", "no cells"),
        (b'{"cells": 3}', "no cells"),
        (b"PK\x03\x04 broken", "cannot be read"),
        (b'{"x": ' + b"9" * 5000 + b"}", "no notebook"),
        (b'{"cells": [' + b"{}," * 3_000_000 + b"{}]}", "more than 3,000,000 values"),
        (b'{"cells": [' + b"{}," * 10_000 + b"{}]}", "more than 10,000 cells"),
        (b"PK\x03\x04" + b"PK\x01\x02" * 10_001, "more than 10,000 files"),
    ],
    ids=range(12),
)
def test_what_is_no_notebook_is_said_in_a_sentence(data, says):
    with pytest.raises(NotANotebook, match=says):
        read(data)


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200), st.text(max_size=200).map(lambda t: t.encode("utf-8", "surrogatepass"))
    )
)
def test_no_bytes_raise_anything_else(data):
    for start in (b"", b'{"cells": [', b"PK\x03\x04", b"\xff\xfe"):
        try:
            words(read(start + data), SOURCE, "1.6")
        except NotANotebook as error:
            assert str(error).endswith(".")


# The commands


def test_the_commands_enter_show_and_copy(two, capsys):
    course = ["--course", str(two.folder), "--assignment", NAME]
    main(["override", "ada", "1.6", "2,5", *course])
    main(["override", "ada", "1.2 hidden", "1", "--reason", "a cast", *course])
    main(["override", "ada", "late", "-", "--reason", "2 days", *course])
    assert f"ada has {TESTS - 1 + 2.5} of 26 points" in capsys.readouterr().out
    main(["history", "ada", *course])
    assert "1.2 hidden: 1  a cast  (override)" in capsys.readouterr().out
    sheet = two.folder / NAME / "marks.csv"
    sheet.write_text(sheet.read_text().replace("bob,,1.6 words,4,,", "bob,,1.6 words,4,3,"))
    main(["tables", *course])
    assert "1 new points and comments were taken" in capsys.readouterr().out
    assert of(two, "bob").final == TESTS + 3 and "bob,,1.6 words,4,3," in sheet.read_text()
    main(["backup", *course])
    assert Path(capsys.readouterr().out.removeprefix("Copied to ").strip()).exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["override", "eve", "1.6", "2"], "There is no student 'eve' in 01-convolution."),
        (["override", "ada", "1.6", "x"], "'x' is no number of points, as 3 or 2.5."),
        (["import", "nothing.csv"], "There is no file nothing.csv."),
        (["grade", "nothing.zip"], "nothing.zip is neither a folder nor a zip file."),
        (["roster", "nothing.csv"], "There is no file nothing.csv."),
    ],
)
def test_errors_of_the_commands_are_a_sentence(two, arguments, says):
    with pytest.raises(SystemExit) as error:
        main([*arguments, "--course", str(two.folder), "--assignment", NAME])
    assert str(error.value) == says


def test_make_clean_leaves_the_grades_alone():
    """They lie outside of what is built, and no version of the project holds them."""
    recipe = re.search(r"^clean:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    removed = [Path(word) for word in recipe.split()[2:]]
    assert Path("_build") in removed and Path("course") not in removed
    assert ROOT / "course" == COURSE and "course/" in (ROOT / ".gitignore").read_text().splitlines()


def test_a_mistyped_folder_gets_no_empty_gradebook(tmp_path):
    with pytest.raises(SystemExit, match="There are no grades in"):
        main(["backup", "--course", str(tmp_path / "cuorse")])
    assert not (tmp_path / "cuorse").exists()


def test_a_table_with_an_error_is_left_as_it_is(two):
    main(["tables", "--course", str(two.folder)])
    sheet = two.folder / NAME / "marks.csv"
    wrong = sheet.read_text().replace("bob,,1.6 words,4,,", "bob,,1.6 words,4,33,my long comment")
    sheet.write_text(wrong)
    with pytest.raises(SystemExit, match="0 to 4 are possible"):
        main(["tables", "--course", str(two.folder)])
    assert sheet.read_text() == wrong
    assert read_marks(sheet, two, SOURCE)[0].comment == "my long comment"


# A class, graded without sandboxes: what the command does around the tests


@pytest.fixture
def graded_at_once(monkeypatch):
    """Each notebook counts as right without being run, but for those of zero; gives who was graded."""
    seen = []

    def grade(assignment, submissions, book, engine, jobs):
        name = assignment.name
        due = [s for s in submissions if book.done(name, s.student) != s.read().hex()]
        for each in due:
            seen.append((name, each.student))
            earned = 0 if "zero" in each.student else None
            answer = words(read(each.read()), SOURCE, "1.6")
            book.keep(name, result(each.student, answer, earned=earned), each.read().hex())
        return len(due)

    monkeypatch.setattr("tools.grading.__main__.grade_class", grade)
    monkeypatch.setattr(seal, "chosen", lambda unsealed: None)  # nothing is run
    return seen


def notebook(answer: str = "") -> str:
    return json.dumps({"cells": with_answer(lambda c: c[PLACE].update(source=answer) if answer else None)})


def test_a_class_from_the_zip_file_to_the_last_point(tmp_path, graded_at_once, capsys):
    course, path = tmp_path / "course", tmp_path / "all.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for student, answer in (("Ada_417", ANSWER), ("Zoë_9", "")):
            archive.writestr(f"{student}_assignsubmission_file_/{NAME}.ipynb", notebook(answer))
        archive.writestr("Carl_5_assignsubmission_file_/report.pdf", "x")
    (tmp_path / "roster.csv").write_text("id,name\na,Ada\nz,Zoë\ne,Eve\n", encoding="utf-8")
    main(["roster", str(tmp_path / "roster.csv"), "--course", str(course)])
    main(["grade", str(path), "--course", str(course)])
    said = capsys.readouterr().out
    assert graded_at_once == [(NAME, "Ada_417"), (NAME, "Zoë_9")]
    assert "2 students, 2 graded now" in said and "2 answers or tests wait for a person" in said
    assert "Not on the roster: Carl_5." in said and "Not handed in: Carl_5, Eve." in said
    sheet = course / NAME / "marks.csv"
    table = sheet.read_text(encoding="utf-8")
    assert ANSWER in table
    sheet.write_text(
        table.replace("Ada_417,Ada,1.6 words,4,,", "Ada_417,Ada,1.6 words,4,2.5,"), encoding="utf-8"
    )
    late = tmp_path / "late" / "Eve_77_assignsubmission_file_" / f"{NAME}.ipynb"
    late.parent.mkdir(parents=True)
    late.write_text(notebook("late"))
    main(["grade", str(tmp_path / "late"), "--course", str(course)])
    said = capsys.readouterr().out
    assert "1 new points and comments were taken" in said and "3 students, 1 graded now" in said
    lines = {row["student"]: row for row in read_table(course / NAME / "points.csv")}
    assert lines["Ada_417"]["total (26)"] == str(TESTS + 2.5) and lines["Ada_417"]["complete"] == "yes"
    assert lines["Eve_77"]["complete"] == "no" and lines["Carl_5"]["total (26)"] == ""
    assert lines["Carl_5"]["note"].startswith(
        "No notebook of this assignment was handed in. There is report.pdf."
    )
    assert (course / "points.csv").exists() and len(list((course / NAME / "feedback").iterdir())) == 3


def test_a_class_of_zeros_stops_before_the_tables(tmp_path, graded_at_once):
    course = tmp_path / "course"
    for student in ("zero 1", "zero 2", "zero 3"):
        (tmp_path / "class" / student).mkdir(parents=True)
        (tmp_path / "class" / student / f"{NAME}.ipynb").write_text(notebook())
    with pytest.raises(SystemExit, match="all 3 students have 0 points from the tests"):
        main(["grade", str(tmp_path / "class"), "--course", str(course)])
    assert not (course / NAME).exists()
    main(["tables", "--course", str(course)])
    assert (course / NAME / "points.csv").exists()


def test_an_error_in_a_table_is_said_before_the_work(tmp_path, graded_at_once):
    for student in ("ada", "bob"):
        (tmp_path / "class" / student).mkdir(parents=True)
        (tmp_path / "class" / student / f"{NAME}.ipynb").write_text(notebook())
    grade = ["grade", str(tmp_path / "class"), "--course", str(tmp_path / "course")]
    main(grade)
    sheet = tmp_path / "course" / NAME / "marks.csv"
    sheet.write_text(sheet.read_text().replace("ada,,1.6 words,4,,", "ada,,1.6 words,4,forty,"))
    (tmp_path / "class" / "ada" / f"{NAME}.ipynb").write_text(notebook("new"))
    graded_at_once.clear()
    with pytest.raises(SystemExit, match="'forty' is no number of points"):
        main(grade)
    assert graded_at_once == [] and "forty" in sheet.read_text()


def test_a_folder_without_notebooks_is_said(tmp_path, graded_at_once):
    (tmp_path / "class" / "ada").mkdir(parents=True)
    (tmp_path / "class" / "ada" / "x.ipynb").write_text('{"cells": []}')
    with pytest.raises(SystemExit, match="There is no notebook of an assignment in"):
        main(["grade", str(tmp_path / "class"), "--course", str(tmp_path / "course")])
