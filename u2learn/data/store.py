"""Where data lives: finding a set on this machine, fetching it from its home, and checking a copy."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import shutil
import stat
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import IO

from tqdm.auto import tqdm

from u2learn.data.pairs import read_image

CHUNK = 1 << 18  # bytes
ATTEMPTS = 5  # that fail one after the other before a download is given up
LARGEST = 4 << 30  # bytes that an archive may unpack to


class MissingDataset(FileNotFoundError):
    """A set is not on this machine; the message says how to get it."""


@dataclass(frozen=True)
class Archive:
    """One file to download. `into` is the folder that it fills; the next address is tried when one fails."""

    addresses: tuple[str, ...]
    into: str = "."
    sha256: str | None = None

    @property
    def name(self) -> str:
        return self.addresses[0].rpartition("/")[2]


@dataclass(frozen=True)
class Dataset:
    """What one must know of a set to get it, to cite it, and to tell whether a copy is complete.

    `contents` says how many files a complete copy has of each kind, as a pattern of their paths below the
    folder; of the kinds in `optional` it may have none.
    """

    name: str
    title: str
    folder: str
    also_called: tuple[str, ...]
    home: str
    terms: str
    citation: str
    contents: dict[str, tuple[str, int]]
    optional: tuple[str, ...] = ()
    archives: tuple[Archive, ...] = ()
    by_hand: str = ""


_STARE = "https://cecas.clemson.edu/~ahoover/stare/probing/"
_U2NET = "https://github.com/xuebinqin/U-2-Net"

# No maker publishes a checksum. STARE's and HRF's were noted by several independent users of the same
# archives.
DATASETS: dict[str, Dataset] = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            name="drive",
            title="DRIVE: Digital Retinal Images for Vessel Extraction",
            folder="DRIVE",
            also_called=("drive",),
            home="https://drive.grand-challenge.org",
            terms="registration; research and education only; no redistribution",
            citation="staal2004drive",
            contents={
                "training images": (r"training/images/\d\d_training\.tif", 20),
                "training labels": (r"training/1st_manual/\d\d_manual1\.gif", 20),
                "training fields": (r"training/mask/\d\d_training_mask\.gif", 20),
                "test images": (r"test/images/\d\d_test\.tif", 20),
                "test labels": (r"test/1st_manual/\d\d_manual1\.gif", 20),
                "test second observer": (r"test/2nd_manual/\d\d_manual2\.gif", 20),
                "test fields": (r"test/mask/\d\d_test_mask\.gif", 20),
            },
            optional=("test labels", "test second observer"),
            by_hand="register there, download the training and the test zip, and unpack them so that "
            "{folder}/training/images and {folder}/test/images exist",
        ),
        Dataset(
            name="stare",
            title="STARE: Structured Analysis of the Retina",
            folder="STARE",
            also_called=("stare",),
            home="https://cecas.clemson.edu/~ahoover/stare",
            terms="no formal licence; free for research, cite the paper",
            citation="hoover2000stare",
            contents={
                "images": (r"stare-images/im\d{4}\.ppm(\.gz)?", 20),
                "labels": (r"labels-ah/im\d{4}\.ah\.ppm(\.gz)?", 20),
                "second observer": (r"labels-vk/im\d{4}\.vk\.ppm(\.gz)?", 20),
            },
            optional=("second observer",),
            archives=(
                Archive(
                    (_STARE + "stare-images.tar",),
                    "stare-images",
                    "5f7b509b6067cad4f1be84933145d783de9ec087b3eaaf4db0103dd0144dd433",
                ),
                Archive(
                    (_STARE + "labels-ah.tar",),
                    "labels-ah",
                    "ebf2f1e17ca955f24579d9edd990e2dae79a5c82def69f0985d8e24f826ddd2f",
                ),
                Archive(
                    (_STARE + "labels-vk.tar",),
                    "labels-vk",
                    "47474a701536b0cfdb369fdce012be36141e9f44d80387f0179446b5cb0f5576",
                ),
            ),
        ),
        Dataset(
            name="chase",
            title="CHASE_DB1: Child Heart and Health Study in England",
            folder="CHASE_DB1",
            also_called=("chasedb1", "chasedb", "chase"),
            home="https://researchdata.kingston.ac.uk/96",
            terms="CC BY 4.0",
            citation="owen2009chase",
            contents={
                "images": (r"Image_\d\d[LR]\.jpg", 28),
                "labels": (r"Image_\d\d[LR]_1stHO\.png", 28),
                "second observer": (r"Image_\d\d[LR]_2ndHO\.png", 28),
            },
            optional=("second observer",),
            archives=(
                Archive(
                    (
                        "https://researchdata.kingston.ac.uk/96/1/CHASEDB1.zip",
                        "https://staffnet.kingston.ac.uk/~ku15565/CHASE_DB1/assets/CHASEDB1.zip",
                    )
                ),
            ),
        ),
        Dataset(
            name="hrf",
            title="HRF: High-Resolution Fundus",
            folder="HRF",
            also_called=("hrf",),
            home="https://www5.cs.fau.de/research/data/fundus-images",
            terms="CC BY 4.0",
            citation="budai2013hrf",
            contents={
                "images": (r"images/\d\d_(dr|g|h)\.jpg", 45),
                "labels": (r"manual1/\d\d_(dr|g|h)\.tif", 45),
                "fields": (r"mask/\d\d_(dr|g|h)_mask\.tif", 45),
            },
            archives=(
                Archive(
                    ("https://www5.cs.fau.de/fileadmin/research/datasets/fundus-images/all.zip",),
                    sha256="a914d02cda161b7f33f25d0397c276d50e9a6cbc705e9b364a54f0adafed57e4",
                ),
            ),
        ),
        Dataset(
            name="u2net-demo",
            title="The demonstration photographs of U²-Net, and its authors' own maps of them",
            folder="U2Net_official",
            also_called=("u2netofficial", "u2netdemo"),
            home=_U2NET,
            terms="Apache-2.0 for the repository; the rights of the photographs are unclear",
            citation="qin2020u2net",
            contents={
                "photographs": (r"(test_data/)?test_images/[^/]+\.(jpg|jpeg|png)", 18),
                "maps of u2net": (r"(test_data/)?u2net_results/[^/]+\.png", 18),
                "maps of u2net_small": (r"(test_data/)?u2netp_results/[^/]+\.png", 18),
            },
            archives=(Archive((f"{_U2NET}/archive/ac7e1c817ecab7c7dff5ce6b1abba61cd213ff29.zip",)),),
        ),
        Dataset(
            name="cityscapes",
            title="Cityscapes: street scenes from 27 cities, fine annotations",
            folder="cityscapes",
            also_called=("cityscapes",),
            home="https://www.cityscapes-dataset.com",
            terms="registration; research, teaching and personal use, not commercial; no redistribution",
            citation="cordts2016cityscapes",
            contents={
                "training images": (r"leftImg8bit/train/\w+/\w+_\d{6}_\d{6}_leftImg8bit\.png", 2975),
                "training labels": (r"gtFine/train/\w+/\w+_\d{6}_\d{6}_gtFine_labelIds\.png", 2975),
                "validation images": (r"leftImg8bit/val/\w+/\w+_\d{6}_\d{6}_leftImg8bit\.png", 500),
                "validation labels": (r"gtFine/val/\w+/\w+_\d{6}_\d{6}_gtFine_labelIds\.png", 500),
            },
            by_hand="register there, download leftImg8bit_trainvaltest.zip (11 GB) and "
            "gtFine_trainvaltest.zip (241 MB), and unpack both so that {folder}/leftImg8bit/train and "
            "{folder}/gtFine/train exist",
        ),
    )
}

_DRIVE = "https://drive.usercontent.google.com/download?export=download&confirm=t&id="

# Weights that others trained. Such an address ends in no file name, so that one follows as a fragment, which
# is not sent. Several independent users noted the checksums.
WEIGHTS: dict[str, Archive] = {
    "u2net": Archive(
        (
            f"{_DRIVE}1ao1ovG1Qtx4b7EoskHXmi2E9rp5CHLcZ#/u2net.pth",
            "https://huggingface.co/Carve/u2net-universal/resolve/10305d785481cf4b2eee1d447c39cd6e5f43d74b/"
            "full_weights.pth#/u2net.pth",
        ),
        sha256="10025a17f49cd3208afc342b589890e402ee63123d6f2d289a4a0903695cce58",
    ),
    "u2net_small": Archive(
        (f"{_DRIVE}1rbSTGKAE-MTxBYHd-51l2hMOQPT_7EPy#/u2netp.pth",),
        sha256="e7567cde013fb64813973ce6e1ecc25a80c05c3ca7adbc5a54f3c3d90991b854",
    ),
}


def data_root() -> Path:
    """The folder with one subfolder for each set: U2LEARN_DATA, or ~/.cache/u2learn/data."""
    return Path(os.environ.get("U2LEARN_DATA") or "~/.cache/u2learn/data").expanduser()


def find(name: str) -> Path:
    """The folder of a set, whatever its name's case and punctuation: DRIVE, drive, CHASEDB1, CHASE_DB1.

    Raises:
        MissingDataset: if the set is not there; says what to do.
        ValueError: for a name that is no set.
    """
    dataset, root = _dataset(name), data_root()
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        if re.sub(r"[^a-z0-9]", "", folder.name.lower()) in dataset.also_called and any(
            _count(dataset, folder).values()
        ):
            return folder
    raise MissingDataset(f"{dataset.title} is not in {root}: {_advice(dataset)}")


def files(name: str) -> dict[str, list[Path]]:
    """The files of a set that are here, by kind, each sorted by path.

    Raises:
        MissingDataset: if the set is not there at all.
    """
    return _files(_dataset(name), find(name))


def _dataset(name: str) -> Dataset:
    if name not in DATASETS:
        raise ValueError(f"There is no data set {name!r}; there are {', '.join(DATASETS)}.")
    return DATASETS[name]


def _advice(dataset: Dataset) -> str:
    if dataset.archives:
        advice = f"run `u2learn data fetch {dataset.name}`, or get it from {dataset.home}"
    else:
        advice = f"go to {dataset.home}, " + dataset.by_hand.format(folder=data_root() / dataset.folder)
    return f"{advice} (terms: {dataset.terms}). Have it elsewhere? Set U2LEARN_DATA to the folder above it."


@dataclass(frozen=True)
class Check:
    """What `verify` found: how many files there are of each kind, and which ones cannot be read."""

    dataset: Dataset
    folder: Path
    found: dict[str, int]
    unreadable: tuple[str, ...] = ()

    @property
    def missing(self) -> list[str]:
        """The kinds that are incomplete; an optional kind that is not there at all is none of them."""
        return [
            f"{kind} ({self.found[kind]} of {number})"
            for kind, (_, number) in self.dataset.contents.items()
            if self.found[kind] < number and not (kind in self.dataset.optional and self.found[kind] == 0)
        ]

    @property
    def complete(self) -> bool:
        return not self.missing and not self.unreadable

    def __str__(self) -> str:
        numbers = ", ".join(f"{self.found[kind]} {kind}" for kind in self.dataset.contents)
        absent = [kind for kind in self.dataset.optional if self.found[kind] == 0]
        parts = [
            f"{self.dataset.name}: {'' if self.complete else 'NOT '}complete in {self.folder}: {numbers}"
        ]
        parts += [f"missing: {', '.join(self.missing)}"] * bool(self.missing)
        parts += [f"without {', '.join(absent)} (some copies are)"] * bool(absent)
        parts += [f"unreadable: {text}" for text in self.unreadable]
        return "\n    ".join(parts)


def verify(name: str) -> Check:
    """Counts the files of a set and opens every one.

    Raises:
        MissingDataset: if the set is not there at all.
    """
    return _verify(_dataset(name), find(name))


def _verify(dataset: Dataset, folder: Path) -> Check:
    unreadable = []
    for paths in _files(dataset, folder).values():
        for path in paths:
            try:
                read_image(path)
            except ValueError as error:
                unreadable.append(str(error))
    return Check(dataset, folder, _count(dataset, folder), tuple(unreadable))


def _files(dataset: Dataset, folder: Path) -> dict[str, list[Path]]:
    """The files of each kind, upper or lower case."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
    return {
        kind: [p for p in paths if re.fullmatch(pattern, p.relative_to(folder).as_posix(), re.IGNORECASE)]
        for kind, (pattern, _) in dataset.contents.items()
    }


def _count(dataset: Dataset, folder: Path) -> dict[str, int]:
    return {kind: len(paths) for kind, paths in _files(dataset, folder).items()}


def available() -> list[Check]:
    """Every set that U2Learn knows, with what of it is here; counted, not opened. Each prints as a line."""
    checks = []
    for name, dataset in DATASETS.items():
        try:
            folder = find(name)
            checks.append(Check(dataset, folder, _count(dataset, folder)))
        except MissingDataset:
            checks.append(Absent(dataset, data_root() / dataset.folder, dict.fromkeys(dataset.contents, 0)))
    return checks


class Absent(Check):
    """A set that is not here."""

    def __str__(self) -> str:
        return f"{self.dataset.name}: not here; {_advice(self.dataset).partition(' Have it')[0]}"


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
    dataset, root = _dataset(name), data_root()
    try:
        check = _verify(dataset, find(name))
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
        check = _verify(dataset, workshop / "new")
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
        if archive.sha256 is None:
            _note(path, digest)
            tqdm.write(f"No checksum of {archive.name} is published; from now on it must have {digest}.")
        path.unlink()
    return target


def fetch_weights(name: str, progress: bool = True) -> Path:
    """The file of published weights, from `data_root()/weights`; if it is not there, it is downloaded first.

    Its SHA-256 is compared every time. An address that gives another file is as good as a dead one.

    Raises:
        KeyError: there are no weights of this name.
        ConnectionError: no address gives the file; says where to put it by hand.
        ValueError: the file that is there is another one.
    """
    if name not in WEIGHTS:
        raise KeyError(f"No address is known for weights {name!r}; there are {', '.join(WEIGHTS)}.")
    archive, failures = WEIGHTS[name], []
    target = data_root() / "weights" / archive.name
    if target.exists():
        _accepted(archive, target)
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    for address in archive.addresses:
        try:
            one = replace(archive, addresses=(address,))
            path = _download(one, target.with_name(f"{target.name}.new"), progress)
            _accepted(one, path)
            return path.replace(target)
        except (ConnectionError, ValueError) as error:
            failures.append(str(error))
    raise ConnectionError(
        f"{' '.join(failures)} You can also download {archive.name} by hand, from the link in the README of "
        f"{_U2NET}, and put it at {target}."
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
    with tqdm(unit="B", unit_scale=True, desc=part.stem, disable=not progress) as bar:
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


def _accepted(archive: Archive, path: Path) -> str:
    """The file's SHA-256, if it is the expected one; else the file is put aside."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    sums = path.with_name("SHA256SUMS")
    noted = (
        dict(reversed(line.split("  ", 1)) for line in sums.read_text().splitlines()) if sums.exists() else {}
    )
    expected = archive.sha256 or noted.get(path.name)
    if expected not in (None, digest.hexdigest()):
        aside = _put_aside(path)
        source = "the published one" if archive.sha256 else f"the one of the first download, noted in {sums}"
        raise ValueError(
            f"{archive.name} has the SHA-256 {digest.hexdigest()}, not {expected}, {source}. It was damaged "
            f"on its way or has changed at its home; it lies in {aside}, and nothing was installed."
        )
    return digest.hexdigest()


def _put_aside(path: Path) -> Path:
    """Keeps a file that is no good for a look at it, but out of the way of the next download."""
    return path.replace(path.with_name(path.name + ".rejected"))


def _note(path: Path, digest: str) -> None:
    sums = path.with_name("SHA256SUMS")
    lines = sums.read_text().splitlines() if sums.exists() else []
    if f"{digest}  {path.name}" not in lines:
        sums.write_text("\n".join([*lines, f"{digest}  {path.name}", ""]))


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
        with tarfile.open(archive) as opened:
            for info in opened:
                if not (info.isfile() or info.isdir()):
                    raise ValueError(f"{info.name!r} is a link or a device")
                if info.isfile():
                    with opened.extractfile(info) as file:
                        yield info.name, file
    else:
        with archive.open("rb") as file:
            start = file.read(200).lstrip().lower()
        page = (
            "a web page, so the address may have moved"
            if start.startswith((b"<!doctype", b"<html"))
            else "no archive"
        )
        raise ValueError(f"it is {page}, or is cut short")
