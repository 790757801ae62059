"""Untrained networks whose numbers are not trivial."""

from __future__ import annotations

import torch
from torch import nn

from stream_cam.model.camnet import build_network

LABELS = ("bird", "cat", "dog", "fish", "horse", "owl", "rat")


def small_network() -> nn.Sequential:
    """Two convolutions, pooling and a linear layer, for the classes `LABELS`; maps of side / 32."""
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 8, 7, stride=4, padding=3),
        nn.ReLU(),
        nn.Conv2d(8, 16, 5, stride=8, padding=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, len(LABELS)),
    )


def untrained(name: str, n_classes: int, seed: int = 0) -> nn.Module:
    """A torchvision network in eval mode; its batch statistics are not those of a new one."""
    torch.manual_seed(seed)
    module = build_network(name, n_classes)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            assert part.running_mean is not None
            assert part.running_var is not None
            part.running_mean.normal_(0.0, 0.1)
            part.running_var.uniform_(0.5, 1.5)
    return module.eval()
