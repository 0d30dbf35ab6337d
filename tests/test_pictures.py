"""The pictures of the pages: captions of cells, colours for a dark page, light files."""

import base64
import io
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

pytest.importorskip("sphinx")
sys.path.insert(0, str(ROOT / "book" / "_ext"))

import u2_figures
import u2_pictures

CONF = """import sys
sys.path.insert(0, {folder!r})
extensions = ["myst_nb", "u2_figures"]
nb_execution_mode = "off"
numfig = True
numfig_format = {{"figure": "Figure %s"}}
root_doc = "index"
exclude_patterns = ["_build", "html", "**.ipynb_checkpoints"]
"""
SAID = """#| fig-cap: The `ULevel` of [a paper](https://example.org), with
#|   three levels.
#| fig-alt: A letter U
x = 1"""


def encoded(pixels: np.ndarray, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, **{"format": "PNG", **options})
    return buffer.getvalue()


def photograph(h: int, w: int) -> np.ndarray:
    """Something that no few colours describe, (h, w, 3)."""
    return np.random.default_rng(0).integers(0, 230, (h, w, 3), dtype=np.uint8)


# --- the lines of a cell ------------------------------------------------------------------------------------


def test_the_first_lines_of_a_cell_speak_of_its_picture():
    said, code = u2_figures.options(SAID)
    assert said == {
        "fig-cap": "The `ULevel` of [a paper](https://example.org), with three levels.",
        "fig-alt": "A letter U",
    }
    assert code == "x = 1"
    assert u2_figures.options("x = 1\n#| fig-cap: No") == ({}, "x = 1\n#| fig-cap: No")
    assert u2_figures.plain(said["fig-cap"]) == "The ULevel of a paper, with three levels."


@pytest.fixture
def book(tmp_path):
    """Build pages of these code cells, each with its outputs; gives what Sphinx said and a page's HTML."""

    def build(*cells: tuple[str, list[dict]]) -> tuple[str, str]:
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A\n\nText.")])
        for name, (source, outputs) in zip("abcdef", cells, strict=False):
            cell = nbformat.v4.new_code_cell(source, id=f"cell-{name}")
            cell.outputs = [nbformat.v4.new_output("display_data", data=data) for data in outputs]
            notebook.cells.append(cell)
        notebook.metadata["language_info"] = {"name": "python", "pygments_lexer": "python"}
        place = tmp_path / "book" / "chapters"
        place.mkdir(parents=True)
        nbformat.write(notebook, place / "a.ipynb")
        (tmp_path / "index.md").write_text("# I\n\n```{toctree}\nbook/chapters/a\n```\n", encoding="utf-8")
        (tmp_path / "conf.py").write_text(CONF.format(folder=str(ROOT / "book/_ext")), encoding="utf-8")
        result = subprocess.run(
            [sys.executable, "-m", "sphinx", "-q", ".", "_build/html"],
            cwd=tmp_path,
            capture_output=True,
            encoding="utf-8",
        )
        return result.stderr, (tmp_path / "_build/html/book/chapters/a.html").read_text(encoding="utf-8")

    return build


def test_a_cell_gives_its_picture_a_number_a_caption_and_words(book):
    png = {"image/png": base64.b64encode(encoded(photograph(20, 30))).decode()}
    drawn = {"text/html": "<div><svg viewBox='0 0 1 1'></svg></div>"}
    complaints, page = book(
        (SAID, [png]), ("y = 2", [png]), ("#| fig-cap: Two.\nz", [drawn, png]), ("print()", [])
    )
    assert complaints == ""
    assert "#|" not in page and "fig-cap" not in page
    assert 'alt="A letter U"' in page and 'id="fig-cell-a"' in page
    assert '<span class="caption-number">Figure 1.1 </span>' in page
    assert '<a class="reference external" href="https://example.org">a paper</a>, with' in page
    assert '<span class="caption-number">Figure 1.2 </span>' in page
    assert 'role="img" aria-label="Two. (1 of 2)"' in page and 'alt="Two. (2 of 2)"' in page
    assert page.count("<figure") == 2 and page.count(".webp") == 3
    assert page.count('class="u2-figure uncaptioned cell-cell-b') == 1
    assert 'alt="Picture that the cell above makes"' in page


def test_a_caption_without_a_picture_and_an_unknown_line_are_told(book):
    complaints, _ = book((SAID, [{"text/plain": "1"}]), ("#| fig-capp: Typo.\nx", []))
    assert "cell 'cell-a' speaks of a picture, and shows none" in complaints
    assert "cell 'cell-b': '#| fig-capp:' is not one of fig-cap, fig-alt, fig-card" in complaints


# --- colours and files --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def svg() -> str:
    """A photograph with a word on it and a title, and a line beside it."""
    from u2learn.show.palette import figure_of

    figure, axes = figure_of(4, 2, 1, 2)
    axes[0, 0].imshow(photograph(200, 200))
    axes[0, 0].text(90, 100, "inside", color="black")
    axes[0, 0].set_axis_off()
    axes[0, 0].set_title("an eye")
    axes[0, 1].plot([0, 1], [0, 1.123456], color="#0072B2")
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def test_a_figure_has_colours_for_light_and_dark(svg):
    both = u2_pictures.for_both_modes(svg)
    light, night = both.partition("@media (prefers-color-scheme:dark)")[::2]
    names = dict(pair.split(":") for pair in light.rpartition("fill:#000;")[2].rstrip("}").split(";") if pair)
    partners = dict(pair.split(":") for pair in night.split("}")[0].split("{")[2].split(";") if ":" in pair)
    paper = next(name for name, colour in names.items() if colour == "#ffffff")
    line = next(name for name, colour in names.items() if colour == "#0072b2")
    assert partners[paper] == u2_pictures.PAPER["dark"]
    assert f"fill: var({paper})" in both and f"stroke: var({line})" in both
    title, inside = both.index("fill: #000000"), both.count("fill: #000000")
    assert inside == 1 and title, "only the word on the photograph stays black"


def test_a_figure_becomes_light(svg):
    both = u2_pictures.for_both_modes(svg)
    assert "data:image/png" in svg and "data:image/png" not in both and "data:image/webp" in both
    assert len(both) < 0.6 * len(svg)
    assert "<metadata" in svg and "<metadata" not in both
    assert u2_pictures.words(svg) == "inside; an eye"


@pytest.mark.parametrize(
    "colour, partner",
    [("#ffffff", "#121212"), ("#000000", "#ededed"), ("#d55e00", "#d55e00"), ("#0072b2", "#4095c5")],
)
def test_greys_are_turned_over_and_colours_stay(colour, partner):
    assert u2_pictures.dark(colour) == partner


def test_tints_of_a_block_become_dark_ones():
    """What is written in a block must be read in both modes."""
    tint = u2_pictures.dark("#cce3f0")
    assert max(bytes.fromhex(tint[1:])) < 110


def test_a_photograph_is_a_file_of_webp_and_a_sheet_darkens_around_its_panels(tmp_path):
    photo = u2_pictures.raster(encoded(photograph(60, 80)), tmp_path)
    assert photo.suffix == ".webp" and u2_pictures.size(photo) == (80, 60)
    sheet = np.full((100, 160, 3), 255, np.uint8)
    sheet[30:80, 20:70] = photograph(50, 50)
    sheet[10:14, 30:60] = 0  # a title
    file = u2_pictures.raster(encoded(sheet), tmp_path)
    assert file.suffix == ".svg" and u2_pictures.size(file) == (160, 100)
    assert '<rect x="21" y="31" width="48" height="48"/></clipPath>' in file.read_text(encoding="utf-8")


def test_few_colours_stay_exact(tmp_path):
    mask = np.zeros((64, 64, 3), np.uint8)
    mask[::3, ::5] = (240, 228, 66)
    file = u2_pictures.raster(encoded(mask), tmp_path)
    assert (np.asarray(Image.open(file).convert("RGB")) == mask).all()


def test_a_drawing_in_a_page_takes_its_colours_along(tmp_path):
    html = "<div><style>[data-theme=dark] .u2-diagram{--u2-ink:#eee;--u2-tint:.2}</style>"
    file = u2_pictures.drawing(html + '<svg viewBox="0 0 9 6"><path d="M0 0"/></svg></div>', tmp_path)
    text = file.read_text(encoding="utf-8")
    assert text.startswith('<svg xmlns="http://www.w3.org/2000/svg" viewBox') and "--u2-ink:#eee" in text
    assert u2_pictures.size(file) == (9, 6)
    assert u2_pictures.drawing("<p>No picture</p>", tmp_path) is None


def test_a_card_has_the_largest_photograph_or_the_drawing(tmp_path, svg):
    source = Path(tmp_path / "figure.svg")
    source.write_text(svg, encoding="utf-8")
    card = u2_pictures.thumbnail(source, tmp_path)
    assert card.suffix == ".webp" and u2_pictures.size(card)[0] <= u2_pictures.CARD
