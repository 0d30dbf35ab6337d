"""Pictures as light files that go with a dark page: SVG with colours for both, photographs as WebP."""

import base64
import hashlib
import io
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from colorsys import hls_to_rgb, rgb_to_hls
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
ET.register_namespace("", SVG)
ET.register_namespace("xlink", XLINK)
CODE = Path(__file__).read_bytes()

PAPER = {"light": "#ffffff", "dark": "#121212"}  # the page's own
DARKEST, LIGHTEST = 0.08, 0.93  # lightness of what was white, and of what was black
COLOUR = re.compile(r"#[0-9a-fA-F]{6}\b")
NUMBER = re.compile(r"-?\d+\.\d{3,}(?:e-?\d+)?")
POINT = re.compile(r"(-?[\d.]+)[ ,]+(-?[\d.]+)")
MOVES = re.compile(r"(scale|translate)\((-?[\d.e-]+)[ ,]*(-?[\d.e-]+)?\)")
PANEL = 24  # pixels: what is smaller is a letter or a mark
CARD = 480  # pixels: the width of a small picture, twice that of its card
PHOTOGRAPH = re.compile(r'"data:image/png;base64,([^"]+)"')
DATA = re.compile(r"data:image/[\w+.-]+;base64,(.+)", re.DOTALL)


def for_the_site(picture: Path, folder: Path) -> Path:
    """The picture as the pages show it, in a file of `folder`."""
    content = picture.read_bytes()
    if picture.suffix != ".svg":
        return raster(content, folder)
    svg = content.decode("utf-8")
    mended = for_both_modes if "matplotlib" in svg[:2000].lower() else str
    return kept(folder, "svg", content, lambda: mended(svg).encode("utf-8"))


def raster(picture: bytes, folder: Path) -> Path:
    """A raster picture as WebP; one on a white sheet inside an SVG that darkens the sheet on a dark page."""
    image = Image.open(io.BytesIO(picture)).convert("RGBA")
    image = Image.alpha_composite(Image.new("RGBA", image.size, PAPER["light"]), image).convert("RGB")
    small = picture if picture[8:12] == b"WEBP" else webp(picture)
    if on_a_sheet(image):
        return kept(folder, "svg", picture, lambda: darkened(small, image).encode("utf-8"))
    return kept(folder, "webp", picture, lambda: small)


def thumbnail(picture: Path, folder: Path) -> Path:
    """A small picture for a card: a drawing as it is, or the largest photograph in it."""
    content = picture.read_bytes()
    if picture.suffix == ".svg":
        photographs = [base64.b64decode(data) for data in PHOTOGRAPH.findall(content.decode("utf-8"))]
        if not photographs:
            return for_the_site(picture, folder)
        content = max(photographs, key=lambda p: math.prod(Image.open(io.BytesIO(p)).size))
    return kept(folder, "webp", b"small" + content, lambda: webp(content, CARD))


def drawing(html: str, folder: Path) -> Path | None:
    """A drawing that stands in the HTML of a page, as a file: the page's colours for the dark go with it."""
    svg = re.search(r"<svg\b.*?</svg>", html, re.DOTALL)
    if not svg:
        return None
    night = ";".join(re.findall(r"--u2-[\w-]+: ?[^;{}]+", html[: svg.start()]))
    style = (
        f"<style>:root{{color:#000}}@media (prefers-color-scheme:dark){{:root{{color:#eee;{night}}}}}</style>"
    )
    text = re.sub(r"<svg\b(?![^>]*xmlns=)", f'<svg xmlns="{SVG}"', svg[0])
    text = re.sub(r"<svg\b[^>]*>", lambda start: start[0] + style, text, count=1)
    return kept(folder, "svg", text.encode("utf-8"), lambda: text.encode("utf-8"))


def kept(folder: Path, kind: str, content: bytes, make: Callable[[], bytes]) -> Path:
    """The file that is made of `content`; its name changes with it, and with this code."""
    path = folder / f"{hashlib.sha256(CODE + content).hexdigest()[:16]}.{kind}"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make())
    return path


def webp(picture: bytes, width: int | None = None) -> bytes:
    """Any raster picture as WebP: without loss where few colours make that smaller, or nearly so."""
    image = Image.open(io.BytesIO(picture))
    image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if width and width < image.width:
        image = image.resize((width, round(image.height * width / image.width)))
    ways = [_encoded(image, quality=86, use_sharp_yuv=True)]
    if image.getcolors(2048):
        ways.append(_encoded(image, lossless=True))
    return ways[-1] if len(ways[-1]) < 1.3 * len(ways[0]) else ways[0]


def _encoded(image: Image.Image, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", method=4, **options)
    return buffer.getvalue()


def on_a_sheet(image: Image.Image) -> bool:
    """Whether the picture has a white margin."""
    pixels = np.asarray(image)
    margin = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return bool((margin.min(1) > 247).mean() > 0.9)


def darkened(picture: bytes, image: Image.Image) -> str:
    """An SVG of a WebP picture: on a dark page it is turned over, but for the photographs and maps in it."""
    w, h = image.size
    panels = "".join(
        f'<rect x="{left}" y="{top}" width="{right - left}" height="{bottom - top}"/>'
        for left, top, right, bottom in panels_of(np.asarray(image))
    )
    data = base64.b64encode(picture).decode()
    return (
        f'<svg xmlns="{SVG}" viewBox="0 0 {w} {h}" width="{w}" height="{h}"><style>#kept{{display:none}}'
        f"@media (prefers-color-scheme:dark){{#sheet{{filter:invert({LIGHTEST}) hue-rotate(180deg)}}"
        f'#kept{{display:inline}}}}</style><clipPath id="panels">{panels}</clipPath>'
        f'<g id="sheet"><image id="i" width="{w}" height="{h}" href="data:image/webp;base64,{data}"/></g>'
        f'<use id="kept" href="#i" clip-path="url(#panels)"/></svg>'
    )


def panels_of(pixels: np.ndarray) -> list[tuple[int, int, int, int]]:
    """The filled rectangles on a white sheet, as left, top, right, bottom; pixels: (H, W, 3)."""
    parts, _ = ndimage.label(pixels.min(2) < 240)
    found = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(parts), start=1):
        part = parts[rows, columns] == number
        sides = (part[:3].any(0), part[-3:].any(0), part[:, :3].any(1), part[:, -3:].any(1))
        if min(part.shape) >= PANEL and part.mean() > 0.6 and all(side.mean() > 0.5 for side in sides):
            found.append((columns.start + 1, rows.start + 1, columns.stop - 1, rows.stop - 1))
    return found


def size(picture: Path) -> tuple[int, int]:
    """Width and height in CSS pixels."""
    if picture.suffix != ".svg":
        return Image.open(picture).size
    root = picture.read_text(encoding="utf-8")[:2000]
    sides = re.search(r'<svg[^>]*? viewBox="[\d.-]+ [\d.-]+ ([\d.]+) ([\d.]+)"', root)
    scale = 96 / 72 if re.search(r'<svg[^>]* width="[\d.]+pt"', root) else 1
    return round(float(sides[1]) * scale), round(float(sides[2]) * scale)


def words(svg: str) -> str:
    """What is written in a figure of matplotlib: its titles and names, without the numbers of the axes."""
    found = (text.strip() for text in re.findall(r"<!--(.*?)-->", svg, re.DOTALL))
    return "; ".join(dict.fromkeys(text for text in found if re.search(r"[^\W\d]{2}", text)))


def for_both_modes(svg: str) -> str:
    """A figure of matplotlib with colours for light and dark pages, photographs as WebP, rounded numbers.

    Photographs and coloured maps stay as they are, and so does what is drawn on them.
    """
    root = ET.fromstring(svg)
    sheet = Sheet(root)
    sheet.colour(root, kept=False)
    style = ET.Element(f"{{{SVG}}}style")
    style.text = sheet.style()
    root.insert(0, style)
    for metadata in root.findall(f"{{{SVG}}}metadata"):
        root.remove(metadata)
    return ET.tostring(root, encoding="unicode")


class Sheet:
    """The colours of one figure, each with its partner in the dark."""

    def __init__(self, root: ET.Element):
        self.names: dict[str, str] = {}
        self.maps = [box for element in root.iter() if (box := map_box(element))]

    def colour(self, element: ET.Element, kept: bool) -> None:
        """Give the element and all in it names of colours instead of colours; `kept`: leave them."""
        name, group = element.tag.rpartition("}")[2], element.get("id", "")
        if name == "image":
            data = DATA.fullmatch(element.get(f"{{{XLINK}}}href", ""))
            if data:
                small = base64.b64encode(webp(base64.b64decode(data[1]))).decode()
                element.set(f"{{{XLINK}}}href", f"data:image/webp;base64,{small}")
            return
        kept = kept or group.startswith("QuadMesh") or self.on_a_map(element)
        key = bool(self.maps) and group.startswith("legend")  # explains the map's colours
        if kept and name == "g" and "fill" not in element.get("style", "") and group.startswith("text"):
            element.set("style", f"fill: #000000; {element.get('style', '')}")
        if not kept and "style" in element.attrib:
            element.set("style", COLOUR.sub(self.named, element.get("style")))
        if "d" in element.attrib:
            element.set("d", NUMBER.sub(lambda n: f"{float(n[0]):.2f}", element.get("d")))
        for child in element:
            self.colour(child, kept or (key and child.get("id", "").startswith(("patch", "line"))))

    def named(self, colour: re.Match[str]) -> str:
        name = self.names.setdefault(colour[0].lower(), f"--c{len(self.names)}")
        return f"var({name})"

    def on_a_map(self, element: ET.Element) -> bool:
        """Whether the element is drawn inside a photograph or a coloured map."""
        start = first_point(element) if self.maps else None
        return start is not None and any(
            left + 1 < start[0] < right - 1 and top + 1 < start[1] < bottom - 1
            for left, top, right, bottom in self.maps
        )

    def style(self) -> str:
        light = "".join(f"{name}:{colour};" for colour, name in self.names.items())
        night = "".join(f"{name}:{dark(colour)};" for colour, name in self.names.items())
        return (
            f":root{{color-scheme:light dark;fill:#000;{light}}}"
            f"@media (prefers-color-scheme:dark){{:root{{fill:{dark('#000000')};{night}}}}}"
        )


def dark(colour: str) -> str:
    """The colour on a dark page: greys and tints turned over, full colours as they are or a bit lighter."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    if colour == PAPER["light"]:
        return PAPER["dark"]
    hue, light, saturation = rgb_to_hls(red, green, blue)
    chroma = max(red, green, blue) - min(red, green, blue)
    if chroma < 0.25 or (light > 0.8 and chroma < 0.45):
        red, green, blue = hls_to_rgb(hue, LIGHTEST - light * (LIGHTEST - DARKEST), saturation)
    elif 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2 < 0.18:
        red, green, blue = (0.75 * c + 0.25 for c in (red, green, blue))
    return "#" + "".join(f"{round(255 * c):02x}" for c in (red, green, blue))


def map_box(element: ET.Element) -> tuple[float, float, float, float] | None:
    """Left, top, right, bottom of a photograph or of a mesh of coloured cells."""
    if element.tag == f"{{{SVG}}}image":
        x, y, w, h = (float(element.get(key, 0)) for key in ("x", "y", "width", "height"))
        corners = [moved(x, y, element), moved(x + w, y + h, element)]
    elif element.get("id", "").startswith("QuadMesh"):
        corners = [tuple(map(float, p)) for path in element.iter() for p in POINT.findall(path.get("d", ""))]
    else:
        return None
    xs, ys = zip(*corners, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def first_point(element: ET.Element) -> tuple[float, float] | None:
    """Where a path, a marker or a text begins."""
    if element.tag == f"{{{SVG}}}path" and (found := POINT.search(element.get("d", ""))):
        return float(found[1]), float(found[2])
    if element.tag == f"{{{SVG}}}use" and "x" in element.attrib:
        return float(element.get("x")), float(element.get("y"))
    if element.get("id", "").startswith("text") and len(element):
        x, y = moved(0, 0, element[-1])
        return x + 2, y - 2
    return None


def moved(x: float, y: float, element: ET.Element) -> tuple[float, float]:
    """Where the element's `transform` of shifts and scales takes a point."""
    for kind, first, second in reversed(MOVES.findall(element.get("transform", ""))):
        a, b = float(first), float(second or (first if kind == "scale" else 0))
        x, y = (a * x, b * y) if kind == "scale" else (x + a, y + b)
    return x, y
