"""How long the published programs train, by split: epochs times iterations of an epoch, derived and not typed."""

from __future__ import annotations

from semiseg.engine.methods.programs import PROGRAMS
from semiseg.pipelines.datasets.registry import POOLS
from semiseg.pipelines.datasets.splits import check_spec, published_share, unlabeled_count

SPLIT = "draw:1/8@0"
"""The split of every published recipe, unless another is asked for: 1/8 is the share of the released scripts."""
BATCH = 8
"""Labelled images a step, and as many unlabelled ones, over all processes."""
CPS_EPOCHS = {
    "voc": {"1/16": 32, "1/8": 34, "1/4": 40, "1/2": 60, "few": 30},
    "cityscapes": {"1/16": 128, "1/8": 137, "1/4": 160, "1/2": 240},
}
"""From the documentation of TorchSemiSeg; `few`, for the few-label lists of VOC, from its author in issue 22."""
UNIMATCH_EPOCHS = {"voc": 80, "cityscapes": 240}
UNIMATCH_V2_EPOCHS = {"voc": 60, "cityscapes": 180, "ade20k": 60, "coco": 20}
U2PL_EPOCHS = {"voc": 80, "cityscapes": 200}


def unimatch_steps(layout: str, split: str, epochs: dict[str, int], batch: int = BATCH) -> int:
    """The steps of UniMatch's programs, of four processes on all data sets."""
    return steps_of_passes(layout, split, epochs[layout], batch, PROGRAMS["unimatch"].processes["voc"])


def steps_of_passes(layout: str, split: str, epochs: int, batch: int, processes: int) -> int:
    """Steps of so many passes over the unlabelled images, of which each process takes its share, rounded up, in
    batches, rounded down. A split whose unlabelled images are not known takes the steps of 1/8."""
    check_spec(split, layout)
    unlabeled = unlabeled_count(split, POOLS[layout])
    if not unlabeled:
        return steps_of_passes(layout, SPLIT, epochs, batch, processes)
    return epochs * max(-(-unlabeled // processes) // (batch // processes), 1)


def cps_steps(layout: str, split: str, batch: int = BATCH) -> int:
    """An epoch of CPS passes the larger of the two lists once, by counts that its code derives from the share and not
    from the files: #labelled = pool // ratio. With few labels every image of the pool counts as unlabelled.

    Splits without a published schedule (own lists, other shares, everything labelled) take that of 1/8.
    """
    share = share_of(layout, split)
    pool = POOLS[layout]
    if share is None or share not in CPS_EPOCHS[layout]:
        return cps_steps(layout, SPLIT, batch)
    epochs = CPS_EPOCHS[layout][share]
    labeled = 0 if share == "few" else pool // int(share.removeprefix("1/"))
    return epochs * (max(labeled, pool - labeled) // batch)


def share_of(layout: str, split: str) -> str | None:
    """`1/16`, `1/8`, …, `few`, or None for a split of no published kind. Raises UsageError for an ambiguous one."""
    check_spec(split, layout)
    return published_share(split)
