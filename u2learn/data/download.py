"""Fetching a data set, or published weights, from their home: resumed, checked, unpacked with care."""

from __future__ import annotations

import hashlib
import http.client
import shutil
import stat
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import IO

from tqdm.auto import tqdm

from u2learn.console import hide_bar
from u2learn.data.catalogue import Archive
from u2learn.data.local import MissingDataset, data_root, dataset_named, find, verify_copy
from u2learn.data.published import PUBLISHED

CHUNK = 1 << 18  # bytes
ATTEMPTS = 5  # that fail one after the other before a download is given up
LARGEST = 4 << 30  # bytes that an archive may unpack to


def fetch(name: str, progress: bool = True) -> Path:
    """Downloads a set from its official home, checks it, and puts it into `data_root()`; returns its folder.

    A download that breaks off goes on where it stopped, also in another run. The set appears under its name
    only when everything was unpacked and opened, so that nothing half-written is ever found. Where no
    checksum of an archive is published, the one of the first download is noted in `downloads/SHA256SUMS` and
    holds from then on.

    Raises:
        MissingDataset: if the set cannot be fetched without a registration; says what to do by hand.
        FileExistsError: if an incomplete copy is in the way.
        ConnectionError: if no address answers.
        ValueError: if an archive is not the one that was expected, is damaged or unsafe.
    """
    dataset, root = dataset_named(name), data_root()
    try:
        check = verify_copy(dataset, find(name))
        if check.complete:
            return check.folder
        raise FileExistsError(f"{check}\n    Move this folder away and fetch the set again.")
    except MissingDataset:
        if not dataset.archives:
            raise
    target = root / dataset.folder
    if target.exists():
        raise FileExistsError(f"{target} is in the way, and does not hold {dataset.title}; move it away.")

    downloads = root / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    workshop = Path(tempfile.mkdtemp(prefix=f".{dataset.folder}-", dir=root))
    try:
        fetched = []
        for archive in dataset.archives:
            path = _download(archive, downloads / f"{dataset.name}-{archive.name}", progress)
            fetched.append((archive, path, _accepted(archive, path)))
            unpack(path, workshop / "new" / archive.into)
        check = verify_copy(dataset, workshop / "new")
        if not check.complete:
            for _, path, _ in fetched:
                _put_aside(path)
            raise ValueError(
                f"What {dataset.home} hands out is not what was expected; nothing was installed.\n{check}"
            )
        (workshop / "new").rename(target)
    finally:
        shutil.rmtree(workshop)
    for archive, path, digest in fetched:
        _note_unknown(archive, path, digest)
        path.unlink()
    return target


def weights_path(name: str) -> Path:
    """Where published weights lie once they are here.

    Raises:
        KeyError: there are no weights of this name.
    """
    if name not in PUBLISHED:
        raise KeyError(f"No address is known for weights {name!r}; there are {', '.join(PUBLISHED)}.")
    return data_root() / "weights" / PUBLISHED[name].archive.name


def fetch_weights(name: str, progress: bool = True) -> Path:
    """The file of published weights, from `data_root()/weights`; if it is not there, it is downloaded first.

    Its SHA-256 is compared every time. Where not all of it is published, that of the first file is noted in
    `SHA256SUMS` and holds from then on. An address that gives another file is as good as a dead one.

    Raises:
        KeyError: there are no weights of this name.
        ConnectionError: no address gives the file; says where to put it by hand.
        ValueError: the file that is there is another one.
    """
    target = weights_path(name)
    weights, failures = PUBLISHED[name], []
    if target.exists():
        _note_unknown(weights.archive, target, _accepted(weights.archive, target))
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    for address in weights.archive.addresses:
        try:
            one = replace(weights.archive, addresses=(address,))
            path = _download(one, target.with_name(f"{target.name}.new"), progress)
            digest = _accepted(one, path, target.name)
            _note_unknown(weights.archive, target, digest)
            return path.replace(target)
        except (ConnectionError, ValueError) as error:
            failures.append(str(error))
    raise ConnectionError(
        f"{' '.join(failures)} You can also download {weights.archive.name} by hand, from the link in "
        f"{weights.home}, and put it at {target}."
    )


def _download(archive: Archive, path: Path, progress: bool) -> Path:
    """The archive's file, from the first address that gives it, unless an earlier download is whole."""
    if path.exists():
        return path
    failures = []
    for address in archive.addresses:
        part = path.with_name(path.name + ".part")
        try:
            _receive(address, part, progress)
            part.replace(path)
            return path
        except (OSError, http.client.HTTPException) as error:
            failures.append(f"{address}: {error}")
    raise ConnectionError(
        f"{archive.name} could not be downloaded ({'; '.join(failures)}). What came is kept in "
        f"{path.parent}: the same command goes on from there."
    )


def _receive(address: str, part: Path, progress: bool) -> None:
    """Downloads to `part`, and goes on after a cut as long as more arrives. A reply of 4xx is final."""
    failed, before = 0, -1
    with tqdm(unit="B", unit_scale=True, desc=part.stem, disable=hide_bar(progress)) as bar:
        while True:
            try:
                return _receive_once(address, part, bar)
            except (OSError, http.client.HTTPException) as error:
                if isinstance(error, urllib.error.HTTPError) and 400 <= error.code < 500:
                    raise
                here = part.stat().st_size if part.exists() else 0
                failed = failed + 1 if here <= before else 1
                if failed >= ATTEMPTS:
                    raise
                before = here
                time.sleep(0.2 * 2**failed)


def _receive_once(address: str, part: Path, bar: tqdm) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(address, headers={"User-Agent": "u2learn"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        reply = urllib.request.urlopen(request, timeout=30)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        # Nothing follows: either all of it is here, or what is here belongs to a longer file.
        if error.headers.get("Content-Range", "").rpartition("/")[2] != str(have):
            part.unlink()
            raise ConnectionError(
                f"{address} has a shorter file than the {have} bytes that were here"
            ) from error
        return
    with reply:
        if not reply.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            have = 0  # the server sends all of it
        length = reply.headers.get("Content-Length")
        bar.total = bar.total if length is None else have + int(length)
        bar.n = have
        with part.open("r+b" if have else "wb") as file:
            file.seek(have)
            while chunk := reply.read(CHUNK):
                bar.update(file.write(chunk))
            if length is not None and file.tell() < have + int(length):
                raise ConnectionError(
                    f"the connection was cut after {file.tell()} of {have + int(length)} bytes"
                )


def _accepted(archive: Archive, path: Path, noted_as: str = "") -> str:
    """The file's SHA-256, if it is the expected one; else the file is put aside.

    Of some only its first digits are published. `noted_as` is the file's name in SHA256SUMS, if not its own.
    """
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    found, sums = digest.hexdigest(), path.with_name("SHA256SUMS")
    noted = {name: known for known, name in (line.split("  ", 1) for line in _lines(sums))}
    sources = {
        "the published one": archive.sha256,
        f"the one of the first download, noted in {sums}": noted.get(noted_as or path.name),
    }
    for source, expected in sources.items():
        if expected and not found.startswith(expected):
            digits = expected if len(expected) == len(found) else f"{expected}..."
            aside = _put_aside(path)
            raise ValueError(
                f"{archive.name} has the SHA-256 {found}, not {digits}, {source}. It was damaged "
                f"on its way or has changed at its home; it lies in {aside}, and nothing was installed."
            )
    return found


def _put_aside(path: Path) -> Path:
    """Keeps a file that is no good for a look at it, but out of the way of the next download."""
    return path.replace(path.with_name(path.name + ".rejected"))


def _note_unknown(archive: Archive, path: Path, digest: str) -> None:
    """Note the SHA-256 of a first file in SHA256SUMS, unless all of it is published."""
    sums = path.with_name("SHA256SUMS")
    lines = _lines(sums)
    if archive.sha256 != digest and f"{digest}  {path.name}" not in lines:
        sums.write_text("\n".join([*lines, f"{digest}  {path.name}", ""]), encoding="utf-8")
        known = "Only the beginning of the checksum" if archive.sha256 else "No checksum"
        tqdm.write(f"{known} of {archive.name} is published; from now on it must have {digest}.")


def _lines(path: Path) -> list[str]:
    """The lines of a text file; none if it is not there."""
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks a zip or tar file into a new folder. If it holds nothing but one folder, its contents come up.

    Only plain files and folders inside `folder` are written, whatever the archive says.

    Raises:
        ValueError: if the file is no archive, is cut short or damaged, unpacks to more than 4 GiB, or holds a
            link, a device, or a path that leads out of the folder.
    """
    folder.mkdir(parents=True)
    written = 0
    try:
        for name, file in _members(archive):
            path = PurePosixPath(name.replace("\\", "/"))
            if path.is_absolute() or ".." in path.parts or ":" in name:
                raise ValueError(f"it would write to {name!r}, outside its folder")
            if path.parts[:1] == ("__MACOSX",):
                continue
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            with (folder / path).open("xb") as target:
                while chunk := file.read(CHUNK):
                    written += target.write(chunk)
                    if written > LARGEST:
                        raise ValueError(f"it unpacks to more than {LARGEST >> 30} GiB")
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, tarfile.TarError) as error:
        shutil.rmtree(folder)
        aside = _put_aside(archive)
        raise ValueError(f"{archive.name} cannot be unpacked: {error}. It lies in {aside}.") from error
    only = list(folder.iterdir())
    if len(only) == 1 and only[0].is_dir():
        only[0].rename(folder.with_name(folder.name + ".inner"))
        folder.rmdir()
        folder.with_name(folder.name + ".inner").rename(folder)


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Name and open file of everything in a zip or tar file that is no folder."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise ValueError(f"{info.filename!r} is a link or a device")
                if not info.is_dir():
                    with opened.open(info) as file:
                        yield info.filename, file
    elif tarfile.is_tarfile(archive):
        with tarfile.open(archive) as tar:
            for member in tar:
                if not (member.isfile() or member.isdir()):
                    raise ValueError(f"{member.name!r} is a link or a device")
                content = tar.extractfile(member)  # None of a folder
                if content is not None:
                    with content:
                        yield member.name, content
    else:
        with archive.open("rb") as file:
            start = file.read(200).lstrip().lower()
        page = (
            "a web page, so the address may have moved"
            if start.startswith((b"<!doctype", b"<html"))
            else "no archive"
        )
        raise ValueError(f"it is {page}, or is cut short")
