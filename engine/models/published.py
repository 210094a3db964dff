"""The published checkpoints, by the key names of their programs.

`cac`: dvlab-research/Context-Aware-Consistency, trained without unlabelled images (no projector) or with them.
`cps`: charlesCXK/TorchSemiSeg, two networks in one file.
Both with ResNet-50 or ResNet-101. The modules are those of `Network` under other names.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ...pipelines.errors import UsageError
from .network import Network, build_network
from .state_dict import is_counter, plain, require_fit


@dataclass(frozen=True, slots=True)
class Form:
    """How a program writes its networks into a file."""

    network: str
    """The key of `DECODERS` that its networks are built of."""
    branches: tuple[str, ...]
    """The prefix of each network's keys."""
    modules: dict[str, str]
    """Modules here -> modules of the published program."""

    def name(self, own: str) -> str:
        """The published name of one of our keys, without the branch."""
        for ours, theirs in self.modules.items():
            if own.startswith(f"{ours}."):
                return theirs + own.removeprefix(ours)
        return own


FORMS = {
    "cac": Form(
        network="cac",
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
}


def from_published(state_dict: Mapping[str, Any], num_classes: int | None = None, *, branch: int = 1) -> Network:
    """The network of a published checkpoint, in evaluation mode, in the floating type of the checkpoint.

    `state_dict` is CAC's or CPS's, bare or under "state_dict" or "model", with or without the prefix "module." and
    batch counters, in any order of its keys. `num_classes` None takes as many classes as it holds. `branch` 2 is the
    second network of CPS. CAC's network has its projector where the checkpoint has one.
    Raises UsageError for anything else, naming the keys that are missing, unexpected or of another shape.
    """
    given = {name: value for name, value in plain(state_dict).items() if not is_counter(name)}
    program = published_program(given)
    form = FORMS[program]
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
    backbone = "resnet101" if any(".layer3.6." in name for name in given) else "resnet50"
    projector = any(name.startswith(form.name("projector.")) for name in given)
    with torch.device("meta"):
        network = build_network(form.network, backbone, held or num_classes or 1, projector=projector).eval()

    own = network.state_dict()
    names = {name: form.name(name) for name in own if not is_counter(name)}
    wanted = {each + theirs: own[ours] for each in form.branches for ours, theirs in names.items()}
    require_fit(given, wanted, f"not the published {program} network with {backbone}")

    def copied(name: str) -> torch.Tensor:
        return given[prefix + names[name]].detach().to(classifier.dtype, copy=True)

    counter = torch.zeros((), dtype=torch.long, device=classifier.device)
    filled = {name: counter.clone() if is_counter(name) else copied(name) for name in own}
    network.load_state_dict(filled, assign=True)
    return network


def published_program(state_dict: Mapping[str, Any]) -> str:
    """Whose file it is, a key of `FORMS`, by the names in a state dict as `from_published` takes it.

    Raises UsageError for anybody else's.
    """
    given = plain(state_dict)
    if any(name.startswith("encoder.") for name in given):
        return "cac"
    if any(name.startswith(FORMS["cps"].branches) for name in given):
        return "cps"
    first = ", ".join(list(given)[:3])
    raise UsageError(
        f"not a published checkpoint of CAC (encoder.…, classifier.1.…) or CPS (branch1.…, branch2.…): its keys are "
        f"{first} …; pass one of theirs or one of semiseg"
    )
