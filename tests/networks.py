"""Untrained networks whose numbers are not trivial."""

from __future__ import annotations

import torch
from torch import nn

from stream_cam.model import build_network


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
