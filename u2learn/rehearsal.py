"""A rehearsal of one row: what its notebook fetches, made here in little and handed out by a local server.

Drawn pictures in the official layouts, weights in the published formats, and recipes of the same names with
small windows and few steps, in this process only. The rendered page and the tests are made so: every step is
the real one, and no number of a rehearsal is a result.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import threading
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from u2learn import studies
from u2learn.data.catalogue import DATASETS, Archive
from u2learn.data.drawn.objects import salient
from u2learn.data.drawn.retina import fundus
from u2learn.data.example import Example
from u2learn.data.published import PUBLISHED, published_for
from u2learn.files import checksum
from u2learn.inference import pretrained
from u2learn.models.official import to_official
from u2learn.recipe import Recipe

EYES = [f"{n:02}{side}" for n in (1, 2, 11) for side in "LR"]  # of CHASE_DB1: 4 train, 2 test
THINGS = [f"{n:04}" for n in (*range(1, 9), *range(701, 705))]  # of ECSSD: 8 train, 4 test
CHASE_PARTS = {"CHASEDB1.zip": "."}  # the archives of a set, and the folders that they fill
ECSSD_PARTS = {"images.zip": "images", "ground_truth_mask.zip": "ground_truth_mask"}
TINY: dict[str, Any] = {"crop": (32, 32), "batch": 2, "iterations": 12, "evaluations": 2}


def begin(folder: str | Path) -> None:
    """Rehearse in `folder` from now on: data, runs and records lie there; what is there already is kept.

    The row is "chase-fcn-ce" with its network, and "ecssd-u2net-small" with a narrower one, whose weights are
    those of the net that ships for drawn things. The weights of the first are random.
    """
    folder = Path(folder).resolve()
    for name in ("data", "runs", "records"):
        os.environ[f"U2LEARN_{name.upper()}"] = str(folder / name)
    vessels = studies.get("chase-fcn-ce")
    vessels = dataclasses.replace(vessels, **TINY, window=(32, 32), stride=(32, 32))
    narrow: dict[str, Any] = {"model_options": {"out_channels": 16}, "square": 64, "crop": (64, 64)}
    things = dataclasses.replace(studies.get("ecssd-u2net-small"), **narrow)
    tuned = dataclasses.replace(studies.get("ecssd-small"), **narrow, batch=4, evaluations=2)
    for recipe in (vessels, things, tuned):
        studies.stand_in(recipe)

    home = folder / "home"
    if not (home / "all-there").exists():
        home.mkdir(parents=True, exist_ok=True)
        _write_archives(home)
        torch.save({"state_dict": to_official(vessels.build_model())}, home / _file(vessels))
        torch.save(to_official(pretrained("objects-small")[0]), home / _file(things))
        (home / "all-there").touch()
    handler = functools.partial(_Quiet, directory=str(home))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"

    for name, parts, number in (("chase", CHASE_PARTS, len(EYES)), ("ecssd", ECSSD_PARTS, len(THINGS))):
        there = DATASETS[name]
        archives = tuple(Archive((f"{address}/{file}",), into) for file, into in parts.items())
        contents = {kind: (pattern, number) for kind, (pattern, _) in there.contents.items()}
        DATASETS[name] = dataclasses.replace(there, archives=archives, contents=contents)
    for recipe in (vessels, things):
        archive = Archive((f"{address}/{_file(recipe)}",), sha256=checksum(home / _file(recipe)))
        name = published_for(studies.training_of(recipe).name)
        PUBLISHED[name] = dataclasses.replace(PUBLISHED[name], archive=archive)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """A page wants no line for every request."""


def _file(recipe: Recipe) -> str:
    return f"{recipe.model}.pth"


def _write_archives(home: Path) -> None:
    """The archives of both sets, with drawn pictures under the official names."""
    with zipfile.ZipFile(home / "CHASEDB1.zip", "w") as archive:
        for seed, name in enumerate(EYES):
            eye = fundus(seed, (64, 66))
            second = eye.label if eye.second is None else eye.second
            _put(archive, f"Image_{name}.jpg", _picture(eye))
            _put(archive, f"Image_{name}_1stHO.png", Image.fromarray(eye.label.astype(bool)))
            _put(archive, f"Image_{name}_2ndHO.png", Image.fromarray(second.astype(bool)))
    images, masks = (zipfile.ZipFile(home / name, "w") for name in ECSSD_PARTS)
    with images, masks:
        for seed, name in enumerate(THINGS):
            thing = salient(seed, (72, 96))
            _put(images, f"{name}.jpg", _picture(thing))
            _put(masks, f"{name}.png", Image.fromarray(thing.label * np.uint8(255)))


def _picture(example: Example) -> Image.Image:
    return Image.fromarray(example.image.transpose(1, 2, 0))  # (H, W, 3)


def _put(archive: zipfile.ZipFile, name: str, picture: Image.Image) -> None:
    with archive.open(name, "w") as file:
        picture.save(file, "JPEG" if name.endswith(".jpg") else "PNG")
