"""Files: text that is written whole or not at all, what goes into it, and what a file holds in one word."""

import hashlib
import math
import os
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8 under a temporary name first, then rename it to `path`."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")  # another process may write the same
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def checksum(path: str | Path) -> str:
    """SHA-256 of a file.

    Raises:
        FileNotFoundError: there is no such file.
    """
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def defined(value: object) -> object:
    """A value as JSON can hold it, which has no NaN: in dicts and lists too, an undefined score is None."""
    if isinstance(value, dict):
        return {key: defined(each) for key, each in value.items()}
    if isinstance(value, list):
        return [defined(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
