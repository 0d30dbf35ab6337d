"""What masks mean is decided over the whole set, and asked where it cannot be known."""

import re

import numpy as np
import pytest
from PIL import Image, ImageFilter

from u2learn.data.meaning import Meaning, decide, take_census

FILES = 4
RED, BLUE, BLACK, WHITE = (255, 0, 0), (0, 0, 255), (0, 0, 0), (255, 255, 255)


def scene(k):
    """A label map (48, 48) of 0, 1 and 2: two discs, which lie elsewhere in every file."""
    y, x = np.mgrid[:48, :48]
    return np.where(np.hypot(y - 14 - k, x - 15) < 9, 1, np.where(np.hypot(y - 34, x - 30 - k) < 6, 2, 0))


SCENES = [scene(k) for k in range(FILES)]
OBJECT = [(each == 1).astype(np.uint8) for each in SCENES]
UNSURE = [np.where(each == 2, 255, each).astype(np.uint8) for each in SCENES]


def saved(folder, masks, ending="png"):
    paths = [folder / f"{k}.{ending}" for k in range(len(masks))]
    for path, mask in zip(paths, masks, strict=True):
        if isinstance(mask, np.ndarray):
            mask = Image.fromarray(mask.astype(np.uint8) if mask.dtype in (bool, np.int64) else mask)
        mask.save(path)
    return paths


def palette(ids, colours):
    picture = Image.fromarray(ids.astype(np.uint8)).convert("P")
    picture.putpalette([value for colour in colours for value in colour])
    return picture


def coloured(ids, colours):
    return np.array(colours, np.uint8)[ids]


def grey(ids, values, kind=np.uint8):
    return np.array(values, kind)[ids]


def opacity(mask, shade):
    return np.dstack([np.full_like(mask, shade)] * 3 + [mask * 255])


def mixed_order(k):
    """The same colours under other indices in every second file, as programs that count colours save them."""
    return palette(SCENES[k] * (1 + k % 2) % 3, [BLACK, *((RED, BLUE) if k % 2 == 0 else (BLUE, RED))])


def softened(mask):
    return np.asarray(Image.fromarray(mask * 255).filter(ImageFilter.GaussianBlur(1)))


KNOWN = {  # masks, what else is said, and the label maps that are due
    "0 and 1": (OBJECT, {}, OBJECT),
    "0 and 255": ([m * 255 for m in OBJECT], {}, OBJECT),
    "0 and 2": ([m * 2 for m in OBJECT], {}, OBJECT),
    "16 bits": ([m.astype(np.uint16) * 65535 for m in OBJECT], {}, OBJECT),
    "one bit": ([Image.fromarray(m * 255).convert("1") for m in OBJECT], {}, OBJECT),
    "255 is unsure": (UNSURE, {}, UNSURE),
    "ids with holes": ([grey(s, [0, 3, 7]) for s in SCENES], {}, SCENES),
    "1 here, 2 there": (
        [m * (1 + k % 2) for k, m in enumerate(OBJECT)],
        {},
        [m * (1 + k % 2) for k, m in enumerate(OBJECT)],
    ),
    "palette": ([palette(s, [BLACK, RED, BLUE]) for s in SCENES], {}, SCENES),
    "palette of two": ([palette(m, [(4, 2, 4), (252, 254, 252)]) for m in OBJECT], {}, OBJECT),
    "grey palette": ([palette(m, [BLACK, WHITE]) for m in OBJECT], {}, OBJECT),
    "colours": ([coloured(s, [BLACK, BLUE, RED]) for s in SCENES], {}, SCENES),
    "colours, said": (
        [coloured(s, [BLACK, RED, BLUE]) for s in SCENES],
        {"classes": "#ff0000=cell,#0000FF=nucleus"},
        SCENES,
    ),
    "palettes in any order": (
        [mixed_order(k) for k in range(FILES)],
        {"classes": "#ff0000=a,#0000ff=b"},
        SCENES,
    ),
    "colours, one merged": (
        [coloured(s, [BLACK, RED, BLUE]) for s in SCENES],
        {"classes": "#ff0000=cell,#0000ff=cell"},
        [(s > 0).astype(int) for s in SCENES],
    ),
    "red on white, said": (
        [coloured(m, [WHITE, RED]) for m in OBJECT],
        {"classes": "#ffffff=background,#ff0000=object"},
        OBJECT,
    ),
    "inverted, said": ([(1 - m) * 255 for m in OBJECT], {"classes": "0=cell,255=background"}, OBJECT),
    "from 1, said": ([m + 1 for m in OBJECT], {"classes": "background,cell"}, OBJECT),
    "unsure grey, said": (
        [grey(s, [0, 255, 128]) for s in SCENES],
        {"classes": "128=ignore,255=cell"},
        UNSURE,
    ),
    "unsure, with names": (UNSURE, {"classes": "background,cell"}, UNSURE),
    "number of ids": (SCENES, {"classes": "3"}, SCENES),
    "white opacity": ([opacity(m, 255) for m in OBJECT], {}, OBJECT),
    "black opacity": ([opacity(m, 0) for m in OBJECT], {}, OBJECT),
    "soft edges": ([softened(m) for m in OBJECT], {}, [softened(m) >= 128 for m in OBJECT]),
    "soft, hard and empty": (
        [softened(OBJECT[0]), softened(OBJECT[1]), OBJECT[2] * 255, OBJECT[3] * 0],
        {},
        [softened(OBJECT[0]) >= 128, softened(OBJECT[1]) >= 128, OBJECT[2], OBJECT[3] * 0],
    ),
    "numbered, said": (
        [grey(s, [0, 150, 300], np.uint16) for s in SCENES],
        {"instances": True},
        [s > 0 for s in SCENES],
    ),
    "numbered by colours, said": (
        [coloured(s, [BLACK, (3, 9, 7), (250, 1, 0)]) for s in SCENES],
        {"instances": True},
        [s > 0 for s in SCENES],
    ),
    "shares, said": ([grey(s, [0, 12, 6]) for s in SCENES], {"soft": True}, OBJECT),
    "shares above half, said": (
        [grey(s, [0, 12, 7]) for s in SCENES],
        {"soft": True},
        [s > 0 for s in SCENES],
    ),
}


@pytest.mark.parametrize("how", KNOWN)
def test_masks_are_read_by_the_meaning_of_the_set(tmp_path, how):
    masks, said, due = KNOWN[how]
    paths = saved(tmp_path, masks)
    meaning = decide(take_census(paths), **said)
    for path, label in zip(paths, due, strict=True):
        found = meaning.label(path)
        assert found.dtype == np.uint8 and np.array_equal(found, label), path
    assert Meaning.from_json(meaning.to_json()) == meaning


def test_jpegs_of_masks_are_cut_at_half_and_empty_ones_stay_empty(tmp_path):
    for quality in (50, 70, 95):
        paths = []
        for k, mask in enumerate([*OBJECT, OBJECT[0] * 0]):
            paths.append(tmp_path / f"{quality}-{k}.jpg")
            Image.fromarray(mask * 255).save(paths[-1], quality=quality)
        meaning = decide(take_census(paths))
        for path, mask in zip(paths, [*OBJECT, OBJECT[0] * 0], strict=True):
            assert (meaning.label(path) != mask).mean() < 0.01


def numbers(count, size=7):
    """Numbered squares, 16 bits: (200, 200)."""
    ids = np.zeros((200, 200), np.uint16)
    for i in range(count):
        ids[i // 20 * 10 :, i % 20 * 10 :][:size, :size] = i + 1
    return ids


ASKED = {  # masks, and the answers that the message names
    "1 and 2": ([m + 1 for m in OBJECT], ['--classes "1=background,2=object"', '"2=background,1=object"']),
    "254 and 255": ([m + 254 for m in OBJECT], ['--classes "254=background,255=object"']),
    "1, 2 and 255": ([u + (u < 255) for u in UNSURE], ['--classes "1=background,2=object"']),
    "0/1 here, 0/255 there": (
        [m * (255 if k else 1) for k, m in enumerate(OBJECT)],
        [
            '255 is unsure: --classes "0=NAME,1=NAME,255=ignore"',
            '255 is an object: --classes "0=NAME,1=NAME,255=NAME"',
        ],
    ),
    "0, 128 and 255": (
        [grey(s, [0, 128, 255]) for s in SCENES],
        ['--classes "0=NAME,128=NAME,255=NAME"', "--soft", "--instances"],
    ),
    "0, 1 and 65535": ([grey(s, [0, 1, 65535], np.uint16) for s in SCENES], ['"0=NAME,1=NAME,65535=NAME"']),
    "red on white": (
        [coloured(m, [WHITE, RED]) for m in OBJECT],
        ['--classes "#ff0000=background,#ffffff=object"', '"#ffffff=background,#ff0000=object"'],
    ),
    "numbered": ([numbers(20 + k) for k in range(3)], ["--classes 23", "--instances"]),
    "as many numbers in each": ([numbers(9)] * 3, ["--classes 10", "--instances"]),
    "many numbers": ([numbers(200 + k) for k in range(3)], ["--instances"]),
    "more than 255": ([numbers(300)], ["--instances"]),
    "a colour for each object": (
        [
            coloured(
                numbers(60), np.random.default_rng(0).integers(1, 256, (61, 3)) * (np.arange(61) > 0)[:, None]
            )
        ],
        ["--instances", "PNG"],
    ),
    "a label map saved as JPEG": ([coloured(s, [BLACK, RED, BLUE]) for s in SCENES], ["PNG"]),
}


@pytest.mark.parametrize("how", ASKED)
def test_what_cannot_be_known_is_asked(tmp_path, how):
    masks, answers = ASKED[how]
    census = take_census(saved(tmp_path, masks, "jpg" if "JPEG" in how else "png"))
    with pytest.raises(ValueError, match="can mean several things") as question:
        decide(census)
    for answer in answers:
        assert answer in str(question.value)
    for command in re.findall(r'--classes "([^".]*)"', str(question.value)):  # an answer is an answer
        names = iter(("background", "cell", "nucleus"))
        answer = re.sub("NAME", lambda _: next(names), command)  # noqa: B023
        if how != "1, 2 and 255":
            decide(census, classes=answer)
    if "--instances" in answers:
        decide(census, instances=True)


REFUSED = {
    "a value left over": (SCENES, {"classes": "2"}, "does not say what 2 in the masks means; 2=NAME gives"),
    "a colour left over": (
        [coloured(s, [BLACK, RED, BLUE]) for s in SCENES],
        {"classes": "#ff0000=a"},
        "what #0000ff in",
    ),
    "too few names": (SCENES, {"classes": "background,cell"}, r"\(2 names alone do not tell\)"),
    "names of colours": (
        [coloured(s, [BLACK, RED, BLUE]) for s in SCENES],
        {"classes": "a,b,c"},
        "3 names alone",
    ),
    "half a mapping": (SCENES, {"classes": "0=background,cell"}, r'is "NAME,NAME" or "CODE=NAME'),
    "an empty name": (SCENES, {"classes": "0=,1=a,2=b"}, r'is "NAME,NAME" or'),
    "no number": (SCENES, {"classes": "one=a"}, "'one' is none of the values of the masks"),
    "a colour of grey masks": (SCENES, {"classes": "#ff0000=a"}, "'#ff0000' is none of the values"),
    "one class": (OBJECT, {"classes": "0=a,1=a"}, "from 2 to 254 classes"),
    "empty masks": ([m * 0 for m in OBJECT], {}, "Every pixel of every mask is 0"),
    "soft colours": (
        [coloured(s, [BLACK, RED, BLUE]) for s in SCENES],
        {"soft": True},
        "--soft is about grey levels",
    ),
    "three names for two": (SCENES, {"instances": True, "classes": "a,b,c"}, "make two classes"),
    "no background": ([m + 1 for m in OBJECT], {"instances": True}, "take 0, or black, as background"),
}


@pytest.mark.parametrize("how", REFUSED)
def test_answers_that_do_not_fit_are_refused(tmp_path, how):
    masks, said, sentence = REFUSED[how]
    census = take_census(saved(tmp_path, masks))
    with pytest.raises(ValueError, match=sentence):
        decide(census, **said)


def test_masks_of_different_kinds_are_refused(tmp_path):
    paths = saved(tmp_path, [opacity(OBJECT[0], 0), coloured(SCENES[1], [BLACK, RED, BLUE])])
    with pytest.raises(ValueError, match=r"1\.png holds colours where the other masks hold alpha; store all"):
        take_census(paths)


def test_a_mask_that_comes_later_with_other_values_is_refused(tmp_path):
    meaning = decide(take_census(saved(tmp_path, OBJECT)))
    Image.fromarray(OBJECT[0] * 7).save(tmp_path / "late.png")
    with pytest.raises(ValueError, match=r"late\.png holds 7, which is none of the classes"):
        meaning.label(tmp_path / "late.png")
    Image.fromarray(coloured(SCENES[0], [BLACK, RED, BLUE])).save(tmp_path / "late.png")
    with pytest.raises(ValueError, match=r"late\.png holds colours where the other masks hold values"):
        meaning.label(tmp_path / "late.png")


def test_names_and_colours_of_classes(tmp_path):
    colours = decide(take_census(saved(tmp_path, [coloured(s, [BLACK, RED, BLUE]) for s in SCENES])))
    assert [(each.name, each.colour) for each in colours.classes] == [
        ("background", BLACK),
        ("#0000ff", BLUE),
        ("#ff0000", RED),
    ]
    own = decide(take_census(saved(tmp_path, [palette(s, [BLACK, RED, BLUE]) for s in SCENES])), "bed,a,b")
    assert [(each.name, each.colour) for each in own.classes] == [("bed", BLACK), ("a", RED), ("b", BLUE)]
    ids = decide(take_census(saved(tmp_path, [grey(s, [0, 3, 7]) for s in SCENES])))
    assert [each.name for each in ids.classes] == ["background", "class 1", "class 2"]
    assert len({each.colour for each in ids.classes}) == 3 and ids.classes[0].colour == BLACK
    two = decide(take_census(saved(tmp_path, OBJECT)))
    assert [each.colour for each in two.classes] == [BLACK, WHITE]
