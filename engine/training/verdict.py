"""Fast paths prove themselves: each is checked once on a device, in a process of its own, and the verdict is kept in
the cache; what is refused is told in one line, and the plain path is taken instead.

A verdict holds for one device, driver and versions, and for the sources that were checked. `semiseg selfcheck` makes it
anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ...kernels import __all__ as OPERATORS
from ...kernels.check import Result, has_kernels, refuse
from ...pipelines.backends import PLAIN, backends_to_check
from ...pipelines.cache import cache_root, write_atomically
from ...pipelines.documents import read_sealed, sealed
from ...pipelines.errors import UsageError
from ...pipelines.progress import Say
from ..child import MODULE
from ..device import LOW, Precision
from ..environment import driver, processor, versions
from ..memory import OUT_OF_MEMORY
from ..recipe import Recipe
from .check import Subject

PROJECT = Path(__file__).parents[2]
TRANSIENT = (*OUT_OF_MEMORY, "out of memory", "busy or unavailable", "(SIGKILL)")
"""In problems of a machine that others use, which say nothing about what was checked."""


@dataclass(frozen=True, slots=True)
class Part:
    """Something fast on a device, and the program that checks it."""

    name: str
    device: torch.device
    program: tuple[str, ...]
    """A module and its arguments; with --json it prints {"results": [...]}."""
    rooms: tuple[str, ...]
    """Whose sources are checked."""
    refused: tuple[str, ...]
    """What must not be used where the program dies."""
    timeout: int
    """Seconds after which it counts as hanging."""

    def facts(self) -> dict[str, str | None]:
        """All on which the verdict depends."""
        on_gpu = self.device.type == "cuda"
        return versions() | {
            "program": " ".join(self.program),
            "device": torch.cuda.get_device_name(self.device) if on_gpu else processor(),
            "driver": driver() if on_gpu else None,
            "cuda": torch.version.cuda,
            "triton serves": str(has_kernels(self.device)),
            "sources": _digest(self.rooms),
        }


def kernels(precision: Precision) -> Part:
    """The operators, in float32 and in the precision that networks compute in."""
    names = precisions(precision)
    program = ("semiseg.kernels.check", "--dtype", *names)
    return Part(f"kernels in {' and '.join(names)}", precision.device, program, ("kernels",), tuple(OPERATORS), 900)


def backend(name: str, device: torch.device) -> Part:
    """An input backend."""
    program = ("semiseg.pipelines.check", "--backend", name)
    return Part(f"backend {name}", device, program, ("kernels", "pipelines"), (name,), 180)


def steps(way: str, subject: Subject, precision: Precision) -> Part:
    """A way to make steps of a network."""
    flags = ["--network", subject.network, "--backbone", subject.backbone, "--head-width", str(subject.head_width)]
    flags += ["--freeze-backbone"] if subject.freeze_backbone else []
    program = ("semiseg.engine.training.check", "--way", way, "--precision", precision.name, *flags)
    name = f"{way} steps of {subject.network} {subject.backbone} in {precision.name}"
    return Part(name, precision.device, program, ("kernels", "pipelines", "engine"), (way,), 3600)


def precisions(precision: Precision) -> list[str]:
    """float32, in which much is computed in any case, and what networks compute in."""
    return ["fp32", precision.name] if precision.name in LOW else ["fp32"]


def verdict(part: Part, say: Say, *, anew: bool = False) -> list[Result]:
    """What a check has found, from the cache or, where it is not known there or wanted anew, by running it now, said
    in one line."""
    facts = part.facts()
    key = hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=12).hexdigest()
    path = cache_root() / "verdicts" / f"{key}.json"
    known = None if anew else _known(path, facts)
    if known is not None:
        return known
    say(f"checking {part.name} on {facts['device']}; the verdict is kept")
    results = examine(part)
    if any(word in (result.problem or "") for word in TRANSIENT for result in results):
        say("the verdict is not kept, as the device was full or busy; the next run checks again")
        return results
    document = sealed({"facts": facts, "results": [asdict(result) for result in results]})
    try:
        write_atomically(path, document)
    except UsageError as error:  # the next run checks again
        say(f"the verdict is not kept: {error}")
    return results


def _known(path: Path, facts: dict[str, str | None]) -> list[Result] | None:
    """A verdict; None where there is none, or one that is damaged or about something else."""
    try:
        document = read_sealed(path)
        return _results(document) if document["facts"] == facts else None
    except (ValueError, TypeError, KeyError):
        return None


def examine(part: Part) -> list[Result]:
    """Runs the check in a process of its own. One that dies or hangs has a problem with all that it was about."""
    module, *arguments = part.program
    command = [*MODULE, module, *arguments, "--device", str(part.device), "--json"]
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    # In a session of its own, so that what it started ends with it.
    with subprocess.Popen(command, start_new_session=True, text=True, **pipes) as process:
        try:
            out, err = process.communicate(timeout=part.timeout)
            problem = f"exit code {process.returncode}: {(err.strip().splitlines() or ['no message'])[-1][:200]}"
            if process.returncode < 0:
                problem = f"died by signal {-process.returncode} ({signal.Signals(-process.returncode).name})"
        except subprocess.TimeoutExpired:
            out, problem = "", f"hung, was stopped after {part.timeout} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode in (0, 1):
        try:
            return _results(json.loads(out))
        except (ValueError, TypeError, KeyError):  # a traceback, whose exit code is 1 too
            pass
    return [Result(name, str(part.device), "all", "none", problem=problem) for name in part.refused]


def _results(document: dict) -> list[Result]:
    """Raises ValueError, TypeError or KeyError where there are none: what was not looked at is not right."""
    if not document["results"]:
        raise ValueError("no results")
    return [Result(**row) for row in document["results"]]


def problem_of(results: Sequence[Result]) -> str | None:
    """The first problem."""
    return next((result.problem for result in results if result.problem), None)


def prove_fast_paths(
    recipe: Recipe, precision: Precision, say: Say, decoded: bool = False, before: str | None = None
) -> Recipe:
    """The recipe with those of its fast paths that are right on this device; what is refused is said, and why.
    decoded: what `pipelines.backends.keeps_decoded` says of its data; before: the backend with which a run began that
    goes on.

    Wrong operators are served by their plain definitions from then on in this process. Raises UsageError for a backend
    that is asked for by name and refused.
    """
    if has_kernels(precision.device):
        problems = refuse(verdict(kernels(precision), say))
        for problem in dict.fromkeys(problems.values()):
            names = ", ".join(name for name in problems if problems[name] == problem)
            say(f"kernel {names}: refused ({problem}); the plain definition is used instead")
    recipe = recipe.replace(backend=_backend(recipe.runtime.backend, precision.device, decoded, before, say))
    if recipe.runtime.compile:
        refusal = problem_of(verdict(steps("compiled", Subject.of(recipe), precision), say))
        if refusal:
            say(f"compile: refused ({refusal}); networks run eagerly instead")
            recipe = recipe.replace(compile=False)
    return recipe


def _backend(asked: str, device: torch.device, decoded: bool, before: str | None, say: Say) -> str:
    names = backends_to_check(asked, device, decoded)
    if asked == "auto" and before == PLAIN:
        return PLAIN
    if asked == "auto" and before and before in backends_to_check(before, device):
        names = [before, *(name for name in names if name != before)]
    for name, following in zip(names, [*names[1:], PLAIN]):
        problem = problem_of(verdict(backend(name, device), say))
        if problem is None:
            return name
        if name == asked:
            raise UsageError(
                f"--backend {name}: refused on {device} ({problem}); pass --backend {PLAIN}, or leave it out"
            )
        say(f"backend {name}: refused ({problem}); {following} is used instead")
    return PLAIN if names else asked


def _digest(rooms: Sequence[str]) -> str:
    digest = hashlib.blake2b(digest_size=12)
    for path in sorted(path for room in rooms for path in (PROJECT / room).rglob("*.py")):
        digest.update(f"{path.relative_to(PROJECT)}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
