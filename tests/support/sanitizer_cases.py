"""Code that `test_compute_sanitizer.py` runs under compute-sanitizer, in its own process.

    python tests/support/sanitizer_cases.py kernels|overlay|choice|ring|planted cuda

All but `ring` and `planted` also run in Triton's interpreter (`cpu`, with TRITON_INTERPRET=1).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

# Nothing is installed where GPUs are tested.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from torch import Tensor

from stream_cam.cam.geometry import plan_fit
from stream_cam.cam.nv12 import planes
from stream_cam.frame import Region

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CAM_HW = (3, 5)
SIDE = 8
BGR_SIZES_HW = ((1, 1), (5, 7), (3, 20), (5, 83), (4, 64))
"""Rows read byte by byte, by words and by vectors, with and without columns that are left over."""
NV12_SIZES_HW = ((2, 2), (6, 10), (4, 40), (4, 64))


def kernels(device: str) -> None:
    """Every kernel, each tensor in memory of its own that ends where the tensor does."""
    for size_hw in BGR_SIZES_HW:
        _bgr(device, size_hw)
    for size_hw in NV12_SIZES_HW:
        _nv12(device, size_hw)
    _maps(device)
    choice(device)


def overlay(device: str) -> None:
    """The overlay and preprocess alone, on small frames of whole vectors and of words."""
    for size_hw in ((4, 64), (3, 20)):
        _bgr(device, size_hw)


def choice(device: str) -> None:
    from stream_cam.cam.class_choice import (
        N_HELD,
        FrameTiming,
        choose_classes,
        choose_classes_reference,
    )

    for n_classes, n_shown, hold in ((1000, 1, 0.5), (7, 5, 0.0), (1, 1, 0.5), (33, 3, 0.5)):
        logits = _noise(1, n_classes) * 4
        locked = torch.full((n_shown,), -1)
        clock = torch.zeros(len(FrameTiming), dtype=torch.float64)
        clock[FrameTiming.HOLD], clock[FrameTiming.GAP] = hold, 1.0
        shapes = {"best": (min(5, n_classes),), "classes": (1, n_shown)}
        got, expected = (
            {
                **{name: torch.full(shape, -7, device=place) for name, shape in shapes.items()},
                "best_probability": torch.zeros(shapes["best"], device=place),
                "probability": torch.zeros(n_shown, device=place),
            }
            for place in (device, "cpu")
        )
        for choose, place, outputs in (
            (choose_classes, device, got),
            (choose_classes_reference, "cpu", expected),
        ):
            held = torch.full((N_HELD,), -1.0, dtype=torch.float64, device=place)
            choose(logits.to(place), locked.to(place), clock.to(place), held, **outputs)
        for name, tensor in expected.items():
            torch.testing.assert_close(got[name].cpu(), tensor, rtol=1e-5, atol=0)


def ring(device: str) -> None:
    """Whole frames as graphs, a few more than there are slots, of two sizes."""
    from support.graph_parts import assert_drawn_as_on_the_cpu, picture
    from support.networks import LABELS, small_network

    from stream_cam.config import LookConfig
    from stream_cam.explain.explainer import Explainer

    made = Explainer.from_module(
        small_network(), labels=LABELS, engine="eager", device="cuda", input_size=64
    )
    for seed in range(8):
        image = picture(seed, (37, 83) if seed < 5 else (48, 64))
        got, drawn = made.draw(image)
        assert made.graphs is not None, f"no graph on {device}"
        assert_drawn_as_on_the_cpu(drawn, image, got, LookConfig())


def planted(device: str) -> None:
    """Writes one byte behind a tensor's end, which the tool must find."""
    from support.sanitizer_fault import write_behind

    write_behind(torch.zeros(77, dtype=torch.uint8, device=device))
    torch.cuda.synchronize()


def _bgr(device: str, size_hw: tuple[int, int]) -> None:
    from stream_cam.cam.overlay import overlay, overlay_reference
    from stream_cam.cam.overlay_plan import overlay_table, plan_overlay
    from stream_cam.cam.preprocess import plan_preprocess, preprocess, preprocess_reference

    frames, scaled = _bytes(2, *size_hw, 3), _noise(2, 1, *CAM_HW).sigmoid()
    inside = Region(size_hw[1] * 0.2, 0.0, size_hw[1] * 0.9, size_hw[0] * 0.8)
    for upsampling in ("bilinear", "bicubic"):
        got, expected = (torch.zeros_like(frames, device=p)[:, None] for p in (device, "cpu"))
        for draw, place, out in ((overlay, device, got), (overlay_reference, "cpu", expected)):
            plan = plan_overlay(size_hw, CAM_HW, inside, upsampling, device=place)
            table = overlay_table(device=place)
            draw(frames.to(place), scaled.to(place), plan, table, out=out)
        _check_pictures(got, expected)
    fit = plan_fit("stretch", size_hw, SIDE)
    got, expected = (torch.zeros(2, 3, SIDE, SIDE, device=place) for place in (device, "cpu"))
    preprocess(frames.to(device), plan_preprocess(fit, MEAN, STD, device=device), out=got)
    preprocess_reference(frames, plan_preprocess(fit, MEAN, STD, device="cpu"), out=expected)
    torch.testing.assert_close(got.cpu(), expected, rtol=0, atol=2e-3)


def _nv12(device: str, size_hw: tuple[int, int]) -> None:
    from stream_cam.cam.overlay_nv12 import overlay_nv12, overlay_nv12_reference
    from stream_cam.cam.overlay_plan import overlay_table_nv12, plan_overlay_nv12
    from stream_cam.cam.preprocess import plan_preprocess
    from stream_cam.cam.preprocess_nv12 import (
        color_of,
        preprocess_nv12,
        preprocess_nv12_reference,
    )

    frames, scaled = _bytes(2, size_hw[0] // 2 * 3, size_hw[1]), _noise(2, 1, *CAM_HW).sigmoid()
    fit = plan_fit("stretch", size_hw, SIDE)
    pictures, inputs = [], []
    for draw, prepare, place in (
        (overlay_nv12, preprocess_nv12, device),
        (overlay_nv12_reference, preprocess_nv12_reference, "cpu"),
    ):
        both, drawn = (planes(one.to(place)) for one in (frames, torch.zeros_like(frames)))
        plan = plan_overlay_nv12(size_hw, CAM_HW, Region.whole(size_hw), device=place)
        draw(
            *(*both, scaled.to(place), plan, overlay_table_nv12(device=place)),
            out_luma=drawn[0][:, None],
            out_chroma=drawn[1][:, None],
        )
        pictures.append(drawn)
        out = torch.zeros(2, 3, SIDE, SIDE, device=place)
        color = color_of("bt709", full_range=False, device=place)
        prepare(*both, plan_preprocess(fit, MEAN, STD, device=place), color, out=out)
        inputs.append(out.cpu())
    for got, expected in zip(*pictures, strict=True):
        _check_pictures(got, expected)
    torch.testing.assert_close(*inputs, rtol=0, atol=2e-3)


def _maps(device: str) -> None:
    from stream_cam.cam.class_choice import FrameTiming
    from stream_cam.cam.class_maps import class_maps, class_maps_reference, scale_maps
    from stream_cam.cam.reference import scale_cam
    from stream_cam.cam.smooth_maps import smooth_maps, smooth_maps_reference

    features, weight = _noise(1, 19, *CAM_HW), _noise(11, 19)
    classes = torch.tensor([[10, 0, 3]])
    results = []
    for place, sums, smooths in (
        (device, class_maps, smooth_maps),
        ("cpu", class_maps_reference, smooth_maps_reference),
    ):
        scaled, cams = (torch.zeros(1, 3, *CAM_HW, device=place) for _ in range(2))
        chosen = classes.to(place)
        sums(features.to(place), weight.to(place), chosen, scaled=scaled, cams=cams)
        clock = torch.zeros(len(FrameTiming), dtype=torch.float64)
        clock[FrameTiming.SMOOTH], clock[FrameTiming.GAP] = 0.2, 1.0
        seconds = torch.full((11,), torch.nan, dtype=torch.float64, device=place)
        values = torch.zeros(11, 2 + CAM_HW[0] * CAM_HW[1], dtype=torch.float64, device=place)
        ranges = torch.zeros(1, 3, 2, device=place)
        for now in (0.0, 0.04):
            clock[FrameTiming.NOW] = now
            smooths(cams, chosen, clock.to(place), seconds, values, ranges=ranges)
        results.append([scaled.cpu(), cams.cpu(), ranges.cpu()])
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    _, cams, ranges = results[0]
    again = torch.zeros(1, 3, *CAM_HW, device=device)
    scale_maps(cams.to(device), scaled=again, ranges=ranges.to(device))
    torch.testing.assert_close(again.cpu(), scale_cam(cams, ranges=ranges), rtol=0, atol=1e-5)


def _noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))


def _bytes(*shape: int) -> Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=random)


def _check_pictures(got: Tensor, expected: Tensor) -> None:
    difference = np.abs(got.cpu().numpy().astype(int) - expected.numpy().astype(int))
    # Where a heat lies between two colours either may be taken.
    assert (difference <= 1).mean() > 0.9
    assert difference.max() <= 12


WORK: dict[str, Callable[[str], None]] = {
    "kernels": kernels,
    "overlay": overlay,
    "choice": choice,
    "ring": ring,
    "planted": planted,
}

if __name__ == "__main__":
    WORK[sys.argv[1]](sys.argv[2])
    print("done")
