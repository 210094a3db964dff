"""One file per method: its settings, its views, its losses. A new method is a file here and a line below."""

from .cac import Cac, CacConfig
from .cps import Cps, CpsConfig
from .cutmix_cps import CutMixCps, CutMixCpsConfig
from .method import Method, Setting, SupervisedTerm
from .supervised import Supervised, SupervisedConfig

METHODS: dict[type, type[Method]] = {
    SupervisedConfig: Supervised,
    CacConfig: Cac,
    CpsConfig: Cps,
    CutMixCpsConfig: CutMixCps,
}

MethodConfig = SupervisedConfig | CacConfig | CpsConfig | CutMixCpsConfig

__all__ = ["METHODS", "Method", "MethodConfig", "Setting", "SupervisedTerm"]
