"""Where the book is being read: how much it may compute, whether it is published, and its source code."""

from __future__ import annotations

import inspect
import os
import textwrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.display import Markdown


def budget() -> str:
    """How much a notebook may compute: "smoke" (seconds), "cpu" (a minute) or "gpu" (the full protocol).

    The environment variable U2LEARN_BUDGET decides; unset, "gpu" where there is one and "cpu" elsewhere.

    Raises:
        ValueError: U2LEARN_BUDGET holds something else.
    """
    import torch

    value = os.environ.get("U2LEARN_BUDGET") or ("gpu" if torch.cuda.is_available() else "cpu")
    if value not in ("smoke", "cpu", "gpu"):
        raise ValueError(f'U2LEARN_BUDGET is "{value}"; set it to smoke, cpu or gpu, or unset it.')
    return value


def publishing() -> bool:
    """Whether the rendered book is being built (U2LEARN_PUBLISH=1).

    Then only synthetic or own pictures may be shown, and `explore` renders every frame in advance.

    Raises:
        ValueError: U2LEARN_PUBLISH is neither 0 nor 1.
    """
    value = os.environ.get("U2LEARN_PUBLISH") or "0"
    if value not in ("0", "1"):
        raise ValueError(f'U2LEARN_PUBLISH is "{value}"; set it to 1 while the book is built, or unset it.')
    return value == "1"


def source(*objects: Any) -> Markdown:
    """The source of classes and functions, highlighted, under the name of their module.

    Returns an IPython Markdown object: a fenced block is coloured by the book, by Lab and by Colab alike.

    Raises:
        ValueError: something is not a class, function, method or module with Python source.
    """
    from IPython.display import Markdown

    blocks, above = [], None
    for thing in objects:
        try:
            module, code = inspect.getmodule(thing), inspect.getsource(thing)
        except (TypeError, OSError):
            raise ValueError(
                f"source() shows classes and functions written in Python, and {thing!r:.60} is not one; "
                f"for an object, show its class: source(type(x))."
            ) from None
        if module is not None and module is not above:
            blocks.append(f"**`{module.__name__}`**")
        above = module
        blocks.append(f"````python\n{textwrap.dedent(code).rstrip()}\n````")
    if not blocks:
        raise ValueError("source() needs at least one class or function to show.")
    return Markdown("\n\n".join(blocks))
