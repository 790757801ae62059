"""Triton: the last convolution's features become scaled class activation maps, on the GPU.

    M_c(x, y) = Σ_k w[c, k] · f_k(x, y)            Zhou et al., CVPR 2016, eq. 2
    scaled    = (M − min M) / (max M − min M)      or (M − cold) / (hot − cold), clipped to 0..1

One program makes one map: it reads the features of its frame once (512·7·7 numbers of ResNet18:
50 KB in float16, from L2), one row of the class weights (2 KB), and writes 49 numbers twice. Sum,
range and scaling are fused because each alone is a launch that costs more than its work; the sum
is a kernel apart from the overlay because every block of that one would have to repeat it.

The classes are read on the device, so that nobody has to wait for the network to know them. A class
outside 0..n_classes−1 gives a map of zeros. Nothing here is measured on a GPU yet.
"""

# Triton has no types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from stream_cam.cam import reference

_TILE = 4096
"""Numbers of the features that a program holds at once: channels × cells."""
_FLOATS = (torch.float16, torch.bfloat16, torch.float32)


@triton.jit
def _maps_kernel(
    source_ptr,
    weight_ptr,
    classes_ptr,
    ranges_ptr,
    cams_ptr,
    scaled_ptr,
    batch_stride,
    channel_stride,
    row_stride,
    column_stride,
    weight_stride,
    n_targets,
    n_classes,
    n_channels,
    n_cells,
    n_columns,
    SUM: tl.constexpr,
    HAS_CLASSES: tl.constexpr,
    HAS_RANGES: tl.constexpr,
    KEEP_CAMS: tl.constexpr,
    RELU: tl.constexpr,
    CHANNELS: tl.constexpr,
    CELLS: tl.constexpr,
):
    """One raw map, as a sum over channels (`SUM`) or as one of the given maps; then scaled."""
    picture = tl.program_id(0)
    cell = tl.arange(0, CELLS)
    is_cell = cell < n_cells
    source_ptr += (picture // n_targets).to(tl.int64) * batch_stride
    place = (cell // n_columns) * row_stride + (cell % n_columns) * column_stride
    chosen = tl.load(classes_ptr + picture) if HAS_CLASSES else picture % n_targets
    n_known = tl.where((chosen >= 0) & (chosen < n_classes), 1, 0)
    if SUM:
        partial = tl.zeros([CHANNELS, CELLS], tl.float32)
        weight_ptr += chosen.to(tl.int64) * weight_stride
        for first in range(0, n_channels, CHANNELS):
            channel = first + tl.arange(0, CHANNELS)
            is_channel = channel < n_channels
            weight = tl.load(weight_ptr + channel, mask=channel < n_channels * n_known, other=0.0)
            features = tl.load(
                source_ptr + channel[:, None] * channel_stride + place[None, :],
                mask=is_channel[:, None] & is_cell[None, :],
                other=0.0,
            )
            partial += weight.to(tl.float32)[:, None] * features.to(tl.float32)
        cam = tl.sum(partial, axis=0)
    else:
        source_ptr += chosen.to(tl.int64) * channel_stride
        cam = tl.load(source_ptr + place, mask=cell < n_cells * n_known, other=0.0).to(tl.float32)
    if KEEP_CAMS:
        tl.store(cams_ptr + picture * n_cells + cell, cam, mask=is_cell)

    # A comparison with a not-a-number is false.
    finite = (tl.abs(cam) < float("inf")) & is_cell
    low = tl.min(tl.where(finite, cam, float("inf")), axis=0)
    cam = tl.where(finite, cam, tl.where(low < float("inf"), low, 0.0))
    if RELU:
        cam = tl.maximum(cam, 0.0)
    if HAS_RANGES:
        cold = tl.load(ranges_ptr + 2 * picture)
        hot = tl.load(ranges_ptr + 2 * picture + 1)
        is_range = hot > cold  # before ReLU, which may turn a not-a-number into 0
        if RELU:
            cold = tl.maximum(cold, 0.0)
            hot = tl.maximum(hot, 0.0)
    else:
        cold = tl.min(tl.where(is_cell, cam, float("inf")), axis=0)
        hot = tl.max(tl.where(is_cell, cam, float("-inf")), axis=0)
        is_range = hot > cold
    is_range = is_range & (hot > cold)
    span = tl.where(is_range, hot - cold, 1.0)
    scaled = tl.minimum(tl.maximum(tl.div_rn(cam - cold, span), 0.0), 1.0)
    scaled = tl.where(is_range, scaled, 0.0)
    tl.store(scaled_ptr + picture * n_cells + cell, scaled, mask=is_cell)


def class_maps(
    features: Tensor,
    weight: Tensor,
    classes: Tensor,
    *,
    scaled: Tensor,
    cams: Tensor | None = None,
    ranges: Tensor | None = None,
    relu: bool = False,
) -> None:
    """The maps of classes that are known on the device only; one launch, which nobody waits for.

    Args:
        features: (N, C, h, w) float16, bfloat16 or float32, any strides.
        weight: (n_classes, C) of one of these types, rows contiguous: the linear layer's weight.
        classes: (N, n_targets) int32 or int64, contiguous.
        scaled: receives the maps scaled to 0..1, (N, n_targets, h, w) float32, contiguous.
        cams: receives the raw maps, as `scaled`; None: they are not kept.
        ranges: (N, n_targets, 2) float32: the values that become 0 and 1; None: each map's own
            range.
        relu: negative values count as 0 first, in the maps and in `ranges`.
    """
    if features.ndim != 4 or features.dtype not in _FLOATS:
        raise ValueError(f"features are (N, C, h, w) floating point, got {_described(features)}")
    if weight.ndim != 2 or weight.dtype not in _FLOATS or weight.stride(1) != 1:
        raise ValueError(f"weight is (n_classes, C) with contiguous rows, got {_described(weight)}")
    if weight.shape[1] != features.shape[1]:
        raise ValueError(f"weight is for {weight.shape[1]} channels, not {features.shape[1]}")
    _launch(features, weight, classes, scaled, cams, ranges, relu, n_classes=weight.shape[0])


def scale_maps(
    maps: Tensor,
    *,
    scaled: Tensor,
    classes: Tensor | None = None,
    ranges: Tensor | None = None,
    relu: bool = False,
) -> None:
    """As `class_maps`, of maps that are there: an engine's, or ones filtered over time.

    Args:
        maps: (N, n_maps, h, w) float16, bfloat16 or float32, any strides.
        classes: (N, n_targets) int32 or int64, which of `maps`; None: all of them.
    """
    if maps.ndim != 4 or maps.dtype not in _FLOATS:
        raise ValueError(f"maps are (N, n_maps, h, w) floating point, got {_described(maps)}")
    _launch(maps, None, classes, scaled, None, ranges, relu, n_classes=maps.shape[1])


def _launch(
    source: Tensor,
    weight: Tensor | None,
    classes: Tensor | None,
    scaled: Tensor,
    cams: Tensor | None,
    ranges: Tensor | None,
    relu: bool,
    n_classes: int,
) -> None:
    n, n_channels, height, width = source.shape
    if classes is not None and (
        classes.ndim != 2
        or classes.shape[0] != n
        or classes.dtype not in (torch.int32, torch.int64)
        or not classes.is_contiguous()
    ):
        raise ValueError(f"classes are ({n}, n_targets) int32 or int64, got {_described(classes)}")
    n_targets = n_classes if classes is None else classes.shape[1]
    for name, tensor, shape in (
        ("scaled", scaled, (n, n_targets, height, width)),
        ("cams", cams, (n, n_targets, height, width)),
        ("ranges", ranges, (n, n_targets, 2)),
    ):
        if tensor is not None and (
            tensor.shape != shape or tensor.dtype != torch.float32 or not tensor.is_contiguous()
        ):
            raise ValueError(f"{name}: {shape} float32, contiguous; got {_described(tensor)}")
    for tensor in (weight, classes, scaled, cams, ranges):
        if tensor is not None and tensor.device != source.device:
            raise ValueError(f"tensors are on {source.device} and {tensor.device}")
    n_cells = height * width
    block = triton.next_power_of_2(n_cells)
    with torch.cuda.device_of(source):  # type: ignore[no-untyped-call]
        _maps_kernel[(n * n_targets,)](
            source,
            source if weight is None else weight,
            source if classes is None else classes,
            scaled if ranges is None else ranges,
            scaled if cams is None else cams,
            scaled,
            *source.stride(),
            0 if weight is None else weight.stride(0),
            n_targets,
            n_classes,
            n_channels,
            n_cells,
            width,
            SUM=weight is not None,
            HAS_CLASSES=classes is not None,
            HAS_RANGES=ranges is not None,
            KEEP_CAMS=cams is not None,
            RELU=relu,
            CHANNELS=max(1, _TILE // block),
            CELLS=block,
            num_warps=8,
            enable_fp_fusion=True,
        )


def _described(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {tensor.dtype} with strides {tensor.stride()}"


def class_maps_reference(
    features: Tensor,
    weight: Tensor,
    classes: Tensor,
    *,
    scaled: Tensor,
    cams: Tensor | None = None,
    ranges: Tensor | None = None,
    relu: bool = False,
) -> None:
    """`class_maps` in plain torch."""
    raw = reference.class_activation_maps(features, weight, classes.long())
    if cams is not None:
        cams.copy_(raw)
    scaled.copy_(reference.scale_cam(raw, relu=relu, ranges=ranges))
