"""Text files, written whole or not at all."""

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
