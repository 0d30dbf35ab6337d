"""The icons of the pages as a font that has these and no others: 10 kB in place of 300."""

import base64
import io
import re
from pathlib import Path

from fontTools import subset
from fontTools.ttLib import TTFont

THEME = "styles/pydata-sphinx-theme.css"
FACE = re.compile(r"@font-face\{([^}]*?)src:url\(([^)]+?)\.woff2\)[^}]*\}")
RULE = re.compile(r'([^{}]+)\{content:"\\(f[0-9a-f]{3}|e[0-9a-f]{3})"\}')
SIGN = re.compile(r'"\\([ef][0-9a-f]{3})"')


def write_icons(app, error) -> None:
    """Write u2-icons.css: the faces of the theme's icons again, with the signs that the pages show."""
    if error or app.builder.format != "html":
        return
    static = Path(app.outdir) / "_static"
    theme = (static / THEME).read_text(encoding="utf-8")
    shown = set()
    for page in Path(app.outdir).rglob("*.html"):
        shown.update(re.findall(r"\bfa-[\w-]+", page.read_text(encoding="utf-8")))
    signs = {
        int(rule[2], 16)
        for rule in RULE.finditer(theme)
        if shown & {name.split(":")[0].strip(" .") for name in rule[1].split(",")}
    }
    signs |= {int(sign, 16) for sign in SIGN.findall(RULE.sub("", theme))}  # what the theme's own rules show
    fonts = {face[1]: font(static / "styles" / f"{face[2]}.ttf", signs) for face in FACE.finditer(theme)}
    faces = [f"@font-face{{{face}src:url(data:font/ttf;base64,{data})}}" for face, data in fonts.items()]
    (static / "u2-icons.css").write_text("\n".join(faces) + "\n", encoding="utf-8")


def font(path: Path, signs: set[int]) -> str:
    """The font with these signs, in Base64."""
    options = subset.Options(layout_features=[], hinting=False, notdef_outline=True)
    smaller, buffer = subset.Subsetter(options), io.BytesIO()
    with TTFont(path) as whole:
        smaller.populate(unicodes=signs)
        smaller.subset(whole)
        whole.save(buffer)
    return base64.b64encode(buffer.getvalue()).decode()


def setup(app):
    app.connect("build-finished", write_icons)
    return {"parallel_read_safe": True}
