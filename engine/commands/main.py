"""The command line: `semiseg COMMAND …`. A recipe script is `semiseg train RECIPE …`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import NamedTuple

from ...pipelines.errors import UsageError
from .. import console
from ..api import ExportError, Stopped
from ..catalogue import find_recipe, recipes, run_called
from ..comparison.workers import RunFailed
from ..environment import versions
from ..processes import reports_errors
from ..recipe import Recipe
from . import bench, splits
from .compare import compare
from .doctor import doctor
from .evaluate import evaluate
from .export import export
from .options import called, summaries
from .predict import predict
from .prepare import prepare
from .replay import replay
from .report import report
from .selfcheck import selfcheck
from .show import show
from .train import train

AGAIN, INTERRUPTED = 75, 130
"""Exit codes: EX_TEMPFAIL of sysexits.h, and the shells' one for Ctrl-C."""
COMMANDS: dict[str, Callable] = {
    "prepare": prepare,
    "doctor": doctor,
    "show": show,
    "evaluate": evaluate,
    "predict": predict,
    "export": export,
    "report": report,
    "replay": replay,
    "selfcheck": selfcheck,
}


def main(recipe: Callable[[], Recipe] | None = None) -> None:
    """Entry point of `semiseg`, and of the recipe scripts, which pass their recipe.

    Exits with 2 where a user can mend something, with 1 where a network cannot be exported or a run of a comparison
    broke down, with 75 where a signal ended a run that is to be started again with --resume, and with 130 after Ctrl-C.
    """
    arguments = [at_home(argument) for argument in sys.argv[1:]]
    console.use(stderr="--json" in arguments)
    try:
        if recipe is not None:
            train(recipe, arguments)
        else:
            run_command(arguments)
    except UsageError as error:
        _end(str(error), 2)
    except (ExportError, RunFailed) as error:
        _end(str(error), 1)
    except Stopped as stopped:
        _end(str(stopped), INTERRUPTED if stopped.signal == signal.SIGINT else AGAIN)
    except KeyboardInterrupt:
        _end("interrupted", INTERRUPTED)
    except BrokenPipeError:
        sys.exit(1)


def run_command(arguments: list[str]) -> None:
    """`semiseg ARGUMENTS`. Raises UsageError."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(help_text())
        return
    if arguments[0] == "--version":
        print(f"semiseg {versions().get('semiseg', '(not installed)')}")
        return
    command, rest = arguments[0], arguments[1:]
    if command in OWN_WORDS:
        OWN_WORDS[command].run(rest)
    elif command in COMMANDS:
        called(COMMANDS[command], rest, f"semiseg {command}")
    else:
        raise UsageError(f"unknown command {command!r}; the commands are {', '.join((*OWN_WORDS, *COMMANDS))}")


def train_by_name(arguments: list[str]) -> None:
    """`semiseg train ARGUMENTS`. Raises UsageError."""
    if arguments[:1] in (["-h"], ["--help"]):
        print(f"usage: semiseg train RECIPE|SCRIPT|RUN [--help] …\n\nrecipes: {', '.join(recipes())}")
    elif not arguments or arguments[0].startswith("-"):
        raise UsageError(f"train: name a recipe, its script or a run's folder; recipes: {', '.join(recipes())}")
    else:
        name, *flags = arguments
        run = run_called(name)
        if run and "--resume" in flags and not any(flag.partition("=")[0] == "--out" for flag in flags):
            flags += ["--out", str(run.folder)]
        train(find_recipe(name), flags)


class OwnWords(NamedTuple):
    """A command that reads its words itself."""

    run: Callable[[list[str]], None]
    takes: str
    summary: str


OWN_WORDS = {
    "train": OwnWords(train_by_name, "RECIPE", "train a recipe; --help lists its settings"),
    "compare": OwnWords(compare, "RECIPE", "train several on the same labelled images and compare them"),
    "splits": OwnWords(splits.run, "", "draw, identify, check and list labelled and unlabelled lists"),
    "bench": OwnWords(bench.run, "", "run the benchmarks of a source checkout; --help tells which there are"),
}


def help_text() -> str:
    """All commands and recipes."""
    lines = ["usage: semiseg COMMAND [--help] …", "       semiseg --version", ""]
    lines += [f"  {f'{name} {words.takes}':<14} {words.summary}" for name, words in OWN_WORDS.items()]
    lines += [*summaries(COMMANDS), "", f"recipes: {', '.join(recipes())}"]
    return "\n".join(lines)


def at_home(argument: str) -> str:
    """An argument `--flag=~/path` as shells leave it, with the user's home for the tilde."""
    flag, given, value = argument.partition("=")
    return f"{flag}={os.path.expanduser(value)}" if given and flag.startswith("--") else argument


def _end(message: str, code: int) -> None:
    if reports_errors():
        print(f"semiseg: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
