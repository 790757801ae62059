"""Networks that no list knows, as in a user's own file: `--module own_networks.py:colours`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

COLOURS = ("red", "green", "blue")


class Colours(nn.Module):
    """Knows red, green and blue without training: each feature is one colour's excess.

    (N, 3, H, W) RGB in 0..1 → logits (N, 3).
    """

    def __init__(self) -> None:
        super().__init__()
        self.excess = nn.Conv2d(3, 3, 8, stride=8, bias=False)
        self.score = nn.Linear(3, 3)
        with torch.no_grad():
            own = 1.5 * torch.eye(3) - 0.5
            self.excess.weight.copy_(own[:, :, None, None].expand(3, 3, 8, 8) / 64)
            self.score.weight.copy_(40 * own)
            self.score.bias.zero_()

    def forward(self, batch: Tensor) -> Tensor:
        scores: Tensor = self.score(self.excess(batch).relu().mean((2, 3)))
        return scores


class Brightness(nn.Module):
    """One channel and one logit: (N, 1, H, W) luma in 0..255 → (N, 1), high if bright."""

    def __init__(self) -> None:
        super().__init__()
        self.average = nn.Conv2d(1, 1, 4, stride=4, bias=False)
        self.score = nn.Linear(1, 1)
        with torch.no_grad():
            self.average.weight.fill_(1 / 16)
            self.score.weight.fill_(0.1)
            self.score.bias.fill_(-4.0)

    def forward(self, batch: Tensor) -> Tensor:
        scores: Tensor = self.score(self.average(batch).relu().mean((2, 3)))
        return scores


class WithFeatures(nn.Module):
    """Colours and their features, as detectors and transformers' models return them."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Colours()

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        features = self.network.excess(batch).relu()
        return {"features": features, "scores": self.network.score(features.mean((2, 3)))}


def with_features() -> nn.Module:
    return WithFeatures()


def colours() -> nn.Module:
    return Colours()


def brightness() -> nn.Module:
    return Brightness()


def colours_bgr() -> nn.Module:
    """The same for BGR."""
    network = Colours()
    with torch.no_grad():
        network.excess.weight.copy_(network.excess.weight.flip(1).clone())
    return network


def flattened() -> nn.Module:
    """Without a CAM."""
    return nn.Sequential(nn.Conv2d(3, 4, 8, stride=8), nn.Flatten(), nn.Linear(4 * 28 * 28, 3))


def failing() -> nn.Module:
    raise FileNotFoundError("no such file: colours.pth")


def nothing() -> None:
    return None
