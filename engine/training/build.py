"""What a recipe trains: its method with networks, their parameters in groups for the optimizer, and its batches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from ...pipelines.backends import open_backend
from ...pipelines.cores import cores
from ...pipelines.datasets.manifest import sizes_of
from ...pipelines.loader import Loader
from ...pipelines.plan import Planner
from ..checkpoint import initialise
from ..data import Data
from ..distributed import broadcast_state, synchronised
from ..events import Listener, note, notes_to, progress_of, silent
from ..methods import Method, MethodContext
from ..models import Network, build_network, load_backbone
from ..models.grouping import batch_norms
from ..models.recompute import recompute
from ..processes import is_distributed, local_world, rank, world_size
from ..recipe import Recipe


def parameter_groups(recipe: Recipe, method: Method) -> list[dict[str, Any]]:
    """Groups for the optimizer: params, name, lr, weight_decay. Each parameter that learns is in one; what the method
    has besides networks learns as their heads do. A frozen backbone is in none."""
    parts: dict[str, tuple[Iterable[nn.Parameter], float]] = {}
    for branch, network in method.networks().items():
        parts[f"{branch}.backbone"] = network.backbone_parameters(), recipe.lr * recipe.backbone_lr
        parts[f"{branch}.head"] = network.head_parameters(), recipe.lr
    parts["method"] = method.parameters(), recipe.lr
    groups: list[dict[str, Any]] = []
    seen: set[nn.Parameter] = set()
    for name, (all_parameters, lr) in parts.items():
        parameters = [parameter for parameter in all_parameters if parameter.requires_grad and parameter not in seen]
        seen.update(parameters)
        if not parameters:
            continue
        if recipe.decay == "all":
            groups.append({"name": name, "params": parameters, "lr": lr, "weight_decay": recipe.weight_decay})
            continue
        decayed = [p for p in parameters if p.ndim > 1]
        rest = [p for p in parameters if p.ndim <= 1]
        groups.append({"name": f"{name}.weights", "params": decayed, "lr": lr, "weight_decay": recipe.weight_decay})
        groups.append({"name": f"{name}.rest", "params": rest, "lr": lr, "weight_decay": 0.0})
    return groups


def build_method(recipe: Recipe, classes: int, processes: int = 1) -> Method:
    """The recipe's method, with networks of random weights, for a process of several that share the batches."""

    def network(projector: bool = False, *, decoder: str = recipe.network, backbone: str = recipe.backbone) -> Network:
        return build_network(decoder, backbone, classes, head_width=recipe.head_width, projector=projector)

    context = MethodContext(
        network=network,
        classes=classes,
        crop=recipe.crop,
        unlabeled_batch=recipe.unlabeled_batch // recipe.accumulate,
        accumulate=recipe.accumulate,
        emulate_processes=max(recipe.emulate_processes // recipe.accumulate, 1),
        processes=processes,
    )
    method = recipe.method_class(recipe.method, context)
    for module in method.modules():
        if isinstance(module, Network):  # all see the same images, normalised as the recipe's encoder asks for
            module.mean, module.std = recipe.encoder.mean, recipe.encoder.std
    if recipe.bn_momentum is not None:
        for norm in batch_norms(method):
            norm.momentum = recipe.bn_momentum
    if processes > 1:
        synchronised(method)
    for network in method.networks().values():
        if recipe.runtime.recompute == "on":
            recompute(network)
        if recipe.batch_statistics == "joint":
            network.join()
        elif recipe.runtime.grouped:
            network.group()
        if recipe.freeze_backbone:
            for parameter in network.backbone_parameters():
                parameter.requires_grad_(False)
    return method


def threads_of(recipe: Recipe) -> int:
    """Threads that decode for this process; 0 for one a core. Several processes on a machine share its cores."""
    return recipe.runtime.threads or (max(cores() // local_world(), 1) if is_distributed() else 0)


def planner_of(recipe: Recipe, data: Data, micro: int = 0) -> Planner:
    """From a step to this process's plan of a micro-batch, over the labelled images and, behind them, the unlabelled
    ones."""
    records = data.trained_on
    labeled, unlabeled = range(len(data.labeled)), range(len(data.labeled), len(records))
    processes = {"rank": rank(), "world": world_size()}
    return Planner(sizes_of(records), labeled, unlabeled, recipe.drawing(), **processes, micro=micro)


def open_method(
    recipe: Recipe, data: Data, device: torch.device, *, fresh: bool, on_event: Listener = silent
) -> Method:
    """The recipe's method on the device, in training mode, with the weights that a run starts from, alike in all its
    processes; says where these come from. fresh: without them for a run that goes on, which brings its own."""
    method = build_method(recipe, len(data.dataset.classes), world_size())
    resting = [module for module in method.modules() if not module.training]
    networks = [*method.networks().values()]
    learning = [network for network in networks if any(weight.requires_grad for weight in network.parameters())]
    judged = method.predictor()
    # A teacher, which learns nothing, begins as the first network that does.
    first = judged if any(network is judged for network in learning) else next(iter(learning), judged)
    sources = set()
    for network in networks if fresh else ():
        if recipe.init is not None and network is first:
            initialise(network, recipe.init, data.dataset.classes, recipe.layout)
        else:
            sources.add(load_backbone(network, recipe.weights))
    for source in sources - {None}:
        note(f"weights: {source}", on_event)
    if method.class_weight is not None:
        shares = {name: pct / 100 for name, pct in data.class_pct().items()}
        method.weigh_classes(torch.tensor([*shares.values()]))
        weights = zip(shares.items(), method.class_weight.tolist())
        told = ", ".join(f"{name} {weight:.2g}" for (name, share), weight in weights if share)
        note(f"weights of labelled pixels: {told}", on_event)
    method.to(device)
    broadcast_state(method)
    if recipe.runtime.channels_last:
        method.to(memory_format=torch.channels_last)
    if recipe.runtime.compile:
        for module in method.modules():
            if isinstance(module, Network):
                module.compile()
    method.train()
    for module in resting:  # as the method has made it
        module.training = False
    return method


def open_loader(
    recipe: Recipe, data: Data, device: torch.device, first: int = 0, on_event: Listener = silent
) -> Loader:
    """This process's batches of the steps from `first` to the recipe's last, made from when the first one is asked for;
    says so where the data set has to be packed for it."""
    records, encoder, runtime = data.trained_on, recipe.encoder, recipe.runtime
    backend = open_backend(
        runtime.backend,
        records,
        device,
        threads_of(recipe),
        folder=data.manifest.folder,
        say=notes_to(on_event),
        on_progress=progress_of("packing", on_event),
    )
    return Loader(
        [planner_of(recipe, data, micro) for micro in range(recipe.accumulate)],
        backend,
        device,
        first,
        recipe.steps,
        mean=encoder.mean,
        std=encoder.std,
        channels_last=runtime.channels_last,
    )
