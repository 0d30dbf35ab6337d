"""A page on this computer for what a person has to look at: question and rubric, answer, points, comment.

It is served to this computer alone, under an address that holds a random word, and takes points only from a
page of its own.
"""

from __future__ import annotations

import contextlib
import html
import secrets
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

from tools.assignments import EXERCISES, Assignment
from tools.grading.answers import question_of
from tools.grading.gradebook import Entry, Gradebook, Graded, Line
from tools.grading.imports import length_of, points_of
from tools.grading.sheets import Unreadable, shown
from tools.grading.store import Refused

LARGEST_FORM = 200_000  # bytes
SILENCE = 30  # seconds after which a connection that says nothing is closed

STYLE = """
:root { color-scheme: light dark;
        --line: #767676; --soft: #f2f2f2; --ink: #1b1b1b; --back: #fff; --link: #0645ad; }
@media (prefers-color-scheme: dark) {
  :root { --line: #8f8f8f; --soft: #262626; --ink: #ececec; --back: #161616; --link: #8ab4f8; }
}
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 84rem; padding: 0 1.2rem 2rem;
       color: var(--ink); background: var(--back); }
a { color: var(--link); }
h1 { font-size: 1.4rem; margin: .6rem 0 0; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 1rem 0 .3rem; }
.sides { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); gap: 1.5rem; }
@media (max-width: 60rem) { .sides { grid-template-columns: minmax(0, 1fr); } }
pre { font: inherit; white-space: pre-wrap; overflow-wrap: anywhere; background: var(--soft); margin: 0;
      padding: .7rem; border-radius: 4px; }
pre.code { font: 14px/1.45 ui-monospace, monospace; }
.note { border-left: 4px solid #b35900; padding: .2rem .8rem; margin: .6rem 0; background: var(--soft); }
form { border: 1px solid var(--line); border-radius: 4px; padding: .8rem; margin: 1rem 0; }
label { display: block; font-weight: 600; }
input[type=text] { font: inherit; width: 6rem; padding: .3rem; }
textarea { font: inherit; width: 100%; box-sizing: border-box; min-height: 5rem; padding: .3rem; }
button { font: inherit; padding: .35rem .9rem; margin: .5rem .6rem 0 0; }
nav a { margin-right: 1rem; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; padding: .2rem .8rem .2rem 0;
        border-bottom: 1px solid var(--line); vertical-align: top; overflow-wrap: anywhere; }
th, td.short { white-space: nowrap; }
:focus-visible { outline: 3px solid #1a73e8; outline-offset: 1px; }
"""
SCRIPT = """
const points = document.querySelector("#points"), form = points && points.form;
document.addEventListener("keydown", event => {
  if (event.ctrlKey && event.key === "Enter" && form) { form.requestSubmit(); return; }
  if (event.target === points && ["ArrowUp", "ArrowDown"].includes(event.key)) {
    const value = parseFloat(points.value.replace(",", ".")) || 0;
    const next = value + (event.key === "ArrowUp" ? 0.5 : -0.5);
    points.value = Math.min(+points.dataset.most, Math.max(0, next));
    event.preventDefault();
  }
  if (event.altKey && ["KeyP", "KeyN"].includes(event.code)) {
    const link = document.querySelector(event.code === "KeyP" ? "[rel=prev]" : "[rel=next]");
    if (link) { event.preventDefault(); link.click(); }
  }
});
"""


@dataclass(frozen=True)
class Item:
    """One test of one student, to be looked at."""

    one: Graded
    line: Line

    @property
    def place(self) -> tuple[str, str]:
        return self.one.student, self.line.what

    @property
    def open(self) -> bool:
        return self.line.earned is None


class Marking:
    """The pages, as text; each reads the book anew, which others may write to meanwhile."""

    def __init__(self, course: Path, exercises: Path = EXERCISES):
        self.course, self.exercises = course, exercises

    @contextlib.contextmanager
    def book(self) -> Iterator[Gradebook]:
        with closing(Gradebook(self.course)) as book:
            yield book

    def items(self, book: Gradebook, name: str) -> list[Item]:
        """What a person marks, question by question; of the tests only those that somebody changed."""
        found = [Item(one, line) for one in book.graded(name) for line in one.lines]
        kept = [item for item in found if item.line.is_words or item.open or item.line.given]
        return sorted(kept, key=lambda item: item.line.what)

    def overview(self) -> str:
        """All assignments, and what waits in each."""
        body = ["<main><h1>Marking</h1>"]
        with self.book() as book:
            for name in book.assignments():
                items = self.items(book, name)
                waiting = [item for item in items if item.open]
                body.append(f"<h2>{html.escape(name)}: {len(waiting)} of {len(items)} wait</h2>")
                if waiting:
                    body.append(
                        f"<p><a href='{address(name, waiting[0])}'>Begin with the first that waits</a></p>"
                    )
                body.append("<table><tr><th>Student</th><th>Test</th><th>Points</th><th>Note</th></tr>")
                body += [row(name, item) for item in items]
                body.append("</table>")
        return page("Marking", "".join([*body, "</main>"]))

    def item(
        self, name: str, place: tuple[str, str], typed: tuple[str, str] | None = None, wrong: str = ""
    ) -> str:
        """The page of one item; `typed` are points and comment that were refused, `wrong` says why.

        Raises:
            Refused: there is no such item.
        """
        assignment = Assignment.read(name, self.exercises)
        with self.book() as book:
            one = next((g for g in book.graded(name) if g.student == place[0]), None)
            line = next((each for each in one.lines if each.what == place[1]), None) if one else None
            if one is None or line is None:
                raise Refused(f"There is no {place[1]} of {place[0]} in {name}.")
            items = self.items(book, name)
            history = [e for e in book.entries(name) if e.student == one.student and e.what == line.what]
        here = Item(one, line)
        done = sum(not item.open for item in items)
        title = f"{line.what}: {one.name or one.student}"
        work = answered(assignment, here)
        left, right = (asked(assignment, line), work) if line.is_words else (work, "")
        return page(
            title,
            f"<header><h1>{html.escape(title)}</h1><p>{html.escape(assignment.title)}. "
            f"{done} of {len(items)} are marked.</p>{links(name, items, here)}</header><main class='sides'>"
            f"<section>{left}</section><section>{right}{form(name, here, typed, wrong)}{told(history)}"
            f"{found_by_the_grader(name, one)}</section></main>",
        )

    def enter(self, fields: dict[str, str]) -> str:
        """Enter what a form says; gives the address of the next that waits, or of the overview.

        Raises:
            Refused, Unreadable: it does not fit; nothing was entered.
        """
        name, place = fields.get("assignment", ""), (fields.get("student", ""), fields.get("test", ""))
        comment = fields.get("comment", "").strip().replace("\r\n", "\n")
        points = points_of(fields.get("points", "").strip())
        with self.book() as book:
            if "take_back" in fields:
                points = None
            elif points is None and (not comment or self._has_points(book, name, place)):
                raise Unreadable("Points are missing: type some, or take back those that are there.")
            book.enter([Entry(name, *place, points, comment, fields.get("digest", ""), "marking page")])
            items = self.items(book, name)
        following = after(items, place)
        return address(name, following) if following else "."

    def _has_points(self, book: Gradebook, name: str, place: tuple[str, str]) -> bool:
        return any(i.place == place and i.line.given and not i.line.outdated for i in self.items(book, name))


def after(items: list[Item], place: tuple[str, str]) -> Item | None:
    """The next item that waits, from this one on and then from the beginning."""
    number = next((i for i, item in enumerate(items) if item.place == place), -1)
    return next((item for item in [*items[number + 1 :], *items[: number + 1]] if item.open), None)


def address(name: str, item: Item) -> str:
    query = {"assignment": name, "student": item.one.student, "test": item.line.what}
    return html.escape(f"./?{urlencode(query)}")


def page(title: str, body: str) -> str:
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{html.escape(title)}</title>"
        "<meta name='viewport' content='width=device-width'><link rel='stylesheet' href='style.css'>"
        f"<script src='script.js' defer></script></head><body>{body}</body></html>"
    )


def row(name: str, item: Item) -> str:
    note = "changed since it was marked" if item.line.outdated else ""
    who = html.escape(item.one.name or item.one.student)
    return (
        f"<tr><td><a href='{address(name, item)}'>{who}</a></td><td class='short'>{item.line.what}</td>"
        f"<td class='short'>{earned(item.line)}</td><td>{note}</td></tr>"
    )


def links(name: str, items: list[Item], here: Item) -> str:
    number = next((i for i, item in enumerate(items) if item.place == here.place), None)
    found = ["<a href='.'>All</a>"]
    if number is not None and number > 0:
        found.append(f"<a rel='prev' href='{address(name, items[number - 1])}'>Previous (Alt P)</a>")
    if number is not None and number + 1 < len(items):
        found.append(f"<a rel='next' href='{address(name, items[number + 1])}'>Next (Alt N)</a>")
    return f"<nav aria-label='Answers'>{''.join(found)}</nav>"


def asked(assignment: Assignment, line: Line) -> str:
    """The question, and what a good answer holds."""
    rubric = assignment.rubric.get(line.verdict.part, "")
    return (
        f"<h2>Question</h2><pre>{html.escape(question_of(assignment, line.verdict.part).lstrip('# '))}</pre>"
        f"<h2>What a good answer holds</h2><pre>{html.escape(rubric)}</pre>"
    )


def found_by_the_grader(name: str, one: Graded) -> str:
    """What each test of the student gave; from here its points can be changed."""
    rows = [
        f"<tr><td class='short'><a href='{address(name, Item(one, line))}'>{line.what}</a></td>"
        f"<td class='short'>{earned(line)}</td><td>{html.escape(line.verdict.says[:300])}</td></tr>"
        for line in one.lines
    ]
    head = "<tr><th>Test</th><th>Points</th><th>The grader says</th></tr>"
    return f"<h2>All tests: {shown(one.total)} points</h2><table>{head}{''.join(rows)}</table>"


def earned(line: Line) -> str:
    return "waits" if line.earned is None else f"{shown(line.earned)} of {line.verdict.points}"


def answered(assignment: Assignment, item: Item) -> str:
    """The work that is marked, and what there was before it."""
    line, result = item.line, item.one.result
    body = ""
    if line.outdated and line.entry:
        comment = f": {html.escape(line.entry.comment)}" if line.entry.comment else "."
        body += (
            f"<p class='note'>The work has changed. Before, it had {shown(line.entry.points)} of "
            f"{line.verdict.points} points{comment}</p>"
        )
    if line.is_words:
        answer = result.words.get(line.verdict.part, "") if result else ""
        length = length_of(assignment, line.verdict.part, answer)
        if not answer:
            return body + "<h2>Answer</h2><p class='note'>No answer was found. Look into the notebook.</p>"
        return body + f"<h2>Answer: {length}</h2><pre>{html.escape(answer)}</pre>"
    code = [c["source"] for c in result.cells if c["part"] == line.verdict.part] if result else []
    return body + f"<h2>Code</h2><pre class='code'>{html.escape(chr(10).join(code))}</pre>"


def form(name: str, item: Item, typed: tuple[str, str] | None, wrong: str) -> str:
    """Points and comment."""
    line, of = item.line, item.line.verdict.points
    entry = None if line.outdated else line.entry
    points, comment = typed or ((shown(entry.points), entry.comment) if entry else ("", ""))
    hidden = {"assignment": name, "student": item.one.student, "test": line.what, "digest": line.digest}
    fields = "".join(f"<input type='hidden' name='{k}' value='{html.escape(v)}'>" for k, v in hidden.items())
    alert = f"<p class='note' role='alert'>{html.escape(wrong)}</p>" if wrong else ""
    back = (
        "<button name='take_back' value='yes' formnovalidate>Take the points back</button>"
        if line.given
        else ""
    )
    reason = "Comment for the student" if line.is_words else "Reason, for the student"
    return (
        f"<form method='post' action='enter' autocomplete='off'>{alert}{fields}"
        f"<label for='points'>Points, 0 to {of} (arrows: halves)</label>"
        f"<input type='text' inputmode='decimal' id='points' name='points' data-most='{of}' autofocus "
        f"value='{html.escape(points)}'>"
        f"<label for='comment'>{reason}</label>"
        f"<textarea id='comment' name='comment'>{html.escape(comment)}</textarea>"
        f"<button>Save, and the next that waits (Ctrl Enter)</button>{back}</form>"
    )


def told(history: list[Entry]) -> str:
    """All that was entered, the newest first."""
    if not history:
        return ""
    rows = [
        f"<tr><td>{e.time[:16].replace('T', ' ')}</td><td>{shown(e.points) or '-'}</td>"
        f"<td>{html.escape(e.comment)}</td><td>{html.escape(e.source)}</td></tr>"
        for e in reversed(history)
    ]
    head = "<tr><th>Time (UTC)</th><th>Points</th><th>Comment</th><th>From</th></tr>"
    return f"<h2>History</h2><table>{head}{''.join(rows)}</table>"


class Server(ThreadingHTTPServer):
    """The pages, for this computer and for who has the address."""

    daemon_threads = True

    def __init__(self, marking: Marking, port: int = 0):
        self.marking, self.token = marking, secrets.token_urlsafe(24)
        super().__init__(("127.0.0.1", port), Handler)

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def address(self) -> str:
        return f"{self.origin}/{self.token}/"


class Handler(BaseHTTPRequestHandler):
    server: Server
    timeout = SILENCE

    def do_GET(self) -> None:
        marking, url = self.server.marking, urlsplit(self.path)
        if not self._is_ours(url.path):
            return
        file = url.path.rpartition("/")[2]
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        if file in ("style.css", "script.js"):
            self._send(
                200, STYLE if file == "style.css" else SCRIPT, "css" if file == "style.css" else "javascript"
            )
        elif file:
            self._send(404, page("Not here", "<h1>There is no such page.</h1>"))
        elif "assignment" in query:
            try:
                place = (query.get("student", ""), query.get("test", ""))
                self._send(200, marking.item(query["assignment"], place))
            except (Refused, SystemExit) as error:
                self._send(404, page("Not here", f"<h1>{html.escape(str(error))}</h1>"))
        else:
            self._send(200, marking.overview())

    def do_POST(self) -> None:
        url = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        if not self._is_ours(url.path):
            return
        if self.headers.get("Origin") != self.server.origin or not url.path.endswith("/enter"):
            self._send(403, page("Refused", "<h1>This does not come from the marking page.</h1>"))
            return
        if not 0 < length <= LARGEST_FORM:
            self._send(413, page("Refused", "<h1>The form is empty, or the comment is too long.</h1>"))
            return
        sent = parse_qs(self.rfile.read(length).decode("utf-8", "replace"), keep_blank_values=True)
        fields = {key: values[0] for key, values in sent.items()}
        try:
            following = self.server.marking.enter(fields)
        except (Refused, Unreadable) as error:
            place = (fields.get("student", ""), fields.get("test", ""))
            typed = (fields.get("points", ""), fields.get("comment", ""))
            try:
                again = self.server.marking.item(fields.get("assignment", ""), place, typed, str(error))
            except (Refused, SystemExit) as missing:
                again = page("Not here", f"<h1>{html.escape(str(missing))}</h1>")
            self._send(400, again)
            return
        self.send_response(303)
        self.send_header("Location", html.unescape(following))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _is_ours(self, path: str) -> bool:
        """Whether who asks has the address, and is not led here by another name of this computer."""
        host = self.headers.get("Host") == f"127.0.0.1:{self.server.server_port}"
        parts = path.split("/")
        if host and len(parts) == 3 and secrets.compare_digest(parts[1].encode(), self.server.token.encode()):
            return True
        self._send(403, page("Refused", "<h1>Open the address that the command printed.</h1>"))
        return False

    def _send(self, status: int, text: str, kind: str = "html") -> None:
        data = text.encode("utf-8", "replace")
        self.send_response(status)
        self.send_header("Content-Type", f"text/{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.send_header(
            "Content-Security-Policy",
            "default-src 'none'; style-src 'self'; script-src 'self'; form-action 'self'; base-uri 'none'; "
            "frame-ancestors 'none'",
        )
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "same-origin")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass
