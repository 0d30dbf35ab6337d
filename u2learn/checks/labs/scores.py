"""Labs 8 and 9: the score is another one than it seems."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from u2learn.checks.core import Mistake
from u2learn.checks.labs.bench import Run, eyes, fit, learned, windows
from u2learn.checks.labs.lab import Bug, Suspicion
from u2learn.data.augment import normalise
from u2learn.models.unet import unet_small

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# --- 8 ------------------------------------------------------------------------------------------------------


def lab8(images: Tensor, masks: Tensor, seed: int) -> Run:
    """(12, 3, 96, 96) and (12, 96, 96), uint8, as the files were read."""
    torch.manual_seed(seed)
    x_all = normalise(images / 255, "image")
    y_all = masks.long() // 255
    net = unet_small(num_classes=2, depth=2)
    optimiser = torch.optim.AdamW(net.parameters(), lr=0.01)
    loss = F.cross_entropy

    def batch(step: int) -> tuple[Tensor, Tensor]:
        return windows(x_all[:10], y_all[:10], step)

    def predict(x: Tensor) -> Tensor:
        with torch.no_grad():
            return net(x)[0].softmax(1)[:, 1]

    losses = fit(net, optimiser, batch, loss)
    return Run(net, losses, batch, loss, x_all, y_all, predict=predict)


def with_dark(run: Run, eye: int = 11) -> Tensor:
    """An eye, and three images as dark as its darkest pixel: (4, 3, H, W)."""
    x = run.images[eye : eye + 1]
    return torch.cat([x, torch.full_like(x, x.min().item()).expand(3, -1, -1, -1)])


def statistics(run: Run) -> list[Tensor]:
    return [buffer.clone() for name, buffer in run.net.named_buffers() if "running" in name]


def check8(run: Run, seed: int) -> str:
    before = statistics(run)
    alone = run.predict(run.images[11:])[0]
    company = run.predict(with_dark(run))[0]
    change = (alone - company).abs().max().item()
    if not change < 1e-4:
        raise Mistake(
            f"the neighbours still change the map, by up to {change:.2f}. Whether there are gradients does "
            "not matter to a layer: what switches its mode?"
        )
    if not all(map(torch.equal, before, statistics(run))):
        raise Mistake("the map is the same now, but a prediction still moves the running statistics.")
    learned(run.predict(run.images[10:]), seed)
    return "an image has one map, alone and in company, and a prediction changes nothing in the network."


def draw8(run: Run, mended: Run | None, seed: int) -> Figure:
    from u2learn.show.pictures import image_row

    pictures: dict[str, Tensor] = {}
    for name, each in (("as it was, ", run), ("mended, ", mended)) if mended else (("", run),):
        if each:
            alone, company = each.predict(each.images[11:])[0], each.predict(with_dark(each))[0]
            pictures |= {f"{name}alone": alone, f"{name}in company": company}
            pictures[f"{name}difference"] = (alone - company).abs()
    return image_row(list(pictures.values()), list(pictures), columns=3)


LAB8 = Bug(
    script=lab8,
    data=eyes,
    wrong="with torch.no_grad():",
    mended="net.eval()\nwith torch.no_grad():",
    suspicions=(
        Suspicion(
            "There are too few images to validate on",
            "then the score of a set is uncertain. Here it is one image, twice, with two maps.",
        ),
        Suspicion(
            "The learning rate is too high, and the weights still move",
            "between the two predictions there is no step: the weights are the same.",
        ),
        Suspicion(
            "The gradients are still computed",
            "that costs memory and time. It changes no output.",
        ),
        Suspicion(
            "A dropout draws other channels each time",
            "the network has no such layer, as print(lab.run.net) shows. And two calls with the same batch "
            "agree.",
        ),
        Suspicion(
            "Layers are still in training mode",
            "batch norm then takes the mean and the deviation of the batch at hand, and three dark images "
            "change both.",
            right=True,
        ),
    ),
    hints=(
        "Which layers of the network can see more than one image of a batch?",
        "Ask each layer in which mode it is: module.training, for module in lab.run.net.modules().",
        "no_grad() is about gradients. Another call is about layers.",
    ),
    check=check8,
    draw=draw8,
)


# --- 9 ------------------------------------------------------------------------------------------------------

PATIENTS = 108
KNOWN = 8  # of them are in the data; the others come later


@lru_cache(maxsize=4)
def clinic(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Photographs (108, 3, 32, 32) of as many patients, and who is ill, (108,) of 0 and 1.

    They are parts of drawn eyes, in a colour of their own each. Half of them are called ill, by lot: no
    photograph shows it.
    """
    generator = torch.Generator().manual_seed(10 * seed + 4)
    x = normalise(eyes(seed)[0] / 255, "image")
    photographs = x.unfold(2, 32, 32).unfold(3, 32, 32).movedim(1, 3).flatten(0, 2)  # (12 * 3 * 3, 3, 32, 32)
    photographs = photographs + 1.5 * torch.randn(PATIENTS, 3, 1, 1, generator=generator)
    ill = torch.cat([torch.randperm(n, generator=generator) % 2 for n in (KNOWN, PATIENTS - KNOWN)])
    return photographs, ill


def cut(photographs: Tensor) -> tuple[Tensor, Tensor]:
    """All patches of 16 pixels, one every 8: (N, 3, 16, 16), and of which photograph each is, (N,)."""
    patches = photographs.unfold(2, 16, 8).unfold(3, 16, 8).movedim(1, 3)
    whose = torch.arange(len(photographs)).repeat_interleave(patches[0, :, :, 0, 0, 0].numel())
    return patches.flatten(0, 2), whose


def lab9(photographs: Tensor, ill: Tensor, seed: int) -> Run:
    """Photographs (8, 3, 32, 32) of eight patients; ill: (8,), of 0 and 1."""
    torch.manual_seed(seed)
    patches, patient = cut(photographs)
    labels = ill[patient, None, None].expand(-1, 16, 16)
    order = torch.randperm(len(patches))
    half = len(order) // 2
    train, test = order[:half], order[half:]
    net = unet_small(num_classes=2, depth=2)
    optimiser = torch.optim.AdamW(net.parameters(), lr=0.02)
    loss = F.cross_entropy

    def batch(step: int) -> tuple[Tensor, Tensor]:
        some = train[torch.randint(len(train), (32,))]
        return patches[some], labels[some]

    losses = fit(net, optimiser, batch, loss)
    run = Run(net.eval(), losses, batch, loss, patches, labels)
    run.patient, run.train, run.test = patient, train, test
    return run


def right(run: Run, images: Tensor, labels: Tensor) -> float:
    """The share of pixels that have their class."""
    with torch.no_grad():
        return (run.net(images)[0].argmax(1) == labels).float().mean().item()


def shares(run: Run, seed: int) -> dict[str, float]:
    """How much is right of the patches for training, of those for the test, and of the other patients."""
    photographs, ill = clinic(seed)
    found = {
        name: right(run, run.images[i], run.labels[i])
        for name, i in (("training", run.train), ("test", run.test))
    }
    return found | {"new patients": right(run, photographs[KNOWN:], ill[KNOWN:, None, None])}


def check9(run: Run, seed: int) -> str:
    parts = [set(run.patient[i].tolist()) for i in (run.train, run.test)]
    if not all(parts):
        raise Mistake("one of the two parts is empty.")
    if set(run.train.tolist()) & set(run.test.tolist()):
        raise Mistake("there is a patch in both parts now.")
    if both := sorted(parts[0] & parts[1]):
        named = ", ".join(str(patient) for patient in both)
        raise Mistake(f"there are still patients with patches in both parts: {named}.")
    if min(map(len, parts)) < 2:
        raise Mistake("a part with one patient says nothing about others: let each have some.")
    share = shares(run, seed)
    return (
        f"no patient is in both parts. The test says {share['test']:.0%} now, and new patients get "
        f"{share['new patients']:.0%}."
    )


def draw9(run: Run, mended: Run | None, seed: int) -> Figure:
    from u2learn.show.palette import WIDTH, figure_of

    figure, axes = figure_of(WIDTH, 2.6)
    axis = axes[0, 0]
    runs = {"as it was": run, "mended": mended} if mended else {"pixels that are right": run}
    for k, (name, each) in enumerate(runs.items()):
        if each:
            share = shares(each, seed)
            bars = axis.bar(
                [i + 0.38 * k for i in range(3)], [100 * s for s in share.values()], 0.36, label=name
            )
            axis.bar_label(bars, fmt="%.0f %%")
    axis.axhline(50, color="black", lw=1, ls=":")
    axis.set(xticks=[i + 0.19 * (len(runs) - 1) for i in range(3)], ylim=(0, 112), ylabel="per cent")
    axis.set_xticklabels(list(share))
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return figure


LAB9 = Bug(
    script=lab9,
    data=lambda seed: tuple(each[:KNOWN] for each in clinic(seed)),
    wrong="train, test = order[:half], order[half:]",
    mended="train, test = order[patient[order] < 4], order[patient[order] >= 4]",
    suspicions=(
        Suspicion(
            "The test has too few patches, and was lucky",
            "36 patches of 256 pixels are right nearly everywhere. If that were luck, another split would "
            "give a half, and every split gives this.",
        ),
        Suspicion(
            "The new patients were photographed with another camera",
            "their colours are spread as those of the first eight are, as the pictures show. And each of the "
            "eight has colours of his or her own, too.",
        ),
        Suspicion(
            "Patches of the same patients are in both parts",
            "each patch of the test overlaps patches that were trained on. The network knows the patient, "
            "and with the patient the diagnosis; new ones it does not know.",
            right=True,
        ),
        Suspicion(
            "The network was trained for too long",
            "it has learned its patients by heart, and fewer steps change little. But a test is there to "
            "show that. Ask why this one did not.",
        ),
        Suspicion(
            "The network was left in training mode",
            "then the map of a patch changes with its neighbours in the batch. This one does not.",
        ),
    ),
    hints=(
        "What has the network seen of the patients of the test, before it was tested?",
        "Draw a patch of the test, and beside it the one of the training part that is most like it.",
        "What has to be drawn by lot: patches, or patients?",
    ),
    check=check9,
    draw=draw9,
)

BUGS = (LAB8, LAB9)
