"""The shell of the project: what is installed, what is packed, what make and the style say."""

import ast
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import ORDER, ROOT
from hatchling.builders.wheel import WheelBuilder
from hatchling.metadata.core import ProjectMetadata
from hatchling.plugin.manager import PluginManager
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from PIL import Image

import u2learn
from tools import notebooks, picture

PROJECT = ProjectMetadata(str(ROOT), PluginManager()).core
PINS = [
    Requirement(line)
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if line[0] != "#"
]
PYTHONS = ["3.10", "3.11", "3.12", "3.13"]


def pinned(name: str) -> str:
    """The version of a library that constraints.txt has for this Python."""
    (pin,) = (p for p in PINS if p.name == name and (p.marker is None or p.marker.evaluate()))
    return next(iter(pin.specifier)).version


def test_code_is_linted():
    run_ruff("check", "--quiet")


def test_code_is_formatted():
    run_ruff("format", "--check")


def run_ruff(*options: str) -> None:
    command = [sys.executable, "-m", "ruff", *options, "--no-cache", "."]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("python", PYTHONS)
def test_every_requirement_is_pinned_within_its_bounds(python):
    environment = {"python_version": python, "python_full_version": f"{python}.9", "sys_platform": "linux"}
    pins = {p.name: p.specifier for p in PINS if p.marker is None or p.marker.evaluate(environment)}
    extras = ("metrics", "book", "test")
    required = [*PROJECT.dependencies, *(r for extra in extras for r in PROJECT.optional_dependencies[extra])]
    for requirement in map(Requirement, required):
        if requirement.name == PROJECT.name:  # one extra contains another
            assert requirement.extras <= {*extras}
            continue
        (pin,) = pins[requirement.name.lower()]
        assert pin.operator == "=="
        assert pin.version in requirement.specifier, f"{requirement} against {pin}"


def test_lower_bounds_only_where_colab_brings_its_own():
    operators = {spec.operator for r in PROJECT.dependencies for spec in Requirement(r).specifier}
    assert operators == {">="}


def test_the_package_requires_what_it_imports_and_nothing_else():
    """Imports inside of functions are not counted: these are of the extras, for those who call them."""

    def imported(statements: list[ast.stmt]) -> Iterator[str]:
        for node in statements:
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield node.module
            elif not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
                for part in ("body", "orelse", "handlers", "finalbody"):
                    if not isinstance(node, ast.FunctionDef):
                        yield from imported(getattr(node, part, []))

    package = Path(u2learn.__file__).parent
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in package.rglob("*.py")]
    names = {name.partition(".")[0] for tree in trees for name in imported(tree.body)}
    outside = names - sys.stdlib_module_names - {"u2learn"}
    installed = packages_distributions()
    libraries = {distribution for name in outside for distribution in installed[name]}
    assert {name.lower() for name in libraries} == {r.name for r in map(Requirement, PROJECT.dependencies)}


def test_the_oldest_versions_are_those_of_the_bounds():
    lines = (ROOT / ".github" / "oldest.txt").read_text(encoding="utf-8").splitlines()
    oldest = {r.name: r.specifier for r in (Requirement(line) for line in lines if line[0] != "#")}
    for requirement in map(Requirement, PROJECT.dependencies):
        (bound,), (pin,) = requirement.specifier, oldest.pop(requirement.name)
        assert f"{pin.version}.".startswith(f"{bound.version}."), f"{requirement} against {pin}"
    assert oldest == {}


def test_conda_environment_agrees_with_the_project():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    (python,) = [d for d in environment["dependencies"] if isinstance(d, str) and d.startswith("python")]
    allowed = SpecifierSet(python.removeprefix("python"))
    assert [v for v in PYTHONS if f"{v}.0" in allowed] == PYTHONS
    assert all(v in SpecifierSet(PROJECT.requires_python) for v in PYTHONS)
    assert "3.9" not in allowed
    (pip,) = [d["pip"] for d in environment["dependencies"] if isinstance(d, dict)]
    assert "pip" in environment["dependencies"]
    pins, editable = pip
    assert (ROOT / pins.removeprefix("-c ")).exists()
    extras = re.fullmatch(r"-e \.\[([\w,]+)\]", editable)[1].split(",")
    assert set(extras) <= set(PROJECT.optional_dependencies)
    assert f"-e '.[{','.join(extras)}]'" in (ROOT / "Makefile").read_text(encoding="utf-8"), (
        "make installs something else"
    )


def workflow(name: str) -> dict:
    text = (ROOT / ".github" / "workflows" / f"{name}.yml").read_text(encoding="utf-8")
    return yaml.safe_load(text)


def commands(job: dict) -> list[str]:
    return [step["run"] for step in job["steps"] if "run" in step]


def test_workflows_run_what_a_person_runs():
    test = workflow("test")
    matrix = test["jobs"]["test"]["strategy"]["matrix"]
    assert matrix["python"] == PYTHONS
    files = [*matrix["constraints"], *(row["constraints"] for row in matrix["include"])]
    assert files and all((ROOT / name).exists() for name in files)
    for content, target in ((test, "test"), (workflow("book"), "book")):
        steps = [run for job in content["jobs"].values() for run in commands(job)]
        assert any(step.startswith(f"make {target} ") for step in steps)


def test_the_quick_tests_are_those_without_a_mark():
    """The same wherever they are asked for, and no mark is forgotten."""
    marks = re.findall(r'^    "(\w+): ', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    unmarked = f'-m "not ({" or ".join(marks)})"'
    assert set(marks) == set(ORDER)
    assert unmarked in (ROOT / "Makefile").read_text(encoding="utf-8")
    quick = workflow("test")["jobs"]["quick"]
    assert commands(quick)[-1].endswith(unmarked)
    systems = {name.partition("-")[0] for name in quick["strategy"]["matrix"]["system"]}
    assert systems == {"ubuntu", "macos", "windows"}


@pytest.mark.parametrize("name", ["test", "book", "leaderboard"])
def test_workflows_may_read_alone_and_run_no_action_that_can_change(name):
    """Lint comes first, the whole last; an action is named by its commit, with its version behind it."""
    text = (ROOT / ".github" / "workflows" / f"{name}.yml").read_text(encoding="utf-8")
    uses = re.findall(r"uses: (.+)", text)
    assert len(uses) >= 2
    assert [line for line in uses if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)] == []
    content = workflow(name)
    assert content["permissions"] == {"contents": "read"}
    assert content["concurrency"]["group"]
    if name == "test":
        jobs = content["jobs"]
        assert (jobs["quick"]["needs"], jobs["test"]["needs"]) == ("lint", "quick")
        assert content[True]["schedule"], "`on` is a truth value in YAML"
        assert commands(jobs["newest"])[-1].endswith("CONSTRAINTS=")


def test_the_checks_before_a_commit_see_every_stored_notebook():
    settings = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    hooks = settings["repos"][0]["hooks"]
    (pattern,) = [re.compile(hook["files"]) for hook in hooks if hook["id"] == "notebooks"]
    stored = {path.relative_to(ROOT).as_posix() for glob in notebooks.STORED for path in ROOT.glob(glob)}
    every = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("[be]*/**/*.ipynb")}
    assert len(stored) > 20 and {name for name in every if pattern.search(name)} == stored


def test_the_wheel_has_code_assets_and_records(tmp_path):
    wheel = next(WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"]))
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
        metadata = archive.read(next(n for n in packed if n.endswith("METADATA"))).decode()
    package = Path(u2learn.__file__).parent
    for path in package.rglob("*"):
        if path.is_file() and path.suffix != ".pyc":
            assert path.relative_to(package.parent).as_posix() in packed
    for path in (ROOT / "results").rglob("*"):
        assert f"u2learn/_results/{path.relative_to(ROOT / 'results').as_posix()}" in packed
    assert all(name.startswith(("u2learn/", "u2learn-")) for name in packed), "something else is packed too"
    assert f"\nVersion: {u2learn.__version__}\n" in metadata


def test_the_command_line_is_declared():
    module, function = PROJECT.scripts["u2learn"].split(":")
    assert callable(getattr(__import__(module, fromlist=[function]), function))


def test_importing_the_package_loads_nothing_of_jupyter():
    code = "import sys, u2learn, u2learn.cli; print(sorted({m.partition('.')[0] for m in sys.modules}))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for name in (
        "matplotlib",
        "IPython",
        "ipywidgets",
        "torchvision",
        "scipy",
        "sklearn",
        "skimage",
        "cv2",
        "pandas",
    ):
        assert f"'{name}'" not in result.stdout


def test_links_of_the_readme_inside_the_project():
    for name in ("README.md", "CONTRIBUTING.md"):
        targets = re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / name).read_text(encoding="utf-8"))
        assert [t for t in targets if not (ROOT / t).exists()] == [], name


def test_the_picture_of_the_readme_is_what_the_code_draws(tmp_path):
    """After a change of the weights, or of how a net draws itself: make picture."""
    picture.main([str(tmp_path / "new.png")])
    new, stored = (np.asarray(Image.open(path), int) for path in (tmp_path / "new.png", picture.TARGET))
    assert new.shape == stored.shape
    assert np.abs(new - stored).mean() < 1  # grey levels; another release of matplotlib may move an edge


needs_make = pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")


@needs_make
def test_make_alone_lists_every_target():
    targets = set(
        re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)[
            1
        ].split()
    )
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"^  make (\w+)", listed, re.MULTILINE)) == targets


@needs_make
def test_an_old_python_is_refused_in_one_sentence(tmp_path):
    """Also in a folder with a space in its name, where nothing may be left behind."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    old = folder / "old python"
    old.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    old.chmod(0o755)
    result = subprocess.run(["make", "book", f"PYTHON={old}"], cwd=folder, capture_output=True, text=True)
    assert result.returncode != 0
    assert "needs Python 3.10 or newer" in result.stderr and str(old) in result.stderr
    assert not (folder / ".venv").exists()


def test_the_owner_of_the_data_folder_is_the_user():
    """No path of a machine in the project: data is found through U2LEARN_DATA alone."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    machine, beside = re.compile(r"(?<![\w.~/-])/(home|root|Users)/\w"), re.compile(r"\.\./shared")
    text = (".py", ".md", ".yml", ".toml", ".ipynb", ".txt", ".cff", ".css", ".json")
    paths = [ROOT / name for name in tracked.stdout.split("\0") if name.endswith(text)]
    texts = {path: path.read_text(encoding="utf-8") for path in paths if path.exists()}
    assert [path for path in texts if beside.search(texts[path])] == []
    ours = [path for path in texts if ROOT / "tests" not in path.parents]  # tests make such paths up
    assert [path for path in ours if machine.search(texts[path])] == []
