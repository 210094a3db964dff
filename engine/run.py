"""The folder of a run: recipe, environment, log, TensorBoard events, checkpoints."""

from __future__ import annotations

import errno
import itertools
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils import collect_env

from ..pipelines.cores import cores
from ..pipelines.documents import opened, read_object
from ..pipelines.errors import UsageError, refuse
from ..pipelines.memory import whole_memory
from .curves import Curves
from .disk import locked, sync, whole, writing
from .recipe import Recipe
from .serial import typed

PACKAGES = (
    *("torch", "torchvision", "triton", "numpy", "pillow", "opencv-python-headless"),
    *("nvidia-dali-cuda130", "nvidia-dali-cuda120"),
)

SPLIT = {
    **{"name": str, "checksum": str, "labeled": tuple[str, ...], "unlabeled": tuple[str, ...]},
    **{"val": tuple[str, ...] | None, "classes": tuple[str, ...] | None, "class_pct": dict | None},
    **{"contents": dict | None, "pictures": dict | None},
}
"""What is read of a split.json; older ones have less of it."""


class Run:
    """Writes into one run's folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.checkpoints = folder / "checkpoints"
        self._curves = self._lock = None
        self._unwritten: list[dict[str, Any]] = []

    @staticmethod
    def check(folder: Path) -> None:
        """Raises UsageError where a run is already, or where nothing can be written."""
        if (folder / "recipe.json").exists() or any((folder / "checkpoints").glob("*")):
            raise UsageError(f"--out: {folder} already holds a run; choose another folder or go on with it by --resume")
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        if not existing.is_dir() or not os.access(existing, os.W_OK):
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
        """Of the runs in a folder the newest one of a recipe that is not finished. Raises UsageError where none is."""
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
        """What of SPLIT there is in split.json. Raises UsageError where the file is damaged."""
        values = self.read_json("split.json")
        try:
            read = {name: typed(kind, values.get(name), name) for name, kind in SPLIT.items()}
        except ValueError as error:
            raise self._damaged("split.json", error) from None
        return {name: value for name, value in read.items() if value is not None}

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
            cut = bool(end) and file.read() != b"\n"
            file.write(b"\n" * cut + b"".join(json.dumps(line).encode() + b"\n" for line in lines))
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
        with whole(self.folder / name, durable=True) as draft:
            draft.write_text(json.dumps(value, indent=1))

    def close(self) -> None:
        if self._lock is not None:
            self._lock.close()


def create_folder(folder: Path) -> None:
    """The folder and those above it, where they are missing. Raises UsageError where it cannot be written into."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise UsageError(f"--out: cannot write into {folder} ({error.strerror}); choose another folder") from None


def create_new(folder: Path) -> Path:
    """A folder of this name that was not there before. Of runs that ask for one name at the same time each gets a
    folder of its own: with -2, -3 and so on behind the name."""
    create_folder(folder.parent)
    for number in itertools.count(1):
        own = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        try:
            own.mkdir()
        except FileExistsError:
            continue
        return own


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
    refuse(faults)


def log_line(text: bytes) -> dict[str, Any]:
    """A step and numbers, None for one that is not finite. Raises ValueError or RecursionError for anything else."""
    line = typed(dict, json.loads(text), "line")
    typed(int, line.get("step"), "step")
    return {name: typed(float | None, value, name) for name, value in line.items()}


def _order(line: dict[str, Any]) -> tuple[int, bool]:
    """A step is trained, then evaluated."""
    return line["step"], "loss" not in line


def versions() -> dict[str, str]:
    """Of those of PACKAGES that are there."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def environment() -> dict[str, Any]:
    """All that a stranger needs to know of where and how something ran: machine, versions, command and commit. What is
    not known, or not there, is None."""
    memory = whole_memory()
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "memory_gib": memory and round(memory / 2**30, 1),
        **_gpu(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "packages": versions(),
        "commit": commit_of(Path(__file__)),
    }


def _gpu() -> dict[str, Any]:
    """Of the one that is used, how many there are, and their driver."""
    if not torch.cuda.is_available():
        return dict.fromkeys(("gpu", "gpus", "gpu_memory_gib", "compute_capability", "driver"))
    device = torch.cuda.get_device_properties(torch.cuda.current_device())
    return {
        "gpu": device.name,
        "gpus": torch.cuda.device_count(),
        "gpu_memory_gib": round(device.total_memory / 2**30, 1),
        "compute_capability": f"{device.major}.{device.minor}",
        "driver": collect_env.get_nvidia_driver_version(collect_env.run),
    }


def processor() -> str:
    """The name of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def commit_of(file: Path) -> str | None:
    """Of the checkout that holds a file, ending in -dirty where something differs from it; None where it is in none,
    as that of a library installed into a folder of another project."""
    asked = (
        ["ls-files", "--error-unmatch", file.name],
        ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
    )
    try:
        told = [
            subprocess.run(["git", "-C", file.parent, *words], capture_output=True, text=True, timeout=5)
            for words in asked
        ]
    except (OSError, subprocess.TimeoutExpired):
        return None
    return told[-1].stdout.strip() if not any(one.returncode for one in told) else None
