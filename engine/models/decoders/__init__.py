"""Decoders: an encoder's maps to features. A new one is a row here, and a file with its modules.

`cac`: Lai et al., Semi-supervised Semantic Segmentation with Directional Context-aware Consistency (2021).
`cps`: Chen et al., Semi-Supervised Semantic Segmentation with Cross Pseudo Supervision (2021).
`unimatch`: Yang et al., Revisiting Weak-to-Strong Consistency in Semi-Supervised Semantic Segmentation (2023).
`u2pl`: Wang et al., Semi-Supervised Semantic Segmentation Using Unreliable Pseudo-Labels (2022).
`dpt`: Ranftl et al., Vision Transformers for Dense Prediction (2021), as UniMatch V2 has it (Yang et al., 2025).
"""

from functools import partial

from .decoder import Decoder
from .deeplab import ConcatenatingASPP, ConvolvingASPP, DeepLabDecoder, SummingASPP, TwoHeadDecoder
from .dpt import DPTDecoder

DECODERS: dict[str, Decoder] = {
    "cac": Decoder(
        build=partial(DeepLabDecoder, dropout=0.5),
        aspp=partial(ConcatenatingASPP, dropout=0.5),
        classifier_dropout=0.1,
    ),
    "cps": Decoder(build=DeepLabDecoder, aspp=SummingASPP, deep_stem=True),
    "unimatch": Decoder(
        build=partial(DeepLabDecoder, low_first=True),
        aspp=ConcatenatingASPP,
        deep_stem=True,
        multi_grid=(1, 2, 2),
        kaiming=False,
    ),
    "u2pl": Decoder(
        build=TwoHeadDecoder,
        aspp=ConvolvingASPP,
        projection=256,
        projector_head=True,
        deep_stem=True,
        multi_grid=(4, 8, 16),
        output_stride=8,
        ceil_pool=True,
        kaiming=False,
    ),
    "dpt": Decoder(build=DPTDecoder, maps=4, finer=8, kaiming=False),
}

__all__ = ["DECODERS", "Decoder"]
