"""DINOv2's vision transformers of patches of 14 pixels, with the names of the published files.

Oquab et al., DINOv2: Learning Robust Visual Features without Supervision (2023).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ....pipelines.errors import UsageError
from ..fill import fill

PATCH = 14
GRID = 37  # positions along a side of the stored embedding: images of 518 pixels
OFFSET = 0.1
"""Published positions are interpolated by the factor (n + 0.1) / 37 rather than n / 37, which changes every value."""
HEAD = 64
SIZES = {384: "small", 768: "base", 1024: "large", 1536: "giant"}


class DinoV2(nn.Module):
    """Maps (B, 3, H, W) to four maps (B, D, H/14, W/14): the tokens of the layers `taken`, normalised, without the
    class token. H and W must be multiples of 14.

    `width` D is a multiple of 64.
    """

    def __init__(self, width: int, depth: int, taken: tuple[int, ...]):
        super().__init__()
        self.taken = taken
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + GRID**2, width))
        # Only the pretraining that hides patches reads it: it is here because published files have it.
        self.mask_token = nn.Parameter(torch.zeros(1, width))
        self.patch_embed = PatchEmbedding(width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        fill(nn.init.normal_, self.cls_token, std=1e-6)
        fill(nn.init.normal_, self.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                fill(nn.init.normal_, module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        height, width = x.shape[-2:]
        if height % PATCH or width % PATCH:
            raise UsageError(f"dinov2: the sides of images must be multiples of {PATCH}, are {height} and {width}")
        h, w = height // PATCH, width // PATCH
        tokens = self.patch_embed(x)
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), tokens], 1) + self.positions(h, w)
        maps = []
        for number, block in enumerate(self.blocks):
            tokens = block(tokens)
            if number in self.taken:
                maps.append(self.norm(tokens[:, 1:]).unflatten(1, (h, w)).permute(0, 3, 1, 2))
        return tuple(maps)

    def positions(self, h: int, w: int) -> Tensor:
        """The embedding (1, 1 + h w, D) of a grid of patches: as stored for the stored grid, else interpolated."""
        if h == w == GRID:
            return self.pos_embed
        first, grid = self.pos_embed[:, :1], self.pos_embed[:, 1:].unflatten(1, (GRID, GRID))
        rows, columns = (_resampling(count, grid) for count in (h, w))
        # In float64, which neither autocast nor TF32 rounds.
        along = torch.einsum("wj,bijd->biwd", columns, grid.double())
        grid = torch.einsum("hi,biwd->bhwd", rows, along)
        return torch.cat([first, grid.flatten(1, 2).to(first.dtype)], 1)


def _resampling(count: int, like: Tensor) -> Tensor:
    """(count, 37) float64: what share of each stored position those along a side of `count` patches have, by bicubic
    interpolation in the precision of `like`. The gradient of a product has the same bits in every run, and that of
    the interpolation itself, on a GPU, has not."""
    stored = torch.eye(GRID, dtype=like.dtype, device=like.device)[None, ..., None]
    factors = ((count + OFFSET) / GRID, 1.0)
    shares = F.interpolate(stored, scale_factor=factors, mode="bicubic", recompute_scale_factor=False)
    return shares[0, ..., 0].T.double()


class PatchEmbedding(nn.Module):
    """(B, 3, H, W) -> (B, H/14 W/14, D), row by row."""

    def __init__(self, width: int):
        super().__init__()
        self.proj = nn.Conv2d(3, width, PATCH, PATCH)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class Block(nn.Module):
    """Attention and two layers for each token, both normalised before and scaled after. (B, N, D) -> (B, N, D)."""

    def __init__(self, width: int):
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(width, eps=1e-6) for _ in range(2))
        self.attn, self.mlp = Attention(width), MLP(width)
        self.ls1, self.ls2 = LayerScale(width), LayerScale(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class Attention(nn.Module):
    """Among all tokens, in heads of 64 channels. (B, N, D) -> (B, N, D)."""

    def __init__(self, width: int):
        super().__init__()
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, -1, HEAD)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Four times as wide inside, with GELU. (B, N, D) -> (B, N, D)."""

    def __init__(self, width: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class LayerScale(nn.Module):
    """Multiplies every channel by a number of its own."""

    def __init__(self, width: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


def of_width(width: int):
    """An `adapt` that tells files of the other sizes apart by their width, and says whose they are."""

    def adapt(state: dict[str, Tensor]) -> dict[str, Tensor]:
        token = state.get("cls_token")
        given = token.shape[-1] if torch.is_tensor(token) and token.ndim else width
        if given != width:
            raise UsageError(f"it is of the {SIZES.get(given, 'unknown')} size, and a {SIZES[width]} one is needed")
        return dict(state)

    return adapt
