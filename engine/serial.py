"""Typed settings as plain values for JSON, and back, every type looked at."""

from __future__ import annotations

import dataclasses
import reprlib
import sys
import types
import typing
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from .methods import MethodConfig, find_method, method_of

KINDS = {
    bool: ("true or false", lambda value: isinstance(value, bool)),
    int: ("a whole number", lambda value: _number(value, int)),
    float: ("a number", lambda value: _number(value, int, float) and abs(value) <= sys.float_info.max),
    str: ("text", lambda value: isinstance(value, str)),
    Path: ("a path", lambda value: isinstance(value, (str, Path))),
    dict: ("an object", lambda value: isinstance(value, dict)),
    tuple: ("a list", lambda value: isinstance(value, (list, tuple))),
}
"""In words, and what is one."""


def plain(value: Any) -> Any:
    """Dataclasses become dictionaries, paths text and tuples lists; a method's settings say whose they are."""
    if dataclasses.is_dataclass(value):
        fields = {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"type": method_of(value).name} | fields if isinstance(value, MethodConfig) else fields
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def flattened(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Plain values of settings within settings by their paths, as in `method.weight`."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= flattened(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def typed(kind: Any, value: Any, name: str = "") -> Any:
    """The value of type `kind` that `plain` made into `value`; a number stays as it is. Raises ValueError, with the
    name of the field, for what is of another type, TypeError for a field that is missing."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return typed(arguments[0], value, name)
    if origin in (types.UnionType, typing.Union):
        return None if value is None else typed(next(one for one in arguments if one is not type(None)), value, name)
    if kind is MethodConfig:
        own = dict(_required(dict, value, name))
        return _fields(find_method(_required(str, own.pop("type", None), f"{name}.type")).config_class, own, name)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _fields(kind, _required(dict, value, name), name)
    if origin is Literal:
        if not isinstance(value, str) or value not in arguments:
            raise ValueError(f"{name}: must be one of {', '.join(arguments)}, is {reprlib.repr(value)}")
        return value
    if origin is tuple:
        items = _required(tuple, value, name)
        of_each = arguments[:1] * len(items) if arguments[-1] is Ellipsis else arguments
        if len(of_each) != len(items):
            raise ValueError(f"{name}: must be a list of {len(of_each)}, is {reprlib.repr(value)}")
        return tuple(typed(one, item, f"{name}[{place}]") for place, (one, item) in enumerate(zip(of_each, items)))
    if kind is Path:
        return Path(_required(Path, value, name))
    return _required(origin or kind, value, name)


def require_types(settings: Any, name: str) -> None:
    """Raises ValueError, with the name of the field, where one of a dataclass, or of those that it holds, is not of its
    type, which Python does not look at. Texts may stand for paths, lists for tuples."""
    hints = typing.get_type_hints(type(settings), include_extras=True)
    for field in dataclasses.fields(settings):
        kind, value, inside = hints[field.name], getattr(settings, field.name), f"{name}.{field.name}"
        kind = get_args(kind)[0] if get_origin(kind) is Annotated else kind
        if not isinstance(kind, type) or not dataclasses.is_dataclass(kind):
            typed(kind, value, inside)
        elif isinstance(value, kind):
            require_types(value, inside)
        else:
            raise ValueError(f"{inside}: must be of type {kind.__name__}, is {reprlib.repr(value)}")


def _fields(kind: type, values: dict[str, Any], name: str) -> Any:
    hints = typing.get_type_hints(kind, include_extras=True)
    inside = {field: f"{name}.{field}" if name else field for field in values}
    for field in values:
        if field not in hints:
            raise ValueError(f"{inside[field]}: there is no such field")
    return kind(**{field: typed(hints[field], value, inside[field]) for field, value in values.items()})


def _required(kind: type, value: Any, name: str) -> Any:
    words, fits = KINDS[kind]
    if not fits(value):
        raise ValueError(f"{name}: must be {words}, is {reprlib.repr(value)}")
    return value


def _number(value: Any, *kinds: type) -> bool:
    """Whether it is one of these numbers; bool, a subclass of int, is none."""
    return isinstance(value, kinds) and not isinstance(value, bool)
