"""The cards of the nets that ship: their numbers are the records', their lines of code run."""

import json
import re
import statistics

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image
from test_results import made_up

from u2learn import cards, cli, recipes, records, tables, tasks

PAGE = ROOT / "book" / "back" / "cards.md"


def rows(text: str) -> dict[str, list[str]]:
    """The lines of tables by their first cell."""
    lines = [line.replace("\N{NO-BREAK SPACE}", " ") for line in text.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {first: rest for first, *rest in cells}


def columns(text: str) -> dict[str, list[str]]:
    """The columns of the table of scores by the protocol at their top: the first score comes first."""
    table = rows(text)
    (start,) = (i for i, first in enumerate(table) if first == "score")
    lines = list(table.values())[start:]
    return dict(zip(lines[0], map(list, zip(*lines[2:], strict=True)), strict=True))


def test_every_net_that_ships_has_a_card_on_the_page():
    shipped = {path.stem for path in cards.ASSETS.glob("*.safetensors")}
    assert set(cards.SHIPPED) == shipped
    text = PAGE.read_text(encoding="utf-8")
    for name in shipped:
        assert f"<!-- card-{name}:begin -->\n{cards.card(name)}\n<!-- card-{name}:end -->" in text
    assert tables.fill(text) == text


@pytest.mark.parametrize("name", cards.SHIPPED)
def test_its_numbers_are_the_records(name):
    """Counted anew from the files in results/."""
    paths = (ROOT / "results").glob(f"{name}-seed?.json")
    files = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    found = rows(cards.card(name))
    main = "dice" if name == "drive-small" else "max_f"
    for protocol in files[0]["scores"]:
        values = [file["scores"][protocol][main] * (100 if main == "dice" else 1) for file in files]
        digits = 2 if main == "dice" else 3
        due = f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"
        assert columns(cards.card(name))[protocol][0] == due
    assert f"{files[0]['parameters']:,} parameters" in found["network"][0]
    assert f"{(cards.ASSETS / f'{name}.safetensors').stat().st_size:,} bytes" in found["file"][0]
    seconds = [file["cpu_seconds"] for file in files]
    assert f"{statistics.mean(seconds):.0f} ± {statistics.stdev(seconds):.0f} s" in found["training"][0]
    assert f"mean ± deviation of {len(files)} seeds" in cards.card(name)


def test_a_card_follows_the_records(tmp_path, monkeypatch):
    monkeypatch.setenv("U2LEARN_RECORDS", str(tmp_path))
    monkeypatch.setattr(records, "PACKAGE", tmp_path)  # none that came with the package
    records.forget()
    with pytest.raises(LookupError, match="There is no record of 'drive-small': run `u2learn reproduce"):
        cards.card("drive-small")
    made = made_up("drive-small", 0, 0.8) | {"speed": {"size": [584, 565]}}
    for scores in made["scores"].values():
        scores |= {"sensitivity": 0.75, "precision": 0.9}
    records.write_record("drive-small-seed0", made)
    assert "misses 25 % of the vessel pixels, and 10 % of what it marks" in cards.card("drive-small")
    found = columns(cards.card("drive-small"))
    assert found["image"][0] == "80.00" and "second human observer, image" not in found  # one seed: no spread
    human = {"scores": {protocol: {"dice": 0.7777} for protocol in tasks.PROTOCOLS}}
    records.write_record("drive-second-observer", human)
    assert columns(cards.card("drive-small"))["second human observer, image"][0] == "77.77"
    assert "to a Dice of 77.8 %, the net to 80.0 %" in cards.card("drive-small")


@pytest.mark.parametrize("name", cards.SHIPPED)
def test_its_three_lines_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = cards.SHIPPED[name]
    assert len([line for line in words.python.splitlines() if line]) == 3
    (file,) = re.findall(r'"(\w+\.png)"', words.python)
    picture = np.random.default_rng(0).integers(0, 256, (48, 56, 3), np.uint8)
    Image.fromarray(picture).save(file)
    names = {"Image": Image}
    exec(words.python, names)
    variable = words.python.splitlines()[-1].split()[0]
    assert names[variable].shape == (48, 56) and 0 <= names[variable].min() <= names[variable].max() <= 1


@pytest.mark.parametrize("name", cards.SHIPPED)
def test_its_three_commands_are_commands(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    commands = cards.SHIPPED[name].commands.splitlines()
    assert len(commands) == 3 and name in recipes.names()
    for command in commands:
        first, *arguments = command.split()
        options = cli._parser().parse_args(arguments)
        assert first == "u2learn"
        if weights := getattr(options, "weights", None):
            assert weights in cards.SHIPPED
