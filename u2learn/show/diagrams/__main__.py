"""All diagrams on one page, light and dark: `python -m u2learn.show.diagrams page.html`."""

import sys
from pathlib import Path

from u2learn.show.diagrams import DIAGRAMS

HALF = '<div data-theme="{}" style="padding:1rem;max-width:44rem;background:{};color:{}">{}</div>'


def main() -> None:
    blocks = "".join(f"<h2>{draw.__name__}</h2>{draw()._repr_html_()}" for draw in DIAGRAMS)
    halves = HALF.format("light", "#fff", "#222832", blocks) + HALF.format(
        "dark", "#14181e", "#ced6dd", blocks
    )
    head = '<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    style = "<style>body{display:flex;flex-wrap:wrap;margin:0;font-family:sans-serif}</style>"
    Path(sys.argv[1]).write_text(f"{head}<title>Diagrams</title>{style}{halves}", encoding="utf-8")


if __name__ == "__main__":
    main()
