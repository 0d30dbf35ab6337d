"""Checks of assignment 1: convolution and receptive field."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from u2learn.checks.core import (
    Answer,
    Cases,
    Mistake,
    call,
    expect,
    grows,
    integers,
    normal,
    question,
    shown,
)
from u2learn.checks.reading import Refusal

Layer = tuple[int, int, int, int]  # kernel, stride, padding, dilation
FORWARD = (
    *("conv1d", "conv2d", "conv3d", "Conv1d", "Conv2d", "Conv3d", "unfold", "Unfold", "im2col"),
    *("convolution", "convolve", "correlate", "convolve2d", "correlate2d", "conv_tbc", "mkldnn_convolution"),
)
TRANSPOSED = (
    *("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
    *("ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d", "fold", "Fold", "col2im"),
)
AUTOGRAD = (
    *("backward", "grad", "vjp", "jacobian", "jacrev", "conv2d_input", "convolution_backward"),
    *("requires_grad", "requires_grad_"),
)
COUNTED = ("parameters", "numel", "state_dict", "FlopCounterMode", "summary")
BY_INDICES = Refusal("write the sum over the taps yourself, with slices.", FORWARD + TRANSPOSED)
BY_FORMULA = Refusal("write the size as a formula.", FORWARD + TRANSPOSED)
WAY_BACK = Refusal("pad, turn the kernel, and use conv2d.", TRANSPOSED + AUTOGRAD)
ARITHMETIC = Refusal("write it as arithmetic.", FORWARD + TRANSPOSED + COUNTED)


@question("1.1", "out_size", BY_FORMULA)
def out_size(g: torch.Generator, answer: Answer) -> str:
    cases = Cases()
    for _ in range(40):
        n, k, s, p, d = integers(g, (9, 60), (1, 4), (1, 4), (0, 3), (1, 3))
        if n + 2 * p < d * (k - 1) + 1:
            continue
        want = F.conv1d(torch.zeros(1, 1, n), torch.zeros(1, 1, k), None, s, p, d).shape[-1]
        room = n + 2 * p - d * (k - 1) - 1
        suspects = {
            "the + 1 is missing: a window that just fits stands in one place": room // s,
            "round down: a window that does not fit any more is not computed": -(-room // s) + 1,
            "padding is added on both sides": (room - p) // s + 1,
            "a dilated kernel covers d (k - 1) + 1 pixels": (n + 2 * p - k) // s + 1,
            "a dilated kernel covers d (k - 1) + 1 pixels, not d k": (n + 2 * p - d * k) // s + 1,
            "the size is a whole number: divide with //": room / s + 1,
            "round down, not to the nearest: a window that sticks out is not computed": round(room / s) + 1,
        }
        got = call(answer, n, k, stride=s, padding=p, dilation=d)
        case = f"out_size({n}, {k}, stride={s}, padding={p}, dilation={d})"
        simple = {"the stride is 1": s == 1, "the padding is 0": p == 0, "the dilation is 1": d == 1}
        cases.add(got, want, suspects, case, simple | {"the kernel is 1": k == 1})
    cases.done("")
    expect(call(answer, 9, 1), 9, "out_size(9, 1), with the defaults")
    return cases.done("40 random windows give the size that PyTorch gives.")


@question("1.2", "conv2d", BY_INDICES)
def conv2d(g: torch.Generator, answer: Answer) -> str:
    cases = Cases()
    for trial in range(12):
        B, C, out, k = integers(g, (2, 3), (2, 3), (1, 4), (2, 4))
        s, p = integers(g, (2, 3), (1, 2)) if trial > 3 else (1, 0)
        d = 2 if trial > 7 else 1
        H, W = integers(g, (8, 11), (12, 14))
        x, w, b = normal(g, B, C, H, W), normal(g, out, C, k, k), normal(g, out)
        got = call(answer, x, w, b, stride=s, padding=p, dilation=d)
        case = f"x {tuple(x.shape)}, kernel {k}, stride {s}, padding {p}, dilation {d}"
        simple = {"the stride is 1 and the padding 0": (s, p) == (1, 0), "the dilation is 1": d == 1}
        cases.add(got, F.conv2d(x, w, b, s, p, d), partial(conv2d_suspects, x, w, b, s, p, d), case, simple)
    return cases.done("12 random cases with strides, padding and dilation agree with F.conv2d.")


def conv2d_suspects(x: Tensor, w: Tensor, b: Tensor, s: int, p: int, d: int) -> dict:
    H, W = F.conv2d(x, w, b, s, p, d).shape[2:]
    (C, k), bias = w.shape[1:3], b[:, None, None]
    zeros_first, repeated = F.pad(x, (p, 0, p, 0)), F.pad(x, [p] * 4, mode="replicate")
    return {
        "the bias is missing": lambda: F.conv2d(x, w, None, s, p, d),
        "the kernel is turned by 180 degrees: networks correlate, they do not convolve": lambda: F.conv2d(
            x, w.flip(2, 3), b, s, p, d
        ),
        "the stride is not used": lambda: F.conv2d(x, w, b, 1, p, d),
        "the stride decides how many places there are, but the window still moves by 1": lambda: F.conv2d(
            x, w, b, 1, p, d
        )[:, :, :H, :W],
        "the padding is not used": lambda: F.conv2d(x, w, b, s, 0, d),
        "the padding is there on the left and on top only": lambda: F.conv2d(zeros_first, w, b, s, 0, d),
        "the padding repeats the border: pad with zeros": lambda: F.conv2d(repeated, w, b, s, 0, d),
        "the dilation is not used: the taps stand d pixels apart": lambda: F.conv2d(x, w, b, s, p, 1),
        "the window has the size of a dilated kernel, but the taps still stand side by side": lambda: (
            F.conv2d(x, w, b, s, p, 1)[:, :, :H, :W]
        ),
        "the channels are averaged: they are added": lambda: F.conv2d(x, w, None, s, p, d) / C + bias,
        "the window is averaged: its products are added": lambda: (
            F.conv2d(x, w, None, s, p, d) / (C * k * k) + bias
        ),
        "only the first input channel is read": lambda: F.conv2d(x[:, :1], w[:, :1], b, s, p, d),
        "only the first picture of the batch is computed": lambda: F.conv2d(x[:1], w, b, s, p, d),
        "the kernel's rows and columns are exchanged": lambda: F.conv2d(x, w.transpose(2, 3), b, s, p, d),
        "the padding is there on the left and right only": lambda: F.conv2d(F.pad(x, (p, p)), w, b, s, 0, d),
        "the padding is there on top and below only": lambda: F.conv2d(F.pad(x, (0, 0, p, p)), w, b, s, 0, d),
        "each output channel has a bias of its own": lambda: F.conv2d(x, w, b.sum().expand(len(b)), s, p, d),
        "a large kernel's last taps are not used: there are k times k": lambda: F.conv2d(
            x, cut(w), b, s, p, d
        ),
        "the bias is added once for every tap": lambda: F.conv2d(x, w, b * k * k, s, p, d),
    }


def cut(w: Tensor) -> Tensor:
    """The kernel without its taps behind the fourth row."""
    few = torch.zeros_like(w)
    few[..., :4, :] = w[..., :4, :]
    return few


@question("1.3", "field_of")
def field_of(g: torch.Generator, answer: Answer) -> str:
    cases = Cases()
    for trial in range(20):
        layers = [random_layer(g) for _ in range(integers(g, (1, 2 + trial // 5))[0])]
        i = integers(g, (0, 5))[0]
        want = measured_field(layers, i)
        suspects = {
            "the padding is not used: it moves the range to the left": walk(
                i, [(k, s, 0, d) for k, s, _, d in layers]
            ),
            "the dilation is not used": walk(i, [(k, s, p, 1) for k, s, p, _ in layers]),
            "the walk goes from the output down: the last layer comes first": walk(i, layers[::-1]),
            "the last pixel is one too far: it belongs to the range": (want[0], want[1] + 1),
            "one kernel covers d (k - 1) + 1 pixels, so the last is d (k - 1) behind the first": walk(
                i, layers, taps=0
            ),
            "the width is right, the place is not: follow where the first pixel lies": (0, want[1] - want[0]),
            "padding moves both ends to the left, the right one too": (walk(i, layers, right=1)),
            "the padding is taken off behind the stride: multiply first, then take it off": walk(
                i, [(k, s, p * s, d) for k, s, p, d in layers]
            ),
            "the stride is not used": walk(i, [(k, 1, p, d) for k, _, p, d in layers]),
        }
        got = call(answer, layers, i)
        got = tuple(got) if isinstance(got, (list, tuple)) else got
        cases.add(got, want, suspects, f"field_of({layers}, {i})")
    return cases.done("20 random stacks see the pixels that a measured gradient reaches.")


def random_layer(g: torch.Generator) -> Layer:
    k, s, d = integers(g, (1, 4), (1, 2), (1, 3))
    return k, s, integers(g, (0, 2))[0], d


def measured_field(layers: Sequence[Layer], i: int) -> tuple[int, int]:
    """First and last pixel with a gradient; the padding of all layers is one long border in front."""
    border, jump, n = 0, 1, i + 1
    for _, s, p, _ in layers:
        border, jump = border + p * jump, jump * s
    for k, s, _, d in layers[::-1]:
        n = (n - 1) * s + d * (k - 1) + 1
    x = torch.zeros(1, 1, n, requires_grad=True)
    y = x
    for k, s, _, d in layers:
        y = F.conv1d(y, torch.full((1, 1, k), 1 / k), None, s, 0, d)
    (grad,) = torch.autograd.grad(y[0, 0, i], x)
    reached = grad[0, 0].nonzero().flatten()
    return int(reached[0]) - border, int(reached[-1]) - border


def walk(i: int, layers: Sequence[Layer], right: int = -1, taps: int = -1) -> tuple[int, int]:
    """The walk back, or one with a mistake: another sign of the padding on the right, or another last tap."""
    first = last = i
    for k, s, p, d in reversed(layers):
        first, last = first * s - p, last * s + right * p + d * (k + taps)
    return first, last


@question("1.4", "input_gradient", WAY_BACK)
def input_gradient(g: torch.Generator, answer: Answer) -> str:
    cases = Cases("the gradient")
    for trial in range(10):
        B, C, out, k = integers(g, (1, 2), (1, 3), (4, 6), (2, 4))
        p = trial % 2 * integers(g, (1, k - 1))[0]
        H, W = integers(g, (9, 11), (12, 14))
        x, w = normal(g, B, C, H, W).requires_grad_(), normal(g, out, C, k, k)
        y = F.conv2d(x, w, padding=p)
        grad = normal(g, *y.shape)
        (want,) = torch.autograd.grad(y, x, grad)
        got = call(answer, grad, w, padding=p, note=f" for x {tuple(x.shape)}")
        case = f"x {tuple(x.shape)}, kernel {k}, padding {p}"
        cases.add(got, want, partial(gradient_suspects, grad, w, p), case, {"the padding is 0": p == 0})
    return cases.done("10 random cases agree with PyTorch's own gradient.")


def gradient_suspects(grad: Tensor, w: Tensor, p: int) -> dict:
    k = w.shape[-1]
    framed, back = F.pad(grad, [k - 1 - p] * 4), w.transpose(0, 1)
    return {
        "turn the kernel by 180 degrees": lambda: F.conv2d(framed, back),
        "turn the kernel in both directions, not from left to right only": lambda: F.conv2d(
            framed, back.flip(3)
        ),
        "turn the kernel in both directions, not upside down only": lambda: F.conv2d(framed, back.flip(2)),
        "a kernel turned by 180 degrees is not a transposed one": lambda: F.conv2d(
            framed, back.transpose(2, 3)
        ),
        "the padding of the way back is k - 1 - p, not p": lambda: F.conv2d(grad, back.flip(2, 3), padding=p),
        "the padding of the way back is k - 1 - p, not k - 1": lambda: F.conv2d(
            grad, back.flip(2, 3), padding=k - 1
        ),
        "only the first output channel is read: an input pixel gathers from all": lambda: F.conv2d(
            framed[:, :1], back.flip(2, 3)[:, :1]
        ),
        "the output channels are averaged: they are added": lambda: (
            F.conv2d(framed, back.flip(2, 3)) / len(w)
        ),
        "the gradient has to be padded, by k - 1 - p": lambda: F.conv2d(grad, back.flip(2, 3)),
    }


@question("1.5", "cost", ARITHMETIC)
def cost(g: torch.Generator, answer: Answer) -> str:
    parameters, work = Cases(), Cases()
    for _ in range(12):
        size, channels = integers(g, (22, 40), (2, 3))  # three layers leave at least one pixel
        layers = []
        for _ in range(integers(g, (2, 3))[0]):
            out, k, s, p = integers(g, (2, 6), (2, 4), (1, 2), (0, 2))
            layers.append((channels, out, k, s, p))
            channels = out
        weights, products = measured_cost(layers, size)
        got = call(answer, layers, size)
        if not isinstance(got, (tuple, list)) or len(got) != 2:
            raise Mistake(f"return two numbers, parameters and multiply-adds, not {shown(got)}.")
        case = f"cost({layers}, {size})"
        wrong = parameter_suspects(layers, weights)
        wrong["parameters come first, then the multiply-adds"] = products
        parameters.add(got[0], weights, wrong, f"{case}, parameters")
        work.add(got[1], products, work_suspects(layers, size), f"{case}, multiply-adds")
    parameters.done("", partial(cost_by_steps, answer, 0))
    work.done("", partial(cost_by_steps, answer, 1))
    return work.done("12 random stacks cost what PyTorch counts.")


def cost_by_steps(answer: Answer, which: int) -> None:
    """From one layer on, what each thing more costs. which: 0 for parameters, 1 for the work."""

    def one(layers: Sequence[Layer], size: int) -> int:
        return call(answer, layers, size)[which]

    base = [(2, 3, 1, 1, 0)]
    for what, layers in (
        ("one input channel more", [(3, 3, 1, 1, 0)]),
        ("one output channel more", [(2, 4, 1, 1, 0)]),
        ("a kernel of 3 in place of 1, with padding 1", [(2, 3, 3, 1, 1)]),
        ("a padding of 1", [(2, 3, 1, 1, 1)]),
        ("a stride of 2", [(2, 3, 1, 2, 0)]),
        ("a second layer", [(2, 3, 1, 1, 0), (3, 4, 1, 1, 0)]),
    ):
        due = measured_cost(layers, 8)[which] - measured_cost(base, 8)[which]
        grows(one, (base, 8), (layers, 8), due, what)


def measured_cost(layers: Sequence[tuple[int, ...]], size: int) -> tuple[int, int]:
    """Parameters and multiply-adds, as PyTorch counts them."""
    net = nn.Sequential(*(nn.Conv2d(a, b, k, s, p) for a, b, k, s, p in layers))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.zeros(1, layers[0][0], size, size))
    # The counter takes a multiplication and an addition for two.
    return sum(p.numel() for p in net.parameters()), counter.get_total_flops() // 2


def parameter_suspects(layers: Sequence[tuple[int, ...]], weights: int) -> dict[str, int]:
    biases = sum(b for _, b, *_ in layers)
    return {
        "every output channel has a bias": weights - biases,
        "a kernel has k times k taps": sum(a * b * k + b for a, b, k, _, _ in layers),
        "every output channel has a kernel for every input channel": sum(
            b * k * k + b for _, b, k, _, _ in layers
        ),
        "there is one bias an output channel, not one a layer": weights - biases + len(layers),
    }


def work_suspects(layers: Sequence[tuple[int, ...]], size: int) -> dict[str, int]:
    sizes = [size]
    for _, _, k, s, p in layers:
        sizes.append((sizes[-1] + 2 * p - k) // s + 1)
    work = [a * b * k * k for a, b, k, _, _ in layers]
    right = sum(w * n**2 for w, n in zip(work, sizes[1:], strict=True))
    return {
        "a window is computed once for every pixel of the output, not of the input": sum(
            w * n**2 for w, n in zip(work, sizes, strict=False)
        ),
        "the size changes from layer to layer": sum(work) * size**2,
        "the size changes at every layer, not only at the first": sum(work) * sizes[1] ** 2,
        "a product and its addition count as one": 2 * right,
        "a picture has height times width pixels": sum(w * n for w, n in zip(work, sizes[1:], strict=True)),
        "biases do not count as work": right
        + sum(b * n**2 for (_, b, *_), n in zip(layers, sizes[1:], strict=True)),
    }
