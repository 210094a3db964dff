"""The house as docs and reviews promise it: who may import whom, what is private, where words may stand.

Each rule is a function from a tree to its violations.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from source_tree import ROOMS, Tree

ORDERS = {
    "pipelines": """
        errors | progress | cores | memory | lane | documents
        cache
        decode
        watch
        datasets/dataset
        datasets/files
        datasets/pairs
        datasets/class_rows
        datasets/classes
        datasets/lists
        datasets/registry
        datasets/splits
        datasets/parts
        datasets/voc | datasets/cityscapes | datasets/ade20k | datasets/coco
        datasets/samples
        datasets/folder
        datasets/shapes
        datasets/unlabeled
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
        events | child | memory
        processes
        console | pictures | device | distributed | disk | curves | environment | flags
        sheet | page
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
        run | checkpoint
        places | held_out
        data
        evaluation/memory | evaluation/protocols
        evaluation/scores | evaluation/confidence
        evaluation/validation | evaluation/tables
        evaluation/inference | evaluation/review
        evaluation/segmenter
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
        report
        comparison/entries
        comparison/workers | comparison/results
        comparison/figures
        comparison/page
        comparison/__init__
        catalogue
        api
        __init__
        commands/help
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
    "kinds": (
        *("pipelines/views.py", "pipelines/draws.py", "pipelines/plan.py", "pipelines/loader.py", "pipelines/dali.py"),
        "engine/methods/*",
    ),
}
"""Where the words of a registry may stand. DALI has a device of the name of a kind."""
ORDINARY = {"none", "supervised"}
"""Keys that are words of others, too: no weights, a loss term."""
LONGEST_FILE, LONGEST_FUNCTION = 400, 60
LONGER = {
    "kernels/aot.py": 415,
    "kernels/directional_contrast.py directional_contrast": 76,
    "kernels/gpu/directional_contrast.py": 425,
    "kernels/gpu/directional_contrast.py directional_contrast": 86,
    "pipelines/datasets/folder.py find": 76,
    "pipelines/datasets/voc.py find": 62,
}
"""Lines of those that would be worse torn in two, which are to grow no longer."""


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
    """Rule 5: only commands know the shell: tyro, sys.argv and the console. Settings mark their fields for tyro."""
    for source in tree.library:
        if any(fnmatch(source.path, pattern) for pattern in COMMAND_LINES):
            continue
        marks = source.path in ("engine/recipe.py", "engine/flags.py")
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


def module_by_string(node: ast.AST) -> str | None:
    """`sys.modules["semiseg…"]`, or `.get`, `.setdefault` or `.pop` of it; None where it is something else."""
    if isinstance(node, ast.Subscript):
        owner, key = node.value, node.slice
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
        owner, key = node.func.value, node.args[0]
    else:
        return None
    first = key.values[0] if isinstance(key, ast.JoinedStr) else key
    named = isinstance(first, ast.Constant) and str(first.value).startswith("semiseg")
    return ast.unparse(node) if named and ast.unparse(owner).endswith("sys.modules") else None


def paths_in_strings(tree: Tree) -> Iterator[str]:
    """Rule 7, of tests: what is used or replaced is named by an import that fails when it moves, not by a path in a
    string."""
    for source in tree.sources.values():
        for node in source.nodes:
            if path := module_by_string(node):
                yield f"{source.where(node)} finds {path}"
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


def lengths(tree: Tree) -> Iterator[tuple[str, int]]:
    """Names and lines of files that do not fit a sitting, and of functions that do not fit a screen."""
    for source in tree.library:
        if (count := source.text.count("\n")) > LONGEST_FILE:
            yield source.path, count
        for node in source.functions:
            count = node.end_lineno - node.lineno + 1
            jit = any("jit" in ast.unparse(decorator) for decorator in node.decorator_list)
            if count > LONGEST_FUNCTION and not jit:
                yield f"{source.path} {node.name}", count


def long_ones(tree: Tree) -> Iterator[str]:
    """Rule 10: files fit a sitting, functions a screen. Kernels that a compiler unrolls are as long as they are."""
    for name, count in lengths(tree):
        if count > LONGER.get(name, 0):
            yield f"{name} has {count} lines"


def undocumented(tree: Tree) -> Iterator[str]:
    """Rule 11: public functions of a module say what they do; those of a recipe's file, its head does."""
    for source in tree.library:
        for node in ast.parse(source.text).body if not source.path.startswith("recipes/") else ():
            if isinstance(node, ast.FunctionDef) and not is_private(node.name) and not ast.get_docstring(node):
                yield f"{source.where(node)} {node.name} has no docstring"


def pages(tree: Tree) -> list[Path]:
    return sorted([*tree.root.glob("*.md"), *tree.root.glob("*/*.md")])


def lost_files(tree: Tree) -> Iterator[str]:
    """Rule 12: files that the docs name are there."""
    rooms = "|".join((*ROOMS, "tests", "benchmarks", "docs"))
    for page in pages(tree):
        for path in re.findall(rf"(?<![\w/])(?:{rooms})/[\w/-]+\.(?:py|md|csv)\b", page.read_text()):
            if not (tree.root / path).exists():
                yield f"{page.relative_to(tree.root)} names {path}"


def lost_tests(tree: Tree) -> Iterator[str]:
    """Rule 13: tests that a page names, each by the path of its file, are there."""
    for page in pages(tree):
        for path, name in re.findall(r"([\w/.-]*\btest_\w+\.py)::(\w+)", page.read_text()):
            source = tree.sources.get(path)
            if source is None or name not in {node.name for node in source.functions}:
                yield f"{page.relative_to(tree.root)} names {path}::{name}"


RULES = (
    imports_between_rooms, imports_within_rooms, circles, imports_by_string, command_lines, limited_imports,
    private_names, paths_in_strings, long_ones, undocumented, lost_files, lost_tests,
)  # fmt: skip
