"""Build the site: execute the chapters that changed, stop on a warning, say where to open it.

    python -m tools.book [--all]

With --all every page is built anew (outputs of unchanged chapters still come from the cache).
"""

import hashlib
import os
import shutil
import sys
from pathlib import Path

from jupyter_book.cli.main import main as jupyter_book

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "_build"


def main(options: list[str]) -> None:
    # The pages show synthetic pictures only, and what a CPU computes: the same site on every machine.
    os.environ.update(U2LEARN_PUBLISH="1", U2LEARN_BUDGET="cpu")
    os.chdir(ROOT)
    forget_stale_outputs()
    try:
        jupyter_book(["build", ".", "-W", "-n", "--keep-going", *options], standalone_mode=False)
    except (Exception, SystemExit) as error:
        shutil.rmtree(
            BUILD / ".doctrees", ignore_errors=True
        )  # else the next run would not see the warnings again
        for log in sorted((BUILD / "html" / "reports").rglob("*.err.log")):
            print(f"\n{log.stem}:\n{log.read_text(encoding='utf-8')[-3000:]}", file=sys.stderr)
        sys.exit(f"The book was not built; the reasons stand above. {error}")
    print(f"\nThe book is built. Open it in a browser: {(BUILD / 'html' / 'index.html').as_uri()}")


def forget_stale_outputs() -> None:
    """Execute all chapters again if the package, the records or the site's extensions changed.

    The caches of Jupyter and Sphinx look at the chapters alone.
    """
    digest = hashlib.sha256(sys.version.encode())
    for folder in ("u2learn", "results", "book/_ext"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and path.suffix != ".pyc":
                digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    stamp = BUILD / "code.sha256"
    if not stamp.exists() or stamp.read_text() != digest.hexdigest():
        for folder in (".jupyter_cache", ".doctrees", "html/reports"):
            shutil.rmtree(BUILD / folder, ignore_errors=True)
        BUILD.mkdir(exist_ok=True)
        stamp.write_text(digest.hexdigest())


if __name__ == "__main__":
    main(sys.argv[1:])
