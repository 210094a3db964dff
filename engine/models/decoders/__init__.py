"""Decoders: an encoder's maps to features. A new one is a row here, and a file with its modules.

`cac`: Lai et al., Semi-supervised Semantic Segmentation with Directional Context-aware Consistency (2021).
`cps`: Chen et al., Semi-Supervised Semantic Segmentation with Cross Pseudo Supervision (2021).
"""

from .decoder import Decoder
from .deeplab import ConcatenatingASPP, SummingASPP

DECODERS: dict[str, Decoder] = {
    "cac": Decoder(deep_stem=False, aspp=ConcatenatingASPP, dropout=0.5, classifier_dropout=0.1),
    "cps": Decoder(deep_stem=True, aspp=SummingASPP, dropout=0.0, classifier_dropout=0.0),
}

__all__ = ["DECODERS", "Decoder"]
