"""What a recipe comes down to: learning rates, weight decays, loss weights and batch, beside the published ones."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from ..pipelines.datasets.layouts import LAYOUTS
from ..pipelines.views import Augmentation
from .recipe import Recipe
from .serial import flattened
from .training.build import build_method, parameter_groups


def hyperparameters(recipe: Recipe, classes: int | None = None) -> dict[str, Any]:
    """steps, crop, batch, loss_weights, method (its other settings), optimizer, schedule, groups: lr and weight_decay
    act on the mean gradient of the whole batch."""
    if classes is None:
        known = LAYOUTS[recipe.layout].classes
        classes = len(known) if known else 2
    with torch.device("meta"):
        method = build_method(recipe, classes)
    groups = [
        {
            "name": group["name"],
            "lr": group["lr"],
            "weight_decay": group["weight_decay"],
            "parameters": sum(p.numel() for p in group["params"]),
        }
        for group in parameter_groups(recipe, method)
    ]
    return {
        "steps": recipe.steps,
        "crop": recipe.crop,
        "batch": {"labeled": recipe.batch, "unlabeled": recipe.unlabeled_batch if recipe.views.windows else 0},
        "loss_weights": method.weights(),
        "method": _method_settings(recipe),
        "optimizer": {"name": recipe.optimizer} | _optimizer_settings(recipe),
        "schedule": recipe.schedule,
        "groups": groups,
    }


def _method_settings(recipe: Recipe) -> dict[str, Any]:
    """Those that weigh no term of the loss."""
    weights = recipe.method_class.terms.values()
    names = [field.name for field in dataclasses.fields(recipe.method) if field.name not in weights]
    return {name: getattr(recipe.method, name) for name in names}


def _optimizer_settings(recipe: Recipe) -> dict[str, Any]:
    names = ("betas", "eps") if recipe.optimizer == "adamw" else ("momentum",)
    return {name: getattr(recipe, name) for name in names}


def _flatten(values: dict[str, Any]) -> dict[str, float]:
    """The same as one level: "batch labeled", "network.head lr", …"""
    flat: dict[str, float] = {"steps": values["steps"], "crop": values["crop"]}
    flat |= {f"batch {name}": value for name, value in values["batch"].items()}
    flat |= {f"weight of {name} loss": value for name, value in values["loss_weights"].items()}
    for group in values["groups"]:
        flat |= {f"{group['name']} {key}": group[key] for key in ("lr", "weight_decay", "parameters")}
    return flat


ELSEWHERE = {
    "name", "layout", "files", "split", "seed",
    "batch", "unlabeled_ratio", "lr", "backbone_lr", "weight_decay", "fidelity",
}  # fmt: skip
"""Fields that say which data it is, and those that a summary has under other names."""


def settings(recipe: Recipe, classes: int | None = None) -> dict[str, Any]:
    """All that decides the result on given data, by name: the `summary`, then every other field by its flag."""
    unused = () if recipe.views.windows else ("unlabeled",)
    fields = {name: value for name, value in recipe.decisive(fresh=True).items() if name not in {*ELSEWHERE, *unused}}
    listed = summary(recipe, classes)
    known = {*listed, *(f"method.{weight}" for weight in recipe.method_class.terms.values())}
    return listed | {name: value for name, value in flattened(fields).items() if name not in known}


def summary(recipe: Recipe, classes: int | None = None) -> dict[str, Any]:
    """What people look for, by name: `hyperparameters`, the views, the method's settings and the switches."""
    flat: dict[str, Any] = _flatten(hyperparameters(recipe, classes))
    flat |= {"optimizer": recipe.optimizer} | _optimizer_settings(recipe)
    if recipe.accumulate > 1:
        flat["accumulate"] = recipe.accumulate
    flat |= {name: getattr(recipe, name) for name in ("schedule", "power", "backbone", "network", "freeze_backbone")}
    if recipe.views.windows:
        flat["batch_statistics"] = recipe.batch_statistics
    flat["labelled windows"] = windows(recipe.labeled, recipe.crop)
    if recipe.views.windows:
        flat["unlabelled windows"] = windows(recipe.unlabeled, recipe.crop)
    flat |= {f"method.{name}": value for name, value in _method_settings(recipe).items()}
    return flat | {path: recipe.get(path) for path in recipe.switches()}


def windows(augmentation: Augmentation, crop: int) -> str:
    """Scales and colours in words: `long side 320-800, flip 0.5, jitter 0.8`."""
    low, high = augmentation.range
    bounds = (low, 1, high) if augmentation.even_odds else (low, high)
    if augmentation.scale == "long_side":
        base = round(augmentation.base * crop)
        words = [f"long side {'-'.join(str(max(int(bound * base), 1)) for bound in bounds)}"]
    elif augmentation.scale == "own":
        most = f", at most {round(augmentation.longest * crop)}," if augmentation.longest else ""
        words = [f"own long side{most} x {'-'.join(f'{bound:g}' for bound in bounds)}"]
    else:
        factor = crop / (augmentation.native_crop or crop)
        words = [f"scales {' '.join(f'{factor * scale:g}' for scale in augmentation.factors)}"]
    chances = {name: getattr(augmentation, name) for name in ("flip", "jitter", "gray", "blur")}
    return ", ".join(words + [f"{name} {chance:g}" for name, chance in chances.items() if chance])


def shown(value: Any) -> str:
    """A value of a setting, for a person."""
    if value is None or isinstance(value, bool):
        return {None: "default", False: "false", True: "true"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else str(value)
