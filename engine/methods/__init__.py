"""One file per method: its settings, its views, its losses. A new method is a file here and a name below."""

from dataclasses import fields
from inspect import get_annotations

from ...pipelines.errors import UsageError
from .cac import Cac
from .cps import Cps
from .cutmix_cps import CutMixCps
from .cutmix_seg import CutMixSeg
from .fixmatch import FixMatch
from .mean_teacher import MeanTeacher
from .method import Method, MethodConfig, MethodContext, PseudoLabels
from .supervised import Supervised
from .u2pl import U2pl
from .unimatch import UniMatch
from .unimatch_v2 import UniMatchV2

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (Supervised, Cac, Cps, CutMixCps, MeanTeacher, CutMixSeg, FixMatch, UniMatch, UniMatchV2, U2pl)
}


def method_of(config: MethodConfig) -> type[Method]:
    """The method whose settings these are. Raises UsageError where METHODS has none, or several, or one that recipes
    and checkpoints would not tell from another."""
    kind = type(config)
    found = [method for method in METHODS.values() if method.config_class is kind]
    if len(found) == 1:
        (method,) = found
        known = {field.name for field in fields(kind)}
        if "__dataclass_fields__" not in vars(kind) and (get_annotations(kind) or known & vars(kind).keys()):
            raise UsageError(f"{kind.__name__}: decorate it with @dataclass(kw_only=True, slots=True), as its base is")
        if METHODS.get(method.name) is not method:
            raise UsageError(f"{method.__name__} is called {method.name!r}: give it a name of its own, by METHODS' key")
        return method
    if not found:
        again = any(method.config_class.__name__ == kind.__name__ for method in METHODS.values())
        cure = "load the recipe anew, whose script was read again since" if again else "add the method to METHODS"
        raise UsageError(f"no method has the settings {kind.__name__}: {cure}")
    names = " and ".join(method.name for method in found)
    raise UsageError(f"{names} share the settings {kind.__name__}, which tell them apart: derive a class for each")


def find_method(name: str) -> type[Method]:
    """The method of that name. Raises UsageError."""
    if name in METHODS:
        return METHODS[name]
    raise UsageError(f"no method is called {name!r}; there are {', '.join(METHODS)}")


__all__ = ["METHODS", "Method", "MethodConfig", "MethodContext", "PseudoLabels", "find_method", "method_of"]
