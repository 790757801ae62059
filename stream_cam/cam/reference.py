"""The formulas in plain torch, without cleverness: the oracle of every test and kernel.

Class activation map, Zhou et al., "Learning Deep Features for Discriminative Localization",
CVPR 2016, eq. 1–2, with the mean instead of the sum because torchvision's pooling is a mean:

    M_c(x, y) = Σ_k w[c, k] · f_k(x, y)        S_c = mean over (x, y) of M_c + b[c]
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stream_cam.cam.geometry import FitPlan
from stream_cam.config import AlphaMode, Upsampling
from stream_cam.frame import Region


def class_activation_maps(features: Tensor, weight: Tensor, classes: Tensor) -> Tensor:
    """The raw maps of some classes.

    Args:
        features: (N, C, h, w) floating point.
        weight: (n_classes, C), the linear layer's weight.
        classes: (N, n_targets) int64.

    Returns:
        (N, n_targets, h, w) float32.
    """
    chosen = weight.float()[classes]
    return torch.einsum("nkc,nchw->nkhw", chosen, features.float())


def scale_cam(cam: Tensor, *, relu: bool = False, ranges: Tensor | None = None) -> Tensor:
    """Each (..., h, w) map scaled to 0..1 float32; a constant map becomes zeros.

    Not-a-number counts as the map's minimum, so that a broken cell is cold, never NaN.

    Args:
        relu: negative values count as 0 first, in the maps and in `ranges`.
        ranges: (..., 2), the values that become 0 and 1; None: each map's minimum and maximum.
    """
    cam = cam.float()
    finite = torch.isfinite(cam)
    low = torch.where(finite, cam, torch.inf).amin(dim=(-2, -1), keepdim=True)
    cam = torch.where(finite, cam, torch.where(torch.isfinite(low), low, 0.0))
    if relu:
        cam = cam.clamp(min=0.0)
    if ranges is None:
        low = cam.amin(dim=(-2, -1), keepdim=True)
        high = cam.amax(dim=(-2, -1), keepdim=True)
    else:
        ranges = ranges.clamp(min=0.0) if relu else ranges
        low, high = ranges[..., 0, None, None], ranges[..., 1, None, None]
    span = high - low
    scaled = (cam - low) / torch.where(span > 0, span, 1.0)
    return torch.where(span > 0, scaled.clamp(0.0, 1.0), 0.0)


def upsample_heat(
    scaled: Tensor, frame_hw: tuple[int, int], region: Region, mode: Upsampling = "bilinear"
) -> tuple[Tensor, Tensor]:
    """A scaled (h, w) map laid onto a frame, half-pixel centres, edges held.

    Returns:
        heat: (H, W) float32 in 0..1, zero outside `region`.
        inside: (H, W) bool, true for pixels whose centre lies in `region`.
    """
    height, width = frame_hw
    y = (torch.arange(height, dtype=torch.float64) + 0.5 - region.y0) / (region.y1 - region.y0)
    x = (torch.arange(width, dtype=torch.float64) + 0.5 - region.x0) / (region.x1 - region.x0)
    inside = ((y >= 0) & (y < 1))[:, None] & ((x >= 0) & (x < 1))[None, :]
    if mode == "nearest":
        rows = (y * scaled.shape[0]).floor().long().clamp(0, scaled.shape[0] - 1)
        columns = (x * scaled.shape[1]).floor().long().clamp(0, scaled.shape[1] - 1)
        heat = scaled.double()[rows][:, columns]
    elif mode == "smooth":
        down, across = (
            _spline_weights(where * n_cells - 0.5, n_cells)
            for where, n_cells in zip((y, x), scaled.shape, strict=True)
        )
        heat = down @ scaled.double() @ across.T
    else:
        grid = torch.stack(torch.meshgrid(2 * x - 1, 2 * y - 1, indexing="xy"), dim=-1)[None]
        heat = F.grid_sample(
            scaled.double()[None, None],
            grid,
            mode=mode,
            padding_mode="border",
            align_corners=False,
        )[0, 0]
    return torch.where(inside, heat.clamp(0.0, 1.0), 0.0).float(), inside


def _spline_weights(cell: Tensor, n_cells: int) -> Tensor:
    """(n, n_cells) float64 weights of the quadratic B-spline at `cell`, edges held."""
    weights = torch.zeros(cell.numel(), n_cells, dtype=torch.float64)
    nearest = (cell + 0.5).floor()
    for step in (-1, 0, 1):
        distance = (cell - nearest - step).abs()
        weight = torch.where(distance <= 0.5, 0.75 - distance**2, 0.5 * (1.5 - distance) ** 2)
        place = (nearest.long() + step).clamp(0, n_cells - 1)
        weights.scatter_add_(1, place[:, None], weight[:, None])
    return weights


def blend(
    frame_bgr: Tensor,
    heat: Tensor,
    inside: Tensor,
    table_bgr: Tensor,
    alpha: float,
    alpha_mode: AlphaMode = "constant",
) -> Tensor:
    """`round((1 − α)·frame + α·colour[heat])` inside the region, the frame itself outside.

    Args:
        frame_bgr: (H, W, 3) uint8.
        heat: (H, W) float32 in 0..1.
        inside: (H, W) bool.
        table_bgr: (256, 3) uint8.
        alpha: weight of the colour, 0..1; with `alpha_mode="heat"` it is multiplied by the heat.

    Returns:
        (H, W, 3) uint8.
    """
    color = table_bgr[(heat * 255.0).round().long()].double()
    weight = (heat.double() * alpha if alpha_mode == "heat" else torch.full_like(heat, alpha))[
        ..., None
    ].double()
    mixed = ((1.0 - weight) * frame_bgr.double() + weight * color).round().clamp(0, 255)
    return torch.where(inside[..., None], mixed.to(torch.uint8), frame_bgr)


def preprocess(
    frame_bgr: Tensor,
    plan: FitPlan,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    interpolation: str = "bilinear",
) -> Tensor:
    """The network's input for a frame, resized in float32 (torchvision rounds to uint8 between).

    Args:
        frame_bgr: (H, W, 3) uint8.
        plan: where the frame goes.
        mean, std: per channel R, G, B, for values in 0..1.

    Returns:
        (1, 3, h, w) float32, RGB, normalised.
    """
    rgb = frame_bgr.flip(-1).permute(2, 0, 1).float() / 255.0
    return normalised(resized(rgb, plan, interpolation).clamp(0.0, 1.0), plan, mean, std)


def resized(planes: Tensor, plan: FitPlan, interpolation: str = "bilinear") -> Tensor:
    """(C, H, W) floating point planes of a frame at the plan's `resized_hw`, antialiased."""
    size_hw = plan.resized_hw
    if size_hw[1] == 1:
        # Torch 2.15 gives every row of a picture one pixel wide the values of the first one: two.
        across = F.interpolate(
            planes[None], (plan.frame_hw[0], 1), mode=interpolation, antialias=True
        )
        planes, size_hw = across[0].repeat(1, 1, 2), (size_hw[0], 2)
    small = F.interpolate(
        planes[None], size_hw, mode=interpolation, antialias=True, align_corners=False
    )
    return small[0, ..., : plan.resized_hw[1]]


def normalised(
    rgb: Tensor,
    plan: FitPlan,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> Tensor:
    """The network's input of a resized (3, h, w) picture in 0..1, cut or padded: (1, 3, h, w)."""
    values = (rgb - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    height, width = plan.input_hw
    bottom = height - (plan.resized_hw[0] - plan.top)
    right = width - (plan.resized_hw[1] - plan.left)
    return F.pad(values[None], (-plan.left, right, -plan.top, bottom))
