"""DeepLabv3+ as published with CAC and with CPS, behind one builder."""

from .encoders.resnet import BackboneName
from .network import Architecture, Network, build_network
from .published import from_published
from .state_dict import read_state_dict
from .weights import load_backbone

__all__ = [
    "Architecture",
    "BackboneName",
    "Network",
    "build_network",
    "from_published",
    "load_backbone",
    "read_state_dict",
]
