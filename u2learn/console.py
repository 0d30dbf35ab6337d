"""Text on a console that does not know every sign, as one of cp1252 or ASCII, or a pipe to one."""

import codecs
import os
import sys
import unicodedata
from typing import TextIO

# What a sign becomes where it is not known and has no letter of ASCII in it, as ü has a u and ² a 2.
SIGNS = {"✓": "ok", "✗": "no:", "○": "--", "×": "x", "·": "*", "⁄": "/", "±": "+-", "→": "->", "ß": "ss"}
SIGNS |= {"−": "-", "–": "-", "—": "-", "≤": "<=", "≥": ">=", "‘": "'", "’": "'", "“": '"', "”": '"'}


def similar(error: UnicodeError) -> tuple[str, int]:
    """The handler "u2learn" of encodings: what they lack becomes similar signs of ASCII, or else a ?."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    parts = unicodedata.normalize("NFKD", error.object[error.start : error.end])  # ü is u and its dots
    known = [
        SIGNS.get(sign, sign if sign.isascii() else "?") for sign in parts if not unicodedata.combining(sign)
    ]
    return "".join(known), error.end


codecs.register_error("u2learn", similar)


def printable(text: str, stream: TextIO | None = None) -> str:
    """The text as `stream` (default: stdout) can print it."""
    encoding = getattr(stream or sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "u2learn").decode(encoding)


def print_anywhere() -> None:
    """From here on this program prints similar signs for those that its console lacks, where it would end."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not so in notebooks, which know every sign
            stream.reconfigure(errors="u2learn")


def hide_bar(progress: bool) -> bool | None:
    """For tqdm's `disable`: bars are drawn on terminals and in notebooks, never into files and pipes.

    Nor anywhere where the environment variable TQDM_DISABLE is set.
    """
    return None if progress and not os.environ.get("TQDM_DISABLE") else True
