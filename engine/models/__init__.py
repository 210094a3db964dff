"""Networks: an encoder, a decoder and a classifier behind one builder; their weights."""

from .decoders import DECODERS, Decoder
from .encoders import ENCODERS, Encoder, encoder_of
from .network import Network, build_network, check_pair, drop_nothing, evaluating, of_projector
from .published import from_published, published_program
from .state_dict import read_state_dict
from .weights import load_backbone

__all__ = [
    "DECODERS",
    "ENCODERS",
    "Decoder",
    "Encoder",
    "Network",
    "build_network",
    "check_pair",
    "drop_nothing",
    "encoder_of",
    "evaluating",
    "from_published",
    "load_backbone",
    "of_projector",
    "published_program",
    "read_state_dict",
]
