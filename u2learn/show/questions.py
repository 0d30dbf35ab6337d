"""Predict, then see: `guess` asks before a figure is shown, `guesses` counts at the end of a chapter."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from PIL import Image

from u2learn.show.diagrams.sheet import DARK
from u2learn.show.palette import INKS
from u2learn.show.widgets import data_address, fitting, label, live, png, rendered

if TYPE_CHECKING:
    from IPython.display import HTML as Block
    from ipywidgets import HTML, VBox
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MINE, MINE_IN_THE_DARK = INKS["bottleneck"]  # the colour of the reader's guess


@dataclass
class Question:
    """What is asked, what may be answered, and what is true; `given` once it is locked: "" is no answer."""

    words: str
    answers: list[str]
    near: list[bool]
    truth: str
    given: str | None = None

    @property
    def hit(self) -> bool:
        return bool(self.given) and self.near[self.answers.index(self.given or "")]

    @property
    def told(self) -> str:
        """What is said once the answer is locked."""
        mine = f"Your guess: {self.given}." if self.given else "No guess."
        return f"{mine} It is {self.truth}." + (" That was near." if self.hit else "")


ASKED: dict[str, Question] = {}  # in this kernel, by its words: a cell that runs again asks anew
FOLLOWERS: list[Callable[[], None]] = []  # what is told when a guess is locked


def guess(
    question: str,
    answers: Sequence[Any],
    truth: Any,
    figure: Figure | Axes | None = None,
    axis: Literal["x", "y"] = "y",
    within: float | None = None,
) -> Block | VBox:
    """Ask for a guess; lock it; then show the figure with the guess drawn over it.

    `answers` are numbers, for a slider, or texts, for a choice. A number is near the truth if it is no more
    than `within` away, by default a tenth of the answers' range; of texts, only the truth itself. Before, the
    figure shows its axes and nothing in them. A number is drawn as a line across them, at its place on
    `axis`; where a figure has several axes, give those that the guess belongs to. A reader may also see the
    figure without a guess. Where a kernel runs this is an ipywidget, else HTML that needs none; neither stops
    what comes after it.

    Raises:
        ValueError: fewer than two answers, texts without the truth among them, or another axis.
    """
    numeric = not any(isinstance(answer, str) for answer in answers)
    if len(answers) < 2 or (not numeric and truth not in answers):
        raise ValueError(
            f'guess("{question}") needs two answers or more, and of texts the truth must be one; got '
            f"{list(answers)} and {truth!r}."
        )
    if axis not in ("x", "y"):
        raise ValueError(f'guess() draws along axis="x" or "y", not {axis!r}.')
    if numeric:
        numbers = np.asarray([float(answer) for answer in answers])
        near = np.abs(numbers - float(truth)) <= (np.ptp(numbers) / 10 if within is None else within)
    else:
        numbers, near = np.empty(0), np.asarray([answer == truth for answer in answers])
    asked = Question(question, [label(answer) for answer in answers], near.tolist(), label(truth))
    plot = None if figure is None else Plot(figure, axis, numbers)
    if live():
        ASKED[question] = asked
        return _widget(asked, plot, numeric)
    from IPython.display import HTML

    return HTML(_block(asked, plot, numeric))


def guesses() -> Block | HTML:
    """How many guesses of this page, or of this kernel, were near, and which they were; follows new ones."""
    if not live():
        from IPython.display import HTML

        return HTML(f'<div class="u2-guesses"><p role="status">{_counted(0, 0, 0)}</p><ul></ul></div>')
    import ipywidgets

    shown = ipywidgets.HTML()

    def follow() -> None:
        done = [asked for asked in ASKED.values() if asked.given is not None]
        hits, made = sum(asked.hit for asked in done), sum(bool(asked.given) for asked in done)
        items = "".join(f"<li>{html.escape(f'{asked.words} {asked.told}')}</li>" for asked in done)
        shown.value = f"<p>{_counted(hits, made, len(ASKED))}</p><ul>{items}</ul>"

    FOLLOWERS[:] = [follow]
    follow()
    return shown


def _counted(hits: int, made: int, asked: int) -> str:
    if not made:
        return "You have locked no guess yet."
    return f"Near: {hits} of your {made} guesses; {asked} were asked for."


class Plot:
    """A figure before and after: its empty axes, and all of it; and where each answer lies.

    Attributes:
        blank, full: the two pictures.
        places: for each number its distance from the left or the top, in per cent of the picture.
        area: left, top, width and height of the axes, in per cent.
    """

    def __init__(self, figure: Figure | Axes, axis: Literal["x", "y"], numbers: np.ndarray):
        from matplotlib.axes import Axes

        self.axes: Any = figure if isinstance(figure, Axes) else figure.axes[0]
        self.figure, self.axis = cast(Any, self.axes.figure), axis
        self.figure.draw_without_rendering()
        self.figure.set_layout_engine("none")  # the empty axes stay where those of the full figure are
        self.full = rendered(self.figure, "the figure")
        inside = [a for axes in self.figure.axes for a in _data_of(axes) if a.get_visible()]
        for artist in inside:
            artist.set_visible(False)
        self.blank = rendered(self.figure, "the figure")
        for artist in inside:
            artist.set_visible(True)
        (left, low), (right, high) = 100 * self.axes.get_position().get_points()
        self.area = left, 100 - high, right - left, high - low
        points = self.axes.transData.transform(np.stack([numbers, numbers], 1))  # (N, 2): x and y
        x, y = 100 * (points / [self.figure.bbox.width, self.figure.bbox.height]).T
        self.places = (x if axis == "x" else 100 - y).round(2).tolist()

    def with_guess(self, number: float) -> Image.Image:
        """All of the figure, and the guess as a line across it."""
        draw = self.axes.axvline if self.axis == "x" else self.axes.axhline
        line = draw(number, color=MINE, lw=2.5, ls="--")
        picture = rendered(self.figure, "the figure")
        line.remove()
        return picture


def _data_of(axes: Axes) -> list[Any]:
    """What shows the data: all but the axes themselves and their titles."""
    legend = axes.get_legend()
    found = [*axes.lines, *axes.collections, *axes.patches, *axes.images, *axes.texts, *axes.tables]
    return found + ([legend] if legend else [])


def _widget(asked: Question, plot: Plot | None, numeric: bool) -> VBox:
    import ipywidgets

    wide = ipywidgets.Layout(width="auto", max_width="40rem")
    options = [(answer, i) for i, answer in enumerate(asked.answers)]
    if numeric:
        control: Any = ipywidgets.SelectionSlider(options=options, value=len(options) // 2, layout=wide)
    else:
        control = ipywidgets.RadioButtons(options=options, value=None, layout=wide)
    lock = ipywidgets.Button(description="Lock my guess", button_style="primary", disabled=not numeric)
    skip = ipywidgets.Button(description="Show without a guess", layout=ipywidgets.Layout(width="auto"))
    told, question = ipywidgets.HTML(), ipywidgets.HTML(f"<b>{html.escape(asked.words)}</b>")
    parts = [question, control, ipywidgets.HBox([lock, skip]), told]
    if plot:
        layout = fitting(plot.blank.info["width"])
        shown = ipywidgets.Image(value=png(plot.blank), format="png", layout=layout)
        parts.append(shown)

    def reveal(answer: str) -> None:
        asked.given = answer
        for part in (control, lock, skip):
            part.disabled = True
        told.value = f'<p role="status">{html.escape(asked.told)}</p>'
        if plot:
            shown.value = png(plot.with_guess(float(answer)) if answer and plot.places else plot.full)
        for follow in FOLLOWERS:
            follow()

    def ready(_: Any) -> None:
        lock.disabled = control.value is None

    lock.on_click(lambda _: reveal(asked.answers[control.value]))
    skip.on_click(lambda _: reveal(""))
    control.observe(ready, names="value")
    return ipywidgets.VBox(parts)


STYLE = f"""
.u2-guess{{--mine:{MINE};max-width:100%;margin:1rem 0;padding:.75rem 1rem;text-align:left;
border-left:4px solid var(--mine)}}
{DARK.format(".u2-guess")}{{--mine:{MINE_IN_THE_DARK}}}
.u2-guess p{{margin:0 0 .5rem}}
.u2-guess .u2-question{{font-weight:600}}
.u2-guess label{{display:flex;align-items:center;gap:.6rem;min-height:2.2rem;max-width:40rem}}
.u2-guess input[type=range]{{flex:1 1 7rem;min-width:0;height:2.75rem;margin:0;accent-color:var(--mine)}}
.u2-guess input[type=radio]{{width:1.2rem;height:1.2rem;margin:0;accent-color:var(--mine)}}
.u2-guess output{{font-weight:600;font-variant-numeric:tabular-nums}}
.u2-guess button{{font:inherit;color:inherit;background:none;border:1px solid;border-radius:.35rem;
min-height:2.75rem;padding:.3rem 1rem;margin:.3rem .6rem .5rem 0;cursor:pointer}}
.u2-guess button[value=lock]{{border:2px solid var(--mine);font-weight:600}}
.u2-guess[data-state] form,.u2-guess .u2-answer{{display:none}}
.u2-plot{{position:relative;display:inline-block;max-width:100%}}
.u2-plot img{{display:block;max-width:100%;height:auto}}
.u2-full{{position:absolute;inset:0}}
.u2-guess:not([data-state]) .u2-full{{visibility:hidden}}
.u2-guess[data-state=skipped] .u2-mark{{display:none}}
.u2-mark{{position:absolute;font-size:.8rem;line-height:1.2;pointer-events:none;color:var(--mine)}}
.u2-mark.x{{border-left:3px dashed}}
.u2-mark.y{{border-top:3px dashed}}
.u2-mark b{{position:absolute;padding:0 .25rem;border-radius:.2rem;white-space:nowrap;
background:var(--pst-color-background,#fff)}}
.u2-mark.x b{{left:3px;top:0}}
.u2-mark.x.late b{{left:auto;right:6px}}
.u2-mark.y b{{right:0;bottom:3px}}
html[data-theme=dark] .bd-content div.cell_output .text_html:has(.u2-guess,.u2-guesses)
{{background:none!important;color:inherit!important}}
html[data-theme=dark] .bd-content .u2-plot img{{padding:0!important}}
@media print{{.u2-guess form,.u2-guess:not([data-state]) .u2-mark{{display:none}}
.u2-guess:not([data-state]) .u2-answer{{display:block}}
.u2-guess:not([data-state]) .u2-full{{visibility:visible}}}}
"""
# The handlers find their own question, so any number of them live on one page, without ids.
MOVE = """
const w=this.closest('.u2-guess'),d=JSON.parse(w.dataset.question),p=this.elements.answer,k=+p.value,
o=w.querySelector('output'),m=w.querySelector('.u2-mark');
if(o){o.textContent=d.answers[k];p.setAttribute('aria-valuetext',d.answers[k])}
if(m){m.style[d.side]=d.places[k]+'%';m.classList.toggle('late',d.places[k]>65)}
"""
LOCK = """
event.preventDefault();
const w=this.closest('.u2-guess'),d=JSON.parse(w.dataset.question),k=+this.elements.answer.value,
one=s=>w.querySelector(s),skip=event.submitter&&event.submitter.value=='skip',near=!skip&&d.near[k],
told=one('.u2-told');
w.dataset.state=skip?'skipped':near?'near':'far';
told.textContent=(skip?'No guess. ':`Your guess: ${d.answers[k]}. `)+one('.u2-answer').textContent
+(near?' That was near.':'');
told.focus();
const all=[...document.querySelectorAll('.u2-guess')],done=all.filter(x=>x.dataset.state),
made=done.filter(x=>x.dataset.state!='skipped').length,hits=done.filter(x=>x.dataset.state=='near').length;
for(const g of document.querySelectorAll('.u2-guesses')){
if(made)g.querySelector('p').textContent=
`Near: ${hits} of your ${made} guesses; ${all.length} were asked for.`;
g.querySelector('ul').replaceChildren(...done.map(x=>{
const i=document.createElement('li'),words=[...x.querySelectorAll('.u2-question,.u2-told')];
i.textContent=words.map(e=>e.textContent).join(' ');return i}))}
"""


def _block(asked: Question, plot: Plot | None, numeric: bool) -> str:
    """The question as HTML that needs no other file: a form with two handlers, two pictures as data."""
    words, middle = html.escape(asked.words), len(asked.answers) // 2
    known: dict[str, Any] = {"answers": asked.answers, "near": asked.near}
    if plot:
        known |= {"side": "left" if plot.axis == "x" else "top", "places": plot.places}
    if numeric:
        first, longest = html.escape(asked.answers[middle]), max(map(len, asked.answers))
        limits = f'min="0" max="{len(asked.answers) - 1}" value="{middle}" autocomplete="off"'
        names = f'data-lm-suppress-shortcuts="true" aria-label="Your guess" aria-valuetext="{first}"'
        shown = f'<output style="min-width:{longest}ch">{first}</output>'
        inputs = f'<label><input type="range" name="answer" {limits} {names}>{shown}</label>'
    else:
        radio = '<label><input type="radio" name="answer" required autocomplete="off" value="{}">{}</label>'
        inputs = "".join(radio.format(i, html.escape(answer)) for i, answer in enumerate(asked.answers))
    data = _attribute(json.dumps(known))
    lines = [
        f'<div class="u2-guess" role="group" aria-label="{words}" data-question="{data}">',
        f'<style>{STYLE}</style><p class="u2-question">{words}</p>',
        f'<form onsubmit="{_attribute(LOCK)}" oninput="{_attribute(MOVE)}">{inputs}',
        '<button value="lock">Lock my guess</button>',
        '<button value="skip" formnovalidate>Show without a guess</button></form>',
        '<p class="u2-told" role="status" tabindex="-1"></p>',
        f'<p class="u2-answer">It is {html.escape(asked.truth)}.</p>',
        _pictures(plot, middle) if plot else "",
        "<noscript><style>.u2-guess form,.u2-guess .u2-mark{display:none}.u2-guess .u2-answer{display:block}",
        ".u2-guess .u2-full{visibility:visible!important}</style></noscript></div>",
    ]
    return "\n".join(lines)


def _pictures(plot: Plot, middle: int) -> str:
    """The empty axes, the full figure over them, and the mark of the guess over both."""
    blank, full = (data_address(picture, 82, 1) for picture in (plot.blank, plot.full))
    size = f'class="dark-light" width="{plot.full.info["width"]}"'
    lines = [
        f'<div class="u2-plot"><img {size} alt="The axes, still empty" src="{blank}">',
        f'<div class="u2-full"><img {size} alt="The axes with what was asked for" src="{full}"></div>',
    ]
    if plot.places:
        left, top, width, height = plot.area
        first, x = plot.places[middle], plot.axis == "x"
        place = f"left:{first if x else left:.2f}%;top:{top if x else first:.2f}%"
        length = f"height:{height:.2f}%" if x else f"width:{width:.2f}%"
        mark = f'<span class="u2-mark {plot.axis}" style="{place};{length}" aria-hidden="true">'
        lines.append(f"{mark}<b>your guess</b></span>")
    return "\n".join([*lines, "</div>"])


def _attribute(text: str) -> str:
    return html.escape(text.replace("\n", " ").strip())
