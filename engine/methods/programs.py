"""Facts of the published programs with which their methods' results were made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

CAC_EPOCHS, CAC_EPOCH_STEPS = 80, 9_259 // 8
"""CAC's program trains so long whatever the data set and the split: it has the iterations of VOC at 1/8, 9,259
unlabelled images of which a step takes 8, written out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A published program and how its runs were started."""

    name: str
    """The key of `PROGRAMS`."""
    source: str
    """The repository and the commit that was read."""
    protocols: dict[str, str]
    """By which it evaluates, by layout."""
    processes: dict[str, int]
    """Processes of its runs, one per GPU, by layout."""
    crops: dict[str, int]
    """Sides of its training crops by layout, pixels."""

    def protocol_on(self, layout: str) -> str:
        """The protocol of its evaluation; VOC's for a layout that it was never run on."""
        return self.protocols.get(layout, self.protocols["voc"])

    def processes_on(self, layout: str) -> int:
        """Those of VOC for a layout that it was never run on."""
        return self.processes.get(layout, self.processes["voc"])


PROGRAMS = {
    program.name: program
    for program in (
        Program(
            name="cac",
            source="Context-Aware-Consistency 4fdec7a",
            protocols={"voc": "cac-whole"},
            processes={"voc": 2, "cityscapes": 4},
            crops={"voc": 320, "cityscapes": 720},
        ),
        Program(
            name="cps",
            source="TorchSemiSeg 5e0c29c",
            protocols={"voc": "cps-slide"},
            processes={"voc": 4, "cityscapes": 8},
            crops={"voc": 512, "cityscapes": 800},
        ),
        Program(
            name="cutmix_seg",
            source="cutmix-semisup-seg af6183a",
            protocols={"voc": "unimatch-whole"},
            processes={"voc": 1},
            crops={"voc": 321},
        ),
        Program(
            name="unimatch",
            source="UniMatch 0324f3d",
            protocols={"voc": "unimatch-whole", "cityscapes": "unimatch-slide"},
            processes={"voc": 4, "cityscapes": 4},
            crops={"voc": 321, "cityscapes": 801},
        ),
        Program(
            name="unimatch_v2",
            source="UniMatch-V2 f6afb4d",
            protocols={"voc": "dino-whole", "cityscapes": "unimatch2-slide"},
            processes={"voc": 4, "cityscapes": 4},
            crops={"voc": 518, "cityscapes": 798, "ade20k": 518, "coco": 518},
        ),
        Program(
            name="u2pl",
            source="U2PL ab3d2be",
            protocols={"voc": "unimatch-whole", "cityscapes": "slide"},
            processes={"voc": 4, "cityscapes": 8},
            crops={"voc": 513, "cityscapes": 769},
        ),
    )
}


def cps_switches(layout: str) -> dict[str, Any]:
    """What TorchSemiSeg does otherwise, in CPS, CutMix-CPS and Mean Teacher."""
    program = PROGRAMS["cps"]
    return {
        "network": "cps",
        "evaluation.protocol": program.protocol_on(layout),
        "sampling.unlabeled_order": "repeated",
        "sampling.labeled_order": "redrawn",
        "labeled.crop_off_by_one": True,
        "labeled.padding": "centre",
        "unlabeled.crop_off_by_one": True,
        "unlabeled.padding": "centre",
        "emulate_processes": program.processes_on(layout),
    }


def unimatch_switches(layout: str) -> dict[str, Any]:
    """What UniMatch's program does otherwise than a recipe by default, in UniMatch and FixMatch: fields and values."""
    program = PROGRAMS["unimatch"]
    return {
        "network": "unimatch",
        "evaluation.protocol": program.protocol_on(layout),
        "method.labels": "mixed",
        "sampling.cutmix_partner": "same",
        "sampling.labeled_order": "cut",
        "schedule": "poly_late",
        "emulate_processes": program.processes_on(layout),
    }
