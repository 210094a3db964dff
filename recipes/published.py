"""Published results by method, data set, split and backbone. Each row is a run: `semiseg train cps_voc --split
voc-cps-1/16 --backbone resnet101` takes the steps of that row. `python -m semiseg.recipes.published` prints the table.

Sources: the papers of CPS and CAC; the READMEs of U2PL and UniMatch (ResNet-101 on VOC); logs of UniMatch and UniMatch
V2, best epochs.
mIoU in % on val. Where no second source was seen, the number is quoted from memory: check it against the paper before
you print it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from semiseg.engine.catalogue import find_recipe
from semiseg.engine.recipe import Recipe

BACKBONES = ("resnet50", "resnet101")
TRANSFORMERS = ("dinov2_small", "dinov2_base", "dinov2_large")


@dataclass(frozen=True, slots=True)
class Row:
    """One published result."""

    method: str
    """As its recipes are called."""
    dataset: str
    """Its layout."""
    split: str
    """As `--split` takes it. CAC's numbers are means over its lists 0, 1 and 2; the row names the first. A draw
    stands for a published list that has no name here."""
    backbone: str
    miou: float
    """% on val."""
    confirmed: bool
    """Whether a second public source (a repository's table, log or issue) gives the same number."""

    def __str__(self) -> str:
        """The number with the digits of its paper, and a question mark if it is quoted from memory."""
        digits = 1 if self.method in ("cac", "supervised") else 2
        return f"{self.miou:.{digits}f}{'' if self.confirmed else '?'}"

    def recipe(self) -> Recipe:
        """The recipe with the settings and steps of this row."""
        return find_recipe(f"{self.method}_{self.dataset}")(split=self.split, backbone=self.backbone)


def _rows(method: str, dataset: str, splits: str, results: dict[str, str]) -> Iterator[Row]:
    """`results`: mIoU of each split by backbone, a star where confirmed, a dash where there is none."""
    for backbone, numbers in results.items():
        for split, number in zip(splits.split(), numbers.split(), strict=True):
            if number != "-":
                name = backbone if backbone in TRANSFORMERS else f"resnet{backbone}"
                yield Row(method, dataset, split, name, float(number.rstrip("*")), number.endswith("*"))


_VOC_CPS = "voc-cps-1/16 voc-cps-1/8 voc-cps-1/4 voc-cps-1/2"
_VOC_U2PL = "voc-u2pl-1/16 voc-u2pl-1/8 voc-u2pl-1/4 voc-u2pl-1/2"
_CITY_U2PL = "city-u2pl-1/16 city-u2pl-1/8 city-u2pl-1/4 city-u2pl-1/2"
_CITY_CPS = "city-cps-1/16 city-cps-1/8 city-cps-1/4 city-cps-1/2"
_FEW = "voc-original-92 voc-original-183 voc-original-366 voc-cps-732"
_ORIGINAL = "voc-original-92 voc-original-183 voc-original-366 voc-original-732 voc-original-1464"
_VOC_CAC = "voc-cac-0-1/16 voc-cac-0-1/8 voc-cac-0-1/4"
_CITY_CAC = "city-cac-0-1/8 city-cac-0-1/4"
_ADE20K = "draw:1/64@0 draw:1/32@0 draw:1/16@0 draw:1/8@0 draw:1/4@0"
_COCO = "draw:1/512@0 draw:1/256@0 draw:1/128@0 draw:1/64@0 draw:1/32@0"

ROWS: tuple[Row, ...] = (
    *_rows("cps", "voc", _VOC_CPS, {"50": "68.21* 73.20* 74.24 75.91", "101": "72.18* 75.83 77.55 78.64"}),
    *_rows("cutmix_cps", "voc", _VOC_CPS, {"50": "71.98 73.67* 74.90 76.15", "101": "74.48* 76.44* 77.68* 78.64"}),
    *_rows("cutmix_cps", "voc", _FEW, {"101": "64.07 67.42 71.71 75.88"}),
    *_rows("cac", "voc", _VOC_CAC, {"50": "70.1 72.4 74.0", "101": "72.4* 74.6* 76.3*"}),
    *_rows("supervised", "voc", f"{_VOC_CAC} all", {"50": "63.9 68.3 71.2 76.3", "101": "66.4 71.0 73.5 77.7"}),
    *_rows("cps", "cityscapes", _CITY_CPS, {"50": "69.79 74.39* 76.85 78.64", "101": "70.50 75.71 77.41 80.08"}),
    *_rows(
        "cutmix_cps",
        "cityscapes",
        _CITY_CPS,
        {"50": "74.47 76.61 77.83 78.77", "101": "74.72* 77.62* 79.21* 80.21*"},
    ),
    *_rows("cac", "cityscapes", _CITY_CAC, {"50": "69.7 72.7"}),
    *_rows("u2pl", "voc", _ORIGINAL, {"101": "67.98* 69.15* 73.66* 76.16* 79.49*"}),
    *_rows("u2pl", "voc", _VOC_U2PL, {"101": "77.21* 79.01* 79.30* 80.50*"}),
    *_rows("u2pl", "cityscapes", _CITY_U2PL, {"101": "70.30* 74.37* 76.47* 79.05*"}),
    *_rows(
        "unimatch",
        "voc",
        _ORIGINAL,
        {"50": "71.90* 72.48* 75.96* 77.39* 78.70*", "101": "75.2* 77.2* 78.8* 79.9* 81.2*"},
    ),
    *_rows(
        "unimatch",
        "cityscapes",
        _CITY_CPS,
        {"50": "75.03* 76.77* 77.49* 78.60*", "101": "76.59* 77.92* 79.22* 79.45*"},
    ),
    *_rows(
        "unimatch_v2",
        "voc",
        _ORIGINAL,
        {
            "dinov2_small": "79.03* 85.50* 85.85* 86.69* 87.82*",
            "dinov2_base": "86.29* 87.92* 88.86* 89.98* 90.80*",
            "dinov2_large": "86.44* 87.56* 90.29* 91.13* 91.21*",
        },
    ),
    *_rows(
        "unimatch_v2",
        "cityscapes",
        _CITY_CPS,
        {"dinov2_small": "80.55* 81.86* 82.39* 82.61*", "dinov2_base": "83.60* 84.30* 84.51* 85.14*"},
    ),
    *_rows(
        "unimatch_v2",
        "ade20k",
        _ADE20K,
        {
            "dinov2_small": "31.48* 38.10* 40.69* 44.41* 45.76*",
            "dinov2_base": "38.70* 45.00* 46.67* 49.84* 52.02*",
            "dinov2_large": "39.95* 44.96* 49.33* 52.14* 54.16*",
        },
    ),
    *_rows(
        "unimatch_v2",
        "coco",
        _COCO,
        {
            "dinov2_small": "39.33* 45.41* 53.17* 54.99* 57.01*",
            "dinov2_base": "47.93* 55.84* 58.66* 60.42* 63.31*",
        },
    ),
    *_rows("supervised", "cityscapes", f"{_CITY_CAC} all", {"50": "66.0 70.7 77.7"}),
)


def markdown() -> str:
    """The tables of docs/published.md: a line for each method, data set and split, with the steps of its recipe."""
    return f"{_table(BACKBONES)}\n{_table(TRANSFORMERS)}"


def _table(backbones: tuple[str, ...]) -> str:
    lines = [
        f"| recipe | `--split` | steps | mIoU, {' | mIoU, '.join(backbones)} |",
        f"|---|---|---:{'|---:' * len(backbones)}|",
    ]
    table: dict[tuple[str, str, str], dict[str, Row]] = {}
    for row in ROWS:
        if row.backbone in backbones:
            table.setdefault((row.method, row.dataset, row.split), {})[row.backbone] = row
    for (method, dataset, split), rows in table.items():
        scores = [str(rows[backbone]) if backbone in rows else "" for backbone in backbones]
        steps = next(iter(rows.values())).recipe().steps
        lines.append(f"| {method}_{dataset} | `{split}` | {steps:,} | {' | '.join(scores)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(markdown(), end="")
