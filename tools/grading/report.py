"""What a class gets back: tables for those who grade, a page for each student. All of it is text here."""

import csv
import html
import io
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tools.assignments import Assignment
from tools.grading.run import Result, Verdict
from tools.grading.submissions import safe


def reports(assignment: Assignment, results: Sequence[Result]) -> dict[str, str]:
    """The files of a graded class, by name. There is a leaderboard if a test gave a score for it."""
    files = {
        "points.csv": points(assignment, results),
        "canvas.csv": canvas(assignment, results),
        "moodle.csv": moodle(assignment, results),
    }
    scores = {r.student: v.score["dice"] for r in results for v in r.verdicts if v.score}
    if scores:
        files["leaderboard.csv"] = leaderboard(scores)
    return files | {page_of(result.student): feedback(assignment, result) for result in results}


def page_of(student: str) -> str:
    return f"feedback/{safe(student)}.html"


def add_manual(path: Path, results: Sequence[Result]) -> str:
    """Take the points that a person gave from manual.csv; gives it anew, with the lines that were missing.

    Raises:
        SystemExit: a number of points is none, or more than there are.
    """
    given = {}
    if path.exists():
        with open(path, newline="", encoding="utf-8") as file:
            given = {(row["student"], row["part"]): row for row in csv.DictReader(file)}
    rows = []
    for result in results:
        for verdict in result.waiting:
            row = given.get((result.student, verdict.part), {})
            points, comment = (row.get("points") or "").strip(), row.get("comment") or ""
            rows.append([result.student, verdict.part, verdict.points, points, comment])
            if points:
                give(verdict, points, comment, f"{path}: {result.student}")
    return table_text(["student", "part", "of", "points", "comment"], rows)


def give(verdict: Verdict, points: str, comment: str, where: str) -> None:
    """Enter what a person wrote into manual.csv."""
    if not points.isdigit() or int(points) > verdict.points:
        sys.exit(f"{where}, {verdict.part}: {points!r} should be a whole number from 0 to {verdict.points}.")
    verdict.earned = int(points)
    verdict.says = f"{verdict.part}: {comment or 'graded by hand'}"


def points(assignment: Assignment, results: Sequence[Result]) -> str:
    """A line for each student, a column for each test."""
    tests = assignment.tests
    rows = []
    for result in results:
        earned = {(v.part, v.kind): v.earned for v in result.verdicts}
        cells = [earned.get((t.part, t.kind), 0) for t in tests]
        complete = "no" if result.waiting else "yes"
        shown = ["" if c is None else c for c in cells]
        rows.append([result.student, *shown, result.automatic, complete, result.note])
    columns = [f"{t.name} ({t.points})" for t in tests]
    return table_text(["student", *columns, f"total ({assignment.points})", "complete", "note"], rows)


def canvas(assignment: Assignment, results: Sequence[Result]) -> str:
    """The totals, as Canvas imports them."""
    rows: list[list[Any]] = [["    Points Possible", "", "", "", assignment.points]]
    rows += [[r.student, canvas_id(r.student), "", "", r.automatic] for r in results]
    return table_text(["Student", "ID", "SIS Login ID", "Section", assignment.title], rows)


def canvas_id(student: str) -> str:
    """Canvas puts the number of the user behind the name."""
    found = re.fullmatch(r".+_(\d+)", student)
    return found[1] if found else ""


def moodle(assignment: Assignment, results: Sequence[Result]) -> str:
    """The totals, as Moodle imports them."""
    rows = [[r.student, r.automatic, page_of(r.student)] for r in results]
    return table_text(["Full name", assignment.title, "Feedback comments"], rows)


def leaderboard(scores: dict[str, float]) -> str:
    """The best first."""
    ranked = sorted(scores.items(), key=lambda entry: (-entry[1], entry[0]))
    rows = [[rank, student, f"{score:.4f}"] for rank, (student, score) in enumerate(ranked, start=1)]
    return table_text(["rank", "student", "score"], rows)


def table_text(head: Sequence[str], rows: Sequence[Sequence]) -> str:
    """CSV. A name that a spreadsheet would take for a formula gets an apostrophe in front."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(head)
    for row in rows:
        writer.writerow([f"'{c}" if isinstance(c, str) and c[:1] in "=+-@" and c else c for c in row])
    return file.getvalue()


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 54rem; margin: 2rem auto; padding: 0 1rem; }}
pre {{ background: #f5f5f5; padding: .7rem; overflow-x: auto; font-size: 14px; }}
.passed {{ color: #00702e; }} .failed {{ color: #b3261e; }} .open {{ color: #7a5b00; }}
li, .error {{ white-space: pre-wrap; }} .error {{ color: #b3261e; }} h2 {{ margin-top: 2rem; }}
</style>
<h1>{title}</h1>
<p><strong>{student}: {total} of {possible} points</strong>{still}. {note}</p>
{body}
</html>
"""


def feedback(assignment: Assignment, result: Result) -> str:
    """What a student gets back. Everything of theirs is escaped."""
    parts = dict.fromkeys(t.part for t in assignment.tests)
    body = [line for part in parts for line in of_part(part, result)]
    wrong = [cell for cell in result.cells if cell["error"]]
    if wrong:
        body.append("<h2>Cells that stopped</h2>")
    for cell in wrong:
        body.append(f"<pre>{html.escape(cell['source'])}</pre>")
        body.append(f'<p class="error">{html.escape(cell["error"][:1000])}</p>')
    return PAGE.format(
        title=html.escape(assignment.title),
        student=html.escape(result.student),
        total=result.automatic,
        possible=assignment.points,
        still=", the answer in words is still to be graded" if result.waiting else "",
        note=html.escape(result.note),
        body="\n".join(body),
    )


def of_part(part: str, result: Result) -> list[str]:
    """One part of the page: what each test says, then what the student wrote."""
    verdicts = [v for v in result.verdicts if v.part == part]
    earned = sum(v.earned or 0 for v in verdicts)
    lines = [f"<h2>{part}: {earned} of {sum(v.points for v in verdicts)}</h2><ul>"]
    for v in verdicts:
        kind = "open" if v.earned is None else "passed" if v.earned == v.points else "failed"
        mark = "" if v.earned is None else f" ({v.earned} of {v.points})"
        lines.append(f'<li class="{kind}">{html.escape(v.says)}{mark}</li>')
    lines.append("</ul>")
    written = [result.words[part]] if result.words.get(part) else []
    written += [cell["source"] for cell in result.cells if cell["part"] == part]
    return lines + [f"<pre>{html.escape(text)}</pre>" for text in written]
