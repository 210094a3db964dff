"""Typed settings as plain values for JSON, and back."""

from __future__ import annotations

import dataclasses
import types
import typing
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from .methods import METHODS, MethodConfig


def plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        fields = {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"type": type(value).__name__} | fields if type(value) in METHODS else fields
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def typed(kind: Any, value: Any) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return typed(arguments[0], value)
    if kind == MethodConfig:
        config = {one.__name__: one for one in METHODS}[value["type"]]
        return typed(config, {name: item for name, item in value.items() if name != "type"})
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind, include_extras=True)
        return kind(**{name: typed(hints[name], item) for name, item in value.items()})
    if origin in (types.UnionType, typing.Union):
        return None if value is None else typed(next(one for one in arguments if one is not type(None)), value)
    if kind is Path:
        return Path(value)
    return tuple(value) if origin is tuple else value
