"""Make the photographs that ship, from a copy of CHASE_DB1 in U2LEARN_DATA: `python -m tools.photographs`.

The pictures become WebP of a high quality, the labels PNG of one bit without any loss.
"""

import hashlib
import json

from PIL import Image

from u2learn.data import local
from u2learn.data.photographs import HOME

DETAIL = (256, 256)
# The eye, the upper left corner (top, left) and the size (height, width) of what is cut out.
PICTURES = {
    "eye": ("02L", (0, 0), (960, 999)),
    "disc": ("01L", (330, 380), DETAIL),
    "crossing": ("02R", (120, 250), DETAIL),
    "reflex": ("03L", (130, 560), DETAIL),
    "faint": ("04L", (360, 560), DETAIL),
}
ENDINGS = {".webp": ".jpg", "-first.png": "_1stHO.png", "-second.png": "_2ndHO.png"}  # ours and theirs
README = """# Photographs

Eyes of CHASE_DB1, Kingston University London, <https://researchdata.kingston.ac.uk/96>, under the licence
CC BY 4.0, <https://creativecommons.org/licenses/by/4.0/>. Described by C. G. Owen et al., Measuring retinal
vessel tortuosity in 10-year-old children, Investigative Ophthalmology & Visual Science 50 (2009), and by M.
M. Fraz et al., An ensemble classification-based approach applied to retinal blood vessel segmentation, IEEE
Transactions on Biomedical Engineering 59 (2012).

Changed: the pictures were encoded as WebP, and all but `eye` are details. `photographs.json` says of each
from which eye it is, where it was cut out (top, left, height, width) and the SHA-256 of its files. `-first`
and `-second` are the vessels of the first and the second observer. Who shows one of these pictures names
its source and licence; `photograph(name).credit` is a line for that. Made by `python -m tools.photographs`.
"""


def main() -> None:
    folder, pictures = local.find("chase"), {}
    HOME.mkdir(exist_ok=True)
    for name, (eye, (top, left), (height, width)) in PICTURES.items():
        files = {f"{name}{ending}": f"Image_{eye}{was}" for ending, was in ENDINGS.items()}
        for new, old in files.items():
            picture = Image.open(folder / old).crop((left, top, left + width, top + height))
            if new.endswith(".webp"):
                picture.convert("RGB").save(HOME / new, quality=88, method=6)
            else:
                picture.convert("1", dither=Image.Dither.NONE).save(HOME / new, optimize=True)
        hashes = {file: hashlib.sha256((HOME / file).read_bytes()).hexdigest() for file in files}
        pictures[name] = {"eye": eye, "box": (top, left, height, width), "sha256": hashes}
    (HOME / "photographs.json").write_text(json.dumps(pictures, indent=1) + "\n", encoding="utf-8")
    (HOME / "README.md").write_text(README, encoding="utf-8")


if __name__ == "__main__":
    main()
