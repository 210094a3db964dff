"""The folder of a run: recipe, environment, log, TensorBoard events, checkpoints."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from PIL import Image

from ..pipelines.documents import opened, read_object
from ..pipelines.errors import UsageError, raise_faults
from .curves import Curves
from .disk import DiskFull, create_folder, locked, sync, whole, write_text, writing
from .environment import environment
from .events import Event, Listener
from .recipe import Recipe
from .serial import typed

SPLIT = {
    "name": str,
    "checksum": str,
    "labeled": tuple[str, ...],
    "unlabeled": tuple[str, ...],
    "val": tuple[str, ...],
    "classes": tuple[str, ...],
    "class_pct": dict,
    "contents": dict,
    "pictures": dict,
}
"""What a split.json holds."""


class Run:
    """Writes into one run's folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.checkpoints = folder / "checkpoints"
        self._curves: Curves | None = None
        self._lock: IO[str] | None = None
        self._unwritten: list[dict[str, Any]] = []

    @staticmethod
    def check(folder: Path) -> None:
        """Raises UsageError where a run is already, or where nothing can be written."""
        if (folder / "recipe.json").exists() or any((folder / "checkpoints").glob("*")):
            raise UsageError(f"--out: {folder} already holds a run; choose another, or continue it with --resume")
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        if not existing.is_dir():
            raise UsageError(f"--out: {existing} is a file; choose a folder")
        if not os.access(existing, os.W_OK):
            raise UsageError(f"--out: cannot write into {existing}; choose another folder")

    @classmethod
    def create(cls, folder: Path, recipe: dict[str, Any], split: dict[str, Any]) -> Run:
        """A new run, to train; it is one from the moment that it has a recipe.json. Raises UsageError as `check`, and
        where another process begins one there."""
        cls.check(folder)
        run = cls(folder)
        create_folder(folder)
        run.lock("--out")
        cls.check(folder)  # another process may have begun, and ended, one before the lock
        create_folder(folder / "checkpoints")
        run.write_json("environment.json", environment())
        run.write_json("split.json", split)
        run.write_json("recipe.json", recipe)
        return run

    @classmethod
    def open(cls, folder: Path) -> Run:
        """A run that was begun. Raises UsageError where none was."""
        if not (folder / "recipe.json").is_file():
            raise UsageError(f"{folder}: not the folder of a run (no recipe.json); pass the --out of a training")
        return cls(folder)

    @classmethod
    def unfinished(cls, folder: Path, name: str) -> Run:
        """The newest run of a recipe in a folder that is not finished. Raises UsageError where there is none."""
        for path in sorted(folder.glob("*/recipe.json"), key=lambda path: path.stat().st_mtime, reverse=True):
            run = cls(path.parent)
            with suppress(UsageError):  # one with a damaged recipe is none of anybody's
                if not run.finished and run.read_json("recipe.json").get("name") == name:
                    return run
        raise UsageError(
            f"--resume: no unfinished run of {name} is in {folder}; say which with --out FOLDER, or start one without "
            "--resume"
        )

    def lock(self, flag: str = "--resume") -> None:
        """Keeps the run for this process, until it is closed or ends. Raises UsageError, which begins with `flag`,
        where another has it."""
        self._lock = locked(self.folder / "lock")
        if self._lock is None:
            raise UsageError(f"{flag}: another process trains {self.folder}; wait for its end or stop it")

    @property
    def finished(self) -> bool:
        """All that a run leaves is there: the result is written last."""
        return (self.folder / "result.json").exists()

    @property
    def recipe(self) -> Recipe:
        """Raises UsageError where recipe.json is damaged, or of another version."""
        values = self.read_json("recipe.json")
        try:
            return Recipe.from_dict(values)
        except UsageError as error:
            raise UsageError(f"{self.folder}: {error}") from None

    @property
    def split(self) -> dict[str, Any]:
        """Raises UsageError where the file is damaged."""
        return self.read_json("split.json", SPLIT)

    @property
    def log(self) -> list[dict[str, Any]]:
        """All log lines that are whole; of steps that were run again after an interruption, the later ones. Raises
        UsageError where the file cannot be read."""
        path = self.folder / "log.jsonl"
        try:
            with opened(path) as file:
                lines = file.read().splitlines()
        except FileNotFoundError:
            lines = []
        except OSError as error:
            raise self._damaged(path.name, error.strerror) from None
        kept: list[dict[str, Any]] = []
        for text in lines:
            try:
                line = log_line(text)
            except (ValueError, RecursionError):  # a kill cut it short
                continue
            while kept and _order(kept[-1]) >= _order(line):
                kept.pop()
            kept.append(line)
        return kept

    def write(self, line: dict[str, Any]) -> None:
        """Appends a log line; its numbers also become TensorBoard scalars. Raises DiskFull where there is no room for
        it, which then comes with the next one."""
        line = {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in line.items()}
        self._unwritten.append(line)
        self._write()

    def write_notes(self, texts: Iterable[str]) -> None:
        """Appends to notes.txt, a line each. Raises DiskFull where there is no room for them."""
        path = self.folder / "notes.txt"
        with writing(path), path.open("a", encoding="utf-8") as file:
            file.writelines(f"{' '.join(text.split())}\n" for text in texts)

    @property
    def notes(self) -> list[str]:
        """What was said of the run, each once: a run that goes on says it again."""
        path = self.folder / "notes.txt"
        return [*dict.fromkeys(path.read_text(encoding="utf-8").splitlines())] if path.exists() else []

    def write_views(self, sheet: Image.Image) -> None:
        """views.png: the windows of a step as the networks saw them. Raises DiskFull where it has no room."""
        with whole(self.folder / "views.png") as draft:
            sheet.save(draft, "PNG")

    def _write(self) -> None:
        lines = self._unwritten
        path = self.folder / "log.jsonl"
        with writing(path), path.open("ab+") as file:
            if end := file.seek(0, os.SEEK_END):
                file.seek(end - 1)
            if end and file.read() != b"\n":  # the last line was cut
                file.write(b"\n")
            file.writelines(json.dumps(line).encode() + b"\n" for line in lines)
        curves, self._curves = self._curves, None  # after a failure they are begun anew
        with writing(self.folder / "tensorboard"):
            # Steps that were written before an interruption come again.
            again = [] if curves else [line for line in self.log if self._comes_again(line, lines[0])]
            curves = curves or Curves(self.folder / "tensorboard", lines[0]["step"])
            for line in (*again, *lines):
                curves.add(line)
        self._curves = curves
        self._unwritten = []

    @staticmethod
    def _comes_again(line: dict[str, Any], first: dict[str, Any]) -> bool:
        """Whether curves that begin anew with the `first` line would lose this one: of the same step, before it."""
        return line["step"] == first["step"] and _order(line) < _order(first)

    def sync(self) -> None:
        """Waits until the disk has all of the log. Raises UsageError where it does not take it, DiskFull for want of
        room."""
        if self._unwritten:
            self._write()
        path = self.folder / "log.jsonl"
        with writing(path):
            if path.exists():
                sync(path)

    def read_json(self, name: str, wanted: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """An object. Raises UsageError where the file is not what was written, or lacks fields that are wanted, of
        these types."""
        try:
            values = read_object(self.folder / name)
            for field, kind in (wanted or {}).items():
                typed(kind, values.get(field), field)
            return values
        except ValueError as error:
            raise self._damaged(name, error) from None

    def _damaged(self, name: str, why: Any) -> UsageError:
        return UsageError(f"{self.folder / name}: missing or damaged ({why}); restore it, or start a new run")

    def write_json(self, name: str, value: Any) -> None:
        write_text(self.folder / name, json.dumps(value, indent=1), durable=True)

    def close(self) -> None:
        if self._lock is not None:
            self._lock.close()


class Notes:
    """A listener that hands everything on and keeps what is noted of a run, but for scores, which the log has: in the
    run's notes.txt, as soon as there is one and room for it."""

    def __init__(self, listener: Listener):
        self.listener = listener
        self.run: Run | None = None
        self._waiting: list[str] = []

    def __call__(self, event: Event) -> None:
        self.listener(event)
        if event.kind == "note" and not event.values:
            self._waiting.append(event.text)
            self._write()

    def keep_in(self, run: Run) -> None:
        """Keeps what was noted so far, and will be."""
        self.run = run
        self._write()

    def _write(self) -> None:
        if self.run is not None and self._waiting:
            with suppress(DiskFull):
                self.run.write_notes(self._waiting)
                self._waiting = []


def require_packages() -> None:
    """Raises UsageError where a package is missing or broken that a run would ask for only later."""
    faults = []
    try:
        import tensorboard  # noqa: F401
    except ImportError as error:
        faults.append(f"tensorboard: the log needs it ({error}); run `pip install tensorboard`")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        faults.append(f"matplotlib: the report needs it ({error}); run `pip install matplotlib`")
    raise_faults(faults)


def log_line(text: bytes) -> dict[str, Any]:
    """A step and numbers, None for one that is not finite. Raises ValueError or RecursionError for anything else."""
    line = typed(dict, json.loads(text), "line")
    typed(int, line.get("step"), "step")
    return {name: typed(float | None, value, name) for name, value in line.items()}


def _order(line: dict[str, Any]) -> tuple[int, bool]:
    """A step is trained, then evaluated."""
    return line["step"], "loss" not in line


def home_of(checkpoint: Path) -> Path:
    """Where what is made of a checkpoint's file goes: the folder of its run, else its own."""
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent


def uses_of(checkpoint: Path) -> dict[str, str]:
    """What the run that a checkpoint lies in had the masks of pictures for, by the hashes of these."""
    with suppress(UsageError):  # a file alone, or a run whose split.json is damaged
        uses = Run(home_of(checkpoint)).split["pictures"]
        # Of one that lies there twice, that it was labelled counts, which comes first.
        return {name: use for use, names in reversed(uses.items()) for name in names}
    return {}
