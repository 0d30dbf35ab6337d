"""Finding, fetching and checking data sets; downloads come from a small server here that can misbehave."""

import hashlib
import http.server
import io
import stat
import tarfile
import threading
import zipfile

import numpy as np
import pytest
from PIL import Image

from u2learn import studies
from u2learn.data import catalogue, download, local
from u2learn.data.catalogue import Archive, Dataset
from u2learn.data.local import MissingDataset
from u2learn.data.published import PUBLISHED, Published, published_for


def png(seed, size=(40, 40)):
    """A picture that hardly compresses, so that an archive is long enough to be cut."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


CONTENT = {f"images/{i}.png": png(i) for i in range(3)} | {f"labels/{i}.png": png(10 + i) for i in range(3)}


def make_zip(files=CONTENT, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def make_tar(files=CONTENT, extra=()):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info in extra:
            archive.addfile(info)
    return buffer.getvalue()


class Server(http.server.ThreadingHTTPServer):
    """Serves `files` by path. `behaviour` says how; `requests` is what was asked for."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.behaviour: set[str] = set()
        self.cuts: list[int] = []  # after how many bytes the next replies break off
        self.requests: list[tuple[str, str | None]] = []

    def address(self, path):
        return f"http://127.0.0.1:{self.server_port}/{path}"


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def do_GET(self):
        server, span = self.server, self.headers.get("Range")
        server.requests.append((self.path, span))
        data = server.files.get(self.path.lstrip("/"))
        if data is None:
            return self.send_error(404)
        start = 0
        if span and "ignores range" not in server.behaviour:
            start = int(span.removeprefix("bytes=").split("-")[0])
            if start >= len(data):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(data)}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        if "no length" not in server.behaviour:
            self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        stop = start + server.cuts.pop(0) if server.cuts else len(data)
        self.wfile.write(data[start:stop])
        self.close_connection = True


@pytest.fixture
def server(monkeypatch):
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("U2LEARN_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def publish(server, monkeypatch):
    """Makes a data set "toy" of archives that the server serves: publish({"toy.zip": bytes}, sha256=...)."""

    def publish(files, sha256=(None,), into=(".",), addresses=None):
        server.files |= files
        archives = [
            Archive(tuple(addresses or (server.address(name),)), folder, digest)
            for name, folder, digest in zip(files, into, sha256, strict=True)
        ]
        contents = {
            "images": (r"images/\d\.png", 3),
            "labels": (r"labels/\d\.png", 3),
            "extras": (r"x/\d", 1),
        }
        toy = Dataset(
            "toy",
            "The toy set",
            "TOY",
            ("toy",),
            "https://toy.example",
            "free",
            "key",
            contents,
            ("extras",),
            tuple(archives),
        )
        monkeypatch.setitem(catalogue.DATASETS, "toy", toy)

    return publish


def fetch():
    return download.fetch("toy", progress=False)


def nothing_installed(root):
    """Neither the set nor any workshop is left; what was downloaded may be."""
    return [path.name for path in root.iterdir()] in ([], ["downloads"])


def tree(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# Downloads


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_a_set_is_downloaded_unpacked_and_found(publish, root, make):
    publish({"toy.archive": make()})
    with pytest.raises(MissingDataset):
        local.find("toy")
    assert fetch() == root / "TOY" == local.find("toy")
    assert tree(root / "TOY") == CONTENT
    assert [path.name for path in (root / "downloads").iterdir()] == ["SHA256SUMS"]
    assert local.verify("toy").complete


def test_several_archives_fill_their_folders(publish, root):
    parts = [
        make_tar({name.partition("/")[2]: data for name, data in CONTENT.items() if name.startswith(what)})
        for what in ("images", "labels")
    ]
    publish({"a.tar": parts[0], "b.tar": parts[1]}, sha256=(None, None), into=("images", "labels"))
    assert tree(fetch()) == CONTENT


def test_what_is_here_is_not_downloaded_again(publish, server, root):
    publish({"toy.zip": make_zip()})
    fetch()
    server.requests.clear()
    assert fetch() == root / "TOY" and server.requests == []


@pytest.mark.parametrize("behaviour", [set(), {"ignores range"}, {"no length"}])
def test_a_download_of_which_a_part_is_here_goes_on(publish, server, root, behaviour):
    data = make_zip()
    publish({"toy.zip": data}, sha256=(hashlib.sha256(data).hexdigest(),))
    server.behaviour = behaviour
    (root / "downloads").mkdir(parents=True)
    (root / "downloads" / "toy-toy.zip.part").write_bytes(data[:1000])
    assert tree(fetch()) == CONTENT
    assert server.requests == [("/toy.zip", "bytes=1000-")]


def test_cut_connections_are_taken_up_again(publish, server):
    data = make_zip()
    publish({"toy.zip": data}, sha256=(hashlib.sha256(data).hexdigest(),))
    server.cuts = [3000] * 6  # more cuts than attempts, but each brings something
    assert tree(fetch()) == CONTENT
    assert [span for _, span in server.requests] == [None] + [f"bytes={3000 * i}-" for i in range(1, 7)]


def test_cuts_at_a_server_that_ignores_range_start_anew_and_end(publish, server, root):
    data = make_zip()
    publish({"toy.zip": data})
    server.behaviour, server.cuts = {"ignores range"}, [3000, 5000]
    assert tree(fetch()) == CONTENT and len(server.requests) == 3
    (root / "TOY").rename(root / "old")
    server.cuts = [3000] * 100
    with pytest.raises(ConnectionError, match=r"cut after 3000 of \d+ bytes.*goes on from there"):
        fetch()
    assert (root / "downloads" / "toy-toy.zip.part").stat().st_size == 3000


def test_a_part_that_is_the_whole_file_is_accepted_and_a_longer_one_is_not(publish, server, root):
    data = make_zip()
    publish({"toy.zip": data})
    for content in (data, data + b"more"):
        (root / "downloads").mkdir(parents=True, exist_ok=True)
        (root / "downloads" / "toy-toy.zip.part").write_bytes(content)
        assert tree(fetch()) == CONTENT
        (root / "TOY").rename(root / f"old{len(content)}")


def test_the_next_address_is_tried_and_a_404_is_final(publish, server, root):
    data = make_zip()
    publish({"toy.zip": data}, addresses=[server.address("gone.zip"), server.address("toy.zip")])
    assert tree(fetch()) == CONTENT
    assert [path for path, _ in server.requests] == ["/gone.zip", "/toy.zip"]
    (root / "TOY").rename(root / "old")
    server.files.clear()
    with pytest.raises(
        ConnectionError, match=r"gone\.zip could not be downloaded.*gone\.zip: HTTP Error 404.*toy\.zip"
    ):
        fetch()
    assert not (root / "TOY").exists()


def test_a_server_that_is_not_there(publish, root):
    publish({"toy.zip": b""}, addresses=["http://127.0.0.1:9/toy.zip"])
    with pytest.raises(ConnectionError, match=r"toy\.zip could not be downloaded .*refused"):
        fetch()
    assert nothing_installed(root)


# Checksums


def test_a_wrong_checksum_installs_nothing_and_keeps_the_file_aside(publish, server, root):
    data = make_zip()
    publish({"toy.zip": data}, sha256=("0" * 64,))
    with pytest.raises(
        ValueError, match=rf"SHA-256 {hashlib.sha256(data).hexdigest()}, not 0+, the published one"
    ):
        fetch()
    assert nothing_installed(root)
    assert [path.name for path in (root / "downloads").iterdir()] == ["toy-toy.zip.rejected"]
    publish({"toy.zip": data}, sha256=(hashlib.sha256(data).hexdigest(),))
    assert tree(fetch()) == CONTENT


def test_without_a_published_checksum_the_first_download_sets_it(publish, server, root):
    data = make_zip()
    publish({"toy.zip": data})
    fetch()
    sums = (root / "downloads" / "SHA256SUMS").read_text()
    assert sums == f"{hashlib.sha256(data).hexdigest()}  toy-toy.zip\n"
    (root / "TOY").rename(root / "old")
    assert tree(fetch()) == CONTENT  # the same file again
    assert (root / "downloads" / "SHA256SUMS").read_text() == sums
    (root / "TOY").rename(root / "older")
    server.files["toy.zip"] = make_zip(CONTENT | {"new.txt": b"changed"})
    with pytest.raises(
        ValueError, match=r"the one of the first download, noted in .*SHA256SUMS.*nothing was installed"
    ):
        fetch()
    assert not (root / "TOY").exists()


def test_a_bad_first_download_is_neither_noted_nor_used_again(publish, server, root):
    publish({"toy.zip": make_zip({"images/0.png": png(0)})})
    with pytest.raises(ValueError, match="not what was expected"):
        fetch()
    assert not (root / "downloads" / "SHA256SUMS").exists()
    server.files["toy.zip"] = make_zip()
    assert tree(fetch()) == CONTENT


# Archives


@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_half_an_archive_installs_nothing_and_the_next_fetch_starts_anew(publish, server, root, make, share):
    data = make()
    publish({"toy.archive": data[: int(share * len(data))]})
    with pytest.raises(ValueError, match=r"toy\.archive cannot be unpacked|not what was expected") as error:
        fetch()
    assert nothing_installed(root) and "Traceback" not in str(error.value)
    server.files["toy.archive"] = data
    assert tree(fetch()) == CONTENT


def test_a_tar_that_ends_between_two_files_is_seen_by_the_count(publish, root):
    data = make_tar()
    publish({"toy.tar": data[: data.index(b"labels/2.png")]})
    with pytest.raises(ValueError, match=r"labels \(2 of 3\)"):
        fetch()
    assert nothing_installed(root)


def test_a_damaged_file_in_a_zip(publish, root):
    data = bytearray(make_zip())
    data[data.index(CONTENT["images/1.png"]) + 500] ^= 1
    publish({"toy.zip": bytes(data)})
    with pytest.raises(ValueError, match=r"toy\.zip cannot be unpacked: Bad CRC-32 .*images/1\.png"):
        fetch()
    assert nothing_installed(root)


def test_a_picture_that_cannot_be_opened_installs_nothing(publish, root):
    publish({"toy.zip": make_zip(CONTENT | {"labels/1.png": CONTENT["labels/1.png"][:900]})})
    with pytest.raises(ValueError, match=r"nothing was installed(.|\n)*labels/1\.png cannot be read"):
        fetch()
    assert nothing_installed(root)


def test_a_web_page_instead_of_an_archive(publish, root):
    publish({"toy.zip": b"\n<!DOCTYPE html><html>We have moved</html>"})
    with pytest.raises(ValueError, match="it is a web page, so the address may have moved"):
        fetch()
    assert nothing_installed(root)


def link(name, target, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zip_with_a_link():
    info = zipfile.ZipInfo("images/9.png")
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    buffer = io.BytesIO(make_zip())
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(info, "/etc/passwd")
    return buffer.getvalue()


EVIL = {
    "parent": lambda make: make(CONTENT | {"../evil.txt": b"!"}),
    "hidden parent": lambda make: make(CONTENT | {"images/../../evil.txt": b"!"}),
    "absolute": lambda make: make(CONTENT | {"/tmp/u2learn-evil.txt": b"!"}),
    "windows parent": lambda make: make(CONTENT | {"..\\evil.txt": b"!"}),
    "drive": lambda make: make(CONTENT | {"C:\\evil.txt": b"!"}),
}


@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.parametrize("evil", EVIL)
def test_an_archive_that_reaches_out_of_its_folder_is_refused(publish, root, tmp_path, make, evil):
    publish({"toy.archive": EVIL[evil](make)})
    with pytest.raises(ValueError, match=r"it would write to .*evil\.txt', outside its folder"):
        fetch()
    assert nothing_installed(root) and not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize(
    "data",
    [
        make_tar(extra=[link("images/9.png", "/etc/passwd")]),
        make_tar(extra=[link("images/9.png", "images/0.png", tarfile.LNKTYPE)]),
        make_tar(extra=[link("pipe", "", tarfile.FIFOTYPE)]),
        zip_with_a_link(),
    ],
    ids=["symbolic link", "hard link", "pipe", "link in a zip"],
)
def test_links_and_devices_are_refused(publish, root, data):
    publish({"toy.archive": data})
    with pytest.raises(ValueError, match="is a link or a device"):
        fetch()
    assert nothing_installed(root)


def test_an_archive_that_would_fill_the_disk_is_refused(publish, root, monkeypatch):
    monkeypatch.setattr(download, "LARGEST", 1 << 20)
    publish({"toy.zip": make_zip(CONTENT | {"bomb": bytes(4 << 20)}, zipfile.ZIP_DEFLATED)})
    with pytest.raises(ValueError, match="unpacks to more than"):
        fetch()
    assert nothing_installed(root)


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_a_folder_that_wraps_everything_is_taken_off(publish, make):
    wrapped = {f"Toy set/{name}": data for name, data in CONTENT.items()}
    publish({"toy.archive": make(wrapped | {"__MACOSX/._Toy set": b"junk"})})
    assert tree(fetch()) == CONTENT


# What is there already


def put(folder, files=CONTENT):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def test_a_copy_in_the_way_is_never_touched(publish, server, root):
    publish({"toy.zip": make_zip()})
    for name, files in (("Toy", {"images/0.png": png(0)}), ("TOY", {"notes.txt": b"mine"})):
        put(root / name, files)
        with pytest.raises(FileExistsError, match=r"[Mm]ove (this folder|it) away"):
            fetch()
        assert tree(root / name) == files
        (root / name).rename(root / f"moved-{name}")
    assert server.requests == []


@pytest.mark.parametrize("name", ["TOY", "toy", "T.O.Y", "t_oy"])
def test_a_folder_is_found_whatever_its_case_and_punctuation(publish, root, name):
    publish({"toy.zip": b""})
    put(root / name)
    assert local.find("toy") == root / name


def test_common_names_of_the_real_sets(root):
    for name in ("DRIVE", "stare", "CHASEDB1", "HRF"):
        (root / name).mkdir(parents=True)
    put(root / "DRIVE", {"test/images/01_test.tif": b""})
    put(root / "stare", {"stare-images/im0001.ppm.gz": b""})
    put(root / "CHASEDB1", {"Image_01L.jpg": b""})
    put(root / "HRF", {"images/01_dr.JPG": b""})
    found = [local.find(name).name for name in ("drive", "stare", "chase", "hrf")]
    assert found == ["DRIVE", "stare", "CHASEDB1", "HRF"]


def test_a_missing_set_says_what_to_do(root):
    with pytest.raises(
        MissingDataset, match=r"STARE.* is not in .*data: run `u2learn data fetch stare`, or get it"
    ):
        local.find("stare")
    for function in (local.find, download.fetch, local.verify):
        with pytest.raises(MissingDataset) as error:
            function("drive")
        for part in (
            "drive.grand-challenge.org",
            "register",
            "DRIVE/training/images",
            "U2LEARN_DATA",
            "no redistribution",
        ):
            assert part in str(error.value)
    (root / "DRIVE").mkdir(parents=True)  # an empty folder is no set
    with pytest.raises(MissingDataset):
        local.find("drive")
    with pytest.raises(ValueError, match="no data set 'drivel'; there are drive, stare, chase, hrf, u2net"):
        local.find("drivel")


def test_verify_counts_and_opens_every_file(publish, root):
    publish({"toy.zip": b""})
    put(root / "toy", CONTENT)
    check = local.verify("toy")
    assert check.complete and "toy: complete" in str(check) and "without extras" in str(check)
    (root / "toy" / "labels" / "0.png").unlink()
    put(root / "toy", {"images/2.png": CONTENT["images/2.png"][:500]})
    check = local.verify("toy")
    assert not check.complete and check.missing == ["labels (2 of 3)"] and len(check.unreadable) == 1
    assert "NOT complete" in str(check) and "images/2.png cannot be read" in str(check)


def test_available_lists_every_set_with_what_is_here(publish, root):
    publish({"toy.zip": b""})
    put(root / "toy", CONTENT)
    lines = {check.dataset.name: str(check) for check in local.available()}
    assert list(lines) == [
        *("drive", "stare", "chase", "hrf", "u2net-demo", "cityscapes"),
        *("duts", "ecssd", "hku-is", "pascal-s", "dut-omron", "sod", "dis5k", "toy"),
    ]
    assert (
        lines["toy"].startswith("toy: complete") and "not here; run `u2learn data fetch hrf`" in lines["hrf"]
    )


def test_where_data_lives(monkeypatch):
    monkeypatch.setenv("U2LEARN_DATA", "~/elsewhere")
    assert local.data_root().name == "elsewhere" and local.data_root().is_absolute()
    monkeypatch.delenv("U2LEARN_DATA")
    assert local.data_root().parts[-3:] == (".cache", "u2learn", "data")


def test_the_table_of_sets_is_whole():
    old = (
        "http://saliencydetection.net/",
        "http://cbs.ic.gatech.edu/",
        "http://cbi.gatech.edu/",
    )  # known so only
    for name, dataset in catalogue.DATASETS.items():
        assert dataset.name == name and dataset.terms and dataset.citation
        assert dataset.home.startswith(("https://", *old))
        assert bool(dataset.archives) != bool(dataset.by_hand)
        assert set(dataset.optional) <= set(dataset.contents)
        for archive in dataset.archives:
            assert all(address.startswith(("https://", *old)) for address in archive.addresses)
            assert archive.sha256 is None or len(bytes.fromhex(archive.sha256)) == 32


# --- weights that others trained ----------------------------------------------------------------------------

WEIGHTS = bytes(range(256)) * 300


@pytest.fixture
def offer(server, monkeypatch):
    """Makes weights "toy" that these addresses of the server should give."""

    def offer(*paths, content=WEIGHTS, digits=64):
        digest = hashlib.sha256(content).hexdigest()[:digits]
        addresses = tuple(server.address(path) + "#/toy.pth" for path in paths)
        archive = Archive(addresses, sha256=digest or None)
        monkeypatch.setitem(PUBLISHED, "toy", Published("toy", "https://toy.example", archive))

    return offer


def test_weights_are_fetched_once_and_checked_every_time(server, offer, root):
    offer("download?id=7")
    server.files["download?id=7"] = WEIGHTS
    path = download.fetch_weights("toy", progress=False)
    assert path == root / "weights" / "toy.pth" and path.read_bytes() == WEIGHTS
    assert download.fetch_weights("toy", progress=False) == path
    assert [asked for asked, _ in server.requests] == ["/download?id=7"]  # the fragment stays at home
    path.write_bytes(b"another" + WEIGHTS)
    with pytest.raises(ValueError, match=r"toy\.pth has the SHA-256"):
        download.fetch_weights("toy", progress=False)
    assert download.fetch_weights("toy", progress=False).read_bytes() == WEIGHTS  # it was put aside


def test_a_cut_download_of_weights_goes_on(server, offer):
    offer("w")
    server.files["w"] = WEIGHTS
    server.cuts = [1000, 5000]
    assert download.fetch_weights("toy", progress=False).read_bytes() == WEIGHTS
    assert [span for _, span in server.requests] == [None, "bytes=1000-", "bytes=6000-"]


def test_weights_put_there_by_hand_need_no_address(server, offer, root):
    offer("w")
    (root / "weights").mkdir(parents=True)
    (root / "weights" / "toy.pth").write_bytes(WEIGHTS)
    assert download.fetch_weights("toy", progress=False) == root / "weights" / "toy.pth"
    assert not server.requests


@pytest.mark.parametrize("first", [b"<!DOCTYPE html>Quota exceeded", None], ids=["a page", "nothing"])
def test_an_address_that_gives_another_file_is_as_good_as_dead(server, offer, first):
    offer("first", "second")
    server.files |= {"second": WEIGHTS} | ({"first": first} if first else {})
    assert download.fetch_weights("toy", progress=False).read_bytes() == WEIGHTS


def test_dead_addresses_of_weights_say_where_to_put_the_file(server, offer, root):
    offer("first", "second")
    server.files["first"] = b"<!DOCTYPE html>Quota exceeded"
    with pytest.raises(ConnectionError) as error:
        download.fetch_weights("toy", progress=False)
    message = str(error.value)
    assert "by hand" in message and str(root / "weights" / "toy.pth") in message and "\n" not in message
    assert "SHA-256" in message and "404" in message  # what was wrong with each
    assert not (root / "weights" / "toy.pth").exists()


def test_weights_that_nobody_knows_are_named_with_those_that_there_are():
    with pytest.raises(KeyError, match=r"'u3net'; there are u2net, u2net_small"):
        download.fetch_weights("u3net")


@pytest.mark.parametrize("digits", [8, 0])
def test_where_no_whole_checksum_is_published_the_first_file_is_noted(server, offer, root, capsys, digits):
    offer("w", digits=digits)
    server.files["w"] = WEIGHTS
    path = download.fetch_weights("toy", progress=False)
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    assert (root / "weights" / "SHA256SUMS").read_text() == f"{digest}  toy.pth\n"
    assert f"toy.pth is published; from now on it must have {digest}" in capsys.readouterr().out
    download.fetch_weights("toy", progress=False)
    assert "published" not in capsys.readouterr().out
    path.unlink()
    server.files["w"] = WEIGHTS + b"!"
    expected = "..., the published one" if digits else f"{digest}, the one of the first download"
    with pytest.raises(ConnectionError, match=expected):
        download.fetch_weights("toy", progress=False)
    assert not path.exists()


def test_every_file_of_the_published_tables_is_known():
    """All 25 of OpenMMLab and 5 of PaddleSeg, by the row that they made; and both U²-Nets."""
    rows = {recipe.name: recipe for recipe in studies.all_recipes().values() if recipe.row}
    tables = {name for name, recipe in rows.items() if recipe.model in ("unet_s5_d16", "unet_paddle")}
    assert len(tables) == 30
    assert {weights.recipe for weights in PUBLISHED.values()} == {
        *tables,
        "duts-u2net",
        "duts-u2net-small",
    }
    assert len({weights.archive.name for weights in PUBLISHED.values()}) == len(PUBLISHED) == 32
    for name, weights in PUBLISHED.items():
        archive = weights.archive
        assert published_for(weights.recipe) == name
        assert all(address.startswith("https://") for address in (weights.home, *archive.addresses))
        assert {address.rpartition("/")[2] for address in archive.addresses} == {archive.name}
        if rows[weights.recipe].model == "unet_s5_d16":
            assert archive.name.endswith(f"-{archive.sha256}.pth") and len(archive.sha256) == 8
    with pytest.raises(LookupError, match=r"No weights of 'dis-vd-u2net' were published"):
        published_for("dis-vd-u2net")


def test_the_authors_files_are_known_by_their_published_checksums():
    whole = {name: weights.archive for name, weights in PUBLISHED.items() if "u2net" in name}
    known = {name: (archive.name, archive.sha256) for name, archive in whole.items()}
    assert known == {
        "u2net": ("u2net.pth", "10025a17f49cd3208afc342b589890e402ee63123d6f2d289a4a0903695cce58"),
        "u2net_small": ("u2netp.pth", "e7567cde013fb64813973ce6e1ecc25a80c05c3ca7adbc5a54f3c3d90991b854"),
    }
