"""The texts that `--help` shows: those of the source, whose lines end where the terminal's do."""

from __future__ import annotations

import inspect
import re
from dataclasses import is_dataclass, replace

from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec, StructTypeInfo

REGISTRY = ConstructorRegistry()
"""How tyro reads the classes of options."""
ASKED = object()
"""Marks what is asked for within the rule."""


@REGISTRY.struct_rule
def _flowing(info: StructTypeInfo) -> StructConstructorSpec | None:
    """As tyro reads a dataclass, but for the texts of its attributes: their lines flow."""
    if not is_dataclass(info.type) or ASKED in info.markers:
        return None
    spec = ConstructorRegistry.get_struct_spec(replace(info, markers=(*info.markers, ASKED)))
    if not isinstance(spec, StructConstructorSpec):
        return None
    return replace(spec, fields=tuple(map(_joined, spec.fields)))


def _joined(field: StructFieldSpec) -> StructFieldSpec:
    """tyro keeps the ends of lines that are indented, as those of attributes' texts are from the second on."""
    said = field.helptext

    def text() -> str | None:
        lines = said() if callable(said) else said
        return lines and "\n\n".join(" ".join(paragraph.split()) for paragraph in lines.split("\n\n"))

    return replace(field, helptext=text)


def flowing(docstring: str) -> str:
    """A docstring, in which the text of each argument is one line, as tyro would keep the ends of its lines."""
    return re.sub(r"(?<=\S)\n {8,}(?=\S)", " ", inspect.cleandoc(docstring))
