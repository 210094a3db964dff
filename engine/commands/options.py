"""What several commands ask for in the same words, and what they print."""

from __future__ import annotations

import functools
import inspect
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stderr
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from ...pipelines.datasets import find_dataset
from ...pipelines.datasets.dataset import Dataset
from ...pipelines.datasets.layouts import LAYOUTS
from ...pipelines.errors import UsageError
from ..device import PrecisionName
from ..flags import Told
from ..recipe import Files
from .help import REGISTRY, flowing

T = TypeVar("T")
Positional = Annotated[T, tyro.conf.Positional]
Flat = Annotated[T, tyro.conf.arg(name="")]
"""Options whose flags stand beside a command's own."""


FLAG_STYLE = (tyro.conf.PositionalMetavarFromFieldName, tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone)
"""How flags look of commands whose defaults are the same in every call: a switch alone, no None."""
NEAR = 2
"""Flags that may have been meant instead of one that is none."""
MIRRORED = tyro.conf.create_mutex_group(required=False, title="mirrored images")


def either(yes: bool, no: bool) -> bool | None:
    """What two flags that contradict each other come to; None where neither is given, which leaves it to the recipe."""
    return yes if yes or no else None


@dataclass(frozen=True, kw_only=True)
class Source:
    """Which data set."""

    layout: Literal[tuple(LAYOUTS)] | None = None  # type: ignore[valid-type]
    """How the data set is laid out. Of a checkpoint: as in its training, of a published file by its number of classes
    (21 voc, 19 cityscapes, 150 ade20k, 81 coco, else folder); without one it has to be said."""
    data: Path | None = None
    """Root of the data set. Of a checkpoint: that of its training; without one it has to be said, but for shapes."""
    files: Files = field(default_factory=Files)
    """Where the files are, when the layout does not say it, and how they are read."""

    def arguments(self) -> dict[str, Any]:
        """As `find_dataset` takes them. Raises UsageError where the layout is not said, or the root is missing."""
        if self.layout is None:
            raise UsageError(f"--layout: say how the data set is laid out: {', '.join(LAYOUTS)}")
        if self.data is None and LAYOUTS[self.layout].needs_root:
            raise UsageError(f"--data: say where the {self.layout} data set is")
        return {"layout": self.layout, "root": self.data, **asdict(self.files)}

    def find(self) -> Dataset:
        """The data set as it lies on disk. Raises UsageError where there is none."""
        return find_dataset(**self.arguments())


@dataclass(frozen=True, kw_only=True)
class Judging:
    """How a network looks at images."""

    window: Told[int | None] = None
    """Side of the sliding windows (default: the recipe's)."""
    scale: Told[float | None] = None
    """Factor by which images are resized (default: the recipe's rule for their size)."""
    scales: Told[tuple[float, ...] | None] = None
    """Further factors, on top of that, whose logits are summed, e.g. 0.5 1 1.5 (default: the recipe's)."""
    flip: Told[Annotated[bool, MIRRORED]] = False
    """Add the logits of mirrored images (default: the recipe's)."""
    no_flip: Annotated[bool, MIRRORED] = False
    """Do not add the logits of mirrored images."""

    def settings(self) -> dict[str, Any]:
        """As fields of a protocol; None where the recipe's hold."""
        return {
            "window": self.window,
            "scale": self.scale,
            "scales": self.scales,
            "flip": either(self.flip, self.no_flip),
        }


@dataclass(frozen=True, kw_only=True)
class Running:
    """Where a network computes, and what is printed."""

    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Told[PrecisionName | None] = None
    """Precision of the network (default: what the training asked for, where the device has it)."""
    json: bool = False
    """Print one JSON document."""


def emit(document: Any) -> None:
    """The one JSON document of `--json`."""
    print(json.dumps(document))


def summaries(commands: Mapping[str, Callable]) -> list[str]:
    """A line for each command: its name, and the first of what it says of itself."""
    return [f"  {name:<14} {(run.__doc__ or name).splitlines()[0].rstrip('.')}" for name, run in commands.items()]


def called(command: Callable[..., T], arguments: list[str], program: str) -> T:
    """What a command returns for the values of its arguments. Raises UsageError, in one line, for arguments that give
    none."""

    def later(*values: Any, **named: Any) -> Callable[[], T]:
        return functools.partial(command, *values, **named)

    # Not by functools.wraps: tyro would look at the command instead.
    later.__signature__ = inspect.signature(command)  # type: ignore[attr-defined]
    later.__annotations__ = inspect.get_annotations(command, eval_str=True)
    later.__doc__ = flowing(command.__doc__ or "")
    return parsed(later, arguments, program, config=FLAG_STYLE)()


def parsed(form: Callable, arguments: list[str], program: str, *hints: str, **options: Any) -> Any:
    """What arguments come to in a form, by tyro, which has further options; its complaint, and hints, as one line.
    Raises UsageError."""
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            return tyro.cli(form, args=arguments, registry=REGISTRY, **{"prog": program} | options)
    except SystemExit as end:
        if not end.code:  # after --help
            raise
    raise UsageError("; ".join((*_complaint(said.getvalue()), f"`{program} --help` lists the flags", *hints)))


def _choices(expected: re.Match) -> str:
    """Without quotes. Of a flag that may be left out tyro names them in any order, and None among them."""
    names = re.findall(r"'([^']*)'", expected[1])
    return f"; expected one of {', '.join(sorted(set(names) - {'None'}) if 'None' in names else names)}"


def _form(expected: re.Match) -> str:
    """As `--help` has it, without the braces of a flag that may be left out."""
    form = expected[2].removeprefix("{None}|").removeprefix("{").removesuffix("}")
    return f"{expected[1]}: must be {form}, is {expected[3].replace(',', '')}"


CLEARER: dict[str, Any] = {
    r"\.? Expected one of \(([^)]*)\)\.?": _choices,
    r"Error parsing (\S+): no type matching (.+) could be instantiated from \[(.*)\]\.?": _form,
    r"Error parsing (\S+): invalid literal for int\(\) with base 10: (.*)": r"\1: must be a whole number, is \2",
    r"Error parsing (\S+): could not convert string to float: (.*)": r"\1: must be a number, is \2",
    r"Error parsing (\S+): Could not parse arguments \[(.*)\] into tuple type .*Tuple\[(.*)]": r"\1: must be \3, is \2",
    r"Error parsing (\S+): Could not find valid parse for arguments: \[(.*)\]\.?": r"\1: cannot be \2",
}
"""Patterns of what tyro says, and what is said in their place."""


def _complaint(framed: str) -> Iterator[str]:
    """What tyro says between the title and the second rule, in whatever frame the terminal has room for, and what it
    thinks was meant."""
    lines = [line.strip(" │") for line in re.sub(r"\x1b\[[\d;]*m", "", framed).splitlines()[1:]]
    sections: list[list[str]] = [[]]
    for line in lines:
        if line.strip("─-╰╯"):
            sections[-1].append(line)
        else:
            sections.append([])
    first, *others = [section for section in sections if section] or [framed.split()]
    said = " ".join(first)
    for pattern, words in CLEARER.items():
        said = re.sub(pattern, words, said)
    yield said
    for title, *meant in others:
        flags = [found[0] for line in meant if (found := re.match(r"--[\w.-]+", line))]
        if title.startswith(("Perhaps", "Similar")) and flags:
            yield f"perhaps you meant {' or '.join(flags[:NEAR])}"
