"""The page for marking: by requests, from its own pages alone; and in a browser, by keyboard."""

import http.client
import os
import signal
import subprocess
import sys
import threading
from urllib.parse import quote, urlencode, urlsplit

import pytest
from conftest import ROOT
from test_gradebook import NAME, TESTS, WORDS, mark, of, result

from tools.browser import DESKTOP, PHONE, browser, chromium, watch
from tools.grading.gradebook import Gradebook
from tools.grading.marking import Marking, Server

pytestmark = pytest.mark.course
needs_browser = pytest.mark.skipif(
    not chromium() and not os.environ.get("CI"), reason="no Chromium on the search path"
)


@pytest.fixture
def book(tmp_path):
    """Ada's answer has changed since it was marked, bob's is hostile, of eve there is none."""
    book = Gradebook(tmp_path / "course")
    book.keep(NAME, result("ada", "the first answer"), "x")
    book.enter([mark("ada", "2.5", "no loss is named")])
    book.keep(NAME, result("ada", "the second answer"), "y")
    book.keep(NAME, result("bob & co", "<script>document.title = 'stolen'</script> \"quoted\""), "x")
    book.keep(NAME, result("eve", ""), "x")
    yield book
    book.close()


@pytest.fixture
def server(book):
    server = Server(Marking(book.folder))
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def ask(server: Server, path: str, fields: dict | None = None, **headers: str) -> tuple[int, str, dict]:
    """Send a request as a browser does; gives the status, the page and the headers."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    method, body = ("GET", None) if fields is None else ("POST", urlencode(fields))
    sent = {"Host": f"127.0.0.1:{server.server_port}"}
    sent |= {"Origin": server.origin, "Content-Type": "application/x-www-form-urlencoded"} if fields else {}
    connection.request(method, path, body, sent | headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode(), dict(answer.headers)


def place(server: Server, student: str, test: str = WORDS) -> str:
    return f"/{server.token}/?" + urlencode({"assignment": NAME, "student": student, "test": test})


def fields(book: Gradebook, student: str, **more: str) -> dict[str, str]:
    digest = next(line.digest for line in of(book, student).lines if line.what == WORDS)
    return {"assignment": NAME, "student": student, "test": WORDS, "digest": digest} | more


def test_the_page_has_all_that_is_needed(server, book):
    status, page, headers = ask(server, place(server, "ada"))
    assert status == 200 and "default-src 'none'" in headers["Content-Security-Policy"]
    for text in (
        "In 150 to 250 words: what do you advise?",  # question
        "One 61x61 kernel with $C$ channels",  # rubric
        "3 words, 150 to 250 are asked for",
        "the second answer",
        "Before, it had 2.5 of 4 points: no loss is named",
        "says 1.2 hidden",  # the grader's verdicts
        "0 of 3 are marked",
    ):
        assert text in page, text
    assert "No answer was found" in ask(server, place(server, "eve"))[1]
    page = ask(server, place(server, "bob & co"))[1]
    assert (
        "<script>document" not in page and "&lt;script&gt;document" in page and "<script>document" not in page
    )


def test_points_are_entered_and_the_next_that_waits_follows(server, book):
    status, _, headers = ask(
        server, f"/{server.token}/enter", fields(book, "ada", points="3,5", comment="better")
    )
    assert status == 303 and "student=bob+%26+co" in headers["Location"]
    assert of(book, "ada").final == TESTS + 3.5
    ask(server, f"/{server.token}/enter", fields(book, "eve", points="0"))
    status, _, headers = ask(server, f"/{server.token}/enter", fields(book, "bob & co", points="1"))
    assert headers["Location"] == "." and not any(one.waiting for one in book.graded(NAME))
    page = ask(server, place(server, "ada"))[1]
    assert "value='3.5'" in page and "no loss is named" in page and "better" in page, "history is shown"


def test_an_answer_that_changed_while_it_was_read_is_asked_again(server, book):
    sent = fields(book, "bob & co", points="4")
    book.keep(NAME, result("bob & co", "handed in again"), "z")
    assert ask(server, f"/{server.token}/enter", sent)[0] == 303
    (line,) = of(book, "bob & co").waiting
    assert line.outdated and line.entry.points == 4


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"points": "5"}, "0 to 4 are possible"),
        ({"points": "x"}, "is no number of points"),
        ({"points": ""}, "Points are missing"),
        ({"points": "1", "test": "1.2 hidden"}, "a reason is due"),
        ({"points": "1", "student": "nobody"}, "no such student"),
        ({"points": "1", "assignment": "99-nothing"}, "no such student"),
    ],
)
def test_what_does_not_fit_is_said_and_nothing_is_entered(server, book, more, says):
    before = book.entries(NAME)
    sent = fields(book, "ada", comment="a long <comment>") | more
    sent |= {"comment": ""} if "Points" in says or "reason" in says else {}
    status, page, _ = ask(server, f"/{server.token}/enter", sent)
    assert status == 400 and book.entries(NAME) == before
    assert says in page or "There is no" in page
    if "comment" in page and sent["comment"] and "role='alert'" in page:
        assert "a long &lt;comment&gt;" in page, "what was typed is still there"


def test_points_are_taken_back_by_their_own_button_alone(server, book):
    ask(server, f"/{server.token}/enter", fields(book, "eve", points="0", comment="nothing"))
    status, page, _ = ask(server, f"/{server.token}/enter", fields(book, "eve", points="", comment="hm"))
    assert status == 400 and "take back" in page and of(book, "eve").final == TESTS
    ask(server, f"/{server.token}/enter", fields(book, "eve", points="0", take_back="yes"))
    assert of(book, "eve").final is None and len(book.entries(NAME)) == 3


def test_a_test_of_the_grader_can_be_changed_with_a_reason(server, book):
    page = ask(server, place(server, "ada", "1.2 hidden"))[1]
    assert "<h2>Code</h2>" in page and "Reason, for the student" in page
    sent = fields(book, "ada", points="1.5", comment="a cast") | {"test": "1.2 hidden", "digest": ""}
    assert ask(server, f"/{server.token}/enter", sent)[0] == 303
    assert of(book, "ada").total == TESTS - 0.5


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/", {}),
        ("/wrong/", {}),
        ("/{token}/../x", {}),
        ("/{token}/", {"Host": "evil.example:{port}"}),
        ("/{token}/", {"Host": "localhost"}),
        ("/{token}", {}),
    ],
)
def test_nobody_else_reads_the_pages(server, path, headers):
    headers = {key: value.format(port=server.server_port) for key, value in headers.items()}
    status, page, _ = ask(server, path.format(token=server.token), **headers)
    assert status == 403 and NAME not in page


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", ""])
def test_another_page_enters_nothing(server, book, origin):
    sent = fields(book, "ada", points="4")
    status, _, _ = ask(server, f"/{server.token}/enter", sent, Origin=origin)
    assert status == 403 and len(book.entries(NAME)) == 1
    assert ask(server, "/wrong/enter", sent)[0] == 403 and len(book.entries(NAME)) == 1


def test_it_listens_to_this_computer_alone_and_bounds_what_it_reads(server, book):
    assert server.server_address[0] == "127.0.0.1"
    status, _, _ = ask(
        server, f"/{server.token}/enter", fields(book, "ada", points="1", comment="x" * 300_000)
    )
    assert status == 413 and len(book.entries(NAME)) == 1
    assert ask(server, f"/{server.token}/nothing")[0] == 404
    assert ask(server, place(server, "nobody"))[0] == 404
    assert ask(server, f"/{server.token}/?assignment=99-nothing")[0] == 404


def test_the_overview_says_what_waits(server, book):
    page = ask(server, f"/{server.token}/")[1]
    assert f"{NAME}: 3 of 3 wait" in page and "changed since it was marked" in page
    assert quote("bob & co", safe="").replace("%20", "+") in page


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no Ctrl C to one process")
def test_the_command_serves_until_it_is_ended_and_writes_the_tables(book):
    command = [sys.executable, "-m", "tools.grading", "mark", "--course", str(book.folder)]
    environment = {**os.environ, "BROWSER": "true"}  # a program that does nothing
    served = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        said = served.stdout.readline()
        url = urlsplit(said.split()[2])
        connection = http.client.HTTPConnection(url.netloc, timeout=20)
        connection.request("GET", url.path)
        assert f"{NAME}: 3 of 3 wait" in connection.getresponse().read().decode()
        book.enter([mark("eve", "0")])
        served.send_signal(signal.SIGINT)
        served.communicate(timeout=60)
    finally:
        served.kill()
    assert served.returncode == 0
    assert "eve,,1.6 words,4,0," in (book.folder / NAME / "marks.csv").read_text()


def arrived(page, title: str) -> None:
    """Wait for the page of this title, and for its script."""
    page.wait_for_selector(f"h1:has-text('{title}')")
    page.wait_for_load_state("load")


@pytest.mark.browser
@needs_browser
def test_a_class_is_marked_by_keyboard(server, book):
    with browser() as chrome:
        page = chrome.new_page(viewport=DESKTOP)
        wrong = watch(page, server.origin)
        page.goto(server.address)
        page.get_by_text("Begin with the first that waits").click()
        arrived(page, "ada")
        assert page.evaluate("document.activeElement.id") == "points", "one can type at once"
        for _ in range(5):
            page.keyboard.press("ArrowUp")
        page.keyboard.press("ArrowDown")
        assert page.input_value("#points") == "2"
        page.keyboard.press("ArrowUp")
        page.keyboard.press("Tab")
        page.keyboard.type("reads well")
        page.keyboard.press("Control+Enter")
        arrived(page, "bob & co")
        assert of(book, "ada").final == TESTS + 2.5 and page.title() != "stolen"
        page.keyboard.press("Alt+KeyP")
        arrived(page, "ada")
        page.keyboard.press("Alt+KeyN")
        arrived(page, "bob & co")
        assert wrong == []
        page.keyboard.type("9")
        page.keyboard.press("Enter")
        page.wait_for_selector("[role=alert]")
        page.fill("#points", "1")
        page.keyboard.press("Enter")
        arrived(page, "eve")
        page.fill("#points", "0")
        page.keyboard.press("Enter")
        arrived(page, "Marking")
        assert [w for w in wrong if "400" not in w] == [] and not any(g.waiting for g in book.graded(NAME))
        for size in (DESKTOP, PHONE):
            page.set_viewport_size(size)
            page.goto(server.origin + place(server, "ada"))
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth + 1")
    assert [str(e.points) for e in book.entries(NAME)] == ["2.5", "2.5", "1", "0"]
