"""Look at the built site in a headless Chromium: for the browser tests, and for a person.

    python -m tools.browser

saves a picture of every page, on a desktop and on a phone, light and dark, into _build/shots.
"""

import contextlib
import functools
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, Page, Request, ViewportSize, sync_playwright

SITE = Path(__file__).resolve().parents[1] / "_build" / "html"
DESKTOP: ViewportSize = {"width": 1280, "height": 900}
PHONE: ViewportSize = {"width": 390, "height": 844}
LOUD = ("error", "warning")
# No sandbox (it cannot run as root), no other server, and nothing that asks the network by itself.
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
FLAGS += ["--disable-background-networking", "--disable-component-update"]
FLAGS += ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]


def chromium() -> str | None:
    """The path of an installed Chromium or Chrome: the variable CHROMIUM, or one on the search path."""
    names = (
        os.environ.get("CHROMIUM"),
        "chromium",
        "chromium-browser",
        "google-chrome",
        "google-chrome-stable",
    )
    return next((found for name in names if name and (found := shutil.which(name))), None)


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        yield started
        started.close()


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve a folder on a free local port; gives its address."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def pages(site: Path) -> list[str]:
    """The addresses of all pages of the site, below its root."""
    found = (p.relative_to(site) for p in site.rglob("*.html"))
    return sorted(str(p) for p in found if p.parts[0] not in ("_static", "reports"))


def watch(page: Page, address: str) -> list[str]:
    """A list that fills with what goes wrong on the page: errors, and requests to another server."""
    wrong: list[str] = []

    def ask(request: Request) -> None:
        if not request.url.startswith((address, "data:", "blob:")):
            wrong.append(f"asks another server: {request.url}")

    page.set_default_timeout(120_000)  # milliseconds; a busy machine is slow, not wrong
    # Only heard and not held up: a browser whose requests are stopped one by one forgets what it has loaded.
    page.on("request", ask)
    page.on("console", lambda m: wrong.append(f"console: {m.text}") if m.type in LOUD else None)
    page.on("pageerror", lambda error: wrong.append(f"script: {error}"))
    page.on("response", lambda r: wrong.append(f"{r.status}: {r.url}") if r.status >= 400 else None)
    return wrong


def main() -> None:
    if not chromium():
        sys.exit("There is no Chromium: install one, or name it with the variable CHROMIUM.")
    folder = SITE.parent / "shots"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    views: dict[str, tuple[ViewportSize, Literal["light", "dark"]]] = {
        "desktop": (DESKTOP, "light"),
        "phone": (PHONE, "light"),
        "dark": (DESKTOP, "dark"),
    }
    with serve(SITE) as address, browser() as chrome:
        for name in pages(SITE):
            for view, (size, scheme) in views.items():
                page = chrome.new_page(viewport=size, color_scheme=scheme)
                watch(page, address)
                page.goto(f"{address}/{name}", wait_until="networkidle")
                shot = folder / f"{Path(name).stem}-{view}.png"
                page.screenshot(path=shot, full_page=True, animations="disabled")
                page.close()
            print(name)
    print(f"Screenshots are in {folder}")


if __name__ == "__main__":
    main()
