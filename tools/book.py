"""Build the site: execute the chapters that changed, stop on a warning, say where to open it.

    python -m tools.book [--all] [--tested]

With --all every page is built anew; what unchanged chapters gave is still taken from what was kept
(tools/outputs.py). With --tested it is the site that the tests look at, of what nbval got.
"""

import os
import shutil
import sys

from jupyter_book.cli.main import main as jupyter_book

from tools.outputs import PUBLISHED, ROOT, TESTED


def main(options: list[str]) -> None:
    site = TESTED if "--tested" in options else PUBLISHED
    os.environ.update(site.environment)
    os.chdir(ROOT)
    site.forget_stale()
    if complaints := site.execute_missing():
        sys.exit("\n\n".join([*complaints, "The book was not built; the reasons stand above."]))
    command = ["build", ".", "--path-output", str(site.output), "-W", "-n", "--keep-going"]
    try:
        jupyter_book([*command, *(["--all"] if "--all" in options else [])], standalone_mode=False)
    except (Exception, SystemExit) as error:
        # Else the next run would not see the warnings again.
        shutil.rmtree(site.folder / ".doctrees", ignore_errors=True)
        sys.exit(f"The book was not built; the reasons stand above. {error}")
    print(f"\nThe book is built. Open it in a browser: {(site.folder / 'html' / 'index.html').as_uri()}")


if __name__ == "__main__":
    main(sys.argv[1:])
