"""What a class gets back: tables for those who grade, a page for each student. All of it is text here."""

import html
from collections.abc import Sequence
from decimal import Decimal

from tools.assignments import Assignment
from tools.grading.gradebook import Gradebook, Graded, Line
from tools.grading.imports import length_of, marks_table
from tools.grading.sheets import shown, table_text
from tools.grading.submissions import safe


def reports(assignment: Assignment, graded: Sequence[Graded]) -> dict[str, str]:
    """The files of a graded class, by name. There is a leaderboard if a test gave a score for it."""
    files = {"points.csv": points(assignment, graded), "marks.csv": marks_table(assignment, graded)}
    scores = {
        one.student: line.verdict.score["dice"]
        for one in graded
        for line in one.lines
        if line.verdict.score is not None
    }
    if scores:
        files["leaderboard.csv"] = leaderboard(scores)
    return files | {page_of(one.student): feedback(assignment, one) for one in graded if one.result}


def page_of(student: str) -> str:
    return f"feedback/{safe(student)}.html"


def points(assignment: Assignment, graded: Sequence[Graded]) -> str:
    """A line for each student, also for who did not hand in; a column for each test. Empty: not known yet."""
    tests = assignment.tests
    rows = []
    for one in graded:
        earned = {line.what: shown(line.earned) for line in one.lines}
        rows.append(
            [
                one.student,
                one.name,
                *(earned.get(test.name, "") for test in tests),
                shown(one.adjusted),
                shown(one.total),
                "yes" if one.final is not None else "no",
                one.late,
                one.release,
                " ".join(one.notes),
            ]
        )
    columns = [f"{t.name} ({t.points})" for t in tests]
    head = ["student", "name", *columns, "adjustment", f"total ({assignment.points})", "complete", "late"]
    return table_text([*head, "release", "note"], rows)


def course_table(book: Gradebook) -> str:
    """All assignments side by side: a line for each person, or for each student who is not on the roster."""
    names = book.assignments()
    lines: dict[str, dict[str, Graded]] = {}
    for name in names:
        for one in book.graded(name):
            lines.setdefault(one.person.id if one.person else one.student, {})[name] = one
    rows = []
    for who, mine in sorted(lines.items()):
        totals = [mine[name].total if name in mine else None for name in names]
        known = [mine[name].final for name in mine]
        rows.append(
            [
                who,
                next((one.name for one in mine.values()), ""),
                *map(shown, totals),
                shown(sum((t for t in totals if t is not None), Decimal(0))),
                "yes" if len(mine) == len(names) and None not in known else "no",
            ]
        )
    return table_text(["student", "name", *names, "total", "complete"], rows)


def leaderboard(scores: dict[str, float]) -> str:
    """The best first."""
    ranked = sorted(scores.items(), key=lambda entry: (-entry[1], entry[0]))
    rows = [[rank, student, f"{score:.4f}"] for rank, (student, score) in enumerate(ranked, start=1)]
    return table_text(["rank", "student", "score"], rows)


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 54rem; margin: 2rem auto; padding: 0 1rem; }}
pre {{ background: #f5f5f5; padding: .7rem; overflow-x: auto; font-size: 14px; white-space: pre-wrap; }}
.passed {{ color: #00702e; }} .failed {{ color: #b3261e; }} .open {{ color: #7a5b00; }}
li, .error {{ white-space: pre-wrap; }} .error {{ color: #b3261e; }} h2 {{ margin-top: 2rem; }}
</style>
<main>
<h1>{title}</h1>
{body}
</main>
</html>
"""


def feedback(assignment: Assignment, one: Graded) -> str:
    """What a student gets back, as a page."""
    return PAGE.format(title=html.escape(assignment.title), body=feedback_body(assignment, one))


def feedback_body(assignment: Assignment, one: Graded) -> str:
    """The page without its head, as it can stand in a notebook too. What was handed in is escaped."""
    still = ", and what a person has to look at is still open" if one.waiting else ""
    who = html.escape(one.name or one.student)
    body = [f"<p><strong>{who}: {shown(one.total)} of {assignment.points} points</strong>{still}.</p>"]
    if one.late:
        body.append(f"<p>Handed in late: {html.escape(one.late)}.</p>")
    if one.adjustment and one.adjusted is not None:
        reason = html.escape(one.adjustment.comment)
        body.append(f"<p>{one.adjusted:+g} points of these are for the whole assignment: {reason}</p>")
    if one.result and one.result.note:
        body.append(f"<p>{html.escape(one.result.note)}</p>")
    for part in dict.fromkeys(line.verdict.part for line in one.lines):
        body += of_part(assignment, part, one)
    wrong = [cell for cell in one.result.cells if cell["error"]] if one.result else []
    if wrong:
        body.append("<h2>Cells that stopped</h2>")
    for cell in wrong:
        body.append(f"<pre>{html.escape(cell['source'])}</pre>")
        body.append(f'<p class="error">{html.escape(cell["error"][:1000])}</p>')
    return "\n".join(body)


def of_part(assignment: Assignment, part: str, one: Graded) -> list[str]:
    """One part of the page: what each test and each person says, then what the student wrote."""
    mine = [line for line in one.lines if line.verdict.part == part]
    earned = shown(sum((line.earned or Decimal(0) for line in mine), Decimal(0)))
    still = ", and more is open" if any(line.earned is None for line in mine) else ""
    html_lines = [f"<h2>{part}: {earned} of {sum(line.verdict.points for line in mine)}{still}</h2><ul>"]
    html_lines += [said(line) for line in mine]
    html_lines.append("</ul>")
    answer = one.result.words.get(part, "") if one.result else ""
    if answer:
        html_lines.append(f"<p>{length_of(assignment, part, answer)}.</p>")
    written = [answer] if answer else []
    written += [cell["source"] for cell in one.result.cells if cell["part"] == part] if one.result else []
    return html_lines + [f"<pre>{html.escape(text)}</pre>" for text in written]


def said(line: Line) -> str:
    """A line of the list: the sign of the grader, or a person's comment, and the points."""
    of = line.verdict.points
    if line.earned is None:
        return f'<li class="open">{html.escape(line.verdict.says)}</li>'
    says = line.verdict.says
    if line.given and line.entry:
        says = f"{line.verdict.part}: {line.entry.comment or 'graded by hand'}"
    kind = "passed" if line.earned == of else "failed"
    return f'<li class="{kind}">{html.escape(says)} ({shown(line.earned)} of {of})</li>'
