"""The command line: `u2learn data | weights | train | evaluate | predict | reproduce | ...`."""

import argparse
import dataclasses
import difflib
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from torch import nn
from tqdm.auto import tqdm

from u2learn import benchmark as benchmarks
from u2learn import devices, distributed, inference, measure, protocols, records, studies, tables, training
from u2learn import export as exports
from u2learn.benchmark import training_speed
from u2learn.console import print_anywhere
from u2learn.costs import duration, operations, training_flops
from u2learn.data import catalogue, download, local
from u2learn.data.drawn.cells import write_slides
from u2learn.data.example import listed
from u2learn.data.folder import FILE, facts, summary
from u2learn.data.linter import lint, lint_folder
from u2learn.data.new import create, left_out
from u2learn.data.published import PUBLISHED, published_for
from u2learn.files import write_text
from u2learn.metrics.possible import SCORES
from u2learn.predicting import predict_files
from u2learn.recipe import Recipe, with_settings
from u2learn.reported import SETS, reported_for
from u2learn.studies.held_out import held_out, without_test_labels
from u2learn.studies.own import for_images, starting_from
from u2learn.studies.u2net import MODELS, published
from u2learn.tasks import TASKS

A_MINUTE = 5e12  # operations that a core does in about a minute: nobody need be told what fewer cost
OFFICIAL = "official"  # in place of a file: the weights that were published for the recipe
NEW_ANSWERS = (
    *("classes", "instances", "soft", "saliency", "exif"),
    *("group", "shares", "lists", "channels", "levels"),
)
STOPS = (training.DivergedError, training.BusyError, distributed.LostError)


def main(arguments: list[str] | None = None) -> None:
    """Run one command. A mistake of the user ends in one sentence and exit status 1, not in a traceback."""
    print_anywhere()
    options = _parser().parse_args(arguments)
    try:
        with together(options):
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
        goes_on = {
            train: "from the last checkpoint",
            reproduce: "from the last checkpoint",
            predict: "with what is left",
            fetch_data: "there",
        }
        where = goes_on.get(options.run)
        sys.exit(
            "u2learn: stopped before it was done" + (f"; the same command goes on {where}." if where else ".")
        )


def together(options: argparse.Namespace) -> AbstractContextManager[None]:
    """Inside, the processes that torchrun started share the work of a command."""
    if not distributed.launched():
        return nullcontext()
    if options.run not in (train, evaluate):
        raise ValueError(
            "Several processes share the work of `train` and `evaluate` alone: give other commands without "
            "torchrun (`reproduce` has --jobs)."
        )
    if options.device and ":" in options.device:
        raise ValueError(f"Each of several processes has a GPU of its own: leave {options.device!r} out.")
    return distributed.joined(devices.kind_of(devices.pick_device(options.device)))


def list_data(_: argparse.Namespace) -> None:
    print(f"Data sets in {local.data_root()} (set U2LEARN_DATA to look elsewhere):")
    for line in local.available():
        print(line)


def fetch_data(options: argparse.Namespace) -> None:
    print(f"{options.set}: {download.fetch(options.set)}")


def verify_data(options: argparse.Namespace) -> None:
    print(local.verify(options.set))


def example_data(options: argparse.Namespace) -> None:
    images, masks = write_slides(options.folder)
    print(f"Written: 40 microscope pictures of 20 slides, drawn by a program, in {images} and {masks}.")


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


def list_weights(_: argparse.Namespace) -> None:
    print(f"Published weights in {local.data_root() / 'weights'} (set U2LEARN_DATA to look elsewhere):")
    home = ""
    for name, weights in PUBLISHED.items():
        if weights.home != home:
            home = weights.home
            print(home)
        here = "here    " if download.weights_path(name).exists() else "not here"
        print(f"  {name:26} {here}  {weights.archive.name}")


def fetch_weights(options: argparse.Namespace) -> None:
    for name in options.names:
        print(f"{name}: {download.fetch_weights(name)}")


def train(options: argparse.Namespace) -> None:
    recipe = studies.get(options.recipe, seed=options.seed)
    if options.data:
        recipe = for_images(recipe, facts(options.data), options.data)
    elif recipe.dataset == "folder" and not recipe.folder:
        raise ValueError(f"{options.recipe!r} trains on images of your own: name their folder with --data.")
    recipe = scorable(recipe)
    start = {"start": options.start} if options.start else {}
    if options.start:
        recipe = starting_from(recipe, options.start)
    recipe = with_settings(recipe, options.set)
    folder = options.folder or records.runs_folder() / f"{recipe.name}-seed{recipe.seed}"
    try:
        training.train(recipe, folder, device=options.device, minutes=options.minutes, **start)
    except training.TimeIsUpError as stop:
        print(stop)
        return
    if best := max((line.get(TASKS[recipe.task].main, 0) for line in training.read_log(folder)), default=0):
        print(f"Best {TASKS[recipe.task].main} of the {recipe.watched} part: {best:.3f}.")
    print(f"Trained. The run is in {folder}; score it with: u2learn evaluate {folder}")


def scorable(recipe: Recipe) -> Recipe:
    """The recipe, or where the labels of its test are not here, that which holds training images out."""
    if not without_test_labels(recipe):
        return recipe
    instead = held_out(recipe)
    print(
        f"This copy of DRIVE has no labels of the test part, as it is handed out today. {instead.name!r} "
        f"takes the place of {recipe.name!r}: 16 training images train, and the score is that of the other "
        "four, which answers to no row of a table."
    )
    return instead


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
    model, recipe = inference.load_model(options.folder)
    if recipe and options.recipe:
        recipe = studies.get(options.recipe, seed=recipe.seed)
    if recipe and options.data:
        recipe = dataclasses.replace(recipe, folder=str(options.data.resolve()))
    record = measure.measure(options.folder, options.device, recipe=recipe, clocked=options.record)
    written: list[Path] = []
    if options.export and recipe:  # before anything is printed: whoever reads may have gone, as `head` does
        if distributed.leads():
            inference.save_model(options.export, model, recipe)
        written.append(options.export)
    if options.record:
        written.append(records.write_record(records.name_of(record), record))
    if "unfinished" in record:
        done, all_ = record["unfinished"], record["recipe"]["iterations"]
        print(f"This run stands at iteration {done} of {all_}: its scores are no result yet.")
    print(_score_table(record["scores"]))
    for score, (low, high) in record["interval"].items():
        task = TASKS[recipe.task] if recipe else TASKS["saliency"]
        numbers = " to ".join(f"{task.unit * value:.{task.digits}f}" for value in (low, high))
        print(f"{score} on other images of this kind: {numbers} (95 % interval over the test images)")
    for path in written:
        print(f"Written: {path}")


def evaluate_official(options: argparse.Namespace) -> None:
    """Weights that others published, beside what they reported for them."""
    if options.export:
        raise ValueError("--export writes what was trained here; official weights stay in their own file.")
    recipe, path = studies.get(options.recipe), options.weights
    if path == Path(OFFICIAL):
        with distributed.leader_first():
            path = download.fetch_weights(published_for(studies.training_of(recipe).name))
    record = measure.measure_official(path, recipe, options.device, clocked=options.record)
    written = records.write_record(f"{recipe.name}-official", record) if options.record else None
    print(_score_table(record["scores"]))
    columns, task = studies.columns_of(recipe), TASKS[recipe.task]
    for metric, value in reported_for(recipe).items():
        if metric in columns:
            protocol, score = columns[metric]
            ours = task.unit * record["scores"][protocol][score]
            difference = round(ours - float(value), task.digits) + 0.0  # which makes 0 of -0
            print(
                f"{metric:13} reported {value}, here {ours:.{task.digits}f}, "
                f"difference {difference:+.{task.digits}f}"
            )
    if written:
        print(f"Written: {written}")


def compare_maps(options: argparse.Namespace) -> None:
    """U²-Net's weights beside the maps that its authors made with them."""
    if options.folder or options.recipe or options.export:
        raise ValueError("--maps compares pictures and goes with --weights and --record alone.")
    record = measure.measure_maps(options.weights or download.fetch_weights(options.maps), options.maps)
    name = f"{options.maps.replace('_', '-')}-maps"
    path = records.write_record(name, record) if options.record else None
    print(f"{'difference in grey levels':32}{'mean':>8}{'largest':>9}")
    rows = record["differences"].items()
    worst = {key: max(row[key] for _, row in rows) for key in ("mean", "largest")}
    for photograph, row in [*rows, (f"worst of {len(rows)}", worst)]:
        print(f"{photograph:32}{row['mean']:8.2f}{row['largest']:9.0f}")
    if path:
        print(f"Written: {path}")


def model_of(what: str) -> tuple[nn.Module, Recipe | None]:
    """The model in a run's folder or a file of weights; or the one of this name, if nothing lies there."""
    path = Path(what)
    is_path = path.exists() or path.suffix or len(path.parts) > 1
    return inference.load_model(path) if is_path else inference.pretrained(what)


def predict(options: argparse.Namespace) -> None:
    if not 0 <= options.threshold <= 1:
        raise ValueError(f"A threshold is a probability, between 0 and 1, not {options.threshold}.")
    device = devices.pick_device(options.device)
    model, recipe = model_of(options.weights) if options.weights else inference.pretrained()
    if not options.weights:
        print("No --weights: the net that ships marks retinal vessels.", file=sys.stderr)
    authors = recipe is None  # of U²-Net, whose maps are stretched as they published them
    recipe = recipe or published("u2net")
    stretch = authors if options.as_published is None else options.as_published
    summary = predict_files(
        options.paths,
        options.output,
        inference.fast(model.to(device)),
        dataclasses.replace(recipe, stretch=stretch),
        threshold=options.threshold,
        cutout=options.cutout or options.matted,
        matted=options.matted,
        overlay=options.overlay,
        recursive=options.recursive,
        overwrite=options.overwrite,
        batch=options.batch,
        tell=lambda target: tqdm.write(str(target)),
    )
    if summary.left_out:
        print(f"Left out: {listed(summary.left_out.values())}.", file=sys.stderr)
    if summary.failed:
        raise ValueError(str(summary))
    if len(summary.done) + len(summary.there) > 1 or summary.there:
        print(summary, file=sys.stderr)


def export(options: argparse.Namespace) -> None:
    model, recipe = model_of(options.model)
    recipe = recipe or dataclasses.replace(published("u2net"), stretch=True)
    difference = exports.export(model, recipe, options.file, every=options.all)
    tried = ", ".join(f"{height} x {width}" for _, height, width in exports.TRIED)
    print(f"Written: {options.file}, {os.path.getsize(options.file) / 1e6:.2f} MB.")
    print(f"Run on noise of {tried} pixels: at most {difference:.2g} away from PyTorch.")
    if left_out := exports.not_in_graph(recipe):
        print(
            f"The graph makes one pass over the whole picture, without the {left_out} of the recipe's test."
        )


def reproduce(options: argparse.Namespace) -> None:
    if options.suite not in (*studies.suites(), *studies.names()) and not Path(options.suite).is_file():
        known = ", ".join([*studies.suites(), *studies.names()])
        raise ValueError(f"There is no suite and no recipe {options.suite!r}. There are: {known}.")
    if options.jobs > 1:
        reproduce_side_by_side(options)
        return
    names = studies.suites().get(options.suite, (options.suite,))
    runs = [scorable(studies.get(name, seed=seed)) for seed in range(options.seeds) for name in names]
    print(what_it_costs([recipe for recipe in runs if not recorded(recipe)], options.device), flush=True)
    end = time.monotonic() + 60 * options.minutes
    for done, recipe in enumerate(runs):
        print(f"{done + 1} of {len(runs)}: {recipe.name}, seed {recipe.seed}", flush=True)
        records.forget()  # another process may have written one
        if recorded(recipe):
            continue
        shared = studies.training_of(recipe)
        folder = records.runs_folder() / f"{shared.name}-seed{shared.seed}"
        try:
            minutes = (end - time.monotonic()) / 60
            training.train(shared, folder, device=options.device, minutes=minutes)
        except training.BusyError as busy:
            print(busy, flush=True)
            continue
        except training.TimeIsUpError as stop:
            print(stop)
            return
        record = measure.measure(folder, options.device, recipe=recipe)
        path = records.write_record(records.name_of(record), record)
        print(f"{_score_table(record['scores'])}\nWritten: {path}", flush=True)
    whole = {recipe.dataset: recipe for recipe in runs if recipe.protocol in ("", "mmseg")}
    for dataset, recipe in whole.items():
        if all(example.second is not None for example in recipe.examples("test")):
            records.write_record(f"{dataset}-second-observer", measure.measure_second_observer(recipe))


def recorded(recipe: Recipe) -> bool:
    """Has this run a record, of the recipe as it is today?"""
    record = records.records().get(f"{recipe.name}-seed{recipe.seed}")
    return record is not None and records.is_current(record)


def what_it_costs(runs: list[Recipe], device: str | None) -> str:
    """One sentence: what is left to train of these runs, in operations, and in hours of this machine."""
    if not runs:
        return "Nothing to do: all runs have a record."
    trainings = list({(it.name, it.seed): it for it in map(studies.training_of, runs)}.values())
    left = 0
    for recipe in trainings:
        log = training.read_log(records.runs_folder() / f"{recipe.name}-seed{recipe.seed}")
        done = max((line["iteration"] for line in log), default=0)
        left += training_flops(recipe) - training_flops(recipe, done)
    text = f"Runs without a record: {len(runs)}. Their training: {operations(left)}"
    if left < A_MINUTE or trainings[0].start:
        return f"{text}."
    name, speed = trainings[0].name, training_speed(trainings[0], device)
    return (
        f"{text}; at {speed / 1e12:.2g} TFLOP a second, as {name} trains here for some seconds now, about "
        f"{duration(left / speed)}. What is stopped goes on later."
    )


def reproduce_side_by_side(options: argparse.Namespace) -> None:
    """Several processes go through the same list; each takes the runs that no other one holds.

    Where there are several GPUs, they are dealt out to the processes one after the other.
    """
    command = [sys.executable, "-m", "u2learn", "reproduce", options.suite, "--seeds", str(options.seeds)]
    command += ["--minutes", str(options.minutes), "--device"]
    quiet = os.environ | {"TQDM_DISABLE": "1"}  # bars of several processes would overwrite each other
    places = devices.places(options.device)
    processes = [
        subprocess.Popen([*command, places[job % len(places)]], env=quiet) for job in range(options.jobs)
    ]
    if any([process.wait() for process in processes]):
        raise ValueError("At least one of the processes failed; see its message above.")


def benchmark(options: argparse.Namespace) -> None:
    found = benchmarks.benchmark(studies.get(options.recipe), options.device, options.seconds)
    print(f"{options.recipe} on {found['device']}")
    print(f"plain loop  {found['plain']:8.2f} steps a second")
    print(f"u2learn     {found['ours']:8.2f} steps a second, {found['ratio']:.2f} times the plain loop")
    print(f"all of it   {found['minutes']:8.1f} minutes")
    print(
        f"{found['tflops']:.3g} TFLOP a second, {found['share']:.0%} of what a product of large matrices "
        f"reaches here ({found['peak_tflops']:.3g})"
    )


def report(options: argparse.Namespace) -> None:
    if options.recipe:
        print(tables.row(options.recipe))
        return
    if not (options.root / "book").is_dir():
        raise ValueError(
            f"{options.root.resolve()} is no checkout of U2Learn, whose README and book hold the tables. "
            "Elsewhere, `u2learn report RECIPE` shows what was reported for a recipe, and ours."
        )
    texts = tables.wanted(options.root)
    stale = [path for path, text in texts.items() if path.read_text(encoding="utf-8") != text]
    names = ", ".join(str(path.relative_to(options.root)) for path in stale)
    if options.check and stale:
        raise ValueError(f"These files do not show what the records give: {names}. Run `u2learn report`.")
    for path in stale:
        write_text(path, texts[path])
    print(f"Written: {names}." if stale else "All tables are up to date.")


def check(options: argparse.Namespace) -> None:
    """Which protocols of a retinal set can have produced scores that somebody printed."""
    printed: dict[str, str] = {}
    for text in options.scores:
        name, equals, value = text.partition("=")
        if not equals or name in printed:
            raise ValueError(f"{text!r} is not one more score: write each once, as dice=0.824.")
        printed[name] = value
    print(protocols.check_table(options.set, printed))


def _score_table(scores: dict[str, dict]) -> str:
    """A row a protocol: shares in percent, saliency scores as their papers print them."""
    shares = ("dice", "mdice", "iou", "miou", "accuracy", "sensitivity", "specificity", "auc")
    plain = ("max_f", "max_f_curves", "mae", "weighted_f", "s", "mean_e", "relaxed_f", "hce")
    found = {column for row in scores.values() for column in row}
    columns = [column for column in (*shares, *plain) if column in found]
    lines = [f"{'protocol':26}" + "".join(f"{column:>13}" for column in columns)]
    for name, row in scores.items():
        cells = {
            c: f"{row[c]:.4f}" if c in plain else f"{100 * row[c]:.2f}"
            for c in columns
            if row.get(c) is not None
        }
        lines.append(f"{name:26}" + "".join(f"{cells.get(c, ''):>13}" for c in columns))
    return "\n".join(lines)


def recipe_name(text: str) -> str:
    """A recipe's name, or the path of its JSON file, as `studies.get` takes it."""
    if text not in studies.all_recipes() and not Path(text).is_file():
        near = difflib.get_close_matches(text, studies.names(), 4)
        hint = f"did you mean {' or '.join(near)}?" if near else "`u2learn train --help` lists the suites."
        raise argparse.ArgumentTypeError(f"there is no recipe {text!r}: {hint}")
    return text


def suites_text() -> str:
    """What there is to train, a line a study."""
    lines = []
    for study in studies.studies().values():
        names = [recipe.name for recipe in study.recipes]
        lines.append(f"  {names[0]}, ... ({len(names)})" if len(names) > 2 else f"  {', '.join(names)}")
        lines[-1] = f"{lines[-1]:34} {study.about}"
    return "\n".join(["recipes:", *lines])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="u2learn",
        description="U-Net and U²-Net: train, test and compare, one recipe at a time.",
        epilog="To start without any data: u2learn train synthetic-small; "
        "then: u2learn evaluate runs/synthetic-small-seed0",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(parent: Any, name: str, run: Callable, help: str, example: str) -> argparse.ArgumentParser:
        sub = parent.add_parser(
            name,
            help=help,
            description=help,
            epilog=f"Example: {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
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
    example = command(
        data_commands,
        "example",
        example_data,
        "write forty drawn microscope pictures with masks, to try `data new` and `train --data` with",
        "u2learn data example slides",
    )
    example.add_argument("folder", type=Path, help="where the folders images and masks are made")
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

    weights = commands.add_parser("weights", help="list and fetch the weights that others published")
    weights_commands = weights.add_subparsers(metavar="ACTION")
    weights.set_defaults(run=list_weights)
    command(
        weights_commands,
        "list",
        list_weights,
        "which published weights there are, and where they must lie",
        "u2learn weights list",
    )
    fetch = command(
        weights_commands,
        "fetch",
        fetch_weights,
        "download published weights from their home, and check them",
        "u2learn weights fetch chase-fcn-ce u2net_small",
    )
    fetch.add_argument("names", nargs="+", metavar="NAME", help="as `u2learn weights list` names them")

    sub = command(
        commands,
        "train",
        train,
        "train a recipe; goes on where it was stopped",
        "u2learn train drive-small --seed 1; "
        "on four GPUs: torchrun --nproc-per-node=4 -m u2learn train drive-fcn-ce",
    )
    sub.epilog = f"{sub.epilog}\n\n{suites_text()}"
    sub.add_argument("recipe", type=recipe_name, metavar="RECIPE", help="a recipe's name, or its JSON file")
    sub.add_argument("--data", type=Path, help="a folder of your own images, made by `u2learn data new`")
    sub.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="change a field of the recipe"
    )
    sub.add_argument(
        "--from",
        type=Path,
        dest="start",
        metavar="WEIGHTS",
        help="begin with these weights: a run's folder, a file of ours or of others",
    )
    sub.add_argument(
        "--seed", type=int, default=0, help="seed of weights, order and augmentation (default 0)"
    )
    sub.add_argument("--folder", type=Path, help="the run's folder (default runs/RECIPE-seedN)")
    sub.add_argument(
        "--minutes", type=float, default=math.inf, help="stop after that long (default: when done)"
    )
    sub.add_argument("--device", help="cpu, cuda or mps (default: the GPU if there is one)")

    sub = command(
        commands,
        "evaluate",
        evaluate,
        "score a finished run under every protocol",
        "u2learn evaluate runs/drive-small-seed0",
    )
    sub.add_argument("folder", type=Path, nargs="?", help="the run's folder, or a weights file of ours")
    sub.add_argument("--data", type=Path, help="where the run's images lie now, if they were moved")
    sub.add_argument("--device", help="cpu, cuda or mps (default: the GPU if there is one)")
    sub.add_argument(
        "--weights",
        type=Path,
        help=f'a file of others\' weights (.pth, .pdparams) instead of a run, or "{OFFICIAL}": those that '
        "were published for the recipe, fetched if they are not here",
    )
    sub.add_argument(
        "--recipe",
        type=recipe_name,
        metavar="RECIPE",
        help="whose test the weights take; for a run, that of another set with the same training",
    )
    sub.add_argument(
        "--maps",
        choices=sorted(MODELS),
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
        "what a net sees in pictures, as pictures: probabilities and masks, class ids, cut-outs",
        "u2learn predict eye.jpg --output maps; u2learn predict photos --weights u2netp.pth --cutout",
    )
    sub.add_argument("paths", type=Path, nargs="+", metavar="PATH", help="pictures, folders and patterns")
    sub.add_argument(
        "--weights",
        help="a run's folder, a weights file of ours or of U²-Net's authors, or a name: objects-small ships, "
        "u2net is fetched (default: drive-small, which ships and marks retinal vessels)",
    )
    sub.add_argument("--output", type=Path, default=Path(), help="folder for what is made (default: here)")
    sub.add_argument(
        "--threshold", type=float, default=0.5, help="in the mask where the map is above (default 0.5)"
    )
    sub.add_argument("--cutout", action="store_true", help="also the object alone, on a clear background")
    sub.add_argument(
        "--matted",
        action="store_true",
        help="a cut-out whose edge is found in the picture, as of hair (needs pymatting; takes seconds)",
    )
    sub.add_argument("--overlay", action="store_true", help="also the picture with what was found in colour")
    sub.add_argument(
        "--as-published",
        action=argparse.BooleanOptionalAction,
        help="stretch a saliency map from 0 to 1, as U²-Net's authors do (default: for their weights only)",
    )
    sub.add_argument("--recursive", action="store_true", help="also the folders below a folder")
    sub.add_argument("--overwrite", action="store_true", help="make anew what is there already")
    sub.add_argument(
        "--batch",
        type=int,
        default=1,
        metavar="N",
        help="so many pictures at once, for a GPU and nets of one map (default 1; no gain on a CPU)",
    )
    sub.add_argument("--device", help="cpu, cuda or mps (default: the GPU if there is one)")

    sub = command(
        commands,
        "export",
        export,
        "a model as one file for other programs, checked against PyTorch: ONNX, or torch.export's",
        "u2learn export runs/drive-small-seed0 vessels.onnx",
    )
    sub.add_argument(
        "model", help="a run's folder, a weights file, or a name (drive-small, u2net_small, ...)"
    )
    sub.add_argument("file", type=Path, help="what to write; .onnx, or .pt2 for torch.export")
    sub.add_argument(
        "--all", action="store_true", help="all maps that the model makes, not the main one only"
    )

    sub = command(
        commands,
        "reproduce",
        reproduce,
        "train and score all runs of a suite; what has a record is skipped, what was stopped goes on",
        "u2learn reproduce retina-small --seeds 5",
    )
    sub.add_argument("suite", help=f"a suite ({', '.join(studies.suites())}) or one recipe")
    sub.add_argument(
        "--seeds", type=int, default=1, help="how many seeds (default 1; the tables of our own nets have 5)"
    )
    sub.add_argument(
        "--minutes", type=float, default=math.inf, help="stop after that long (default: when done)"
    )
    sub.add_argument(
        "--jobs",
        type=int,
        default=1,
        help="processes side by side, on all GPUs in turn; pays for small runs on a large GPU, too",
    )
    sub.add_argument("--device", help="cpu, cuda or mps (default: the GPU if there is one)")

    sub = command(
        commands,
        "benchmark",
        benchmark,
        "how fast a recipe trains here, against the plain loop and the device's peak",
        "u2learn benchmark drive-fcn-ce --device cuda",
    )
    sub.add_argument("recipe", type=recipe_name, metavar="RECIPE", help="a recipe's name")
    sub.add_argument("--seconds", type=float, default=20, help="how long to measure (default 20)")
    sub.add_argument("--device", help="cpu, cuda or mps (default: the GPU if there is one)")

    sub = command(
        commands,
        "report",
        report,
        "show what was reported for a recipe, and ours; or, in a checkout, write the tables of the book",
        "u2learn report chase-fcn-ce",
    )
    sub.add_argument(
        "recipe",
        type=recipe_name,
        nargs="?",
        metavar="RECIPE",
        help="show the lines of this one (default: write the tables)",
    )
    sub.add_argument(
        "--root", type=Path, default=Path(), help="the project's folder (default: the current one)"
    )
    sub.add_argument("--check", action="store_true", help="only say whether all is up to date")

    sub = command(
        commands,
        "check",
        check,
        "ask printed scores of a retinal set which protocols can have produced them",
        "u2learn check drive accuracy=0.9561 sensitivity=0.8104 specificity=0.9773",
    )
    sub.add_argument("set", choices=sorted(SETS), help="the data set; it need not be here")
    sub.add_argument(
        "scores",
        nargs="+",
        metavar="SCORE=VALUE",
        help=f"{', '.join(SCORES)} (mdice, miou: mean of vessel and background), with the digits that are "
        "printed: 0.956; or in percent 95.6 or 95.6%%",
    )
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
