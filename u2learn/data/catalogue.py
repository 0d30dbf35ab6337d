"""Facts of the data sets: what it takes to get one, to cite it, and to tell whether a copy is complete."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Archive:
    """One file to download. `into` is the folder that it fills; the next address is tried when one fails."""

    addresses: tuple[str, ...]
    into: str = "."
    sha256: str | None = None

    @property
    def name(self) -> str:
        return self.addresses[0].rpartition("/")[2]


@dataclass(frozen=True)
class Dataset:
    """What one must know of a set to get it, to cite it, and to tell whether a copy is complete.

    `contents` says how many files a complete copy has of each kind, as a pattern of their paths below the
    folder; of the kinds in `optional` it may have none.
    """

    name: str
    title: str
    folder: str
    also_called: tuple[str, ...]
    home: str
    terms: str
    citation: str
    contents: dict[str, tuple[str, int]]
    optional: tuple[str, ...] = ()
    archives: tuple[Archive, ...] = ()
    by_hand: str = ""


_STARE = "https://cecas.clemson.edu/~ahoover/stare/probing/"
_ECSSD = "https://www.cse.cuhk.edu.hk/leojia/projects/hsaliency"
_DUT = "http://saliencydetection.net"
_IMAGES, _MASKS = r"[^/]+\.(jpg|jpeg|png|bmp)", r"[^/]+\.(png|jpg|bmp)"
_COPIES = "images?|imgs?|im", "masks?|gt"  # the folders of copies that others handed on, see data/saliency.py
HOME_OF_U2NET = "https://github.com/xuebinqin/U-2-Net"
# No maker publishes a checksum. STARE's and HRF's were noted by several independent users of the same
# archives; of the others none is known, and the first download's is noted instead (see `fetch`).
DATASETS: dict[str, Dataset] = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            name="drive",
            title="DRIVE: Digital Retinal Images for Vessel Extraction",
            folder="DRIVE",
            also_called=("drive",),
            home="https://drive.grand-challenge.org",
            terms="registration; research and education only; no redistribution",
            citation="staal2004drive",
            contents={
                "training images": (r"training/images/\d\d_training\.tif", 20),
                "training labels": (r"training/1st_manual/\d\d_manual1\.gif", 20),
                "training fields": (r"training/mask/\d\d_training_mask\.gif", 20),
                "test images": (r"test/images/\d\d_test\.tif", 20),
                "test labels": (r"test/1st_manual/\d\d_manual1\.gif", 20),
                "test second observer": (r"test/2nd_manual/\d\d_manual2\.gif", 20),
                "test fields": (r"test/mask/\d\d_test_mask\.gif", 20),
            },
            optional=("test labels", "test second observer"),
            by_hand="register there, download the training and the test zip, and unpack them so that "
            "{folder}/training/images and {folder}/test/images exist",
        ),
        Dataset(
            name="stare",
            title="STARE: Structured Analysis of the Retina",
            folder="STARE",
            also_called=("stare",),
            home="https://cecas.clemson.edu/~ahoover/stare",
            terms="no formal licence; free for research, cite the paper",
            citation="hoover2000stare",
            contents={
                "images": (r"stare-images/im\d{4}\.ppm(\.gz)?", 20),
                "labels": (r"labels-ah/im\d{4}\.ah\.ppm(\.gz)?", 20),
                "second observer": (r"labels-vk/im\d{4}\.vk\.ppm(\.gz)?", 20),
            },
            optional=("second observer",),
            archives=(
                Archive(
                    (_STARE + "stare-images.tar",),
                    "stare-images",
                    "5f7b509b6067cad4f1be84933145d783de9ec087b3eaaf4db0103dd0144dd433",
                ),
                Archive(
                    (_STARE + "labels-ah.tar",),
                    "labels-ah",
                    "ebf2f1e17ca955f24579d9edd990e2dae79a5c82def69f0985d8e24f826ddd2f",
                ),
                Archive(
                    (_STARE + "labels-vk.tar",),
                    "labels-vk",
                    "47474a701536b0cfdb369fdce012be36141e9f44d80387f0179446b5cb0f5576",
                ),
            ),
        ),
        Dataset(
            name="chase",
            title="CHASE_DB1: Child Heart and Health Study in England",
            folder="CHASE_DB1",
            also_called=("chasedb1", "chasedb", "chase"),
            home="https://researchdata.kingston.ac.uk/96",
            terms="CC BY 4.0",
            citation="owen2009chase",
            contents={
                "images": (r"Image_\d\d[LR]\.jpg", 28),
                "labels": (r"Image_\d\d[LR]_1stHO\.png", 28),
                "second observer": (r"Image_\d\d[LR]_2ndHO\.png", 28),
            },
            optional=("second observer",),
            archives=(
                Archive(
                    (
                        "https://researchdata.kingston.ac.uk/96/1/CHASEDB1.zip",
                        "https://staffnet.kingston.ac.uk/~ku15565/CHASE_DB1/assets/CHASEDB1.zip",
                    )
                ),
            ),
        ),
        Dataset(
            name="hrf",
            title="HRF: High-Resolution Fundus",
            folder="HRF",
            also_called=("hrf",),
            home="https://www5.cs.fau.de/research/data/fundus-images",
            terms="CC BY 4.0",
            citation="budai2013hrf",
            contents={
                "images": (r"images/\d\d_(dr|g|h)\.jpg", 45),
                "labels": (r"manual1/\d\d_(dr|g|h)\.tif", 45),
                "fields": (r"mask/\d\d_(dr|g|h)_mask\.tif", 45),
            },
            archives=(
                Archive(
                    ("https://www5.cs.fau.de/fileadmin/research/datasets/fundus-images/all.zip",),
                    sha256="a914d02cda161b7f33f25d0397c276d50e9a6cbc705e9b364a54f0adafed57e4",
                ),
            ),
        ),
        Dataset(
            name="u2net-demo",
            title="The demonstration photographs of U²-Net, and its authors' own maps of them",
            folder="U2Net_official",
            also_called=("u2netofficial", "u2netdemo"),
            home=HOME_OF_U2NET,
            terms="Apache-2.0 for the repository; the rights of the photographs are unclear",
            citation="qin2020u2net",
            contents={
                "photographs": (r"(test_data/)?test_images/[^/]+\.(jpg|jpeg|png)", 18),
                "maps of u2net": (r"(test_data/)?u2net_results/[^/]+\.png", 18),
                "maps of u2net_small": (r"(test_data/)?u2netp_results/[^/]+\.png", 18),
            },
            archives=(Archive((f"{HOME_OF_U2NET}/archive/ac7e1c817ecab7c7dff5ce6b1abba61cd213ff29.zip",)),),
        ),
        Dataset(
            name="cityscapes",
            title="Cityscapes: street scenes from 27 cities, fine annotations",
            folder="cityscapes",
            also_called=("cityscapes",),
            home="https://www.cityscapes-dataset.com",
            terms="registration; research, teaching and personal use, not commercial; no redistribution",
            citation="cordts2016cityscapes",
            contents={
                "training images": (r"leftImg8bit/train/\w+/\w+_\d{6}_\d{6}_leftImg8bit\.png", 2975),
                "training labels": (r"gtFine/train/\w+/\w+_\d{6}_\d{6}_gtFine_labelIds\.png", 2975),
                "validation images": (r"leftImg8bit/val/\w+/\w+_\d{6}_\d{6}_leftImg8bit\.png", 500),
                "validation labels": (r"gtFine/val/\w+/\w+_\d{6}_\d{6}_gtFine_labelIds\.png", 500),
            },
            by_hand="register there, download leftImg8bit_trainvaltest.zip (11 GB) and "
            "gtFine_trainvaltest.zip (241 MB), and unpack both so that {folder}/leftImg8bit/train and "
            "{folder}/gtFine/train exist",
        ),
        Dataset(
            name="duts",
            title="DUTS: salient objects in photographs, the largest set with a training part",
            folder="DUTS",
            also_called=("duts",),
            home=f"{_DUT}/duts",
            terms="no formal licence; photographs of ImageNet and SUN; research, cite the paper",
            citation="wang2017duts",
            contents={
                "training images": (rf"DUTS-TR/(DUTS-TR-Image|{_COPIES[0]})/{_IMAGES}", 10553),
                "training masks": (rf"DUTS-TR/(DUTS-TR-Mask|{_COPIES[1]})/{_MASKS}", 10553),
                "test images": (rf"DUTS-TE/(DUTS-TE-Image|{_COPIES[0]})/{_IMAGES}", 5019),
                "test masks": (rf"DUTS-TE/(DUTS-TE-Mask|{_COPIES[1]})/{_MASKS}", 5019),
            },
            archives=(
                Archive((f"{_DUT}/duts/download/DUTS-TR.zip",), "DUTS-TR"),
                Archive((f"{_DUT}/duts/download/DUTS-TE.zip",), "DUTS-TE"),
            ),
        ),
        Dataset(
            name="ecssd",
            title="ECSSD: Extended Complex Scene Saliency Dataset",
            folder="ECSSD",
            also_called=("ecssd",),
            home=f"{_ECSSD}/dataset.html",
            terms="no formal licence; academic use, cite the paper",
            citation="shi2016ecssd",
            contents={
                "images": (rf"({_COPIES[0]})/{_IMAGES}", 1000),
                "masks": (rf"(ground_truth_mask|{_COPIES[1]})/{_MASKS}", 1000),
            },
            archives=(
                Archive((f"{_ECSSD}/data/ECSSD/images.zip",), "images"),
                Archive((f"{_ECSSD}/data/ECSSD/ground_truth_mask.zip",), "ground_truth_mask"),
            ),
        ),
        Dataset(
            name="hku-is",
            title="HKU-IS: images with several salient objects or low contrast",
            folder="HKU-IS",
            also_called=("hkuis",),
            home="https://i.cs.hku.hk/~gbli/deep_saliency.html",
            terms="no formal licence; research, cite the paper",
            citation="li2015hkuis",
            contents={
                "images": (rf"({_COPIES[0]})/{_IMAGES}", 4447),
                "masks": (rf"({_COPIES[1]})/{_MASKS}", 4447),
            },
            by_hand="download HKU-IS.rar (the page links to a file share), and unpack it so that "
            "{folder}/imgs and {folder}/gt exist",
        ),
        Dataset(
            name="pascal-s",
            title="PASCAL-S: what several observers found salient in images of PASCAL VOC",
            folder="PASCAL-S",
            also_called=("pascals",),
            home="http://cbs.ic.gatech.edu/salobj",
            terms="no formal licence; research, cite the paper",
            citation="li2014pascals",
            contents={
                "images": (rf"(datasets/imgs/pascal|{_COPIES[0]})/{_IMAGES}", 850),
                "masks": (rf"(datasets/masks/pascal|{_COPIES[1]})/{_MASKS}", 850),
            },
            archives=(
                Archive(
                    (
                        "http://cbs.ic.gatech.edu/salobj/download/salObj.zip",
                        "http://cbi.gatech.edu/salobj/download/salObj.zip",
                    )
                ),
            ),
        ),
        Dataset(
            name="dut-omron",
            title="DUT-OMRON: salient objects before cluttered backgrounds",
            folder="DUT-OMRON",
            also_called=("dutomron",),
            home=f"{_DUT}/dut-omron",
            terms="no formal licence; research, cite the paper",
            citation="yang2013dutomron",
            contents={
                "images": (rf"(DUT-OMRON-image|{_COPIES[0]})/{_IMAGES}", 5168),
                "masks": (rf"(pixelwiseGT-new-PNG|{_COPIES[1]})/{_MASKS}", 5168),
            },
            archives=(
                Archive((f"{_DUT}/dut-omron/download/DUT-OMRON-image.zip",), "DUT-OMRON-image"),
                Archive(
                    (f"{_DUT}/dut-omron/download/DUT-OMRON-gt-pixelwise.zip.zip",), "pixelwiseGT-new-PNG"
                ),
            ),
        ),
        Dataset(
            name="sod",
            title="SOD: salient objects in images of the Berkeley segmentation set",
            folder="SOD",
            also_called=("sod",),
            home="https://www.elderlab.yorku.ca/resources/salient-objects-dataset-sod",
            terms="no formal licence; research, cite the papers",
            citation="movahedi2010sod",
            contents={
                "images": (rf"({_COPIES[0]})/{_IMAGES}", 300),
                "masks": (rf"({_COPIES[1]})/{_MASKS}", 300),
            },
            by_hand="download it, draw its outlines as masks (or take a copy with masks from a benchmark of "
            "salient object detection), and put them so that {folder}/Images and {folder}/Masks exist",
        ),
        Dataset(
            name="dis5k",
            title="DIS5K: highly accurate dichotomous image segmentation",
            folder="DIS5K",
            also_called=("dis5k", "dis"),
            home="https://xuebinqin.github.io/dis",
            terms="its own terms of use (a PDF beside its code); read them first",
            citation="qin2022dis",
            contents={
                f"DIS-{part} {kind}": (rf"DIS-{part}/({folders})/{files}", number)
                for part, number in (("TR", 3000), ("VD", 470), *((f"TE{i}", 500) for i in range(1, 5)))
                for kind, folders, files in (
                    ("images", _COPIES[0], _IMAGES),
                    ("masks", _COPIES[1], _MASKS),
                )
            },
            by_hand="download DIS5K.zip (the page links to two file shares), and unpack it so that "
            "{folder}/DIS-TR/im and {folder}/DIS-TR/gt exist",
        ),
    )
}
