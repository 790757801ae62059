"""Maps on NV12 frames: the kernel of `overlay`, once for luma and once for chroma.

Blending colours equals blending their Y, U and V. So a decoder's NV12 frame is drawn on without
becoming BGR and back: 3.1 MB read and 3.1 MB written for 1920×1080, half as much as in BGR. The
heat of chroma is the one at the middle of its 2×2 pixels. Not timed on a GPU yet.
"""

from __future__ import annotations

from torch import Tensor

from stream_cam.cam.overlay import check_overlay, draw_overlay, overlay_reference
from stream_cam.cam.overlay_plan import OverlayPlanNv12, OverlayTable


def overlay_nv12(
    luma: Tensor,
    chroma: Tensor,
    scaled: Tensor,
    plan: OverlayPlanNv12,
    table: OverlayTable,
    *,
    out_luma: Tensor,
    out_chroma: Tensor,
) -> None:
    """Blends coloured maps onto NV12 frames; at most four launches, which nobody waits for.

    Args:
        luma: (N, H, W) uint8 and
        chroma: (N, H/2, W/2, 2) uint8, from `nv12.planes`, say; any strides, as in `overlay`.
        scaled: (N, n_targets, h, w) float32 in 0..1, contiguous, from `maps.class_maps`.
        plan, table: from `plan_overlay_nv12` and `overlay_table_nv12`; on the frames' device.
        out_luma: (N, n_targets, H, W) and
        out_chroma: (N, n_targets, H/2, W/2, 2): a picture for each map. May be the frames
            themselves (`luma[:, None]`) if there is one map; else they must not overlap them.
    """
    luma, out_luma = luma[..., None], out_luma[..., None]
    check_overlay("luma", luma, scaled, plan.luma, table, out_luma, 1)
    check_overlay("chroma", chroma, scaled, plan.chroma, table, out_chroma, 2)
    draw_overlay(luma, scaled, plan.luma, table, out_luma)
    draw_overlay(chroma, scaled, plan.chroma, table, out_chroma)


def overlay_nv12_reference(
    luma: Tensor,
    chroma: Tensor,
    scaled: Tensor,
    plan: OverlayPlanNv12,
    table: OverlayTable,
    *,
    out_luma: Tensor,
    out_chroma: Tensor,
) -> None:
    """`overlay_nv12` in plain torch, with the full-size heatmaps that it does without."""
    overlay_reference(luma[..., None], scaled, plan.luma, table, out=out_luma[..., None])
    overlay_reference(chroma, scaled, plan.chroma, table, out=out_chroma)
