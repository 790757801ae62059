"""How a frame becomes the network's input, and where that input lies on the frame."""

from __future__ import annotations

from dataclasses import dataclass

from stream_cam.config import Fit
from stream_cam.errors import UsageError
from stream_cam.frame import Region

MAX_PLANS = 16
"""Frame sizes whose plans, buffers or overlays are kept."""
NATIVE_MULTIPLE = 32
"""Total stride of the networks: a multiple of it makes every map cell cover whole pixels."""
NATIVE_MAX_ASPECT = 4.0
"""Frames longer than this are squeezed: a 1×8000 picture would need an input 1 792 000 wide."""


_SIDES = (8, 4096)
"""Smallest and largest side of a network's input in pixels: smaller has no map, larger no
memory."""


def check_input_size(side_px: int) -> None:
    """Raises UsageError for a side that no input can have."""
    least, most = _SIDES
    if not least <= side_px <= most:
        raise UsageError(f"--input-size is a side in pixels from {least} to {most}, got {side_px}")


@dataclass(frozen=True, slots=True)
class FitPlan:
    """Resize the whole frame to `resized_hw`, then cut `input_hw` out of it at (`top`, `left`).

    Negative `top` or `left` is padding, filled with the mean colour (zero after normalisation).
    """

    frame_hw: tuple[int, int]
    resized_hw: tuple[int, int]
    top: int
    left: int
    input_hw: tuple[int, int]

    @property
    def region(self) -> Region:
        """The rectangle of the frame that the network's input covers, in frame pixels."""
        scale_y = self.frame_hw[0] / self.resized_hw[0]
        scale_x = self.frame_hw[1] / self.resized_hw[1]
        return Region(
            x0=self.left * scale_x,
            y0=self.top * scale_y,
            x1=(self.left + self.input_hw[1]) * scale_x,
            y1=(self.top + self.input_hw[0]) * scale_y,
        )


def plan_fit(
    fit: Fit, frame_hw: tuple[int, int], input_size: int, resize_size: int | None = None
) -> FitPlan:
    """The plan for one frame size.

    Args:
        fit: `stretch`, `crop`, `letterbox` or `native`.
        frame_hw: height and width of the frame in pixels.
        input_size: side of the network's square input in pixels.
        resize_size: for `crop`, the short side before the centre is cut, as torchvision's
            `Resize` + `CenterCrop`; default: `input_size`, the largest possible square.
    """
    if fit == "stretch":
        return FitPlan(frame_hw, (input_size, input_size), 0, 0, (input_size, input_size))
    if fit == "crop":
        return _plan_crop(frame_hw, input_size, max(resize_size or input_size, input_size))
    if fit == "letterbox":
        return _plan_letterbox(frame_hw, input_size)
    return _plan_native(frame_hw, input_size)


def _plan_crop(frame_hw: tuple[int, int], input_size: int, resize_size: int) -> FitPlan:
    # The rounding is torchvision's: int() for the long side, round() for the offsets.
    height, width = frame_hw
    if height <= width:
        resized = (resize_size, int(resize_size * width / height))
    else:
        resized = (int(resize_size * height / width), resize_size)
    top = round((resized[0] - input_size) / 2.0)
    left = round((resized[1] - input_size) / 2.0)
    return FitPlan(frame_hw, resized, top, left, (input_size, input_size))


def _plan_letterbox(frame_hw: tuple[int, int], input_size: int) -> FitPlan:
    scale = input_size / max(frame_hw)
    resized = (max(1, round(frame_hw[0] * scale)), max(1, round(frame_hw[1] * scale)))
    top = -((input_size - resized[0]) // 2)
    left = -((input_size - resized[1]) // 2)
    return FitPlan(frame_hw, resized, top, left, (input_size, input_size))


def _plan_native(frame_hw: tuple[int, int], input_size: int) -> FitPlan:
    short = _to_multiple(input_size)
    aspect = min(max(frame_hw) / min(frame_hw), NATIVE_MAX_ASPECT)
    long = max(short, _to_multiple(short * aspect))
    resized = (short, long) if frame_hw[0] <= frame_hw[1] else (long, short)
    return FitPlan(frame_hw, resized, 0, 0, resized)


def _to_multiple(pixels: float) -> int:
    return max(1, round(pixels / NATIVE_MULTIPLE)) * NATIVE_MULTIPLE


def scale_region(region: Region, old_hw: tuple[int, int], new_hw: tuple[int, int]) -> Region:
    """The same place on a frame of another size, in its pixels."""
    if old_hw == new_hw:
        return region
    sy, sx = new_hw[0] / old_hw[0], new_hw[1] / old_hw[1]
    return Region(region.x0 * sx, region.y0 * sy, region.x1 * sx, region.y1 * sy)
