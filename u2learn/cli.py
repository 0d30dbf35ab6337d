"""The command line: `u2learn data | train | evaluate | predict | reproduce | benchmark | report`."""

import argparse
import math
import os
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image

from u2learn import benchmark as benchmarks
from u2learn import inference, recipes, results, tables, training
from u2learn.data import catalogue, download, local, saliency
from u2learn.data.example import read_image
from u2learn.data.folder import FILE, summary
from u2learn.data.linter import lint, lint_folder
from u2learn.data.new import create, left_out
from u2learn.files import write_text

SUITES = {
    "retina-small": ["drive-small", "stare-small", "chase-small"],
    "retina-openmmlab": [
        f"{s}-{head}-{loss}"
        for loss in ("ce", "ce-dice")
        for head in recipes.MMSEG_HEADS
        for s in results.SETS
    ],
    "retina-paddle": [f"{s}-paddle" for s in results.SETS],
    "saliency": [f"{s}-{net}" for net in ("u2net", "u2net-small") for s in saliency.PROTOCOLS["duts"][1]],
    "dis": [f"{s}-u2net" for s in saliency.PROTOCOLS["dis5k"][1]],
    "saliency-small": ["objects-small", "thin-small"],
    "blocks": [name for name in recipes.names() if recipes.get(name).model == "u2net_blocks"],
}
SEEDS = 5
NEW_ANSWERS = (
    *("classes", "instances", "soft", "saliency", "exif"),
    *("group", "shares", "lists", "channels", "levels"),
)
STOPS = (training.DivergedError, training.BusyError)


def main(arguments: list[str] | None = None) -> None:
    """Run one command. A mistake of the user ends in one sentence and exit status 1, not in a traceback."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # nobody reads on, and at its end Python would say so once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, OSError, LookupError, ImportError, *STOPS) as error:
        message = error.args[0] if isinstance(error, KeyError) else error
        if isinstance(error, OSError) and error.filename:  # the system's own errors, as "no such file"
            message = f"{error.filename}: {error.strerror}."
        sys.exit(f"u2learn: {message}")
    except KeyboardInterrupt:
        sys.exit("u2learn: stopped; the same command goes on from the last checkpoint.")


def list_data(_: argparse.Namespace) -> None:
    print(f"Data sets in {local.data_root()} (set U2LEARN_DATA to look elsewhere):")
    for line in local.available():
        print(line)


def fetch_data(options: argparse.Namespace) -> None:
    print(f"{options.set}: {download.fetch(options.set)}")


def verify_data(options: argparse.Namespace) -> None:
    print(local.verify(options.set))


def new_data(options: argparse.Namespace) -> None:
    for line in left_out(options.images, options.masks):
        print(line)
    answers = {name: getattr(options, name) for name in NEW_ANSWERS}
    create(options.folder, options.images, options.masks, **answers)
    print(summary(options.folder))
    print(f"Written: {options.folder / FILE}. Look for mistakes with: u2learn data lint {options.folder}")


def lint_data(options: argparse.Namespace) -> None:
    if options.masks is None:
        report = lint_folder(options.images)
    else:
        report = lint(options.images, options.masks, num_classes=options.classes)
    print(report)
    if report.failed:
        sys.exit(1)


def train(options: argparse.Namespace) -> None:
    recipe = recipes.get(options.recipe, seed=options.seed)
    folder = options.folder or runs_folder() / f"{recipe.name}-seed{recipe.seed}"
    training.train(recipe, folder, device=options.device)
    print(f"Trained. The run is in {folder}; score it with: u2learn evaluate {folder}")


def evaluate(options: argparse.Namespace) -> None:
    if options.maps:
        compare_maps(options)
        return
    if (options.folder is None) == (options.weights is None) or (options.weights and not options.recipe):
        raise ValueError(
            "evaluate takes a run's folder, or else --weights with the --recipe to test them by."
        )
    if options.weights:
        evaluate_official(options)
        return
    recipe = None
    if options.recipe:
        recipe = recipes.get(options.recipe, seed=inference.load_model(options.folder)[1].seed)
    record, written = results.measure(options.folder, recipe=recipe), []
    if options.export:  # before anything is printed: whoever reads may have gone, as `head` does
        inference.save_model(options.export, *inference.load_model(options.folder))
        written.append(options.export)
    if options.record:
        written.append(results.write_record(_record_name(record), record))
    if "unfinished" in record:
        done, all_ = record["unfinished"], record["recipe"]["iterations"]
        print(f"This run stands at iteration {done} of {all_}: its scores are no result yet.")
    print(_score_table(record["scores"]))
    for path in written:
        print(f"Written: {path}")


def evaluate_official(options: argparse.Namespace) -> None:
    """Weights that others published, beside what they reported for them."""
    if options.export:
        raise ValueError("--export writes what was trained here; official weights stay in their own file.")
    recipe = recipes.get(options.recipe)
    record = results.measure_official(options.weights, recipe)
    path = results.write_record(f"{recipe.name}-official", record) if options.record else None
    print(_score_table(record["scores"]))
    columns = results.reported_columns(recipe)
    unit, digits = (1, 4) if recipe.num_classes == 1 else (100, 2)
    for metric, value in results.reported_for(recipe).items():
        if metric in columns:
            protocol, score = columns[metric]
            ours = unit * record["scores"][protocol][score]
            difference = round(ours - float(value), digits) + 0.0  # which makes 0 of -0
            print(
                f"{metric:13} reported {value}, here {ours:.{digits}f}, difference {difference:+.{digits}f}"
            )
    if path:
        print(f"Written: {path}")


def compare_maps(options: argparse.Namespace) -> None:
    """U²-Net's weights beside the maps that its authors made with them."""
    if options.folder or options.recipe or options.export:
        raise ValueError("--maps compares pictures and goes with --weights and --record alone.")
    record = results.measure_maps(options.weights or download.fetch_weights(options.maps), options.maps)
    name = f"{options.maps.replace('_', '-')}-maps"
    path = results.write_record(name, record) if options.record else None
    print(f"{'difference in grey levels':32}{'mean':>8}{'largest':>9}")
    rows = record["differences"].items()
    worst = {key: max(row[key] for _, row in rows) for key in ("mean", "largest")}
    for photograph, row in [*rows, (f"worst of {len(rows)}", worst)]:
        print(f"{photograph:32}{row['mean']:8.2f}{row['largest']:9.0f}")
    if path:
        print(f"Written: {path}")


def predict(options: argparse.Namespace) -> None:
    if not 0 <= options.threshold <= 1:
        raise ValueError(f"A threshold is a probability, between 0 and 1, not {options.threshold}.")
    stems = [path.stem for path in options.images]
    if len(set(stems)) < len(stems):
        twice = next(stem for stem in stems if stems.count(stem) > 1)
        raise ValueError(
            f"Several photographs are called {twice!r}, and their maps would overwrite each other: "
            "give them to separate calls with an --output each."
        )
    model, recipe = inference.load_model(options.weights) if options.weights else inference.pretrained()
    options.output.mkdir(parents=True, exist_ok=True)
    for path in options.images:
        image = read_image(path)
        if recipe is None or recipe.num_classes == 1:  # without a recipe: a U²-Net of its authors
            salient = inference.saliency(model, image, side=recipe.square if recipe else 320)
            maps = {"saliency": (salient * 255).round(), "mask": (salient > options.threshold) * 255}
        elif recipe.num_classes > 2:
            maps = {"classes": inference.segment(model, image, recipe).argmax(0)}
        else:
            vessel = inference.segment(model, image, recipe)[1]
            maps = {"probability": vessel * 255, "mask": (vessel > options.threshold) * 255}
        for ending, picture in maps.items():  # (H, W)
            target = options.output / f"{path.stem}-{ending}.png"
            Image.fromarray(picture.byte().cpu().numpy()).save(target)
            print(target)


def reproduce(options: argparse.Namespace) -> None:
    if options.suite not in (*SUITES, *recipes.names()):
        known = ", ".join([*SUITES, *recipes.names()])
        raise ValueError(f"There is no suite and no recipe {options.suite!r}. There are: {known}.")
    if options.jobs > 1:
        reproduce_side_by_side(options)
        return
    names = SUITES.get(options.suite, [options.suite])
    runs = [recipes.get(name, seed=seed) for seed in range(options.seeds) for name in names]
    progress = not os.environ.get("TQDM_DISABLE")
    end = time.monotonic() + 60 * options.minutes
    for done, recipe in enumerate(runs):
        print(f"{done + 1} of {len(runs)}: {recipe.name}, seed {recipe.seed}", flush=True)
        results.records.cache_clear()  # another process may have written one
        record = results.records().get(f"{recipe.name}-seed{recipe.seed}")
        if record and results.is_current(record):
            continue
        shared = recipe.for_training()
        folder = runs_folder() / f"{shared.name}-seed{shared.seed}"
        try:
            minutes = (end - time.monotonic()) / 60
            training.train(shared, folder, device=options.device, progress=progress, minutes=minutes)
        except training.BusyError as busy:
            print(busy, flush=True)
            continue
        except training.TimeIsUpError as stop:
            print(stop)
            return
        record = results.measure(folder, options.device, progress, recipe)
        results.write_record(_record_name(record), record)
        print(_score_table(record["scores"]), flush=True)
    for dataset, recipe in {recipe.dataset: recipe for recipe in runs if recipe.split == "mmseg"}.items():
        if all(example.second is not None for example in recipe.examples("test")):
            results.write_record(f"{dataset}-second-observer", results.measure_second_observer(recipe))


def reproduce_side_by_side(options: argparse.Namespace) -> None:
    """Several processes go through the same list; each takes the runs that no other one holds."""
    command = [sys.executable, "-m", "u2learn", "reproduce", options.suite, "--seeds", str(options.seeds)]
    command += ["--minutes", str(options.minutes)] + (["--device", options.device] if options.device else [])
    quiet = os.environ | {"TQDM_DISABLE": "1"}  # bars of several processes would overwrite each other
    processes = [subprocess.Popen(command, env=quiet) for _ in range(options.jobs)]
    if any([process.wait() for process in processes]):
        raise ValueError("At least one of the processes failed; see its message above.")


def benchmark(options: argparse.Namespace) -> None:
    found = benchmarks.benchmark(recipes.get(options.recipe), options.device, options.seconds)
    print(f"{options.recipe} on {found['device']}")
    print(f"plain loop  {found['plain']:8.2f} steps a second")
    print(f"u2learn     {found['ours']:8.2f} steps a second, {found['ratio']:.2f} times the plain loop")
    print(f"all of it   {found['minutes']:8.1f} minutes")
    print(
        f"{found['tflops']:.3g} TFLOP a second, {found['share']:.0%} of what a product of large matrices "
        f"reaches here ({found['peak_tflops']:.3g})"
    )


def report(options: argparse.Namespace) -> None:
    texts = tables.wanted(options.root)
    stale = [path for path, text in texts.items() if path.read_text(encoding="utf-8") != text]
    names = ", ".join(str(path.relative_to(options.root)) for path in stale)
    if options.check and stale:
        raise ValueError(f"These files do not show what the records give: {names}. Run `u2learn report`.")
    for path in stale:
        write_text(path, texts[path])
    print(f"Written: {names}." if stale else "All tables are up to date.")


def runs_folder() -> Path:
    """Where runs lie: U2LEARN_RUNS, or `runs` below the current folder."""
    return Path(os.environ.get("U2LEARN_RUNS", "runs"))


def _record_name(record: dict) -> str:
    name = f"{record['recipe']['name']}-seed{record['seed']}"
    return f"{name}-at-{record['unfinished']}" if "unfinished" in record else name


def _score_table(scores: dict[str, dict]) -> str:
    """A row a protocol: shares in percent, saliency scores as their papers print them."""
    shares = ("dice", "mdice", "iou", "miou", "accuracy", "sensitivity", "specificity", "auc")
    plain = ("max_f", "max_f_curves", "mae", "weighted_f", "s", "mean_e", "relaxed_f", "hce")
    found = {column for row in scores.values() for column in row}
    columns = [column for column in (*shares, *plain) if column in found]
    lines = [f"{'protocol':26}" + "".join(f"{column:>13}" for column in columns)]
    for name, row in scores.items():
        cells = {c: f"{row[c]:.4f}" if c in plain else f"{100 * row[c]:.2f}" for c in columns if c in row}
        lines.append(f"{name:26}" + "".join(f"{cells.get(c, ''):>13}" for c in columns))
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="u2learn",
        description="U-Net and U²-Net: train, test and compare, one recipe at a time.",
        epilog="To start without any data: u2learn train synthetic-small; "
        "then: u2learn evaluate runs/synthetic-small-seed0",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(parent, name: str, run, help: str, example: str) -> argparse.ArgumentParser:
        sub = parent.add_parser(name, help=help, description=help, epilog=f"Example: {example}")
        sub.set_defaults(run=run)
        return sub

    data = commands.add_parser("data", help="list, fetch and check data sets; check your own folder of masks")
    data_commands = data.add_subparsers(metavar="ACTION")
    data.set_defaults(run=list_data)
    command(
        data_commands,
        "list",
        list_data,
        "which data sets there are, and where they must lie",
        "u2learn data list",
    )
    fetch = command(
        data_commands,
        "fetch",
        fetch_data,
        "download a set from its official home",
        "u2learn data fetch stare",
    )
    verify = command(
        data_commands, "verify", verify_data, "open every file of a set", "u2learn data verify drive"
    )
    for sub in (fetch, verify):
        sub.add_argument("set", choices=sorted(catalogue.DATASETS), help="the data set")
    _new_options(
        command(
            data_commands,
            "new",
            new_data,
            "make a data set of your own images and masks: decide once what they mean, and divide them",
            "u2learn data new cells --images cells/images --masks cells/masks",
        )
    )
    lint = command(
        data_commands,
        "lint",
        lint_data,
        "look for mistakes in your own images and masks; exit status 1 if there is an error",
        "u2learn data lint images masks; after `data new`: u2learn data lint cells",
    )
    lint.add_argument("images", type=Path, help="folder of images; or, alone, one with a dataset.json")
    lint.add_argument("masks", type=Path, nargs="?", help="folder of masks, named as the images")
    lint.add_argument("--classes", type=int, default=2, help="number of classes (default 2)")

    sub = command(
        commands,
        "train",
        train,
        "train a recipe; goes on where it was stopped",
        "u2learn train drive-small --seed 1",
    )
    sub.add_argument("recipe", choices=recipes.names(), metavar="RECIPE", help=", ".join(recipes.names()))
    sub.add_argument(
        "--seed", type=int, default=0, help="seed of weights, order and augmentation (default 0)"
    )
    sub.add_argument("--folder", type=Path, help="the run's folder (default runs/RECIPE-seedN)")
    sub.add_argument("--device", help="cpu or cuda (default: cuda if there is one)")

    sub = command(
        commands,
        "evaluate",
        evaluate,
        "score a finished run under every protocol",
        "u2learn evaluate runs/drive-small-seed0",
    )
    sub.add_argument("folder", type=Path, nargs="?", help="the run's folder")
    sub.add_argument("--weights", type=Path, help="official weights (.pth, .pdparams) instead of a run")
    sub.add_argument(
        "--recipe",
        choices=recipes.names(),
        metavar="RECIPE",
        help="whose test the weights take; for a run, that of another set with the same training",
    )
    sub.add_argument(
        "--maps",
        choices=sorted(catalogue.WEIGHTS),
        help="compare with the maps that U²-Net's authors published; without --weights, theirs are fetched",
    )
    sub.add_argument("--record", action="store_true", help="also write the record into results/")
    sub.add_argument(
        "--export", type=Path, help="also write the weights alone, with their recipe, to this file"
    )

    sub = command(
        commands,
        "predict",
        predict,
        "segment photographs: vessels with the net that ships, class ids with one of many classes, what "
        "stands out with a U²-Net of its authors",
        "u2learn predict eye.jpg --output maps; u2learn predict photo.jpg --weights u2netp.pth",
    )
    sub.add_argument("images", type=Path, nargs="+", help="photographs")
    sub.add_argument(
        "--weights",
        type=Path,
        help="a run's folder, a weights file of ours or U²-Net's .pth (default: the one that ships)",
    )
    sub.add_argument("--output", type=Path, default=Path(), help="folder for the maps (default: here)")
    sub.add_argument(
        "--threshold", type=float, default=0.5, help="in the mask where the map is above (default 0.5)"
    )

    sub = command(
        commands,
        "reproduce",
        reproduce,
        "train and score all runs of a suite; what has a record is skipped, what was stopped goes on",
        "u2learn reproduce retina-small",
    )
    sub.add_argument("suite", help=f"a suite ({', '.join(SUITES)}) or one recipe")
    sub.add_argument("--seeds", type=int, default=SEEDS, help=f"how many seeds (default {SEEDS})")
    sub.add_argument(
        "--minutes", type=float, default=math.inf, help="stop after that long (default: when done)"
    )
    sub.add_argument(
        "--jobs", type=int, default=1, help="processes side by side; pays for small runs on a large GPU"
    )
    sub.add_argument("--device", help="cpu or cuda (default: cuda if there is one)")

    sub = command(
        commands,
        "benchmark",
        benchmark,
        "how fast a recipe trains here, against the plain loop and the device's peak",
        "u2learn benchmark drive-fcn-ce --device cuda",
    )
    sub.add_argument("recipe", choices=recipes.names(), metavar="RECIPE", help="a recipe's name")
    sub.add_argument("--seconds", type=float, default=20, help="how long to measure (default 20)")
    sub.add_argument("--device", help="cpu or cuda (default: cuda if there is one)")

    sub = command(
        commands, "report", report, "write the tables of results into README and book", "u2learn report"
    )
    sub.add_argument(
        "--root", type=Path, default=Path(), help="the project's folder (default: the current one)"
    )
    sub.add_argument("--check", action="store_true", help="only say whether all is up to date")
    return parser


def _new_options(new: argparse.ArgumentParser) -> None:
    """What `data new` may be told; it asks for what it cannot see."""
    new.add_argument("folder", type=Path, help="where dataset.json goes, and the name of the set")
    new.add_argument("--images", type=Path, required=True, help="folder of images")
    new.add_argument("--masks", type=Path, required=True, help="folder of masks, named as the images")
    masks = new.add_argument_group("what the masks mean")
    masks.add_argument(
        "--classes",
        default="",
        help='"background,cell" in the order of the values; "0=background,3=cell,255=ignore"; '
        '"#ff0000=cell,#0000ff=nucleus"; or how many class ids there are',
    )
    masks.add_argument(
        "--instances", action="store_true", help="objects have numbers: all above 0 are a class"
    )
    masks.add_argument("--soft", action="store_true", help="grey levels are shares: cut them at half")
    masks.add_argument("--saliency", action="store_true", help="one map of what stands out, as U²-Net has it")
    exif = "what the masks were drawn on, where EXIF turns images and not their masks"
    masks.add_argument("--exif", choices=("upright", "stored"), default="", help=exif)
    parts = new.add_argument_group("parts (folders train, val and test in both folders stay as they are)")
    group = 'what stays together: with "(.*)_[a-z]$", the pictures slide7_a and slide7_b of a slide do'
    parts.add_argument("--group", default="", metavar="REGEX", help=group)
    names = ("TRAIN", "VALIDATION", "TEST")
    shares = "of the groups (default 70 15 15)"
    parts.add_argument("--shares", type=float, nargs=3, default=(70, 15, 15), metavar=names, help=shares)
    parts.add_argument("--lists", type=Path, help="or a folder with train.txt, validation.txt and test.txt")
    images = new.add_argument_group("images")
    channels = "1: grey, 3: RGB, n: bands (default: as the files have them)"
    images.add_argument("--channels", type=int, default=0, help=channels)
    levels = "stored values that become 0 and 255 (default, of more than 8 bits: 0.1 and 99.9 percentiles)"
    images.add_argument("--levels", type=float, nargs=2, metavar=("BLACK", "WHITE"), help=levels)
