"""The parts of an explainer that a pipeline uses; a camera's stand-in has them as well."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from stream_cam.config import LookConfig
from stream_cam.engine import EngineInfo
from stream_cam.frame import BgrImage, Explanation, Frame, Method
from stream_cam.settings import SettingsSnapshot
from stream_cam.targets import Target

if TYPE_CHECKING:
    from stream_cam.model.recipe import WeightsInfo

TakeNewest = Callable[[], tuple[Frame, SettingsSnapshot]]
"""Gives the newest frame and its settings at once; raises EndOfStream if there is none."""


class FrameExplainer(Protocol):
    """Explains frames; `Explainer` and `CameraExplainer` are two of these."""

    @property
    def labels(self) -> Sequence[str]: ...

    @property
    def model_name(self) -> str: ...

    @property
    def method(self) -> Method:
        """How the maps come about."""
        ...

    @property
    def weights(self) -> WeightsInfo: ...

    @property
    def parallel(self) -> int:
        """The number of threads that make progress at once."""
        ...

    @property
    def engine_info(self) -> EngineInfo | None: ...

    def resolve(self, target: Target) -> int:
        """The class index of an index or a label."""
        ...

    def explain(
        self,
        frame: BgrImage | Frame,
        target: Target | Sequence[Target] | None = None,
        *,
        n_maps: int | None = None,
        keep_features: bool = False,
        against: Target | Sequence[Target] | None = None,
        against_weight: float = LookConfig.against_weight,
    ) -> Explanation:
        """Runs the network once and computes the maps of the classes asked for."""
        ...

    def explain_drawn(
        self,
        frame: BgrImage | Frame,
        settings: SettingsSnapshot | None = None,
        *,
        ticket: AbstractContextManager[object] | None = None,
    ) -> Explanation:
        """As `explain`, drawn in the same pass where that is possible."""
        ...

    def explain_newest(self, take: TakeNewest) -> Explanation:
        """As `explain_drawn`, with the frame that `take` gives when the network is free."""
        ...
