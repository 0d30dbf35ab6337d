"""Who handed in what: as Moodle and Canvas name it, in own folders, in zip files, beside stray files."""

import contextlib
import io
import json
import os
import stat
import sys
import zipfile
from pathlib import Path

import pytest

from tools.assignments import Assignment, released
from tools.grading.gradebook import Gradebook
from tools.grading.submissions import Handed, Unclear, safe, unpack_class

pytestmark = pytest.mark.course

NAME = "01-convolution"
SOURCE, OTHER = Assignment.read(NAME), Assignment.read("02-unet")
NOTEBOOK = json.dumps(released(SOURCE.cells))
UNET = json.dumps(released(OTHER.cells))
SCRATCH = json.dumps({"cells": [{"cell_type": "code", "metadata": {}, "source": "x = 1"}]})


def bare(notebook: str) -> str:
    """As an editor leaves it that drops metadata."""
    cells = [{**cell, "metadata": {}} for cell in json.loads(notebook)["cells"]]
    return json.dumps({"cells": cells})


def zipped(**files: str | bytes) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/"), content)
    return data.getvalue()


def laid_out(folder: Path, files: dict[str, str | bytes]) -> Path:
    """Write files, each a minute younger than the one before."""
    for i, (name, content) in enumerate(files.items()):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        os.utime(path, (1e9 + 60 * i, 1e9 + 60 * i))
    return folder


def students(folder: Path, files: dict[str, str | bytes]) -> list[str]:
    return [s.student for s in Handed.in_folder(laid_out(folder, files)).submissions(SOURCE)]


@pytest.mark.parametrize(
    ("paths", "keys"),
    [
        (["Ada Lovelace/01-convolution.ipynb", "bob/deep/er/01.ipynb"], ["Ada Lovelace", "bob"]),
        (["ada/01-convolution/01-convolution.ipynb", "bob/01-convolution/x.ipynb"], ["ada", "bob"]),
        (  # Moodle: two of one name, with and without the underscore that came before 4.1
            ["Anna Meier_417_assignsubmission_file_/a.ipynb", "Anna Meier_583_assignsubmission_file/a.ipynb"],
            ["Anna Meier_417", "Anna Meier_583"],
        ),
        (  # marked anonymously
            [f"Participant_{n}_assignsubmission_file_/a.ipynb" for n in (101, 102, 103)],
            ["Participant_101", "Participant_102", "Participant_103"],
        ),
        (  # without folders, and a text that was typed in
            [
                "Ada_417_assignsubmission_file_01-convolution.ipynb",
                "Ada_417_assignsubmission_onlinetext_x.ipynb",
            ],
            ["Ada_417"],
        ),
        (  # groups: a group that hands in together, somebody without one, and the group's name in front
            [
                "Group A_12_assignsubmission_file_/a.ipynb",
                "Default group_assignsubmission_file_/a.ipynb",
                "Group B-Ada Lovelace_417_assignsubmission_file_/a.ipynb",
            ],
            ["Default group", "Group A_12", "Group B-Ada Lovelace_417"],
        ),
        (  # in the folder that the zip file makes
            [
                "CS101-Assignment 1-4711/Ada_417_assignsubmission_file_/a.ipynb",
                "CS101-Assignment 1-4711/x.txt",
            ],
            ["Ada_417"],
        ),
        (
            [
                "lovelaceada_4711_90210_a.ipynb",
                "o_neilbob_LATE_12_13_my_1_2_a-1.ipynb",
                "anon_Ab3dE_77_a.ipynb",
            ],
            ["anon_Ab3dE", "lovelaceada_4711", "o_neilbob_12"],
        ),
        (  # Canvas, one level too high
            ["submissions/lovelaceada_4711_90210_a.ipynb", "submissions/bob_12_13_a.ipynb"],
            ["bob_12", "lovelaceada_4711"],
        ),
        (  # a name of one's own that looks like one of Canvas
            ["ada/try_1_2_a.ipynb", "bob/a.ipynb"],
            ["ada", "bob"],
        ),
    ],
)
def test_a_student_is_who_the_platform_says(tmp_path, paths, keys):
    assert students(tmp_path, dict.fromkeys(paths, NOTEBOOK)) == keys


def test_lateness_and_the_platforms_name_are_kept(tmp_path):
    names = ["ada_LATE_1_2_a.ipynb", "bob_3_4_a.ipynb", "LATE_anon_Xy_5_a.ipynb"]
    found = Handed.in_folder(laid_out(tmp_path, dict.fromkeys(names, NOTEBOOK))).submissions(SOURCE)
    assert {s.origin: s.late for s in found} == dict(zip(names, (True, False, True), strict=True))


def test_stray_files_are_no_students(tmp_path):
    strays = ["roster.csv", ".DS_Store", "__MACOSX/x/01.ipynb", "Thumbs.db", "notes.txt"]
    files = dict.fromkeys(strays, b"x") | {"01-convolution.ipynb": NOTEBOOK, "ada/01.ipynb": NOTEBOOK}
    files |= {
        "ada/.ipynb_checkpoints/01.ipynb": NOTEBOOK,
        "bob/report.pdf": b"%PDF",
        "carl/01-convolution.py": "x = 1",
    }
    handed = Handed.in_folder(laid_out(tmp_path, files))
    (ada,) = handed.submissions(SOURCE)
    assert ada.student == "ada" and ada.note == "" and handed.stray == ["01-convolution.ipynb"]
    without = {key.text: note for key, note in handed.without(SOURCE).items()}
    assert without == {
        "bob": "No notebook of this assignment was handed in. There is report.pdf.",
        "carl": "No notebook of this assignment was handed in. 01-convolution.py is Python code, which "
        "is not graded: "
        "the .ipynb is due.",
    }


@pytest.mark.parametrize(
    ("files", "counts"),
    [
        ({"ada/01-convolution.ipynb": NOTEBOOK, "ada/my experiments.ipynb": SCRATCH}, "01-convolution.ipynb"),
        (
            {"ada/01-convolution.ipynb": NOTEBOOK, "ada/01-convolution copy.ipynb": SCRATCH},
            "01-convolution.ipynb",
        ),
        (
            {"ada/01-convolution.ipynb": NOTEBOOK, "ada/my experiments.ipynb": NOTEBOOK},
            "01-convolution.ipynb",
        ),
        ({"ada/homework.ipynb": NOTEBOOK, "ada/01-convolution.ipynb": UNET}, "homework.ipynb"),
        (
            {"ada/01-convolution.ipynb": NOTEBOOK, "ada/01-convolution (1).ipynb": NOTEBOOK},
            "01-convolution (1).ipynb",
        ),
        ({"ada/01-convolution.ipynb": NOTEBOOK, "ada/01-convolution-2.ipynb": b"["}, "01-convolution.ipynb"),
        ({"ada/01-convolution.ipynb": bare(NOTEBOOK), "ada/scratch.ipynb": SCRATCH}, "01-convolution.ipynb"),
        ({"ada/homework.ipynb": bare(NOTEBOOK), "ada/scratch.ipynb": SCRATCH}, "homework.ipynb"),
        ({"ada/01-convolution.ipynb": b"[" * 9, "ada/02-unet.ipynb": b"["}, "01-convolution.ipynb"),
        (
            {"ada/homework.zip": zipped(README="x", **{"h__01.ipynb": NOTEBOOK, "h__02.ipynb": UNET})},
            "01.ipynb",
        ),
        (
            {"ada/homework.zip": zipped(**{"a.ipynb": NOTEBOOK}), "ada/02.ipynb": NOTEBOOK.encode("utf-16")},
            "02.ipynb",
        ),
    ],
)
def test_what_was_handed_in_counts_and_no_scratch_file(tmp_path, files, counts):
    (ada,) = Handed.in_folder(laid_out(tmp_path, files)).submissions(SOURCE)
    assert Path(ada.member or ada.path).name == counts
    assert ada.read() in [f if isinstance(f, bytes) else f.encode() for f in (*files.values(), NOTEBOOK)]


def test_a_notebook_without_ids_counts_for_no_other_assignment(tmp_path):
    """One broken file, or one scratch file, does not make a class of zeros in each of the eight."""
    files = {f"{s}/02-unet.ipynb": UNET for s in ("ada", "bob")}
    files |= {"carl/02-unet.ipynb": b"[", "ada/scratch.ipynb": SCRATCH, "bob/homework.ipynb": b"{"}
    handed = Handed.in_folder(laid_out(tmp_path, files))
    assert handed.submissions(SOURCE) == []
    assert [(s.student, s.note[:24]) for s in handed.submissions(OTHER)] == [
        ("ada", ""), ("bob", ""), ("carl", "This file is no notebook"),
    ]  # fmt: skip


@pytest.mark.parametrize("folder", ["submissions", "group 1"])
def test_a_class_that_would_be_one_student_stops(tmp_path, folder):
    files = {f"{folder}/{s}/01-convolution.ipynb": NOTEBOOK for s in ("ada", "bob")} | {
        "eve/01.ipynb": NOTEBOOK
    }
    with pytest.raises(
        Unclear, match=r"in 2 folders \(ada, bob\), and would be one student. If these are students"
    ):
        students(tmp_path, files)


def test_a_class_of_which_nothing_can_be_read_stops(tmp_path):
    files = {f"{s}/01-convolution.ipynb": b"[" for s in ("ada", "bob")}
    with pytest.raises(
        Unclear, match=r"None of the 2 notebooks .* can be read, so the whole class would get 0 points"
    ):
        students(tmp_path, files)


@pytest.mark.skipif(os.name == "nt", reason="Windows lets only some people make links")
def test_links_do_not_lead_out_of_the_folder(tmp_path):
    secret = tmp_path / "secret.ipynb"
    secret.write_text(NOTEBOOK)
    (tmp_path / "class" / "ada").mkdir(parents=True)
    (tmp_path / "class" / "ada" / "01-convolution.ipynb").symlink_to(secret)
    assert Handed.in_folder(tmp_path / "class").candidates == []


def test_the_zip_file_of_a_class(tmp_path):
    inner = zipped(**{"01-convolution.ipynb": NOTEBOOK})
    names = {
        "Zoë Ü_417_assignsubmission_file_/01-convolution.ipynb": NOTEBOOK,
        "Bob_9_assignsubmission_file_/x.zip": inner,
    }
    path = tmp_path / "all.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in names.items():
            archive.writestr(zipfile.ZipInfo(name, (2026, 3, 1, 12, 0, 0)), content)
        link = zipfile.ZipInfo("Eve_1_assignsubmission_file_/01-convolution.ipynb")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    folder = unpack_class(path, tmp_path / "in")
    bob, zoe = Handed.in_folder(folder).submissions(SOURCE)
    assert (bob.student, zoe.student) == ("Bob_9", "Zoë Ü_417") and bob.read() == NOTEBOOK.encode()
    assert 1.7e9 < zoe.path.stat().st_mtime < 1.8e9, "the age that the platform says"
    assert unpack_class(path, tmp_path / "in") == folder and len(list((tmp_path / "in").iterdir())) == 1


def test_names_in_utf_8_that_do_not_say_so(tmp_path):
    data = zipped(**{"Zo??/01.ipynb": NOTEBOOK}).replace(b"Zo??", "Zoë".encode())
    (tmp_path / "all.zip").write_bytes(data)
    assert [p.name for p in unpack_class(tmp_path / "all.zip", tmp_path / "in").iterdir()] == ["Zoë"]


@pytest.mark.parametrize(
    "name", ["../ada/01.ipynb", "/etc/01.ipynb", "a/../../01.ipynb", "..\\01.ipynb", "C:/x.ipynb"]
)
def test_a_zip_file_writes_nowhere_else(tmp_path, name):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("ada/01.ipynb", NOTEBOOK)
        archive.writestr(name, NOTEBOOK)
    (tmp_path / "all.zip").write_bytes(data.getvalue())
    with pytest.raises(Unclear, match="leads out of the folder"):
        unpack_class(tmp_path / "all.zip", tmp_path / "in")
    assert not (tmp_path / "in").exists()


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", zipped(a="x" * 999)[:-30], b"no zip"])
def test_a_broken_zip_file_is_said(tmp_path, data):
    (tmp_path / "all.zip").write_bytes(data)
    with pytest.raises(Unclear, match="cannot be unpacked"):
        unpack_class(tmp_path / "all.zip", tmp_path / "in")


def test_a_zip_file_that_is_too_large_or_says_a_name_twice(tmp_path, monkeypatch):
    path = tmp_path / "all.zip"
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "w") as archive:
        for _ in range(2):
            archive.writestr("ada/01.ipynb", NOTEBOOK)
    with pytest.raises(Unclear, match="twice"):
        unpack_class(path, tmp_path / "in")
    monkeypatch.setattr("tools.grading.submissions.MOST_BYTES", 100)
    with pytest.raises(Unclear, match="more than"):
        unpack_class(path, tmp_path / "in")


def test_a_zip_file_of_a_student_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("tools.grading.answers.LARGEST", 1000)
    files = {"ada/01-convolution.zip": zipped(**{"a.ipynb": NOTEBOOK}), "bob/01-convolution.ipynb": SCRATCH}
    ada, _ = Handed.in_folder(laid_out(tmp_path, files)).submissions(SOURCE)
    assert ada.note == "This zip file holds more than 1,000 bytes."


def test_a_name_that_is_too_long_to_be_stored_stops_nobody(tmp_path):
    """Canvas puts its own name before the student's: together they can be longer than a system takes."""
    own = "ü" * 120
    names = [f"ada_4711_90210_{own}{i}.ipynb" for i in (1, 2)] + [
        f"Bob_9_assignsubmission_file_/{own}3.ipynb"
    ]
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for name in names:
            archive.writestr(name, NOTEBOOK)
    folder = unpack_class(tmp_path / "all.zip", tmp_path / "in")
    assert sorted(s.student for s in Handed.in_folder(folder).submissions(SOURCE)) == ["Bob_9", "ada_4711"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_are_no_text_are_read_as_text(tmp_path):
    """A name in Latin-1, as an old program unpacks it: no table and no gradebook could hold its bytes."""
    place = os.fsencode(tmp_path)
    for name in (b"Zo\xeb/01.ipynb", b"ada/01.ipynb", b"ada/\xfc.ipynb", b"eve/\xfc.pdf", b"\xfc.ipynb"):
        os.makedirs(os.path.dirname(os.path.join(place, name)), exist_ok=True)
        Path(os.fsdecode(os.path.join(place, name))).write_text(NOTEBOOK)
    handed = Handed.in_folder(tmp_path)
    zoe, ada = handed.submissions(SOURCE)
    assert zoe.student == "Zoë" and ada.note == "2 notebooks were handed in; ü.ipynb counts."
    assert handed.stray == ["ü.ipynb"] and "There is ü.pdf." in " ".join(handed.without(SOURCE).values())
    with contextlib.closing(Gradebook(tmp_path / "course")) as book:
        book.receive(NAME, [ada, zoe], handed.without(SOURCE))


@pytest.mark.parametrize(
    "name",
    ["ada_assignsubmission_file_/01.ipynb", "ada_1_assignsubmission_file_01.ipynb", "ada_1_2_01.ipynb"],
)
def test_nobody_hands_in_for_another(tmp_path, name):
    """A folder or a file of one's own, called as a platform calls those of another student."""
    files = {f"{s}/01-convolution.ipynb": NOTEBOOK for s in ("ada", "bob")} | {f"eve/{name}": NOTEBOOK}
    handed = Handed.in_folder(laid_out(tmp_path, files))
    with contextlib.closing(Gradebook(tmp_path / "course")) as book:
        found = book.receive(NAME, handed.submissions(SOURCE))
    assert [s.student for s in found] == ["ada", "bob", "eve"]


def test_two_students_never_share_a_file():
    names = ["ada", "Ada", "a/b", "a_b", "a b", "ä", "..", "=1+1", "'=1+1", "ü" * 200, "ü" * 201]
    assert len({safe(name).lower() for name in names}) == len(names)
    assert not any(c in safe(name) for name in names for c in "/\\ '=")
    assert max(len(f"{safe(name)}.html.12345678.tmp".encode()) for name in names) < 255
