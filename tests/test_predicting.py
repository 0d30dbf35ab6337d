"""`u2learn predict`: every good picture is done, every bad one is named, and nothing is lost."""

import dataclasses
import gzip
import os
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, features

import u2learn
from u2learn import cli, devices, predicting
from u2learn.data.cityscapes import PALETTE
from u2learn.data.example import read_image
from u2learn.inference import fast, load_model, save_model, segment
from u2learn.predicting import overlaid, palette_of, predict_files
from u2learn.recipe import Recipe

RNG = np.random.default_rng(0)
BINARY = Recipe("tiny", "synthetic", "unet_small", model_options={"width": 4, "depth": 3})
CLASSES = Recipe("many", "streets", "unet_small", model_options={"width": 4, "depth": 3}, num_classes=19)
SALIENT = Recipe("map", "objects", "u2net_small", num_classes=1, square=32, crop=(32, 32), loss="u2net")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights files by task: untrained nets, whose answers differ from pixel to pixel."""
    folder, files = tmp_path_factory.mktemp("weights"), {}
    for recipe in (BINARY, CLASSES, SALIENT):
        model = recipe.build_model().eval()
        if recipe is not SALIENT:
            torch.nn.init.normal_(model.head.weight, std=30)
        save_model(files.setdefault(recipe.task, folder / f"{recipe.name}.safetensors"), model, recipe)
    return files


@pytest.fixture
def net(weights):
    return load_model(weights["binary"])


def picture(size=(21, 33), mode="RGB") -> Image.Image:
    return Image.fromarray(RNG.integers(0, 256, (*size, 3), np.uint8)).convert(mode)


def save(path: Path, size=(21, 33), mode="RGB", **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(size, mode).save(path, **options)
    return path


def run(*arguments: object) -> None:
    cli.main(["predict", *map(str, arguments)])


def failure(*arguments: object) -> str:
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    assert isinstance(stop.value.code, str) and stop.value.code.startswith("u2learn: ")
    return stop.value.code


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# --- a folder as people have them ---------------------------------------------------------------------------


def fill(folder: Path) -> tuple[dict[str, tuple[int, int]], list[str]]:
    """Forty files of all kinds. Returns the good ones with their size (height, width), and the bad ones."""
    good = {}

    def keep(name, image, **options):
        image.save(folder / name, **options)
        good[name] = image.size[::-1]

    for mode in ("RGB", "L", "P", "1", "RGBA", "LA"):
        keep(f"mode {mode}.png", picture(mode=mode))
    clear = picture(mode="P")
    keep("clear index.png", clear, transparency=3)
    for ending in ("png", "tif"):
        keep(f"16-bit.{ending}", Image.fromarray(RNG.integers(0, 65536, (21, 33), np.uint16)))
    for mode in ("CMYK", "YCbCr", "LAB"):
        keep(f"{mode}.tif", picture(mode=mode))
    keep("cmyk.jpg", picture(mode="CMYK"))
    for name in ("UPPER.PNG", "PHOTO.JPG", "Scan.TIFF", "größe.png", "Füße.jpg", "目.png", "with blank.bmp"):
        keep(name, picture())
    keep(unicodedata.normalize("NFD", "Übung.png"), picture())
    keep("camera.jfif", picture(), format="JPEG")
    keep("one.gif", picture(mode="P"))
    keep("flat.ppm", picture())
    keep("1x1.png", picture((1, 1)))
    keep("1x300.png", picture((1, 300)))
    keep("huge.png", picture((1100, 900)))
    for ending in ("jpg", "png", "bmp"):
        keep(f"same.{ending}", picture((20, 30 + len(good))))
    if features.check("webp"):
        keep("photo.webp", picture())
    if features.check("jpg_2000"):
        keep("photo.jp2", picture())
    turned = picture((20, 44))
    exif = turned.getexif()
    exif[0x0112] = 6
    keep("turned.jpg", turned, exif=exif)
    good["turned.jpg"] = (44, 20)
    (folder / "packed.ppm.gz").write_bytes(gzip.compress((folder / "flat.ppm").read_bytes()))
    good["packed.ppm.gz"] = (21, 33)

    whole = (folder / "PHOTO.JPG").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.jpeg").write_text("no picture at all", encoding="utf-8")
    (folder / "page.webp").write_text("<!DOCTYPE html><html></html>", encoding="utf-8")
    (folder / "broken.png").write_bytes((folder / "mode RGB.png").read_bytes().replace(b"IDAT", b"JDAT"))
    (folder / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(400))
    picture().save(folder / "two pages.tif", save_all=True, append_images=[picture()])
    picture(mode="P").save(folder / "film.gif", save_all=True, append_images=[picture(mode="P")])
    Image.new("1", (20_000, 20_000)).save(folder / "bomb.png")
    Image.new("1", (10_000, 10_000)).save(folder / "large.png")
    bad = ["cut.jpg", "empty.png", "text.jpeg", "page.webp", "broken.png", "phone.heic"]
    return good, [*bad, "two pages.tif", "film.gif", "bomb.png", "large.png"]


def test_a_folder_of_forty_mixed_files(tmp_path, weights, capsys):
    folder, maps = tmp_path / "photos", tmp_path / "maps"
    folder.mkdir()
    good, bad = fill(folder)
    save(folder / "x.png" / "inside.png")
    (folder / "notes.txt").write_text("left out", encoding="utf-8")
    (folder / ".DS_Store").write_bytes(b"hidden")
    assert len(good) + len(bad) >= 40

    message = failure(folder, "--weights", weights["binary"], "--output", maps)
    first, *reasons = message.splitlines()
    assert first == f"u2learn: {len(good)} done, 2 left out, {len(bad)} failed:"
    assert len(reasons) == len(bad)
    for name in bad:
        assert sum(f"{name}" in reason for reason in reasons) == 1, name
    for name in ("bomb.png", "large.png"):
        (reason,) = (reason for reason in reasons if name in reason)
        assert "too large" in reason and "million pixels" in reason
    said = capsys.readouterr()
    assert "notes.txt (not the ending" in said.err and "x.png (a folder; --recursive" in said.err
    assert "DS_Store" not in said.err

    stems = [Path(name.removesuffix(".gz")).stem for name in (*good, *bad)]
    alike = {stem for stem in stems if [each.lower() for each in stems].count(stem.lower()) > 1}
    assert {"same", "16-bit"} <= alike  # these keep their endings
    expected = {
        name: name if stem in alike else stem for name, stem in zip((*good, *bad), stems, strict=True)
    }
    due = {f"{expected[name]}-{ending}.png" for name in good for ending in ("probability", "mask")}
    assert len(due) == 2 * len(good) and names(maps) == due
    assert {Path(line).name for line in said.out.splitlines()} == due
    model, recipe = load_model(weights["binary"])
    model = fast(model)  # as the command has it: at the threshold, rounding decides
    for name, size in good.items():
        mask = np.asarray(Image.open(maps / f"{expected[name]}-mask.png"))
        assert mask.shape == size
        assert ((mask == 255) == (segment(model, read_image(folder / name), recipe)[1] > 0.5).numpy()).all()

    # And once more: nothing is left to do.
    before = {path: path.stat().st_mtime_ns for path in maps.iterdir()}
    first = failure(folder, "--weights", weights["binary"], "--output", maps).splitlines()[0]
    assert first.startswith(f"u2learn: 0 done, {len(good)} there already")
    assert {path: path.stat().st_mtime_ns for path in maps.iterdir()} == before
    assert not capsys.readouterr().out


# --- going on, and losing nothing ---------------------------------------------------------------------------


def test_a_call_that_was_stopped_goes_on(tmp_path, weights, monkeypatch):
    for i in range(4):
        save(tmp_path / "photos" / f"{i}.png")
    read = []

    def reading(path, *rest):
        if len(read) == 2:
            raise KeyboardInterrupt
        return read.append(path) or read_image(path, *rest)

    monkeypatch.setattr(predicting, "read_image", reading)
    arguments = (tmp_path / "photos", "--weights", weights["binary"], "--output", tmp_path / "maps")
    assert "goes on with what is left" in failure(*arguments)
    assert names(tmp_path / "maps") == {f"{i}-{e}.png" for i in (0, 1) for e in ("mask", "probability")}
    (tmp_path / "maps" / "1-mask.png").unlink()  # as if it had been stopped between the two
    old = (tmp_path / "maps" / "0-mask.png").stat().st_mtime_ns
    monkeypatch.setattr(predicting, "read_image", lambda *how: read.append(how[0]) or read_image(*how))
    run(*arguments)
    assert [path.name for path in read] == ["0.png", "1.png", "1.png", "2.png", "3.png"]
    assert len(names(tmp_path / "maps")) == 8
    assert (tmp_path / "maps" / "0-mask.png").stat().st_mtime_ns == old


def test_nothing_is_overwritten_unless_asked_for(tmp_path, net):
    path, mine = save(tmp_path / "eye.png"), tmp_path / "eye-mask.png"
    mine.write_bytes(b"by hand")
    maps = tmp_path / "maps"
    maps.mkdir()
    (maps / "eye-mask.png").write_bytes(b"by hand")
    predict_files([path], maps, *net)
    assert (maps / "eye-mask.png").read_bytes() == b"by hand" and (maps / "eye-probability.png").exists()
    summary = predict_files([path], maps, *net)
    assert summary.there == [path] and not summary.done
    assert str(summary) == "0 done, 1 there already (--overwrite makes them anew)."
    assert predict_files([path], maps, *net, overwrite=True).done == [path]
    assert Image.open(maps / "eye-mask.png").size == (33, 21)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_picture_to_predict_is_never_written_over(tmp_path, net, overwrite):
    """A mask that somebody drew, beside its picture, and the maps are to go there, too."""
    eye, drawn = save(tmp_path / "eye.png"), save(tmp_path / "eye-mask.png", mode="L")
    before = drawn.read_bytes()
    summary = predict_files([tmp_path], tmp_path, *net, overwrite=overwrite)
    assert drawn.read_bytes() == before and summary.done == [drawn]
    assert list(summary.failed) == [eye] and "eye-mask.png is to be predicted, too" in summary.failed[eye]
    assert predict_files([tmp_path], tmp_path / "maps", *net).done == [drawn, eye]


def test_what_was_made_here_is_not_predicted_in_the_next_call(tmp_path, net, monkeypatch):
    """`predict *.png`, twice, in one folder."""
    monkeypatch.chdir(tmp_path)
    save(Path("eye.png"))
    assert predict_files(Path().glob("*.png"), Path(), *net, cutout=True).done == [Path("eye.png")]
    for overwrite in (False, True):
        summary = predict_files(sorted(Path().glob("*.png")), Path(), *net, overwrite=overwrite)
        assert summary.done + summary.there == [Path("eye.png")] and not summary.failed
        assert {path.name for path in summary.left_out} == {
            f"eye-{e}.png" for e in ("mask", "probability", "cutout")
        }


def test_a_disk_that_is_full_leaves_no_half_a_file(tmp_path, net, monkeypatch):
    path = save(tmp_path / "eye.png")

    def full(picture, target, *_, **__):
        Path(target).write_bytes(b"half")
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(Image.Image, "save", full)
    summary = predict_files([path], tmp_path / "maps", *net)
    assert "No space left" in summary.failed[path] and str(path) in summary.failed[path]
    assert names(tmp_path / "maps") == set()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "not enough memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 80 GiB.\nMore."), "not enough memory"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
            "not enough memory",
        ),
        (ZeroDivisionError("by zero"), "ZeroDivisionError: by zero"),
    ],
)
def test_whatever_happens_to_one_picture_the_others_are_predicted(tmp_path, net, monkeypatch, error, words):
    paths = [save(tmp_path / f"{i}.png") for i in range(3)]

    def read(path, *rest):
        if path == paths[1]:
            raise error
        return read_image(path, *rest)

    monkeypatch.setattr(predicting, "read_image", read)
    summary = predict_files(paths, tmp_path / "maps", *net)
    assert summary.done == [paths[0], paths[2]] and list(summary.failed) == [paths[1]]
    assert summary.failed[paths[1]].startswith(f"{paths[1]}: ") and words in summary.failed[paths[1]]
    assert "\n" not in summary.failed[paths[1]]


# --- files, folders, patterns and names ---------------------------------------------------------------------


def test_patterns_that_the_shell_did_not_expand(tmp_path, weights, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("a.jpg", "b.jpg", "c.png", "[d].jpg", "below/e.jpg"):
        save(Path("photos", name))
    run("photos/*.jpg", "--weights", weights["binary"], "--output", "maps")
    assert {path.partition("-")[0] for path in names(Path("maps"))} == {"a", "b", "[d]"}
    run("photos/[d].jpg", "--weights", weights["binary"], "--output", "one")  # a file, whatever its name
    assert {path.partition("-")[0] for path in names(Path("one"))} == {"[d]"}
    run("photos/**/*.jpg", "--weights", weights["binary"], "--output", "all")
    assert len(names(Path("all"))) == 8
    message = failure("photos/*.tif", "nowhere.png", "photos/c.png", "--weights", weights["binary"])
    assert "1 done, 2 failed:" in message
    assert (
        "*.tif: nothing matches this pattern" in message and "nowhere.png: there is no such file" in message
    )


def test_folders_below_keep_their_place(tmp_path, net):
    photos = tmp_path / "photos"
    for name in ("eye.png", "left/eye.png", "right/eye.png", "right/old/eye.jpg", ".cache/eye.png"):
        save(photos / name)
    flat = predict_files([photos], tmp_path / "flat", *net)
    assert len(flat.done) == 1 and set(flat.left_out) == {photos / "left", photos / "right"}
    deep = predict_files([photos], tmp_path / "deep", *net, recursive=True)
    assert len(deep.done) == 4 and not deep.failed
    assert {name for name in names(tmp_path / "deep") if "mask" in name} == {
        "eye-mask.png",
        "left/eye-mask.png",
        "right/eye-mask.png",
        "right/old/eye-mask.png",
    }


def test_maps_inside_of_the_folder_are_not_predicted(tmp_path, net):
    save(tmp_path / "eye.png")
    for _ in range(2):
        summary = predict_files([tmp_path], tmp_path / "maps", *net, recursive=True)
        assert len(summary.done) + len(summary.there) == 1 and not summary.left_out
    assert len(names(tmp_path / "maps")) == 2
    assert not predict_files([tmp_path], tmp_path / "maps", *net).left_out  # no advice to descend into it


@pytest.mark.parametrize(
    ("files", "due"),
    [
        (["a.jpg", "a.png", "b.png"], {"a.jpg", "a.png", "b"}),
        (["a.jpg", "A.png"], {"a.jpg", "A.png"}),
        (["left/eye.png", "right/eye.png"], {"left-eye.png", "right-eye.png"}),
        (["x/one/eye.png", "y/one/eye.png"], {"x-one-eye.png", "y-one-eye.png"}),
        (["a.jpg", "a.png", "a.jpg.png"], {"a.png", "a.jpg", "a.jpg.png"}),
        (["ü.png", "u\u0308.jpg"], {"ü.png", "u\u0308.jpg"}),
        (["eye.png", "./eye.png", "x/../eye.png"], {"eye"}),
    ],
)
def test_no_two_pictures_have_maps_of_one_name(tmp_path, net, files, due):
    (tmp_path / "x").mkdir()
    for file in files:
        save(tmp_path / file)
    summary = predict_files([tmp_path / file for file in files], tmp_path / "maps", *net)
    assert not summary.failed
    assert {name.removesuffix("-mask.png") for name in names(tmp_path / "maps") if "mask" in name} == due


def test_names_that_differ_in_case_alone_get_numbers(tmp_path):
    """On a disk that knows no case one would be lost."""
    sources = [predicting.Source(tmp_path / name) for name in ("eye.png", "EYE.png", "Eye.PNG")]
    found = predicting._names(sources)
    assert len({str(name).casefold() for name in found}) == 3 and found[0] == Path("eye.png")


def test_photographs_of_other_formats_fail_and_other_files_are_left_out(tmp_path, net):
    save(tmp_path / "eye.png")
    files = {
        "phone.HEIC": b"\0\0\0\x18ftypheic",
        "raw.cr2": b"raw",
        "paper.pdf": b"%PDF",
        "table.csv": b"1,2",
    }
    for name, text in files.items():
        (tmp_path / name).write_bytes(text)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")  # whoever opens it would wait for ever
        (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
        due_elsewhere = predict_files([tmp_path], tmp_path / "maps", *net)
        assert "no such file" in due_elsewhere.failed[tmp_path / "gone.png"]
        assert tmp_path / "pipe" in due_elsewhere.left_out
        (tmp_path / "gone.png").unlink()
        (tmp_path / "pipe").unlink()
    summary = predict_files([tmp_path], tmp_path / "maps", *net)
    assert {path.name: "HEIC" in text for path, text in summary.failed.items()} == {
        "phone.HEIC": True,
        "raw.cr2": False,
    }
    assert {path.name: "PDF" in text for path, text in summary.left_out.items()} == {
        "paper.pdf": True,
        "table.csv": False,
    }
    assert summary.done + summary.there == [tmp_path / "eye.png"]


def test_pictures_are_read_as_those_of_the_training(tmp_path):
    """In one range of stored values, and with its channels, as those of a microscope."""
    recipe = dataclasses.replace(BINARY, levels=(100.0, 900.0), channels=1, normalisation="image")
    model = recipe.build_model().eval()
    torch.nn.init.normal_(model.head.weight, std=30)
    deep = RNG.integers(0, 1000, (21, 33), np.uint16)
    Image.fromarray(deep).save(path := tmp_path / "cells.tif")
    predict_files([path], tmp_path / "maps", model, recipe, overlay=True)
    eight = np.rint((deep.astype(float) - 100) * 255 / 800).clip(0, 255).astype(np.uint8)
    due = (segment(model, eight[None], recipe)[1] > 0.5).numpy()
    assert np.array_equal(np.asarray(Image.open(tmp_path / "maps" / "cells-mask.png")) == 255, due)
    assert torch.equal(segment(model, Image.open(path), recipe), segment(model, eight[None], recipe))
    assert Image.open(tmp_path / "maps" / "cells-overlay.png").mode == "RGB"


def test_an_empty_folder_is_named(tmp_path, net):
    (tmp_path / "x.png").mkdir()
    summary = predict_files([tmp_path / "x.png"], tmp_path, *net)
    assert "x.png: there is no picture in this folder" in summary.failed[tmp_path / "x.png"]


# --- what is made -------------------------------------------------------------------------------------------


def test_cut_outs_and_overlays_on_the_command_line(tmp_path, weights, capsys):
    path = save(tmp_path / "thing.png", (40, 50), "RGBA")
    for task, kind in (("binary", "probability"), ("saliency", "saliency")):
        maps = tmp_path / task
        run(path, "--weights", weights[task], "--output", maps, "--cutout", "--overlay")
        assert names(maps) == {f"thing-{e}.png" for e in (kind, "mask", "cutout", "overlay")}
        cut, over = (np.asarray(Image.open(maps / f"thing-{e}.png")) for e in ("cutout", "overlay"))
        mask, photo = np.asarray(Image.open(maps / "thing-mask.png")), read_image(path).transpose(1, 2, 0)
        assert cut.shape == (40, 50, 4) and over.shape == (40, 50, 3)
        assert ((cut[..., 3] > 127) == (mask == 255)).mean() > 0.98
        assert np.array_equal(cut[cut[..., 3] == 255, :3], photo[cut[..., 3] == 255])
        assert (cut[cut[..., 3] == 0] == 0).all()
        assert np.array_equal(over[mask == 0], photo[mask == 0])
        tinted = (photo.astype(int) + predicting.TINT) / 2
        assert np.abs(over - tinted)[mask == 255].max(initial=0) <= 2
    message = failure(path, "--weights", weights["classes"], "--output", tmp_path / "no", "--cutout")
    assert "several classes" in message and "--cutout" in message and not (tmp_path / "no").exists()


def test_classes_have_the_colours_of_their_set(tmp_path, weights):
    path = save(tmp_path / "street.jpg", (40, 50))
    run(path, "--weights", weights["classes"], "--output", tmp_path / "maps", "--overlay")
    made = Image.open(tmp_path / "maps" / "street-classes.png")
    model, recipe = load_model(weights["classes"])
    ids = segment(fast(model), read_image(path), recipe).argmax(0).numpy()
    assert made.mode == "P" and np.array_equal(np.asarray(made), ids) and len(np.unique(ids)) > 2
    assert np.array_equal(np.asarray(made.convert("RGB")), np.array(PALETTE)[ids])
    over = np.asarray(Image.open(tmp_path / "maps" / "street-overlay.png")).astype(int)
    half = (read_image(path).transpose(1, 2, 0) + np.array(PALETTE)[ids]) / 2
    assert np.abs(over - half).max() <= 2


def test_palettes():
    many = Recipe("many", "own", "unet_small", num_classes=60)
    colours = palette_of(many)
    assert len(set(colours)) == 60 and colours[:19] == PALETTE
    assert all(0 <= value <= 255 for colour in colours for value in colour)
    own = Recipe(
        "own", "own", "unet_small", num_classes=3, data_options={"palette": [[0, 0, 0], [1, 2, 3], [9, 9, 9]]}
    )
    assert palette_of(own) == ((0, 0, 0), (1, 2, 3), (9, 9, 9))
    assert palette_of(BINARY) == palette_of(SALIENT) == ()
    grey = overlaid(Image.new("RGB", (2, 1), "white"), torch.tensor([[0, 1]], dtype=torch.uint8))
    assert np.asarray(grey)[0, 0].tolist() == [255] * 3 and np.asarray(grey)[0, 1].tolist() != [255] * 3


def test_a_map_is_stretched_for_the_authors_weights_or_by_flag_only(tmp_path, weights):
    black = tmp_path / "black.png"
    Image.new("RGB", (40, 30)).save(black)
    torch.manual_seed(0)
    net = u2learn.u2net_small(mid_channels=2, out_channels=4)
    torch.save(u2learn.to_official(net), tmp_path / "net.pth")
    reach = {}
    for source in (weights["saliency"], tmp_path / "net.pth"):
        for flag in ("", "--as-published", "--no-as-published"):
            maps = tmp_path / f"{source.stem}{flag}"
            run(black, "--weights", source, "--output", maps, *filter(None, [flag]))
            grey = np.asarray(Image.open(maps / "black-saliency.png")).astype(int)
            reach[source.stem, flag] = grey.max() - grey.min()
    own, theirs = (
        [reach[stem, flag] > 20 for flag in ("", "--as-published", "--no-as-published")]
        for stem in ("map", "net")
    )
    assert own == [False, True, False] and theirs == [True, True, False]


# --- words and devices --------------------------------------------------------------------------------------


def test_the_net_that_ships_says_what_it_marks(tmp_path, weights, capsys):
    path = save(tmp_path / "cell.png")
    run(path, "--output", tmp_path / "shipped")
    assert capsys.readouterr().err == "No --weights: the net that ships marks retinal vessels.\n"
    for task in weights:
        run(path, tmp_path, "--weights", weights[task], "--output", tmp_path / task)
        said = capsys.readouterr()
        assert "vessel" not in (said.out + said.err).lower()


def test_the_summary_counts(tmp_path, weights, capsys):
    for i in range(3):
        save(tmp_path / "photos" / f"{i}.png")
    run(tmp_path / "photos", "--weights", weights["binary"], "--output", tmp_path / "maps")
    assert capsys.readouterr().err.splitlines()[-1] == "3 done."
    save(tmp_path / "photos" / "4.png")
    (tmp_path / "photos" / "bad.png").write_bytes(b"bad")
    message = failure(tmp_path / "photos", "--weights", weights["binary"], "--output", tmp_path / "maps")
    assert message.startswith("u2learn: 1 done, 3 there already (--overwrite makes them anew), 1 failed: ")
    assert "bad.png" in message and "\n" not in message


def test_the_device_is_the_gpu_if_there_is_one(tmp_path, weights, monkeypatch):
    asked = []
    monkeypatch.setattr(devices, "pick_device", lambda device: asked.append(device) or "cpu")
    path = save(tmp_path / "eye.png")
    run(path, "--weights", weights["binary"], "--output", tmp_path)
    run(path, "--weights", weights["binary"], "--output", tmp_path, "--device", "cuda:1")
    assert asked == [None, "cuda:1"]
    monkeypatch.undo()
    assert "no device 'nonsense'" in failure(path, "--weights", weights["binary"], "--device", "nonsense")


@pytest.mark.parametrize("most", [2, 1])
def test_pictures_go_in_together_and_one_by_one_where_that_fails(tmp_path, weights, most):
    """As when a GPU has memory for fewer; what is wrong with one file is no matter of the others."""
    model, recipe = load_model(weights["saliency"])
    paths = [save(tmp_path / f"{i}.png", (20 + i, 31)) for i in range(5)]
    paths[1].write_bytes(b"broken")
    alone = predict_files(paths, tmp_path / "alone", model, recipe)
    sizes = []

    def see(module, inputs):
        if len(inputs[0]) > most:
            raise torch.OutOfMemoryError("out of memory")
        sizes.append(len(inputs[0]))

    model.register_forward_pre_hook(see)
    together = predict_files(paths, tmp_path / "together", model, recipe, batch=2)
    assert sizes == ([1, 1, 2, 1] if most == 2 else [1] * 5)  # the first is tried on a grey picture
    assert together.done == alone.done == [paths[i] for i in (0, 2, 3, 4)]
    assert together.failed.keys() == {paths[1]}
    for name in names(tmp_path / "alone"):
        ours, due = (np.array(Image.open(tmp_path / way / name), int) for way in ("together", "alone"))
        assert ours.shape == due.shape and abs(ours - due).max() <= (1 if "saliency" in name else 255)
        assert (ours != due).mean() < 0.02
    with pytest.raises(ValueError, match="at least 1, not 0"):
        predict_files(paths, tmp_path / "none", model, recipe, batch=0)


def test_a_batch_is_asked_for_on_the_command_line(tmp_path, weights, monkeypatch):
    asked = []
    monkeypatch.setattr(cli, "predict_files", lambda *how, **rest: asked.append(rest) or predicting.Summary())
    path = save(tmp_path / "a.png")
    run(path, "--weights", weights["saliency"], "--batch", 8)
    run(path, "--weights", weights["saliency"])
    assert [each["batch"] for each in asked] == [8, 1]


def test_a_bar_shows_how_far_it_is_on_a_terminal(tmp_path, net, monkeypatch):
    class Terminal:
        encoding, text = "utf-8", ""

        def isatty(self):
            return True

        def write(self, text):
            self.text += text

        def flush(self):
            pass

    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    predict_files([save(tmp_path / f"{i}.png") for i in range(3)], tmp_path / "maps", *net)
    assert "predicting" in terminal.text and "3/3" in terminal.text
    terminal.text = ""
    predict_files([tmp_path / "0.png"], tmp_path / "other", *net)
    assert terminal.text == ""
