"""Markdown that is written by a program: lines of tables, and what stands between two marks of a file."""

import json
import re
from collections.abc import Iterable
from typing import Any

NO_BREAK = "\N{NO-BREAK SPACE}"


def line(cells: Iterable[str]) -> str:
    """One line of a table."""
    return "| " + " | ".join(cells) + " |"


def unbroken(cells: Iterable[str]) -> str:
    """One line of a table whose cells do not break."""
    return line(cell.replace(" ", NO_BREAK) for cell in cells)


def filled(text: str, name: str, content: str) -> str:
    """`text` with `content` between its marks `<!-- name:begin -->` and `<!-- name:end -->`.

    Raises:
        ValueError: a mark is missing, is there twice, or they stand the wrong way round.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if (text.count(begin), text.count(end)) != (1, 1) or text.index(begin) > text.index(end):
        raise ValueError(f"This needs the marks {begin} and {end}, once each and in this order.")
    return re.sub(f"{begin}.*?{end}", lambda _: f"{begin}\n{content}\n{end}", text, flags=re.DOTALL)


def notebook_text(notebook: dict[str, Any]) -> str:
    """A notebook as the project stores it: keys in order, one space, letters as they are."""
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
