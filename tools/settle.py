"""Files that are made from others: written where they differ from what they should be, or only named."""

import sys
from pathlib import Path


def settle(files: dict[Path, str], root: Path, check: bool, command: str) -> None:
    """Write those of the files whose text is another, or that are missing. `command` is what would do it.

    Raises:
        SystemExit: with `check`, if there are any; they are named as seen from `root`.
    """
    stale = [p for p, text in files.items() if not p.exists() or p.read_text(encoding="utf-8") != text]
    names = ", ".join(path.relative_to(root).as_posix() for path in stale)
    if check and stale:
        sys.exit(f"Not up to date: {names}. Run `{command}`.")
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files[path], encoding="utf-8", newline="\n")
    print(f"Written: {names}." if stale else "All is up to date.")
