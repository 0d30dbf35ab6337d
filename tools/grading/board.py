"""The leaderboard of the project: one page that every student may see.

`write_board` is what the command calls. The page names nobody: a student finds their made-up name on their
feedback page. It stands alone in one file, and asks no other server.
"""

import hmac
import html
import json
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path

from tools.assignments import EXERCISES, Assignment, Mistake, text
from tools.grading.judge import EYES, Score
from tools.grading.run import Result
from u2learn.files import write_text
from u2learn.project import DUE, PARAMETERS, SECONDS

PROJECT = "08-project"


Grade = Callable[[Assignment, str, bytes], Result]  # as `grade_notebook`


def write_board(
    results: Sequence[Result], folder: Path, secret: bytes, grade: Grade, exercises: Path = EXERCISES
) -> Path:
    """Write the page `folder`/index.html from all results of the project, old ones too, in the order of time.

    secret: the course's. The reference networks of mistakes.yml are graded with `grade`, as a submission is,
    and kept in folder/references.json until they or the secret change.
    """
    references = reference_scores(
        Assignment.read(PROJECT, exercises), folder / "references.json", secret, grade
    )
    path = folder / "index.html"
    write_text(path, page(results, references, datetime.now(timezone.utc)))
    return path


def reference_scores(assignment: Assignment, kept: Path, secret: bytes, grade: Grade) -> dict[str, Score]:
    """The scores of the reference networks by their names.

    Raises:
        RuntimeError: one does not pass; the message says why.
    """
    old = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    found = {}
    for name, notebook in reference_notebooks(assignment).items():
        key = hmac.digest(secret, notebook, "sha256").hex()
        if old.get(name, {}).get("key") != key:
            result = grade(assignment, name, notebook)
            scores = scores_of(result)
            if not scores:
                says = " ".join(v.says for v in result.verdicts if v.earned == 0)
                raise RuntimeError(f"The reference network {name!r} does not pass: {says}")
            old[name] = {"key": key, "score": scores[0]}
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_text(kept, json.dumps(old, indent=1))
        found[name] = old[name]["score"]
    return found


def reference_notebooks(assignment: Assignment) -> dict[str, bytes]:
    """The solved notebook, each time with other edits of the cell that trains."""
    found = {}
    for reference in assignment.settings["references"]:
        mine = assignment.solution("8.4")
        source = text(mine)
        for old, new in reference["edits"].items():
            source = Mistake("8.4", reference["name"], replace=old, by=new).applied_to(source)
        cells = [{**cell, "source": source} if cell is mine else cell for cell in assignment.cells]
        found[reference["name"]] = json.dumps({"cells": cells}).encode()
    return found


def scores_of(result: Result) -> list[Score]:
    """What the judge found: nothing, or one score."""
    return [verdict.score for verdict in result.verdicts if verdict.score is not None]


def page(results: Sequence[Result], references: dict[str, Score], now: datetime) -> str:
    """The page as text. Each student has one row, with their best score and their way to it."""
    ways: dict[str, list[Score]] = {}
    for result in results:
        for score in scores_of(result):
            ways.setdefault(result.student, []).append(score)
    best = [(max(way, key=lambda s: s["dice"]), way) for way in ways.values()]
    best.sort(key=lambda row: -row[0]["dice"])
    rows = [(s["dice"], row(1 + sum(o["dice"] > s["dice"] for o, _ in best), s, way)) for s, way in best]
    rows += [(s["dice"], reference_row(name, s)) for name, s in references.items()]
    for s in [*references.values(), *(s for s, _ in best)][:1]:
        rows.append((s["baseline"], baseline_row(s["baseline"])))
    rows.sort(key=lambda entry: -entry[0])
    return PAGE.format(
        none="" if best else "<p><strong>No network has passed yet.</strong></p>",
        rows="\n".join(line for _, line in rows),
        written=f"{now:%Y-%m-%d %H:%M} UTC",
        students=len(best),
        eyes=EYES,
        due=DUE,
        parameters=f"{PARAMETERS:,}",
        seconds=SECONDS,
    )


def row(rank: int, score: Score, way: Sequence[Score]) -> str:
    """A student's."""
    name = html.escape(score["name"])
    anchor = name.lower().replace(" ", "-")
    who = f'<a href="#{anchor}">{name}</a>', score["date"] + sparkline([s["dice"] for s in way])
    return f'<tr id="{anchor}"><td>{rank}</td>{head(*who)}{figures(score)}</tr>'


def reference_row(name: str, score: Score) -> str:
    return f'<tr class="reference"><td></td>{head(html.escape(name), "reference")}{figures(score)}</tr>'


def baseline_row(dice: float) -> str:
    first = head("the baseline of 8.1", "nothing is learned")
    return f'<tr class="reference"><td></td>{first}<td>{dice:.3f}</td><td>0</td><td>0</td></tr>'


def head(who: str, below: str) -> str:
    return f'<th scope="row">{who}<small>{below}</small></th>'


def figures(score: Score) -> str:
    """Dice with its interval, numbers, seconds."""
    dice, low, high = score["dice"], score["low"], score["high"]
    return (
        f"<td>{dice:.3f}<small>{low:.3f}–{high:.3f}</small></td>"
        f"<td>{score['parameters']:,}</td><td>{score['seconds']:.0f}</td>"
    )


def sparkline(values: Sequence[float]) -> str:
    """A student's scores in the order of time; nothing for one alone."""
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    share = [(v - low) / (high - low) if high > low else 0.5 for v in values]
    points = [(3 + 94 * i / (len(values) - 1), 17 - 14 * s) for i, s in enumerate(share)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    told = (
        f"Dice of {len(values)} submissions, the first to the last: {', '.join(f'{v:.3f}' for v in values)}"
    )
    return (
        f'<svg role="img" aria-label="{told}" viewBox="0 0 100 20" width="100" height="20">'
        f'<polyline points="{line}"/><circle cx="{points[-1][0]:.1f}" cy="{points[-1][1]:.1f}" r="3"/></svg>'
    )


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Leaderboard: vessels</title>
<style>
:root {{
  color-scheme: light dark;
  --ground: #fff; --text: #1b1b1b; --soft: #595959; --line: #d6d6d6; --mark: #00629b; --tint: #f2f5f7;
}}
@media (prefers-color-scheme: dark) {{ :root {{
  --ground: #14171a; --text: #e8e8e8; --soft: #adadad; --line: #3a3f45; --mark: #6cb8ff; --tint: #1d2227;
}} }}
body {{ font: 16px/1.45 system-ui, sans-serif; color: var(--text); background: var(--ground); }}
main {{ max-width: 48rem; margin: 1.5rem auto; padding: 0 .25rem; }}
table {{ border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }}
caption {{ text-align: left; color: var(--soft); padding-bottom: .5rem; }}
th, td {{ text-align: right; vertical-align: top; font-weight: normal; padding: .45rem .5rem; }}
tr {{ border-bottom: 1px solid var(--line); }}
thead th {{ font-weight: 600; vertical-align: bottom; }}
thead th:nth-child(2), tbody th {{ text-align: left; }}
tbody th a {{ color: inherit; font-weight: 600; }}
small {{ display: block; color: var(--soft); font-size: .8125rem; }}
.reference {{ background: var(--tint); font-style: italic; }}
tr:target {{ outline: 3px solid var(--mark); outline-offset: -3px; }}
td small {{ white-space: nowrap; }}
svg {{ display: block; max-width: 100%; margin-top: .2rem; }}
polyline {{ fill: none; stroke: var(--mark); stroke-width: 2; }} circle {{ fill: var(--mark); }}
@media (max-width: 30rem) {{
  body {{ font-size: 15px; }} th, td {{ padding: .4rem .2rem; }} thead th {{ font-size: .8125rem; }}
}}
</style></head>
<body><main>
<h1>Leaderboard: vessels</h1>
<p>Everybody's network meets the same {eyes} secret eyes. The names are made up: yours is on your feedback
page. Your best submission counts; the line under a name shows the way there.</p>
{none}
<table>
<caption>Students who passed: {students}. Networks to compare with stand between them.
Written {written}.</caption>
<thead><tr><th scope="col">#</th><th scope="col">who</th><th scope="col">Dice</th>
<th scope="col">numbers</th><th scope="col">seconds</th></tr></thead>
<tbody>
{rows}
</tbody></table>
<h2>What the columns say</h2>
<p><strong>Dice</strong> of the vessels: pixel totals over all eyes, threshold one half. Below it the interval
in which it would lie, 19 times of 20, if other eyes were drawn: a difference that is much smaller than that
may be luck. <strong>Numbers</strong> in the network's state_dict, {parameters} at most.
<strong>Seconds</strong> of processor time that all cells used, {seconds} at most, as a reference machine
would have needed them. Who does not keep to that, or is not {due} better than the baseline, is not
here.</p>
</main></body></html>
"""
