"""DeepLabv3+ as published with CAC and with CPS, behind one builder."""

from .deeplab import Architecture, Network, build_network
from .resnet import BackboneName
from .weights import load_backbone

__all__ = ["Architecture", "BackboneName", "Network", "build_network", "load_backbone"]
