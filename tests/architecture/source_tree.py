"""Files of the project, parsed once: their nodes, functions, and imports with the file that each means."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOMS = ("kernels", "pipelines", "engine", "recipes")
"""The lowest first."""


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
