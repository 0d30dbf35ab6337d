"""Name the pictures of the built site that have no caption yet: the page, and the ids of their cells.

    python -m tools.figures [--tested]

A caption is written in the cell that shows the picture; book/_ext/u2_figures.py says how.
"""

import re
import sys
from pathlib import Path

from tools.outputs import PUBLISHED, TESTED

MARK = re.compile(r'class="u2-figure uncaptioned cell-([\w-]+)')


def uncaptioned(site: Path) -> dict[str, list[str]]:
    """The ids of the cells whose pictures have no caption, by page: {"book/chapters/unet": ["squeeze"]}."""
    found = {}
    for page in sorted((site / "book").rglob("*.html")):
        if cells := MARK.findall(page.read_text(encoding="utf-8")):
            found[page.relative_to(site).with_suffix("").as_posix()] = cells
    return found


def main(options: list[str]) -> None:
    site = (TESTED if "--tested" in options else PUBLISHED).folder / "html"
    if not (site / "book").exists():
        sys.exit(f"There is no site in {site}: run make book.")
    found = uncaptioned(site)
    for page, cells in found.items():
        print(f"{page}: {', '.join(cells)}")
    print(f"{sum(map(len, found.values()))} pictures have no caption.")


if __name__ == "__main__":
    main(sys.argv[1:])
