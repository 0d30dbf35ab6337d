"""`explore`: one picture and a slider, live in a notebook and without a kernel on the rendered page."""

from __future__ import annotations

import base64
import html
import importlib.util
import io
import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from u2learn.show.book import publishing
from u2learn.show.diagrams.sheet import STYLE as DIAGRAM_STYLE
from u2learn.show.diagrams.sheet import Diagram
from u2learn.show.pictures import Picture, limits_of, pixels_of

if TYPE_CHECKING:
    from IPython.display import HTML
    from ipywidgets import VBox
    from matplotlib.figure import Figure

    Frame = Picture | Figure | bytes | Diagram

COLUMN = 680  # pixels: the book's column; a phone shrinks it
PAGE_LIMIT = 600  # kB that one widget may add to a page
QUALITIES = ((82, 1.0), (75, 0.7), (60, 0.5))  # of WebP, and of the side in pixels: the first that fits


def explore(
    frames: Sequence[Frame] | Callable[[Any], Frame],
    labels: Sequence[Any] | None = None,
    title: str = "",
    slider: str = "",
    values: Sequence[Any] | None = None,
) -> HTML | VBox:
    """A picture that a slider changes: an ipywidget where a kernel runs, else HTML with every frame in it.

    `frames` are images, matplotlib Figures or PNG bytes, or Diagrams; or a function of one of `values` that
    gives one, called as the slider moves. `labels` say what each frame is (by default `values`, or 1, 2 and
    so on), `slider` what the slider sets, `title` what the picture shows; screen readers get all three.

    Raises:
        ValueError: no frames, another number of labels than of frames, a frame that is no picture, or, while
            the book is published, a widget of more than 600 kB.
    """
    if callable(frames):
        if values is None:
            raise ValueError(
                "explore(function) needs values=[...], the settings that the slider goes through."
            )
    elif values is not None:
        raise ValueError(
            "explore() takes values=[...] only with a function; a list of frames takes labels=[...]."
        )
    else:
        values = range(1, len(frames) + 1)
    count = len(values)
    if not count:
        raise ValueError("explore() has no frames to show.")
    names = [label(x) for x in (values if labels is None else labels)]
    if len(names) != count:
        raise ValueError(f"explore() got {count} frames and {len(names)} labels; give one label a frame.")

    if not callable(frames):
        _close(frames)

    @cache
    def picture(i: int) -> Image.Image | Diagram:
        frame = frames(values[i]) if callable(frames) else frames[i]
        return frame if isinstance(frame, Diagram) else rendered(frame, f"frame {i} ({names[i]})")

    if live():
        return _widget(picture, names, title, slider)
    from IPython.display import HTML

    pictures = [picture(i) for i in range(count)]
    for quality, scale in QUALITIES:
        block = _block(pictures, quality, scale, names, title, slider)
        if len(block) <= PAGE_LIMIT * 1000:
            break
    if publishing() and len(block) > PAGE_LIMIT * 1000:
        raise ValueError(
            f'explore("{title}"): {count} frames make {len(block) / 1000:.0f} kB, more than the {PAGE_LIMIT} '
            f"that a page allows; use fewer frames, smaller or smoother ones."
        )
    return HTML(block)


def _close(frames: Sequence[Any]) -> None:
    """Forget figures in pyplot, or the notebook would show them a second time."""
    for frame in frames:
        if hasattr(frame, "savefig") and "matplotlib.pyplot" in sys.modules:
            sys.modules["matplotlib.pyplot"].close(frame)


def label(value: Any) -> str:
    """Numbers, also those of arrays and tensors, in a few digits; anything else as it prints."""
    value = value.item() if hasattr(value, "item") else value
    return f"{value:g}" if isinstance(value, float) else str(value)


def live() -> bool:
    """Whether a kernel runs that can make widgets, and the book is not being built."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return (
        not publishing() and hasattr(shell, "kernel") and importlib.util.find_spec("ipywidgets") is not None
    )


def rendered(frame: Any, name: str) -> Image.Image:
    """Any frame as an RGB picture; `info["width"]` is how wide it is shown, in CSS pixels."""
    if isinstance(frame, bytes):
        picture = Image.open(io.BytesIO(frame)).convert("RGB")
        shown = min(picture.width, COLUMN)
    elif hasattr(frame, "savefig"):
        _close([frame])
        buffer = io.BytesIO()
        frame.draw_without_rendering()  # laid out once more in saving: the first time cuts titles off
        shown = min(round(frame.get_figwidth() * 96), COLUMN)
        dpi = 2 * shown / frame.get_figwidth()
        frame.savefig(buffer, format="png", dpi=dpi, pil_kwargs={"compress_level": 1})  # read back at once
        picture = Image.open(buffer).convert("RGB")
    elif frame is None:
        raise ValueError(f"explore(): {name} is None; the function must return an image or a figure.")
    else:
        array = pixels_of(frame, name)
        if array.dtype != np.uint8 or array.ndim == 2:
            low, high = (0.0, 1.0) if array.ndim == 3 else limits_of(array)
            grey = (array.astype(np.float64) - low) / max(high - low, 1e-12)
            array = (grey.clip(0, 1) * 255).round().astype(np.uint8)
        picture = Image.fromarray(array).convert("RGB")
        if picture.width > COLUMN:
            size = COLUMN, max(1, round(picture.height * COLUMN / picture.width))
            picture = picture.resize(size, Image.Resampling.LANCZOS)
        times = max(1, 360 // max(picture.size))  # whole times, so that pixels stay squares
        picture = picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)
        shown = picture.width
    picture.info["width"] = shown
    return picture


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def _widget(
    picture: Callable[[int], Image.Image | Diagram], labels: list[str], title: str, slider: str
) -> VBox:
    import ipywidgets

    first = picture(0)
    width = width_of(first)
    if isinstance(first, Diagram):
        shown = ipywidgets.HTML(value=first._repr_html_(), layout=ipywidgets.Layout(max_width="100%"))
    else:
        shown = ipywidgets.Image(value=png(first), format="png", layout=fitting(width))
    control = ipywidgets.SelectionSlider(
        options=[(label, i) for i, label in enumerate(labels)],
        value=0,
        description=slider,
        style={"description_width": "initial"},
        layout=ipywidgets.Layout(width=f"{max(width, 320)}px", max_width="100%"),
    )

    def move(change: dict[str, Any]) -> None:
        frame = picture(change["new"])
        shown.value = frame._repr_html_() if isinstance(frame, Diagram) else png(frame)

    control.observe(move, names="value")
    heading = [ipywidgets.HTML(f"<b>{html.escape(title)}</b>")] if title else []
    return ipywidgets.VBox([*heading, control, shown])


def fitting(width: int) -> Any:
    """The layout of a picture that is `width` CSS pixels wide, or as wide as its cell."""
    import ipywidgets

    return ipywidgets.Layout(width=f"{width}px", max_width="100%", object_fit="contain")


def width_of(frame: Image.Image | Diagram) -> int:
    """How wide a frame is shown, in CSS pixels."""
    return frame.width if isinstance(frame, Diagram) else frame.info["width"]


STYLE = """
.u2-explore{max-width:100%;margin:1rem 0}
.u2-explore p{margin:0 0 .25rem;font-weight:600}
.u2-explore label{display:flex;flex-wrap:wrap;align-items:center;gap:0 .75rem;margin:0 0 .5rem}
.u2-explore input{flex:1 1 7rem;min-width:0;height:2.75rem;margin:0;accent-color:#0072b2;cursor:pointer}
.u2-explore output{flex:0 0 auto;font-variant-numeric:tabular-nums;font-weight:600}
.u2-frames{display:grid;grid-template-columns:minmax(0,auto);justify-items:start}
.u2-frames>*{grid-area:1/1;display:block;max-width:100%;height:auto;border-radius:.25rem}
.u2-frames>[hidden]{display:block;visibility:hidden}
html[data-theme=dark] .bd-content div.cell_output .text_html:has(.u2-explore)
{background:none!important;color:inherit!important}
html[data-theme=dark] .bd-content .u2-frames img{padding:0!important}
html[data-theme=dark] .u2-explore input{accent-color:#56b4e9}
"""
# The handler finds its own widget, so any number of them live on one page, without ids.
MOVE = (
    "const w=this.closest('.u2-explore'),f=w.querySelectorAll('.u2-frames>*');"
    "f.forEach((x,i)=>{x.hidden=i!=this.value});"
    "const t=f[this.value].dataset.label;w.querySelector('output').textContent=t;"
    "this.setAttribute('aria-valuetext',t)"
)


def _block(
    frames: Sequence[Image.Image | Diagram],
    quality: int,
    scale: float,
    labels: list[str],
    title: str,
    slider: str,
) -> str:
    """The widget as HTML that needs no other file: frames as data, a range input, one handler."""
    name, setting = html.escape(title or slider or "pictures"), html.escape(slider)
    first, width = html.escape(labels[0]), max(width_of(frames[0]), 320)
    drawn = DIAGRAM_STYLE if isinstance(frames[0], Diagram) else ""
    lines = [f'<div class="u2-explore" role="group" aria-label="{name}">', f"<style>{STYLE}{drawn}</style>"]
    if title:
        lines.append(f"<p>{html.escape(title)}</p>")
    lines += [
        f'<label style="max-width:{width}px"><span>{setting}</span>',
        f'<input type="range" min="0" max="{len(labels) - 1}" step="1" value="0" autocomplete="off"',
        f'data-lm-suppress-shortcuts="true" aria-label="{setting or name}" aria-valuetext="{first}"',
        f'oninput="{MOVE}">',
        f'<output style="min-width:{max(map(len, labels))}ch">{first}</output></label>',
        '<div class="u2-frames">',
    ]
    for i, (label, frame) in enumerate(zip(labels, frames, strict=True)):
        known = f'data-label="{html.escape(label)}" {"hidden " if i else ""}'
        if isinstance(frame, Diagram):
            lines.append(f'<div class="u2-diagram" {known}>{frame.svg}</div>')
        else:
            words = html.escape(": ".join(part for part in (title, f"{slider} {label}".strip()) if part))
            source = data_address(frame, quality, scale)
            size = f'width="{width_of(frame)}"'
            lines.append(f'<img class="dark-light" alt="{words}" {size} {known}src="{source}">')
    note = f"The slider needs JavaScript; this is the first of {len(labels)} pictures."
    lines.append(f"</div><noscript><style>.u2-explore label{{display:none}}</style>{note}</noscript></div>")
    return "\n".join(lines)


def data_address(picture: Image.Image, quality: int, scale: float) -> str:
    """The picture as a data address, in WebP: lossless where few colours make that smaller (charts)."""
    if scale < 1:
        size = round(picture.width * scale), max(1, round(picture.height * scale))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    ways = [_webp(picture, quality=quality)]
    # Maximum coverage keeps rare colours, such as ten pixels of false alarms.
    flat = picture.quantize(96, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).convert("RGB")
    if np.abs(np.asarray(flat, np.int16) - np.asarray(picture, np.int16)).max() <= 16:
        ways.append(_webp(flat, lossless=True))
    return f"data:image/webp;base64,{base64.b64encode(min(ways, key=len)).decode()}"


def _webp(picture: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", method=4, **options)
    return buffer.getvalue()
