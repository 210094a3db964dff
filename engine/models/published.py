"""The published checkpoints, by the key names of their programs.

`cac`: dvlab-research/Context-Aware-Consistency, trained without unlabelled images (no projector) or with them.
`cps`: charlesCXK/TorchSemiSeg, two networks in one file.
`unimatch`: LiheYoung/UniMatch; its FixMatch and its supervised baseline save the same network.
`unimatch_v2`: LiheYoung/UniMatch-V2, likewise; where a file holds a teacher, that is taken.
`u2pl`: Haochen-Wang409/U2PL, likewise; its supervised baseline has no projector.
With ResNet-50 or ResNet-101, UniMatch V2's with DINOv2 of three sizes. The modules are those of `Network` under other
names.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ...pipelines.errors import UsageError
from .encoders import ENCODERS
from .network import Network, build_network
from .state_dict import is_counter, require_fit, unwrapped


@dataclass(frozen=True, slots=True)
class Form:
    """How a program writes its networks into a file."""

    network: str
    """The key of `DECODERS` that its networks are built of."""
    sign: str
    """How the names begin that set its files apart."""
    branches: tuple[str, ...]
    """The prefix of each network's keys."""
    modules: dict[str, str]
    """Modules here -> modules of the published program."""
    dropped: tuple[str, ...] = ()
    """How the names begin of what its training alone needs."""

    def name(self, own: str) -> str:
        """The published name of one of our keys, without the branch."""
        for ours, theirs in self.modules.items():
            if own.startswith(f"{ours}."):
                return theirs + own.removeprefix(ours)
        return own


FORMS = {
    # Before CAC's, whose sign its names bear too.
    "u2pl": Form(
        network="u2pl",
        sign="decoder.low_conv.",
        branches=("",),
        modules={
            "backbone": "encoder",
            "aspp.pooled.0": "decoder.aspp.conv1.1",
            "aspp.pooled.1": "decoder.aspp.conv1.2",
            **{f"aspp.branches.{i}": f"decoder.aspp.conv{i + 2}" for i in range(4)},
            "aspp.merge": "decoder.head.0",
            "aspp.norm": "decoder.head.1",
            "decoder.reduce": "decoder.low_conv",
            "decoder.refine": "decoder.classifier",
            "decoder.projector": "decoder.representation",
            "classifier": "decoder.classifier.8",
            "projector": "decoder.representation.8",
        },
        dropped=("auxor.",),
    ),
    "cac": Form(
        network="cac",
        sign="encoder.",
        branches=("",),
        modules={
            "backbone": "encoder.backbone",
            **{f"aspp.branches.{i}.0": f"encoder.aspp.aspp{i + 1}.atrous_conv" for i in range(4)},
            **{f"aspp.branches.{i}.1": f"encoder.aspp.aspp{i + 1}.bn" for i in range(4)},
            "aspp.pooled.0": "encoder.aspp.global_avg_pool.1",
            "aspp.pooled.1": "encoder.aspp.global_avg_pool.2",
            "aspp.merge": "encoder.aspp.conv1",
            "aspp.norm": "encoder.aspp.bn1",
            "decoder.reduce.0": "encoder.decoder.conv1",
            "decoder.reduce.1": "encoder.decoder.bn1",
            "decoder.refine": "encoder.decoder.last_conv",
            "classifier": "classifier.1",
            "projector": "project",
        },
    ),
    "cps": Form(
        network="cps",
        sign="branch",
        branches=("branch1.", "branch2."),
        modules={
            "backbone": "backbone",
            "aspp.branches": "head.aspp.map_convs",
            "aspp.branch_norm": "head.aspp.map_bn",
            "aspp.pooled": "head.aspp.global_pooling_conv",
            "aspp.pooled_norm": "head.aspp.global_pooling_bn",
            "aspp.merge": "head.aspp.red_conv",
            "aspp.merge_pooled": "head.aspp.pool_red_conv",
            "aspp.norm": "head.aspp.red_bn",
            "decoder.reduce": "head.reduce",
            # No dropout stands between the two convolutions, so the second has other numbers.
            **{
                f"decoder.refine.{ours}": f"head.last_conv.{theirs}" for ours, theirs in zip((0, 1, 4, 5), (0, 1, 3, 4))
            },
            "classifier": "classifier",
        },
    ),
    "unimatch": Form(
        network="unimatch",
        sign="head.b",
        branches=("",),
        modules={
            "backbone": "backbone",
            **{f"aspp.branches.{i}": f"head.b{i}" for i in range(4)},
            "aspp.pooled.0": "head.b4.gap.1",
            "aspp.pooled.1": "head.b4.gap.2",
            "aspp.merge": "head.project.0",
            "aspp.norm": "head.project.1",
            "decoder.reduce": "reduce",
            # As in CPS's network.
            **{f"decoder.refine.{ours}": f"fuse.{theirs}" for ours, theirs in zip((0, 1, 4, 5), (0, 1, 3, 4))},
            "classifier": "classifier",
        },
    ),
    "unimatch_v2": Form(
        network="dpt",
        sign="head.scratch.",
        branches=("",),
        modules={
            "backbone": "backbone",
            "decoder.projects": "head.projects",
            "decoder.resizes": "head.resize_layers",
            **{f"decoder.narrows.{i}": f"head.scratch.layer{i + 1}_rn" for i in range(4)},
            **{f"decoder.fusions.{i}.side": f"head.scratch.refinenet{i + 1}.resConfUnit1" for i in range(4)},
            **{f"decoder.fusions.{i}.refine": f"head.scratch.refinenet{i + 1}.resConfUnit2" for i in range(4)},
            **{f"decoder.fusions.{i}.out": f"head.scratch.refinenet{i + 1}.out_conv" for i in range(4)},
            "decoder.output": "head.scratch.output_conv.0",
            "classifier": "head.scratch.output_conv.2",
        },
    ),
}
DINOV2 = {encoder.channels[0]: name for name, encoder in ENCODERS.items() if name.startswith("dinov2_")}
"""By the width of their tokens."""


def from_published(state_dict: Mapping[str, Any], num_classes: int | None = None, *, branch: int = 1) -> Network:
    """The network of a published checkpoint, in evaluation mode, in the floating type of the checkpoint.

    `state_dict` is a file's content as its program saved it or the state dict in it (see `WRAPPERS`), with or without
    the prefix "module." and batch counters, in any order of its keys. `num_classes` None takes as many classes as it
    holds. `branch` 2 is the second network of CPS. CAC's and U2PL's have a projector where the checkpoint has one.
    Raises UsageError for anything else, naming the keys that are missing, unexpected or of another shape.
    """
    given = {name: value for name, value in unwrapped(state_dict).items() if not is_counter(name)}
    program = published_program(given)
    form = FORMS[program]
    given = {name: value for name, value in given.items() if not name.startswith(form.dropped)}
    if branch not in range(1, len(form.branches) + 1):
        raise UsageError(f"branch {branch}: {program} has {len(form.branches)}, counted from 1")

    prefix = form.branches[branch - 1]
    classifier = given.get(prefix + form.name("classifier.weight"))
    held = len(classifier) if torch.is_tensor(classifier) and classifier.ndim else None
    if None not in (held, num_classes) and held != num_classes:
        raise UsageError(
            f"published {program} checkpoint: it holds {held} classes, not {num_classes}; "
            "pass the data set or the class list that it was trained with"
        )
    backbone = _backbone(given)
    projector = any(name.startswith(form.name("projector.")) for name in given)
    with torch.device("meta"):
        network = build_network(form.network, backbone, held or num_classes or 1, projector=projector).eval()

    own = network.state_dict()
    names = {name: form.name(name) for name in own if not is_counter(name)}
    wanted = {each + theirs: own[ours] for each in form.branches for ours, theirs in names.items()}
    require_fit(given, wanted, f"not the published {program} network with {backbone}")

    assert classifier is not None  # as it fits
    dtype, counter = classifier.dtype, torch.zeros((), dtype=torch.long, device=classifier.device)

    def copied(name: str) -> torch.Tensor:
        return given[prefix + names[name]].detach().to(dtype, copy=True)

    filled = {name: counter.clone() if is_counter(name) else copied(name) for name in own}
    network.load_state_dict(filled, assign=True)
    return network


def published_program(state_dict: Mapping[str, Any]) -> str:
    """Whose file it is, a key of `FORMS`, by the names in a state dict as `from_published` takes it.

    Raises UsageError for anybody else's.
    """
    given = unwrapped(state_dict)
    for program, form in FORMS.items():
        if any(name.startswith(form.sign) for name in given):
            return program
    first = ", ".join(list(given)[:3])
    raise UsageError(
        "not a published checkpoint of CAC (encoder.…, classifier.1.…), CPS (branch1.…, branch2.…), UniMatch "
        f"(head.b0.…, fuse.…), UniMatch V2 (head.scratch.…) or U2PL (decoder.low_conv.…): its keys are {first} …; pass "
        "one of theirs or one of semiseg"
    )


def _backbone(given: Mapping[str, Any]) -> str:
    """The encoder of a published network, by what its files hold; of one that nobody published, the nearest."""
    token = given.get("backbone.cls_token")
    if torch.is_tensor(token) and token.ndim:
        return DINOV2.get(token.shape[-1], "dinov2_small")
    return "resnet101" if any(".layer3.6." in name for name in given) else "resnet50"
