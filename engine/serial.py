"""Typed settings as plain values for JSON, and back."""

from __future__ import annotations

import dataclasses
import types
import typing
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from .methods import MethodConfig, find_method, method_of


def plain(value: Any) -> Any:
    """Dataclasses become dictionaries, paths text and tuples lists; a method's settings say whose they are."""
    if dataclasses.is_dataclass(value):
        fields = {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"type": method_of(value).name} | fields if isinstance(value, MethodConfig) else fields
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def typed(kind: Any, value: Any) -> Any:
    """The value of type `kind` that `plain` made into `value`. Raises KeyError, TypeError or ValueError."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return typed(arguments[0], value)
    if kind is MethodConfig:
        own = {name: item for name, item in value.items() if name != "type"}
        return typed(find_method(value["type"]).config_class, own)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind, include_extras=True)
        return kind(**{name: typed(hints[name], item) for name, item in value.items()})
    if origin in (types.UnionType, typing.Union):
        return None if value is None else typed(next(one for one in arguments if one is not type(None)), value)
    if kind is Path:
        return Path(value)
    return tuple(value) if origin is tuple else value
