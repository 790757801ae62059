"""A small network, and frames to quantise it with."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from stream_cam.engine.calibration import Calibration
from stream_cam.model.camnet import CamNet

HW = (64, 64)


def small_net() -> CamNet:
    """Three convolutions, maps of 16×16."""
    torch.manual_seed(1)
    module = nn.Sequential(
        *(nn.Conv2d(3, 16, 5, stride=2, padding=2), nn.ReLU()),
        *(nn.Conv2d(16, 24, 3, stride=2, padding=1), nn.BatchNorm2d(24), nn.ReLU()),
        *(nn.Conv2d(24, 32, 3, padding=1), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 7)),
    )
    return CamNet.from_module(module.eval(), name="small", probe_hw=HW)


def small_calibration() -> Calibration:
    """Noise of three grains, unlike the frames of verification."""
    generator = torch.Generator().manual_seed(7)
    frames = [
        F.interpolate(torch.randn(1, 3, *size, generator=generator), HW, mode="bilinear")
        for size in [(4, 4), (16, 16), HW] * 8
    ]
    return Calibration(tuple(frames[::2]), tuple(frames[1::2]))
