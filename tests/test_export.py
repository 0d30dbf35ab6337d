"""Exported graphs: the same maps as in PyTorch, at any size, from a file that says what it is."""

import dataclasses
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from conftest import ROOT

from u2learn import export as exports
from u2learn import pretrained, recipes, saliency, segment
from u2learn.cli import main
from u2learn.inference import save_model
from u2learn.models.u2net import U2Net
from u2learn.recipe import Recipe

SIZES = ((97, 131), (64, 64), (333, 250), (33, 47))


def noise(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def small(**changes) -> Recipe:
    """A recipe of a small net of two maps, wide enough to see a change in any of them."""
    values = {
        "name": "tiny",
        "dataset": "synthetic",
        "model": "unet_small",
        "model_options": {"width": 2, "depth": 2},
        "normalisation": "image",
        "long_side": 90,
    }
    return Recipe(**values | changes)


@pytest.fixture(scope="module")
def things():
    return pretrained("objects-small")


# --- the module that is exported ----------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("normalisation", ["image", "half", "imagenet"])
def test_a_segmentation_net_gives_what_segment_gives(size, normalisation):
    recipe = small(normalisation=normalisation)
    model, photograph = recipe.build_model().eval(), noise(3, *size)
    found = exports.FromPhotograph(model, recipe)(photograph[None])[0]
    torch.testing.assert_close(found, segment(model, photograph, recipe), atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stretch", [True, False])
def test_a_saliency_net_gives_what_saliency_gives(things, size, stretch):
    model, recipe = things
    recipe = dataclasses.replace(recipe, stretch=stretch)
    photograph = noise(3, *size)
    with torch.inference_mode():
        found = exports.FromPhotograph(model, recipe)(photograph[None])[0]
    due = saliency(model, photograph, as_published=stretch, side=recipe.square)
    # Pillow rounds to 8 bits after the rows, and once more after the columns
    assert (found - due).abs().max() <= (2.01 / 255 if stretch else 1e-5)


def test_a_flat_photograph_and_a_flat_map_are_no_division_by_zero(things):
    model, recipe = things
    black = torch.zeros(1, 3, 40, 50, dtype=torch.uint8)
    with torch.inference_mode():
        for stretch in (True, False):
            found = exports.FromPhotograph(model, dataclasses.replace(recipe, stretch=stretch))(black)
            assert found.isfinite().all()
    assert exports.stretched(torch.full((2, 1, 4, 4), 0.3), (8, 8)).eq(0).all()


# --- the files ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[".onnx", ".pt2"])
def written(request, tmp_path_factory):
    """A small net's file with all its maps, with the function that runs it, its module, and its recipe."""
    if request.param == ".onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    path = tmp_path_factory.mktemp("export") / f"net{request.param}"
    recipe = small()
    torch.manual_seed(0)
    model = recipe.build_model().eval()
    difference = exports.export(model, recipe, path, every=True)
    assert difference < 1e-5
    run = exports._run_onnx if request.param == ".onnx" else exports._run_pt2
    return path, run(path), exports.FromPhotograph(model, recipe, every=True).eval(), recipe


@pytest.mark.parametrize(
    "shape", [(2, 97, 131), (1, 64, 64), (1, 333, 250), (3, 33, 47), (1, 2, 2), (1, 9, 500)]
)
def test_a_file_gives_the_maps_of_the_model_at_any_size(written, shape):
    path, run, whole, _ = written
    if path.suffix == ".pt2" and min(shape[1:]) < 10:
        with pytest.raises(AssertionError, match="Guard failed"):
            run(noise(shape[0], 3, *shape[1:]))  # PyTorch's graph refuses maps of a single row
        return
    photographs = noise(shape[0], 3, *shape[1:])
    with torch.inference_mode():
        due = whole(photographs)
    found = run(photographs)
    assert len(found) == len(due) == 1
    for ours, theirs in zip(due, found, strict=True):
        torch.testing.assert_close(theirs, ours, atol=2e-5, rtol=0)


def test_each_photograph_of_a_batch_is_normalised_for_itself(written):
    _, run, *_ = written
    bright, dark = noise(1, 3, 40, 60), noise(1, 3, 40, 60) // 4
    together = run(torch.cat([bright, dark]))[0]
    apart = torch.cat([run(bright)[0], run(dark)[0]])
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=0)


def test_a_file_says_what_it_is(written):
    path, _, _, recipe = written
    if path.suffix == ".pt2":
        with zipfile.ZipFile(path) as file:  # to load it once more takes longer than all that is asked here
            said = {n.split("/extra/")[1]: file.read(n) for n in file.namelist() if "/extra/" in n}
    else:
        import onnxruntime

        session = onnxruntime.InferenceSession(path)
        said = session.get_modelmeta().custom_metadata_map
        assert [(x.name, x.type, x.shape) for x in session.get_inputs()] == [
            ("photograph", "tensor(uint8)", ["batch", 3, "height", "width"])
        ]
        assert [(x.name, x.shape) for x in session.get_outputs()] == [
            ("probabilities", ["batch", 2, "height", "width"])
        ]
    said = {k: v.decode() if isinstance(v, bytes) else v for k, v in said.items()}
    assert said == exports.metadata(recipe) and Recipe.from_json(said["recipe"]) == recipe
    assert said["classes"].splitlines() == ["background", "foreground"]


def test_a_file_that_gives_something_else_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(exports, "_write_pt2", lambda whole, path: path.write_text("a graph"))
    monkeypatch.setattr(
        exports, "_run_pt2", lambda path: lambda x: [torch.full((len(x), 2, *x.shape[2:]), 0.9)]
    )
    path = tmp_path / "net.pt2"
    path.write_text("what stood there")
    with pytest.raises(RuntimeError, match=r"was not written: what it gives is up to 0\.[4-9]"):
        exports.export(small().build_model(), small(), path)
    assert path.read_text() == "what stood there" and list(tmp_path.iterdir()) == [path]


def test_the_ending_decides_and_a_missing_library_is_named(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"the ending says the format: \.onnx, or \.pt2"):
        exports.export(small().build_model(), small(), tmp_path / "net.pb")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"needs onnxruntime.*pip install 'u2learn\[onnx\]'"):
        exports.export(small().build_model(), small(), tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


def test_names_of_classes():
    assert exports.class_names(recipes.get("cityscapes-fcn-ce"))[:2] == ("road", "sidewalk")
    assert exports.class_names(recipes.get("ecssd-u2net")) == ("object",)
    own = small(num_classes=3, data_options={"classes": ("soil", "root", "stone")})
    assert exports.class_names(own) == ("soil", "root", "stone")


# --- the command --------------------------------------------------------------------------------------------


def test_the_command_writes_a_file_that_runs_without_torch(tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    path, recipe = tmp_path / "vessels.onnx", small(views="hvt")
    torch.manual_seed(0)
    model = recipe.build_model().eval()
    save_model(tmp_path / "net.safetensors", model, recipe)
    main(["export", str(tmp_path / "net.safetensors"), str(path)])
    told = capsys.readouterr().out
    assert f"Written: {path}, 0." in told and "away from PyTorch" in told
    assert "without the 8 views of the recipe's test" in told
    photograph = noise(3, 70, 81).numpy()
    np.save(tmp_path / "photograph.npy", photograph)
    script = (
        "import sys, numpy, onnxruntime\n"
        "sys.modules['torch'] = None\n"
        f"session = onnxruntime.InferenceSession({str(path)!r})\n"
        f"photograph = numpy.load({str(tmp_path / 'photograph.npy')!r})\n"
        "found = session.run(None, {'photograph': photograph[None]})[0]\n"
        f"numpy.save({str(tmp_path / 'found.npy')!r}, found)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)
    due = segment(model, photograph, dataclasses.replace(recipe, views=""))
    np.testing.assert_allclose(np.load(tmp_path / "found.npy")[0], due.numpy(), atol=1e-4)


def test_all_maps_of_a_nested_u(tmp_path, things):
    pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    model = U2Net([(3, 3, 4, 8, False), (2, 8, 4, 8, True)], [(3, 16, 4, 8, False)]).eval()
    _, recipe = things
    path = tmp_path / "things.onnx"
    assert exports.export(model, recipe, path, every=True) <= exports.allowed(recipe)
    photograph = noise(1, 3, 61, 90)
    found = exports._run_onnx(path)(photograph)
    with torch.inference_mode():
        due = exports.FromPhotograph(model, recipe, every=True)(photograph)
    assert len(found) == len(due) == 3 and not torch.equal(found[1], found[2])
    for ours, theirs in zip(due, found, strict=True):
        assert (ours - theirs).abs().max() <= exports.allowed(recipe)
