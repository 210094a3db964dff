"""The house as docs and reviews promise it: who may import whom, what is private, where words may stand; and a wheel
holds every room.

Each rule is a function from a tree to its violations. It is asked of this project, where it must find none, and of a
tiny tree that breaks it on purpose, where it must find that one.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("kernels", "pipelines", "engine", "recipes")
"""The lowest first."""
ORDERS = {
    "pipelines": """
        errors | cores | memory | lane | documents
        cache
        decode
        watch
        datasets/dataset
        datasets/files
        datasets/pairs
        datasets/classes
        datasets/lists
        datasets/registry
        datasets/splits
        datasets/voc | datasets/cityscapes
        datasets/samples
        datasets/folder
        datasets/shapes
        datasets/layouts
        datasets/masks
        datasets/facts
        datasets/inspection
        datasets/survey
        datasets/manifest
        datasets/pack
        datasets/doctor
        datasets/__init__
        views
        draws
        order | boxes | colours
        plan
        batch
        host | dali
        resident
        backends
        loader | check
        __init__
    """,
    "engine": """
        events | child
        processes
        console | pictures | device | distributed | disk | curves | environment
        sheet
        models/fill
        models/state_dict
        models/encoders/encoder
        models/encoders/*
        models/encoders/__init__
        models/decoders/decoder
        models/decoders/*
        models/decoders/__init__
        models/grouping
        models/network
        models/weights | models/recompute
        models/published
        models/__init__
        methods/programs
        methods/method
        methods/*
        methods/__init__
        protocol | serial | runtime
        recipe
        run | data | checkpoint
        evaluation/protocols
        evaluation/scores | evaluation/confidence
        evaluation/inference
        evaluation/prediction
        evaluation/formats
        evaluation/export
        evaluation/__init__
        training/nvml | training/signals | training/result
        training/build | training/graph
        training/step
        training/check
        training/verdict
        training/forecast | training/profiling
        training/meters
        training/state
        training/saver | training/resume | training/xray
        training/judge
        training/replay
        training/outcome
        training/trainer
        training/interruption
        training/__init__
        hyperparameters
        page
        report
        comparison/entries
        comparison/workers | comparison/results
        comparison/figures
        comparison/page
        comparison/__init__
        catalogue
        api
        __init__
        commands/options
        commands/table
        commands/*
        commands/main
        commands/__init__
    """,
}
"""What lies below in a room stands above: imports go up the list. Files on one line do not import each other, those
that a star means may."""
BY_NAME = {"engine/catalogue.py"}
"""The one file that finds recipes by their names."""
COMMAND_LINES = ("engine/commands/*",)
"""What talks to a shell."""
NOTES_THE_COMMAND = {"engine/environment.py", "engine/child.py"}
"""Read sys.argv for environment.json, or to pass it on, and obey none of it."""
LIMITS = (
    ("engine/methods/*", "pipelines", {"errors.py", "views.py", "batch.py"}),
    ("engine/methods/*", "kernels", {"__init__.py"}),
    ("engine/evaluation/*", "engine/training", set()),
    ("engine/models/*", "engine/methods", set()),
    ("engine/models/*", "engine/recipe.py", set()),
    ("engine/models/*", "pipelines", {"errors.py"}),
)
"""Files, a room or a file, and all that they may import of it."""
PRIVATE_IN_TESTS = {
    ("tests/kernels/test_triton.py", "_tuned"),
    ("tests/kernels/test_triton.py", "_milliseconds"),
}
"""Where a clock stands in for a GPU."""
PROGRAMS = ("engine/methods/*", "engine/models/decoders/*", "engine/models/published.py", "engine/recipe.py")
"""Methods and decoders are named after papers; a recipe has defaults."""
HOMES = {
    "layouts": ("pipelines/datasets/*", "engine/methods/programs.py"),
    "encoders": ("engine/models/encoders/*", "engine/models/published.py", "engine/recipe.py"),
    "decoders": PROGRAMS,
    "methods": PROGRAMS,
    "backends": ("pipelines/backends.py",),
    "kinds": ("pipelines/views.py", "pipelines/draws.py", "pipelines/plan.py", "pipelines/dali.py", "engine/methods/*"),
}
"""Where the words of a registry may stand. DALI has a device of the name of a kind."""
ORDINARY = {"none", "supervised"}
"""Keys that are words of others, too: no weights, a loss term."""
LONGEST_FILE, LONGEST_FUNCTION = 400, 60


@dataclass(frozen=True)
class Source:
    """A file of the tree."""

    path: str
    """From the root, with slashes."""
    text: str

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(ast.parse(self.text, self.path)))

    @cached_property
    def functions(self) -> list[ast.FunctionDef]:
        return [node for node in self.nodes if isinstance(node, ast.FunctionDef)]

    def where(self, node: ast.AST) -> str:
        return f"{self.path}:{node.lineno}"


@dataclass(frozen=True)
class Import:
    """`from a import b`, wherever it stands in the file: what it names, and the file of the project that it means."""

    line: str
    name: str
    """`semiseg.kernels.cutmix`, or a module that is not of the project."""
    bound: str
    """The name that the file gives to it."""
    target: str | None


@dataclass(frozen=True)
class Tree:
    """The files of a project below `root`, each read once."""

    root: Path

    @cached_property
    def sources(self) -> dict[str, Source]:
        paths = sorted(path for room in (*ROOMS, "tests", "benchmarks") for path in (self.root / room).rglob("*.py"))
        names = [path.relative_to(self.root).as_posix() for path in paths]
        return {name: Source(name, path.read_text()) for name, path in zip(names, paths)}

    @cached_property
    def library(self) -> list[Source]:
        return [source for name, source in self.sources.items() if name.split("/")[0] in ROOMS]

    @cached_property
    def imports(self) -> dict[str, list[Import]]:
        return {name: list(self._imports(source)) for name, source in self.sources.items()}

    def _imports(self, source: Source) -> Iterator[Import]:
        package = ["semiseg", *source.path.split("/")[:-1]]
        for node in source.nodes:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    bound = alias.asname or alias.name.split(".")[0]
                    yield Import(source.where(node), alias.name, bound, self._file(alias.name))
            elif isinstance(node, ast.ImportFrom):
                base = package[: len(package) - node.level + 1] if node.level else []
                stem = ".".join([*base, node.module] if node.module else base)
                for alias in node.names:
                    name = f"{stem}.{alias.name}"
                    yield Import(source.where(node), name, alias.asname or alias.name, self._file(name, stem))

    def _file(self, name: str, stem: str = "") -> str | None:
        """The file of the project that a name of the module `stem` means: what a package takes out of its files is
        the package's, `semiseg.kernels.cutmix` the function and not the file."""
        if stem and name.rpartition(".")[2] in self.exports.get(stem, ()):
            name = stem
        return self.modules.get(name) or self.modules.get(stem)

    @cached_property
    def modules(self) -> dict[str, str]:
        """Files by the names of their modules."""
        paths = [source.path for source in self.library]
        return {
            "semiseg." + path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): path for path in paths
        }

    @cached_property
    def exports(self) -> dict[str, set[str]]:
        """What packages take out of their files, by the package's name."""
        exports = {}
        for name, path in self.modules.items():
            if path.endswith("/__init__.py"):
                found = [node for node in self.sources[path].nodes if isinstance(node, ast.ImportFrom) and node.module]
                exports[name] = {alias.name for node in found for alias in node.names}
        return exports


def imports_between_rooms(tree: Tree) -> Iterator[str]:
    """Rule 1: imports go to lower rooms, or stay."""
    for source in tree.library:
        room = source.path.split("/")[0]
        for known in tree.imports[source.path]:
            top, _, rest = known.name.partition(".")
            other = rest.split(".")[0]
            if top == "semiseg" and other in ROOMS and ROOMS.index(other) > ROOMS.index(room):
                yield f"{known.line} imports {known.name}"


def place(path: str) -> tuple[int, str] | None:
    """Line of the room's order that means a file, and the word that does."""
    room, _, inside = path.removesuffix(".py").partition("/")
    lines = [[word.strip() for word in line.split("|")] for line in ORDERS[room].strip().splitlines()]
    found = [(number, word) for number, line in enumerate(lines) for word in line if fnmatch(inside, word)]
    return min(found, key=lambda place: "*" in place[1], default=None)


def imports_within_rooms(tree: Tree) -> Iterator[str]:
    """Rule 2: imports go up the order of the room, and every file has a place in it."""
    for source in tree.library:
        room = source.path.split("/")[0]
        if room not in ORDERS:
            continue
        here = place(source.path)
        if here is None:
            yield f"{source.path} has no place in the order of {room}"
            continue
        for known in tree.imports[source.path]:
            if known.target is None or not known.target.startswith(f"{room}/") or known.target == source.path:
                continue
            there = place(known.target)
            if there and there[0] >= here[0] and not (there == here and "*" in here[1]):
                yield f"{known.line} imports {known.target}, which does not lie below it"


def circles(tree: Tree) -> Iterator[str]:
    """Rule 3: no files import each other, however long the way."""
    graph = {source.path: {known.target for known in tree.imports[source.path]} for source in tree.library}
    try:
        TopologicalSorter(
            {name: {t for t in targets if t in graph} - {name} for name, targets in graph.items()}
        ).prepare()
    except CycleError as error:
        yield " <- ".join(error.args[1])


def imports_by_string(tree: Tree) -> Iterator[str]:
    """Rule 4: no import of semiseg hides in a string."""
    for source in tree.library:
        for node in source.nodes:
            if not isinstance(node, ast.Call) or source.path in BY_NAME:
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called not in ("import_module", "__import__", "find_spec"):
                continue
            first = node.args[0] if node.args else None
            parts = first.values if isinstance(first, ast.JoinedStr) else [first]
            word = parts[0].value if parts and isinstance(parts[0], ast.Constant) else None
            unknown = word is None and called != "find_spec"
            if unknown or (isinstance(word, str) and word.startswith(("semiseg", "."))):
                yield f"{source.where(node)} finds a module by {ast.unparse(node)}"


def command_lines(tree: Tree) -> Iterator[str]:
    """Rule 5: only commands know the shell: tyro, sys.argv and the console. Recipes mark their fields for tyro."""
    for source in tree.library:
        if any(fnmatch(source.path, pattern) for pattern in COMMAND_LINES):
            continue
        marks = source.path == "engine/recipe.py"
        for known in tree.imports[source.path]:
            tyro = known.name.split(".")[0] == "tyro" and not (marks and known.name in ("tyro", "tyro.conf"))
            if tyro or known.name == "sys.argv" or known.target == "engine/console.py":
                yield f"{known.line} imports {known.name}"
        for node in source.nodes:
            if not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Name):
                continue
            read = (node.value.id, node.attr) == ("sys", "argv") and source.path not in NOTES_THE_COMMAND
            if read or (marks and node.value.id == "tyro" and node.attr != "conf"):
                yield f"{source.where(node)} uses {ast.unparse(node)}"


def limited_imports(tree: Tree) -> Iterator[str]:
    """Rule 6: what methods, models and evaluation may know of the others."""
    for source in tree.library:
        for pattern, room, allowed in LIMITS:
            for known in tree.imports[source.path] if fnmatch(source.path, pattern) else ():
                target = known.target or ""
                if target == room or (target.startswith(f"{room}/") and target.removeprefix(f"{room}/") not in allowed):
                    yield f"{known.line} imports {target}"


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def private_names(tree: Tree) -> Iterator[str]:
    """Rule 7: what begins with an underscore stays in its file, a module of that kind in its room and the room's
    tests."""
    for source in tree.sources.values():
        room = source.path.removeprefix("tests/").split("/")[0]
        outside = {known.bound for known in tree.imports[source.path] if not known.name.startswith("semiseg")}
        for known in tree.imports[source.path]:
            if known.bound in outside or not any(map(is_private, known.name.split("."))):
                continue
            inside = known.target is not None and known.target.split("/")[0] == room
            last = known.name.rpartition(".")[2]
            if not inside or (is_private(last) and known.name not in tree.modules):
                yield f"{known.line} imports {known.name}"
        for node in source.nodes:
            if isinstance(node, ast.Attribute):
                name, owner = node.attr, node.value
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("setattr") and len(node.args) > 1:
                owner, word = node.args[:2]
                name = word.value if isinstance(word, ast.Constant) and isinstance(word.value, str) else ""
            else:
                continue
            while isinstance(owner, ast.Attribute | ast.Call | ast.Subscript):
                owner = owner.func if isinstance(owner, ast.Call) else owner.value
            own = isinstance(owner, ast.Name) and owner.id in ("self", "cls", *outside)
            if is_private(name) and not own and (source.path, name) not in PRIVATE_IN_TESTS:
                yield f"{source.where(node)} uses {name} of another"


def paths_in_strings(tree: Tree) -> Iterator[str]:
    """Rule 7, of tests: what is replaced is named by an import that fails when it moves, not by a path in a string."""
    for source in tree.sources.values():
        for node in source.nodes:
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("setattr") and node.args:
                first = node.args[0]
                if isinstance(first, ast.Constant) and str(first.value).startswith("semiseg."):
                    yield f"{source.where(node)} replaces {first.value!r}"


def flags(help_text: str, registries: dict[str, set[str]]) -> Iterator[str]:
    """Rule 8: what a flag takes are the keys of its registry. The text is `--help`'s, in whatever boxes and lines."""
    text = re.sub(r"[^!-~]", "", help_text)  # without spaces and frames
    for flag, keys in registries.items():
        found = re.search(rf"{flag}\{{([^}}]*)\}}", text)
        choices = set(found[1].split(",")) if found else set()
        if choices != keys:
            yield f"{flag} takes {sorted(choices)}, its registry has {sorted(keys)}"


def docstrings(nodes: list[ast.AST]) -> set[int]:
    """Ids of the strings that stand as statements, below a field or at the head of something."""
    return {id(node.value) for node in nodes if isinstance(node, ast.Expr)}


def words(tree: Tree, vocabulary: set[str], homes: tuple[str, ...]) -> Iterator[str]:
    """Rule 9: a string that is a key of a registry stands in `homes` alone: elsewhere the registry is asked."""
    for source in tree.library:
        if source.path.split("/")[0] not in ("pipelines", "engine") or any(
            fnmatch(source.path, home) for home in homes
        ):
            continue
        said = docstrings(source.nodes)
        for node in source.nodes:
            if isinstance(node, ast.Constant) and node.value in vocabulary and id(node) not in said:
                yield f"{source.where(node)} says {node.value!r}"


def long_ones(tree: Tree) -> Iterator[str]:
    """Rule 10: files fit a sitting, functions a screen. Kernels that a compiler unrolls are as long as they are."""
    for source in tree.library:
        if (count := source.text.count("\n")) > LONGEST_FILE:
            yield f"{source.path} has {count} lines"
        for node in source.functions:
            count = node.end_lineno - node.lineno + 1
            jit = any("jit" in ast.unparse(decorator) for decorator in node.decorator_list)
            if count > LONGEST_FUNCTION and not jit:
                yield f"{source.where(node)} {node.name} has {count} lines"


def undocumented(tree: Tree) -> Iterator[str]:
    """Rule 11: public functions of a module say what they do; those of a recipe's file, its head does."""
    for source in tree.library:
        for node in ast.parse(source.text).body if not source.path.startswith("recipes/") else ():
            if isinstance(node, ast.FunctionDef) and not is_private(node.name) and not ast.get_docstring(node):
                yield f"{source.where(node)} {node.name} has no docstring"


def lost_files(tree: Tree) -> Iterator[str]:
    """Rule 12: files that the docs name are there."""
    rooms = "|".join((*ROOMS, "tests", "benchmarks", "docs"))
    for page in sorted([*tree.root.glob("*.md"), *tree.root.glob("*/*.md")]):
        for path in re.findall(rf"(?<![\w/])(?:{rooms})/[\w/-]+\.(?:py|md|csv)\b", page.read_text()):
            if not (tree.root / path).exists():
                yield f"{page.relative_to(tree.root)} names {path}"


@pytest.fixture(scope="module")
def tree() -> Tree:
    """This project."""
    return Tree(ROOT)


RULES = (
    imports_between_rooms, imports_within_rooms, circles, imports_by_string, command_lines, limited_imports,
    private_names, paths_in_strings, undocumented, lost_files,
)  # fmt: skip


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps_the_rule(tree, rule):
    violations = list(rule(tree))
    assert not violations, "\n" + "\n".join(violations)


@pytest.fixture(scope="module")
def registries() -> dict[str, dict]:
    from semiseg.engine.methods import METHODS
    from semiseg.engine.models.decoders import DECODERS
    from semiseg.engine.models.encoders import ENCODERS
    from semiseg.pipelines.backends import BACKENDS
    from semiseg.pipelines.datasets.layouts import LAYOUTS
    from semiseg.pipelines.views import KINDS

    return {
        "layouts": LAYOUTS,
        "encoders": ENCODERS,
        "decoders": DECODERS,
        "methods": METHODS,
        "backends": BACKENDS,
        "kinds": KINDS,
    }


def test_flags_take_the_keys_of_the_registries(registries, monkeypatch, capsys):
    from semiseg.engine.commands.main import main

    monkeypatch.setattr(sys, "argv", ["semiseg", "train", "supervised_shapes", "--help"])
    with pytest.raises(SystemExit):
        main()
    keys = {
        "--layout": {*registries["layouts"]},
        "--backbone": {*registries["encoders"]},
        "--network": {*registries["decoders"]},
        "--backend": {"auto", *registries["backends"]},
    }
    violations = list(flags(capsys.readouterr().out, keys))
    assert not violations, "\n" + "\n".join(violations)


def test_methods_have_their_names_and_views_of_known_kinds(registries):
    assert all(method.name == name for name, method in registries["methods"].items())
    assert {method.views.unlabeled for method in registries["methods"].values()} <= set(registries["kinds"])


@pytest.mark.parametrize("vocabulary", HOMES)
def test_words_of_a_registry_stand_at_home(tree, registries, vocabulary):
    violations = list(words(tree, {*registries[vocabulary]} - ORDINARY, HOMES[vocabulary]))
    assert not violations, "\n" + "\n".join(violations)


def test_files_fit_a_sitting_and_functions_a_screen(tree):
    """A list to look at, not a law: a line more is better than a function torn in two."""
    if violations := list(long_ones(tree)):
        warnings.warn("\n" + "\n".join(violations), stacklevel=1)


def test_a_wheel_holds_every_room(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", tmp_path, ROOT]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("semiseg-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            assert f"semiseg/{path.relative_to(ROOT)}" in names


# Every rule, broken on purpose

HEALTHY = {
    "kernels/__init__.py": "from .cutmix import cutmix",
    "kernels/_dispatch.py": "def provider():\n    'Name.'",
    "kernels/cutmix.py": "from . import _dispatch\ndef cutmix():\n    'Mix.'\n    _dispatch.provider()",
    "pipelines/errors.py": "class UsageError(Exception): ...",
    "pipelines/batch.py": "from .errors import UsageError",
    "pipelines/host.py": "from .batch import UsageError",
    "pipelines/dali.py": "from .batch import UsageError",
    "pipelines/loader.py": "from . import dali, host",
    "engine/console.py": "",
    "engine/methods/method.py": "from ...kernels import cutmix\nfrom ...pipelines.batch import UsageError",
    "engine/methods/cps.py": "from .method import cutmix",
    "engine/methods/cutmix_cps.py": "from .cps import cutmix",
    "engine/evaluation/scores.py": "from importlib.util import find_spec\nfind_spec('nvidia')",
    "engine/training/trainer.py": "from ..evaluation import scores",
    "engine/recipe.py": "import tyro\nname: tyro.conf.Suppress[str] = 'dali'\n'voc'",
    "engine/catalogue.py": "from importlib import import_module\nimport_module('semiseg.recipes')",
    "engine/commands/main.py": "import sys\nimport tyro\nfrom .. import console\nsys.argv",
    "recipes/cps_voc.py": "from semiseg.engine.commands.main import console\ndef recipe(): ...",
    "tests/kernels/test_dispatch.py": "from semiseg.kernels import _dispatch\n_dispatch.provider()",
}
BROKEN = [
    (imports_between_rooms, "kernels/cutmix.py", "from ..pipelines import errors", "kernels/cutmix.py:1"),
    (imports_between_rooms, "pipelines/loader.py", "def f():\n    import semiseg.engine.recipe", "loader.py:2"),
    (imports_within_rooms, "pipelines/batch.py", "from .loader import host", "batch.py:1 imports pipelines/loader.py"),
    (imports_within_rooms, "pipelines/dali.py", "from . import host", "dali.py:1 imports pipelines/host.py"),
    (imports_within_rooms, "engine/console.py", "if TYPE_CHECKING:\n    from .recipe import name", "console.py:2"),
    (imports_within_rooms, "engine/methods/method.py", "from .cps import cutmix", "method.py:1"),
    (imports_within_rooms, "pipelines/blocks.py", "", "pipelines/blocks.py has no place"),
    (circles, "kernels/_dispatch.py", "def f():\n    from .cutmix import cutmix", "_dispatch.py"),
    (imports_by_string, "engine/recipe.py", "import_module('semiseg.recipes.cps_voc')", "recipe.py:1"),
    (imports_by_string, "engine/recipe.py", "importlib.import_module(f'semiseg.{room}')", "recipe.py:1"),
    (imports_by_string, "pipelines/host.py", "__import__(name)", "host.py:1"),
    (imports_by_string, "pipelines/host.py", "find_spec('semiseg.engine')", "host.py:1"),
    (command_lines, "engine/training/trainer.py", "from .. import console", "trainer.py:1"),
    (command_lines, "engine/training/trainer.py", "from ..console import say", "trainer.py:1"),
    (command_lines, "pipelines/host.py", "import sys\nsys.argv", "host.py:2 uses sys.argv"),
    (command_lines, "pipelines/host.py", "from sys import argv", "host.py:1"),
    (command_lines, "engine/training/trainer.py", "import tyro", "trainer.py:1 imports tyro"),
    (command_lines, "engine/recipe.py", "tyro.cli(int)", "recipe.py:1 uses tyro.cli"),
    (command_lines, "recipes/cps_voc.py", "import tyro", "cps_voc.py:1"),
    (limited_imports, "engine/methods/cps.py", "from ...pipelines.loader import host", "cps.py:1"),
    (limited_imports, "engine/methods/cps.py", "from ...kernels.cutmix import cutmix", "cps.py:1"),
    (limited_imports, "engine/evaluation/scores.py", "from ..training import trainer", "scores.py:1"),
    (limited_imports, "engine/models/network.py", "from ..methods.cps import cutmix", "network.py:1"),
    (limited_imports, "engine/models/network.py", "from ..recipe import name", "network.py:1"),
    (limited_imports, "engine/models/network.py", "from ...pipelines.batch import x", "network.py:1"),
    (private_names, "pipelines/host.py", "from .batch import _cut", "host.py:1"),
    (private_names, "pipelines/host.py", "from . import batch\nbatch._cut()", "host.py:2 uses _cut"),
    (private_names, "pipelines/host.py", "from ..kernels import _dispatch", "host.py:1"),
    (private_names, "tests/kernels/test_dispatch.py", "from semiseg.kernels._dispatch import _open", "dispatch.py:1"),
    (private_names, "tests/test_a.py", "from semiseg.kernels import _dispatch", "test_a.py:1"),
    (private_names, "tests/test_a.py", "Trainer(recipe)._evaluate", "test_a.py:1 uses _evaluate"),
    (private_names, "tests/test_a.py", "monkeypatch.setattr(trainer, '_evaluate', 1)", "test_a.py:1 uses _evaluate"),
    (paths_in_strings, "tests/test_a.py", "monkeypatch.setattr('semiseg.engine.recipe.name', 1)", "test_a.py:1"),
    (long_ones, "engine/recipe.py", "def f():\n    'Long.'" + "\n    pass" * 59, "f has 61 lines"),
    (long_ones, "engine/recipe.py", "\n" * 401, "recipe.py has 40"),
    (undocumented, "engine/recipe.py", "def load():\n    pass", "recipe.py:1 load"),
    (lost_files, "docs/adding.md", "`engine/recipe.py`, `tests/test_gone.py`", "docs/adding.md names tests/test_"),
]


@pytest.fixture
def tiny(tmp_path):
    """`tiny(path, text)`: a healthy tree of a few files; in the one at `path` a text stands before what it holds."""

    def write(path: str, text: str) -> Tree:
        for name, own in (HEALTHY | {path: f"{text}\n{HEALTHY.get(path, '')}"}).items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(own)
        return Tree(tmp_path)

    return write


@pytest.mark.parametrize("rule", [*RULES, long_ones], ids=lambda rule: rule.__name__)
def test_a_healthy_tree_breaks_no_rule(tiny, rule):
    assert not list(rule(tiny("README.md", "")))


@pytest.mark.parametrize(
    ("rule", "path", "text", "said"), BROKEN, ids=[f"{row[0].__name__}-{row[1]}" for row in BROKEN]
)
def test_a_broken_rule_is_named(tiny, rule, path, text, said):
    violations = list(rule(tiny(path, text)))
    assert len(violations) == 1
    assert said in violations[0]


def test_a_word_away_from_home_is_named_but_not_in_a_docstring(tiny):
    tree = tiny("README.md", "")
    assert list(words(tree, {"dali", "voc"}, ("pipelines/*",))) == ["engine/recipe.py:2 says 'dali'"]
    assert not list(words(tree, {"dali", "voc"}, ("engine/*",)))


def test_a_flag_that_takes_other_words_is_named():
    text = "│ --layout {voc,cityscapes,     │\n│     coco}  │\n│ --backend {auto,host} │"
    keys = {"--layout": {"voc", "cityscapes"}, "--backend": {"auto", "host"}, "--network": {"cac"}}
    layout, network = flags(text, keys)
    assert "coco" in layout
    assert "--network takes []" in network
