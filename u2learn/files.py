"""Files: written whole or not at all, alike on every system; what goes into them, and what they hold."""

import hashlib
import math
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Where Colab mounts Google Drive. What is deleted or replaced there fills the bin, and its owner's space.
DRIVE = Path("/content/drive")
ASIDE = ".before.tmp"  # ends the name of an old file that waits there until the new one stands
WAITS = (0.05, 0.1, 0.2, 0.4, 0.8)  # seconds between tries to rename


def shown(path: str | Path) -> str:
    """A path as a person would write it: without detours, and from the working folder if it lies there."""
    whole = Path(path).resolve()
    here = Path.cwd()
    return str(whole.relative_to(here) if whole.is_relative_to(here) else whole)


@contextmanager
def written_whole(path: Path, size: int) -> Iterator[Path]:
    """A name to write to, of a file that takes the place of `path` when the block ends well.

    No other process has the name. If the block fails, its file is gone and `path` is as it was. size: in
    bytes, for the message.

    Raises:
        OSError: it cannot be written, as when the disk is full or there is no such folder.
    """
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb"):  # by us, so that the umask decides who may read it
            rights = temporary.stat().st_mode
        yield temporary
        temporary.chmod(rights)
        with open(temporary, "r+b") as file:  # Windows flushes only what it may write
            os.fsync(file.fileno())
        if on_drive(path) and path.exists():
            _replace_on_drive(temporary, path)
        else:
            _rename(temporary, path)
    except OSError as error:
        raise type(error)(
            f"{path} could not be written ({error.strerror or error}); {size:,} bytes are needed in "
            f"{path.parent}. What stood there before is whole: make room, or mend what is wrong, and repeat "
            "the command; a run goes on from its last checkpoint."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all.

    Raises:
        OSError: see `written_whole`.
    """
    with written_whole(path, len(text.encode("utf-8"))) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def on_drive(path: Path) -> bool:
    """Does a path lie on Google Drive, as Colab mounts it?"""
    return path.resolve().is_relative_to(DRIVE)


def remove_leftovers(folder: Path) -> None:
    """Delete what processes that were killed while they wrote left in a folder.

    Only for one who is alone in it, as a run is in its own: others may be writing now.
    """
    for old in folder.glob(f"*{ASIDE}"):
        path = old.with_name(old.name.removesuffix(ASIDE))
        if path.exists():
            _empty_and_delete(old)
        else:
            _rename(old, path)
    for pattern in ("*.tmp", ".tmp*"):  # ours, and those of safetensors
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)


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


def _replace_on_drive(source: Path, target: Path) -> None:
    """Put `source` in the place of `target`, of which the bin gets nothing but the name."""
    aside = target.with_name(target.name + ASIDE)
    _rename(target, aside)
    try:
        _rename(source, target)
    except OSError:
        _rename(aside, target)
        raise
    _empty_and_delete(aside)


def _empty_and_delete(path: Path) -> None:
    path.write_bytes(b"")
    path.unlink()


def _rename(source: Path, target: Path) -> None:
    """`os.replace`, again and again while Windows says that another program has the target open."""
    for wait in WAITS:
        try:
            return os.replace(source, target)
        except PermissionError:
            time.sleep(wait)
    return os.replace(source, target)
