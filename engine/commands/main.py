"""The command line: `semiseg COMMAND …`. A recipe script is `semiseg train RECIPE …`."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import tyro

from ...pipelines.datasets.splits import check_spec
from ...pipelines.errors import UsageError
from .. import console
from ..catalogue import (
    find_recipe,
    recipes,
)
from ..recipe import Absent, Files, Protocol, Recipe
from .bench import bench

Layout = Literal["voc", "cityscapes", "folder", "shapes"]
Positional = tyro.conf.Positional
DEFAULT_FILES = Files()


def main(recipe: Callable[[], Recipe] | None = None) -> None:
    """Entry point of `semiseg`, and of the recipe scripts, which pass their recipe."""
    arguments = sys.argv[1:]
    console.use(stderr="--json" in arguments)
    try:
        if recipe is not None:
            train(recipe, arguments)
        else:
            run_command(arguments)
    except UsageError as error:
        print(f"semiseg: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("semiseg: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(1)


def run_command(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(help_text())
        return
    command, rest = arguments[0], arguments[1:]
    if command == "train":
        if not rest or rest[0].startswith("-"):
            raise UsageError(f"train: name a recipe: {', '.join(recipes())}")
        train(find_recipe(rest[0]), rest[1:])
    elif command == "splits":
        from . import splits

        splits.run(rest)
    elif command in COMMANDS:
        if command in ("evaluate", "predict"):
            rest = checkpoint_first(rest)
        tyro.cli(COMMANDS[command], args=rest, prog=f"semiseg {command}")
    else:
        raise UsageError(f"unknown command {command!r}; the commands are train, splits, {', '.join(COMMANDS)}")


def help_text() -> str:
    lines = ["usage: semiseg COMMAND [--help] …", "", "  train RECIPE   train a recipe; --help lists its settings"]
    lines.append("  splits         draw, identify, check and list labelled and unlabelled lists")
    lines += [f"  {name:<14} {run.__doc__.splitlines()[0].rstrip('.')}" for name, run in COMMANDS.items()]
    lines += ["", f"recipes: {', '.join(recipes())}"]
    return "\n".join(lines)


def checkpoint_first(arguments: list[str]) -> list[str]:
    """The arguments with `--init FILE`, as `train` calls it, in the place of the checkpoint."""
    for index, argument in enumerate(arguments):
        name, given, value = argument.partition("=")
        if name == "--init":
            end = index + (1 if given else 2)
            return [*([value] if given else arguments[index + 1 : end]), *arguments[:index], *arguments[end:]]
    return arguments


def emit(document: Any) -> None:
    """The one JSON document of `--json`."""
    print(json.dumps(document))


def parse(build: Callable[..., Recipe], arguments: list[str]) -> tuple[Recipe, Recipe]:
    """The recipe that a command line asks for, and the one that it departs from.

    What it leaves open may hang on what it says: the steps on --split, lr on --batch, the switches on --fidelity. So
    it is read once for those, and then over defaults that go with them.
    """

    def read(default: Recipe) -> Recipe:
        program = f"semiseg train {default.name}"
        return tyro.cli(Recipe, args=arguments, default=default, prog=program, description=default.name)

    said = read(build())
    check_spec(said.split, said.layout)
    known = inspect.signature(build).parameters
    original = build(**{name: getattr(said, name) for name in ("split", "backbone") if name in known})
    default = original.as_published() if said.fidelity == "published" else original
    if said.scale_lr == "linear" and said.batch != default.batch:
        default = replace(default, lr=default.lr * said.batch / default.batch)
    return (said if default == build() else read(default)), original


def train(build: Callable[..., Recipe], arguments: list[str]) -> None:
    """Trains a recipe with the settings of the command line over it."""
    recipe, default = parse(build, arguments)
    recipe.check()
    from ..data import locate
    from ..hyperparameters import hyperparameters
    from ..training.trainer import Trainer, result_dict

    if recipe.dry_run:
        classes = len(locate(recipe).classes) if recipe.data else None
        if recipe.json:
            published = replace(default, network=recipe.network)
            published = hyperparameters(published, classes) if default.published else None
            emit({"effective": hyperparameters(recipe, classes), "published": published})
        else:
            show_settings(recipe, default, classes)
        return
    trainer = Trainer(recipe)
    show_settings(recipe, default, len(trainer.data.classes))
    show_data(trainer)
    given = any(argument.partition("=")[0] == "--lr" for argument in arguments)
    if recipe.weights == "none" and default.published and not given:
        console.say(
            f"weights: none; the published --lr {recipe.lr:g} is for ImageNet weights, a larger one may do better"
        )
    result = trainer.train()
    from ..report import write_report

    report = write_report(result.out)
    console.say(
        f"mIoU best {100 * result.best:.2f} % (step {result.best_step}), last {100 * result.last:.2f} %   "
        f"{result.images_per_s:.1f} images/s, data wait {result.data_wait_pct:.0f} %   {result.seconds:.0f} s"
    )
    console.say(f"report: {report}")
    if recipe.json:
        emit(result_dict(result) | {"report": str(report)})


def show_settings(recipe: Recipe, default: Recipe, classes: int | None) -> None:
    """The effective values beside those of the published program; a star marks where they differ."""
    from ..hyperparameters import settings

    ours, theirs = settings(recipe, classes), {}
    columns = ["", "effective"]
    if default.published:
        # Parameters are counted on the run's network: that it is another one is said once.
        theirs = settings(replace(default.as_published(), network=recipe.network), classes)
        theirs |= {"network": default.as_published().network}
        columns.append(f"published ({default.published})")
    rows = []
    for name, value in ours.items():
        mark = " *" if theirs and theirs.get(name) != value else ""
        rows.append([name, f"{_shown(value)}{mark}", _shown(theirs[name]) if name in theirs else ""])
    console.table(f"{default.name}", columns, [row[: len(columns)] for row in rows])
    if recipe.batch != default.batch:
        console.say(scaling(recipe, default))


def scaling(recipe: Recipe, default: Recipe) -> str:
    """What another batch than the recipe's has changed, and what it has not."""
    ratio = f"{recipe.batch}/{default.batch}"
    steps = round(recipe.steps * default.batch / recipe.batch)
    unchanged = f"steps and weight decay as they are (--steps {steps} shows as many images as with {default.batch})"
    if recipe.lr == default.lr * recipe.batch / default.batch:
        return f"batch: {ratio} of the recipe's, lr scaled alike to {recipe.lr:g} (--scale-lr none: not), {unchanged}"
    return f"batch: {ratio} of the recipe's, lr {recipe.lr:g} not scaled with it, {unchanged}"


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "default", False: "false", True: "true"}[value]
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)


def show_data(trainer) -> None:
    data, recipe = trainer.data, trainer.recipe
    split = data.split
    console.say(
        f"data: {data.manifest.dataset.root} ({recipe.layout}), split {split.name} [{split.checksum}]: "
        f"{len(split.labeled)} labelled, {len(split.unlabeled)} unlabelled, {len(data.val)} validation images, "
        f"{len(data.classes)} classes"
    )
    backend = type(trainer.backend).__name__
    console.say(f"device: {trainer.device}, {trainer.precision}, {backend}; run: {trainer.run.folder}")


def prepare(*, layout: Layout, data: Path | None = None, files: Files = DEFAULT_FILES, json: bool = False) -> None:
    """Check a data set by decoding everything once, and convert its masks into the cache.

    Args:
        layout: How the data set is laid out.
        data: Its root.
        files: Where the files are, when the layout does not say it.
        json: Print one JSON document.
    """
    from ..data import prepare_manifest

    dataset = _locate(layout, data, files)
    done = prepare_manifest(dataset)
    histogram = dict(zip(dataset.classes, done.histogram, strict=True))
    labeled = sum(sample.mask is not None for sample in dataset.train)
    if json:
        emit(
            {
                "folder": str(done.folder),
                "train": len(dataset.train),
                "masks": labeled,
                "val": len(dataset.val),
                "classes": list(dataset.classes),
                "histogram": histogram,
            }
        )
        return
    total = max(sum(done.histogram), 1)
    rows = [[name, f"{count}", f"{100 * count / total:.2f}"] for name, count in histogram.items()]
    console.table(f"{dataset.root}: pixels of the training masks", ["class", "pixels", "%"], rows)
    console.say(f"{len(dataset.train)} training images ({labeled} with masks), {len(dataset.val)} validation images")
    console.say(f"prepared in {done.folder}")


def doctor(
    *,
    layout: Layout,
    data: Path | None = None,
    split: str | None = None,
    lists: Path | None = None,
    files: Files = Files(),  # noqa: B008
    json: bool = False,
) -> None:
    """Say whether a data set can be trained on, and what to mend. Writes nothing.

    Args:
        layout: How the data set is laid out.
        data: Its root.
        split: The split to look at as well, as `train` takes it.
        lists: Folder with your copies of the published lists (default: $SEMISEG_LISTS).
        files: Where the files are, when the layout does not say it.
        json: Print one JSON document.
    """
    from ...pipelines.datasets.doctor import diagnose

    with console.progress("looking", 0) as bar:
        report = diagnose({"layout": layout, "root": data, **asdict(files)}, split=split, lists=lists, on_progress=bar)
    if json:
        emit(report.to_dict())
    else:
        for line in report.lines():
            console.say(line)
    if not report.ok:
        sys.exit(2)


def _locate(layout: Layout, data: Path | None, files: Files | None):
    from ...pipelines.datasets.layouts import find_dataset

    if data is None and layout != "shapes":
        raise UsageError(f"--data: say where the {layout} data set is")
    return find_dataset(layout, data, **asdict(files))


def evaluate(
    checkpoint: Positional[Path],
    /,
    *,
    layout: Layout | None = None,
    data: Path | None = None,
    files: Files = DEFAULT_FILES,
    protocol: tuple[Protocol, ...] | None = None,
    window: int | None = None,
    scales: tuple[float, ...] | None = None,
    flip: bool = False,
    absent: Absent | None = None,
    background: bool = True,
    batch: int | None = None,
    device: str = "auto",
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = "auto",
    json: bool = False,
) -> None:
    """Score a checkpoint on a validation set.

    Args:
        checkpoint: A run's folder (its best checkpoint), a checkpoint file, or a published file of CAC or CPS;
            also as --init FILE.
        layout: How the data set is laid out (default: as the one it was trained on; for a published file by its number
            of classes: 21 voc, 19 cityscapes, else folder).
        data: Root of the data set (default: the one it was trained on).
        files: Where the files are, when the layout does not say it.
        protocol: One or several, from one pass over the data: whole, slide, cac-whole, cps-slide (default: the
            recipe's).
        window: Side of the sliding windows (default: the recipe's).
        scales: Scales whose logits are added, e.g. 0.5 1 1.5 (default: the recipe's).
        flip: Add the logits of mirrored images.
        absent: IoU of a class that neither truth nor prediction holds: zero, or skip it (default: the protocol's).
        background: Whether class 0 counts in the mean.
        batch: Images or windows evaluated together.
        device: auto, cpu, cuda or cuda:N.
        precision: Of the network.
        json: Print one JSON document.
    """
    from ..evaluation.inference import evaluate_checkpoint

    _, shown = evaluate_checkpoint(
        checkpoint,
        data,
        files,
        layout=layout,
        protocol=protocol,
        device=device,
        precision=precision,
        window=window,
        scales=scales,
        flip=flip or None,
        absent=absent,
        background=None if background else False,
        batch=batch,
    )
    for scores in shown.get("protocols", {shown["protocol"]: shown}).values():
        rows = [[name, _percent(iou)] for name, iou in scores["iou"].items()]
        console.table(f"{checkpoint}: IoU %, {scores['protocol']}, {scores['images']} images", ["class", "IoU %"], rows)
        console.say(f"mIoU {_percent(scores['miou'])} %, pixel accuracy {_percent(scores['pixel_accuracy'])} %")
    if json:
        emit(shown)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}"


def predict(
    checkpoint: Positional[Path],
    images: Positional[Path],
    /,
    *,
    layout: Layout | None = None,
    out: Path | None = None,
    protocol: Protocol | None = None,
    window: int | None = None,
    scales: tuple[float, ...] | None = None,
    flip: bool = False,
    device: str = "auto",
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = "auto",
    json: bool = False,
) -> None:
    """Segment a folder of images: index masks, coloured masks and overlays.

    Args:
        checkpoint: A run's folder (its best checkpoint), a checkpoint file, or a published file of CAC or CPS;
            also as --init FILE.
        images: A folder of images, or one image.
        layout: Of a published file: the data set whose colours and protocol are taken (default: by its number of
            classes: 21 voc, 19 cityscapes, else folder).
        out: Folder for masks/, colours/ and overlays/ (default: predictions/ beside the checkpoint's run).
        protocol: whole, slide, cac-whole or cps-slide (default: the recipe's).
        window: Side of the sliding windows (default: the recipe's).
        scales: Scales whose logits are added, e.g. 0.5 1 1.5 (default: the recipe's).
        flip: Add the logits of mirrored images.
        device: auto, cpu, cuda or cuda:N.
        precision: Of the network.
        json: Print one JSON document.
    """
    from ..evaluation.inference import predict_folder

    folder, count = predict_folder(
        checkpoint,
        images,
        out,
        layout=layout,
        device=device,
        precision=precision,
        protocol=protocol,
        window=window,
        scales=scales,
        flip=flip or None,
    )
    console.say(f"{count} images: {folder}/masks, {folder}/colours, {folder}/overlays")
    if json:
        emit({"out": str(folder), "images": count})


def report(run: Positional[Path], /) -> None:
    """Write a run's report.html again.

    Args:
        run: The run's folder.
    """
    from ..report import write_report

    console.say(f"report: {write_report(run)}")


COMMANDS: dict[str, Callable] = {
    "prepare": prepare,
    "doctor": doctor,
    "evaluate": evaluate,
    "predict": predict,
    "report": report,
    "bench": bench,
}


if __name__ == "__main__":
    main()
