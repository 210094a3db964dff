"""A training step as the published programs make it, written in plain PyTorch: what is compared with.

float32 (on a GPU with TensorFloat32 in convolutions, torch's default), contiguous, eager; whole images resized with
Pillow in the worker processes of a DataLoader; logits upsampled to full resolution for every loss and label; overlaps
cut out in a loop over the images, with coordinates read on the host; the contrast against 8000 negatives at a time,
scored again in the backward pass; partners' images and labels pasted by boolean indices; banks of features on the host,
put together anew; averages taken tensor by tensor; every loss read on the host in every step. What costs a published
program time but decides nothing (training scores, progress text, an edge map of Cityscapes, mask files of unlabelled
images) is left out.
"""

from .batch import as_published
from .cac import Cac
from .cps import Cps, CutMixCps
from .network import published
from .teachers import CutMixSeg, MeanTeacher
from .u2pl import U2pl
from .unimatch import FixMatch, UniMatch, UniMatchV2
from .way import PublishedWay, Supervised

METHODS: dict[str, type[PublishedWay]] = {
    "supervised": Supervised,
    "cac": Cac,
    "cps": Cps,
    "cutmix_cps": CutMixCps,
    "mean_teacher": MeanTeacher,
    "cutmix_seg": CutMixSeg,
    "u2pl": U2pl,
    "fixmatch": FixMatch,
    "unimatch": UniMatch,
    "unimatch_v2": UniMatchV2,
}
"""By the names of ours."""

__all__ = ["METHODS", "PublishedWay", "as_published", "published"]
