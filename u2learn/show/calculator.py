"""A calculator of receptive fields that runs in the page itself, without a kernel."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.display import HTML

# Name, what it is called, the least and the largest value.
INPUTS = (
    ("layers", "layers", 1, 12),
    ("kernel", "kernel size", 1, 9),
    ("stride", "stride", 1, 4),
    ("dilation", "dilation", 1, 16),
)
STYLE = """
.u2-field{max-width:34rem;margin:1rem 0}
.u2-field label{display:grid;grid-template-columns:7rem 1fr 2.5ch;gap:.75rem;align-items:center}
.u2-field input{min-width:0;height:2.6rem;margin:0;accent-color:#0072b2}
.u2-field b{font-variant-numeric:tabular-nums;text-align:right}
.u2-field output{display:block;margin-top:.4rem;font-weight:600}
html[data-theme=dark] .bd-content div.cell_output .text_html:has(.u2-field)
{background:none!important;color:inherit!important}
"""
# A layer adds kernel - 1 taps, which lie as far apart as the strides before it, times its dilation.
COUNT = """
const v=n=>+this.elements[n].value;let field=1,apart=1;
for(let i=0;i<v('layers');i++){field+=(v('kernel')-1)*v('dilation')*apart;apart*=v('stride')}
for(const e of this.querySelectorAll('input'))e.nextElementSibling.textContent=e.value;
this.querySelector('output').textContent=
`One output sees ${field} × ${field} pixels. Neighbouring outputs are ${apart} pixel${apart>1?'s':''} apart.`
"""


def field_calculator(layers: int = 3, kernel: int = 3, stride: int = 1, dilation: int = 1) -> HTML:
    """Four sliders for a stack of equal convolutions, and the receptive field that they have together.

    It begins with these numbers. The page computes by itself, on the site as in a notebook.
    """
    from IPython.display import HTML

    given = {"layers": layers, "kernel": kernel, "stride": stride, "dilation": dilation}
    field, apart = 1, 1
    for _ in range(layers):
        field, apart = field + (kernel - 1) * dilation * apart, apart * stride
    words = f"One output sees {field} × {field} pixels. Neighbouring outputs are {apart} pixel"
    words += f"{'s' if apart > 1 else ''} apart."
    count = html.escape(COUNT.replace("\n", ""))
    form = '<form class="u2-field" aria-label="Receptive field" onsubmit="return false"'
    lines = [f'{form} oninput="{count}">', f"<style>{STYLE}</style>"]
    for name, called, low, high in INPUTS:
        limits = f'min="{low}" max="{high}" value="{given[name]}" autocomplete="off"'
        slider = f'<input type="range" name="{name}" {limits} data-lm-suppress-shortcuts="true">'
        lines.append(f"<label><span>{called}</span>{slider}<b>{given[name]}</b></label>")
    return HTML("\n".join([*lines, f"<output>{words}</output></form>"]))
