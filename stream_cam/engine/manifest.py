"""The description of a stored engine: its key and its figures, as JSON that people can read."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

FORMAT = 3
"""Goes into every key: raise it when the meaning of a blob changes."""

_PURPOSE = ("backend", "model", "network", "input_shape", "precision", "options", "calibration")


class OutdatedFormatError(Exception):
    """A manifest by another version of stream-cam."""


@dataclass(frozen=True)
class EngineKey:
    """Everything that matters to an engine: two engines with equal keys are interchangeable."""

    backend: str
    """openvino, …"""
    model: str
    network: str
    """The fingerprint of its parameters and layers (`CamNet.fingerprint`)."""
    input_shape: tuple[int, ...]
    """(N, 3, H, W)."""
    precision: str
    """fp32, bf16, fp16 or int8."""
    options: Mapping[str, str]
    """The backend's settings."""
    versions: Mapping[str, str]
    """The libraries that made it and read it; for GPUs the driver and TensorRT's full build."""
    hardware: Mapping[str, str]
    """A processor's name and capabilities, or a GPU's name and SM."""
    calibration: Mapping[str, str] = field(default_factory=dict)
    """int8: the frames that it was quantised with, and the tool; others: empty."""
    format: int = FORMAT

    def digest(self) -> str:
        """16 hex digits that change with any part."""
        text = json.dumps(asdict(self), sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def input_text(self) -> str:
        """As 3×224×224."""
        return "×".join(str(size) for size in self.input_shape[1:])

    def same_purpose(self, other: EngineKey) -> bool:
        """Whether both are the same network for the same use, maybe made or run elsewhere."""
        return all(getattr(self, part) == getattr(other, part) for part in _PURPOSE)

    def same_but_calibration(self, other: EngineKey) -> bool:
        """Whether both serve here alike, whichever frames an int8 engine was calibrated with."""
        return replace(self, calibration=other.calibration) == other

    def difference(self, wanted: EngineKey) -> str:
        """The first difference, as `openvino 2026.3 (here 2026.4)`."""
        for part in ("versions", "hardware", "calibration"):
            if getattr(self, part) != getattr(wanted, part):
                return difference(getattr(self, part), getattr(wanted, part))
        for part, value in asdict(self).items():
            if value != asdict(wanted)[part]:
                return f"{part} {value} (here {asdict(wanted)[part]})"
        return "nothing"


@dataclass(frozen=True)
class Figures:
    """How far an engine is from its network; the worst over all frames and maps."""

    logits_difference: float
    """Largest difference of a frame's logits, as a share of its largest logit."""
    cam_difference: float
    """Largest difference of a map, as a share of its largest value."""
    cam_correlation: float
    """Least correlation of a map with the network's, -1..1; maps without relief count as 1."""
    heat_difference: float
    """99.9th percentile over all cells of all drawn frames' maps scaled to 0..1."""
    top1_agreement: float
    """Share of frames with the same best class, 0..1."""

    def __str__(self) -> str:
        return (
            f"logits differ by {self.logits_difference:.1e}, maps by {self.cam_difference:.1e}, "
            f"correlation {self.cam_correlation:.6f}, heat within {self.heat_difference:.4f}, "
            f"same best class in {self.top1_agreement:.0%}"
        )


@dataclass(frozen=True)
class Manifest:
    """The content of `manifest.json`."""

    key: EngineKey
    build_seconds: float
    """Conversion and compilation."""
    built_unix_seconds: int
    latency_p50_ms: float
    """The network alone, one call, on the machine that built it."""
    verification: Figures
    size_bytes: int
    """The size of engine.blob."""
    sha256: str
    """The checksum of engine.blob; 64 hex digits."""

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Reads the text of `to_json`.

        Raises:
            OutdatedFormatError: another version of stream-cam wrote it.
            ValueError, TypeError, KeyError, AttributeError, RecursionError: anything else.
        """
        data = json.loads(text)
        key = data["key"]
        if _count(key["format"]) != FORMAT:
            raise OutdatedFormatError(f"format {key['format']} (here {FORMAT})")
        return cls(
            key=_key(key),
            build_seconds=_number(data["build_seconds"]),
            built_unix_seconds=_count(data["built_unix_seconds"]),
            latency_p50_ms=_number(data["latency_p50_ms"]),
            verification=Figures(
                **{name: _number(value) for name, value in data["verification"].items()}
            ),
            size_bytes=_count(data["size_bytes"]),
            sha256=_text(data["sha256"]),
        )


def _key(data: Any) -> EngineKey:
    return EngineKey(
        backend=_text(data["backend"]),
        model=_text(data["model"]),
        network=_text(data["network"]),
        input_shape=tuple(_count(size) for size in data["input_shape"]),
        precision=_text(data["precision"]),
        options=_texts(data["options"]),
        versions=_texts(data["versions"]),
        hardware=_texts(data["hardware"]),
        calibration=_texts(data["calibration"]),
    )


def difference(kept: Mapping[str, str], here: Mapping[str, str]) -> str:
    """The names whose values differ, as `openvino 2026.3 (here 2026.4)`."""
    return ", ".join(
        f"{name} {kept.get(name, 'none')} (here {here.get(name, 'none')})"
        for name in sorted({*kept, *here})
        if kept.get(name) != here.get(name)
    )


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise TypeError(f"not a text: {value!r}")
    return value


def _texts(value: Any) -> dict[str, str]:
    return {_text(name): _text(text) for name, text in value.items()}


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**53:
        raise TypeError(f"not a whole number: {value!r}")
    return value


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise TypeError(f"not a number: {value!r}")
    return float(value)
