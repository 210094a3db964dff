"""Batches of ours as the published way takes them."""

from __future__ import annotations

import torch
from torch import Tensor

from semiseg.kernels import box_mask
from semiseg.pipelines.batch import Batch, Mixed, Pair, Plain, WeakStrong


def as_published(batch: Batch) -> list[Tensor | list[Tensor]]:
    """A batch of ours as `PublishedWay.loaders` gives it; of images to be mixed the mask (B, 1, S, S) comes with it.
    Partners of strong views are a stream of their own."""
    labeled = [batch.labeled.image, batch.labeled.target.long()]
    match batch.unlabeled:
        case None:
            return [labeled]
        case Plain(image):
            return [labeled, image]
        case Mixed(u, v, boxes):
            return [labeled, u, v, box_mask(boxes, u.shape[-2:])[:, None].to(u.dtype)]
        case Pair(u, v, corner1, corner2, extent, flip1, flip2):
            low, flips = torch.stack([corner1, corner2], 1).long(), torch.stack([flip1, flip2], 1)
            return [labeled, [torch.stack([u, v], 1), low, low + extent[:, None], flips]]
        case WeakStrong(weak, strong, boxes, partner, valid):
            size, own = weak.shape[-2:], slice(len(partner))
            masks = torch.stack([box_mask(of_view, size) for of_view in boxes], 1).to(weak.dtype)
            strong, shown = torch.stack(strong, 1), box_mask(valid[:, None], size)
            return [labeled, *([weak[rows], strong[rows], shown[rows], masks] for rows in (own, partner))]
