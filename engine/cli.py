"""The command line: `semiseg COMMAND …`. A recipe script is `semiseg train RECIPE …`."""

from __future__ import annotations

import importlib
import json
import pkgutil
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import tyro

from ..pipelines.errors import UsageError
from . import console
from .recipe import Files, Recipe

Layout = Literal["voc", "cityscapes", "folder", "shapes"]
Positional = tyro.conf.Positional
DEFAULT_FILES = Files()


def main(recipe: Callable[[], Recipe] | None = None) -> None:
    """Entry point of `semiseg`, and of the recipe scripts, which pass their recipe."""
    arguments = sys.argv[1:]
    console.use(stderr="--json" in arguments)
    try:
        if recipe is not None:
            train(recipe(), arguments)
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
        train(load_recipe(rest[0]), rest[1:])
    elif command == "splits":
        if rest[:1] != ["draw"]:
            raise UsageError("splits: the sub-command is `draw`, e.g. semiseg splits draw --layout voc --data ROOT")
        tyro.cli(splits_draw, args=rest[1:], prog="semiseg splits draw")
    elif command in COMMANDS:
        tyro.cli(COMMANDS[command], args=rest, prog=f"semiseg {command}")
    else:
        raise UsageError(f"unknown command {command!r}; the commands are train, splits, {', '.join(COMMANDS)}")


def help_text() -> str:
    lines = ["usage: semiseg COMMAND [--help] …", "", "  train RECIPE   train a recipe; --help lists its settings"]
    lines.append("  splits draw    draw a labelled and an unlabelled list")
    lines += [f"  {name:<14} {run.__doc__.splitlines()[0].rstrip('.')}" for name, run in COMMANDS.items()]
    lines += ["", f"recipes: {', '.join(recipes())}"]
    return "\n".join(lines)


def recipes() -> list[str]:
    """Names of the recipes that are installed. They depend on the engine, so it knows them by name alone."""
    folder = importlib.import_module("semiseg.recipes").__path__
    return sorted(m.name for m in pkgutil.iter_modules(folder) if "_" in m.name and not m.name.startswith("compare"))


def load_recipe(name: str) -> Recipe:
    if name not in recipes():
        raise UsageError(f"train: no recipe is called {name!r}; there are {', '.join(recipes())}")
    return importlib.import_module(f"semiseg.recipes.{name}").recipe()


def emit(document: Any) -> None:
    """The one JSON document of `--json`."""
    print(json.dumps(document))


def train(default: Recipe, arguments: list[str]) -> None:
    """Trains the recipe with the settings of the command line over it."""
    recipe = tyro.cli(
        Recipe, args=arguments, default=default, prog=f"semiseg train {default.name}", description=default.name
    )
    recipe.check()
    from .data import locate
    from .hyperparameters import hyperparameters
    from .trainer import Trainer, result_dict

    if recipe.dry_run:
        classes = len(locate(recipe).classes) if recipe.data else None
        effective = hyperparameters(recipe, classes)
        published = hyperparameters(default, classes) if default.published else None
        if recipe.json:
            emit({"effective": effective, "published": published})
        else:
            show_hyperparameters(default, effective, published)
        return
    trainer = Trainer(recipe)
    classes = len(trainer.data.classes)
    published = hyperparameters(default, classes) if default.published else None
    show_hyperparameters(default, hyperparameters(recipe, classes), published)
    show_data(trainer)
    if recipe.weights == "none" and default.published and recipe.lr == default.lr:
        console.say(
            f"weights: none; the published --lr {recipe.lr:g} is for ImageNet weights, a larger one may do better"
        )
    result = trainer.train()
    from .report import write_report

    report = write_report(result.out)
    console.say(
        f"mIoU best {100 * result.best:.2f} % (step {result.best_step}), last {100 * result.last:.2f} %   "
        f"{result.images_per_s:.1f} images/s, data wait {result.data_wait_pct:.0f} %   {result.seconds:.0f} s"
    )
    console.say(f"report: {report}")
    if recipe.json:
        emit(result_dict(result) | {"report": str(report)})


def show_hyperparameters(default: Recipe, effective: dict, published: dict | None) -> None:
    """The effective values, beside those of the published program; a star marks where they differ."""
    from .hyperparameters import flatten

    ours, theirs = flatten(effective), flatten(published) if published else {}
    rows = []
    for name, value in ours.items():
        mark = " *" if published and theirs.get(name) != value else ""
        rows.append([name, f"{_number(value)}{mark}", _number(theirs.get(name))])
    columns = ["", "effective", f"published ({default.published})"] if published else ["", "effective"]
    console.table(f"{default.name}", columns, [row[: len(columns)] for row in rows])


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


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
    from .data import prepare_manifest

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
    files: Files = Files(),  # noqa: B008
    json: bool = False,
) -> None:
    """Say whether a data set can be trained on, and what to mend. Writes nothing.

    Args:
        layout: How the data set is laid out.
        data: Its root.
        split: The split to look at as well, as `train` takes it.
        files: Where the files are, when the layout does not say it.
        json: Print one JSON document.
    """
    from ..pipelines.doctor import diagnose

    with console.progress("looking", 0) as bar:
        report = diagnose({"layout": layout, "root": data, **asdict(files)}, split=split, on_progress=bar)
    if json:
        emit(report.to_dict())
    else:
        for line in report.lines():
            console.say(line)
    if not report.ok:
        sys.exit(2)


def _locate(layout: Layout, data: Path | None, files: Files | None):
    from ..pipelines.dataset import find_dataset

    if data is None and layout != "shapes":
        raise UsageError(f"--data: say where the {layout} data set is")
    return find_dataset(layout, data, **asdict(files))


def splits_draw(
    *,
    layout: Layout,
    data: Path | None = None,
    share: str = "1/8",
    seed: int = 0,
    out: Path,
    files: Files = DEFAULT_FILES,
    json: bool = False,
) -> None:
    """Draw a labelled and an unlabelled list from the training images that have masks.

    Args:
        layout: How the data set is laid out.
        data: Its root.
        share: Labelled share (1/8) or count (30).
        seed: Of the draw; a smaller share of the same seed is part of a larger one.
        out: Folder for labeled.txt and unlabeled.txt.
        files: Where the files are, when the layout does not say it.
        json: Print one JSON document.
    """
    from ..pipelines.splits import resolve_split

    split = resolve_split(f"draw:{share}@{seed}", _locate(layout, data, files))
    paths = [out / "labeled.txt", out / "unlabeled.txt"]
    for path in paths:
        if path.exists():
            raise UsageError(f"--out: {path} exists; choose another folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
        for path, ids in zip(paths, (split.labeled, split.unlabeled), strict=True):
            path.write_text("".join(f"{name}\n" for name in ids))
    except OSError as error:
        raise UsageError(f"--out: cannot write into {out} ({error.strerror}); choose another folder") from None
    console.say(
        f"{split.name} [{split.checksum}]: {len(split.labeled)} in {paths[0]}, {len(split.unlabeled)} in {paths[1]}"
    )
    if json:
        emit({"name": split.name, "checksum": split.checksum, "labeled": str(paths[0]), "unlabeled": str(paths[1])})


def evaluate(
    checkpoint: Positional[Path],
    /,
    *,
    data: Path | None = None,
    files: Files = DEFAULT_FILES,
    protocol: Literal["whole", "slide"] | None = None,
    window: int | None = None,
    batch: int | None = None,
    device: str = "auto",
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = "auto",
    json: bool = False,
) -> None:
    """Score a checkpoint on a validation set.

    Args:
        checkpoint: A run's folder (its best checkpoint) or a checkpoint file.
        data: Root of the data set (default: the one it was trained on).
        files: Where the files are, when the layout does not say it.
        protocol: whole or slide (default: the recipe's).
        window: Side of the sliding windows (default: the recipe's).
        batch: Images or windows evaluated together.
        device: auto, cpu, cuda or cuda:N.
        precision: Of the network.
        json: Print one JSON document.
    """
    from .inference import evaluate_checkpoint

    scores, shown = evaluate_checkpoint(
        checkpoint, data, files, protocol=protocol, window=window, batch=batch, device=device, precision=precision
    )
    rows = [[name, f"{100 * iou:.2f}"] for name, iou in scores.iou.items()]
    console.table(f"{checkpoint}: IoU %, {shown['protocol']}, {shown['images']} images", ["class", "IoU %"], rows)
    console.say(f"mIoU {100 * scores.miou:.2f} %, pixel accuracy {100 * scores.pixel_accuracy:.2f} %")
    if json:
        emit(shown)


def predict(
    checkpoint: Positional[Path],
    images: Positional[Path],
    /,
    *,
    out: Path | None = None,
    protocol: Literal["whole", "slide"] | None = None,
    window: int | None = None,
    device: str = "auto",
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = "auto",
    json: bool = False,
) -> None:
    """Segment a folder of images: index masks, coloured masks and overlays.

    Args:
        checkpoint: A run's folder (its best checkpoint) or a checkpoint file.
        images: A folder of images, or one image.
        out: Folder for masks/, colours/ and overlays/ (default: predictions/ beside the checkpoint's run).
        protocol: whole or slide (default: the recipe's).
        window: Side of the sliding windows (default: the recipe's).
        device: auto, cpu, cuda or cuda:N.
        precision: Of the network.
        json: Print one JSON document.
    """
    from .inference import predict_folder

    folder, count = predict_folder(
        checkpoint, images, out, protocol=protocol, window=window, device=device, precision=precision
    )
    console.say(f"{count} images: {folder}/masks, {folder}/colours, {folder}/overlays")
    if json:
        emit({"out": str(folder), "images": count})


def report(run: Positional[Path], /) -> None:
    """Write a run's report.html again.

    Args:
        run: The run's folder.
    """
    from .report import write_report

    console.say(f"report: {write_report(run)}")


def bench(
    what: Positional[str] = "all",
    /,
    *,
    data: Path | None = None,
    rounds: int | None = None,
    sizes: Literal["default", "all", "tiny"] = "default",
    compiled: bool = False,
) -> None:
    """Run the benchmarks of a source checkout.

    Args:
        what: loader, kernels, one kernel by its name, or all.
        data: Root of Pascal VOC for the loader (default: the embedded data set).
        rounds: Timed rounds (default: 3 of the loaders, for kernels as many as fit a fixed time).
        sizes: Of the kernels: what suits the device, all, or tiny ones to see that everything works.
        compiled: Include torch.compile on the CPU too, which takes minutes.
    """
    folder = Path(__file__).resolve().parents[1] / "benchmarks"
    if not folder.is_dir():
        raise UsageError("bench: the benchmarks come with the source; clone the repository and run `make bench` there")
    scripts = {path.stem.removeprefix("bench_"): path for path in sorted(folder.glob("bench_*.py"))}
    loader = scripts.pop("loader")
    if what not in ("all", "loader", "kernels", *scripts):
        raise UsageError(f"bench: there is no {what!r}; choose all, loader, kernels, {', '.join(scripts)}")
    number = [] if rounds is None else ["--rounds", str(rounds)]
    if what in ("all", "loader"):
        from ..pipelines import shapes

        _run_benchmark("loader", str(loader), "--data", str(data or shapes.find().root), *number)
    if what != "loader":
        files = [str(path) for name, path in scripts.items() if what in ("all", "kernels", name)]
        options = ["--sizes", sizes, *number, *(["--compiled"] if compiled else [])]
        _run_benchmark("kernels", "-m", "pytest", "-q", *files, *options)


def _run_benchmark(name: str, *arguments: str) -> None:
    import subprocess

    if subprocess.run([sys.executable, *arguments]).returncode:
        raise UsageError(f"bench: the benchmark of the {name} failed; its message stands above")


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
