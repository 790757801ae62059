"""The settings that can change while a pipeline runs: one object for keys, pages and Python."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Generic, TypeVar, get_args

from stream_cam.config import (
    AlphaMode,
    Colormap,
    LayoutName,
    LookConfig,
    ScaleName,
    SyncName,
    Upsampling,
)
from stream_cam.errors import UsageError, unknown_name
from stream_cam.frame import NEXT, Contrast
from stream_cam.targets import Target, resolve_against, resolve_target

T = TypeVar("T")
C = TypeVar("C")

CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "layout": get_args(LayoutName),
    "colormap": get_args(Colormap),
    "alpha_mode": get_args(AlphaMode),
    "upsampling": get_args(Upsampling),
    "sync": get_args(SyncName),
    "scale": get_args(ScaleName),
}
"""The words that some settings may be."""
_NUMBERS: Final = (
    "alpha",
    "against_weight",
    "smooth",
    "hold",
    "max_age",
    "max_delay",
    "scale_low",
    "scale_high",
)
_SWITCHES: Final = ("hud", "relu")
_LOOK: Final = (*CHOICES, *_NUMBERS, *_SWITCHES)
_OWN_SWITCHES: Final = ("cam", "paused", "recording")
_LARGEST: Final = 1e9
_MOST_TARGETS: Final = 10
"""Each has a panel of its own."""
NAMES: Final = (*_LOOK, "target", "against", *_OWN_SWITCHES, "divider")
"""Of all settings."""


@dataclass(frozen=True)
class SettingsSnapshot:
    """All settings at one moment; never changed, only replaced."""

    look: LookConfig = field(default_factory=LookConfig)
    targets: tuple[int, ...] = ()
    """Classes whose maps are shown; none: the best one of each frame."""
    against: tuple[int, ...] = ()
    """Classes that the maps are against, each by its index or `NEXT`; none: plain maps."""
    cam: bool = True
    """Whether the map is laid over the frame."""
    divider: float = 0.0
    """So much of the picture, from the left, shows the frame without its map; 0..1."""
    paused: bool = False
    """A file waits; of a live source the last picture stays."""
    recording: bool = False
    """Whether the shown pictures are written to a file as well, where the run has a recorder."""

    @property
    def contrast(self) -> Contrast | None:
        """The classes that the maps are against, without labels."""
        return Contrast(self.against, self.look.against_weight) if self.against else None


class _Setting(Generic[T]):
    """One setting as an attribute: reading gives its value now, writing is `change`."""

    def __set_name__(self, owner: type[Settings], name: str) -> None:
        self._name = name

    def __get__(self, settings: Settings, owner: type[Settings]) -> T:
        now = settings.now
        value: T = getattr(now.look if self._name in _LOOK else now, self._name)
        return value

    def __set__(self, settings: Settings, value: T) -> None:
        settings.change(**{self._name: value})


class Settings:
    """Live settings of one run; every method from any thread.

        pipeline.settings.alpha = 0.6
        pipeline.settings.change(layout="side", target="banana")

    A change is checked as a whole before any of it counts, and is seen by the next frame.

    Args:
        look: how pictures are drawn at first.
        labels: the classes' names, for targets by label.
        targets: classes whose maps are shown at first; none: the best one of each frame.
    """

    alpha = _Setting[float]()
    against_weight = _Setting[float]()
    alpha_mode = _Setting[AlphaMode]()
    colormap = _Setting[Colormap]()
    layout = _Setting[LayoutName]()
    upsampling = _Setting[Upsampling]()
    relu = _Setting[bool]()
    hud = _Setting[bool]()
    smooth = _Setting[float]()
    hold = _Setting[float]()
    max_age = _Setting[float]()
    sync = _Setting[SyncName]()
    scale = _Setting[ScaleName]()
    scale_low = _Setting[float]()
    scale_high = _Setting[float]()
    max_delay = _Setting[float]()
    cam = _Setting[bool]()
    divider = _Setting[float]()
    paused = _Setting[bool]()
    recording = _Setting[bool]()

    def __init__(
        self,
        look: LookConfig | None = None,
        labels: Sequence[str] = (),
        targets: Sequence[Target] = (),
    ) -> None:
        self._labels = labels
        self._lock = threading.Lock()
        self._listeners: list[Callable[[SettingsSnapshot], None]] = []
        self._hearers: list[Callable[[str], None]] = []
        self._now = SettingsSnapshot(look or LookConfig(), self._resolved(targets))

    def __setattr__(self, name: str, value: object) -> None:
        if not name.startswith("_") and name not in NAMES:
            raise unknown_name("setting", name, NAMES)
        super().__setattr__(name, value)

    @property
    def labels(self) -> Sequence[str]:
        """The classes' names; none before the network is loaded."""
        return self._labels

    def begin(
        self,
        labels: Sequence[str],
        targets: Sequence[Target] = (),
        against: Sequence[Target] = (),
    ) -> None:
        """The network is loaded: from now on its classes can be chosen."""
        with self._lock:
            self._labels = labels
            self._now = replace(
                self._now,
                targets=self._resolved(targets),
                against=resolve_against(labels, against),
            )
            listeners = list(self._listeners)
        for listener in listeners:
            listener(self._now)

    @property
    def now(self) -> SettingsSnapshot:
        """All of them, at one moment."""
        return self._now

    @property
    def target(self) -> tuple[str, ...]:
        """The labels of the classes whose maps are shown; empty: the best one of each frame."""
        return tuple(self._labels[index] for index in self._now.targets)

    @target.setter
    def target(self, value: Target | Sequence[Target] | None) -> None:
        self.change(target=value)

    @property
    def against(self) -> tuple[str, ...]:
        """The labels of the classes that the maps are against; `next` for the best that is left."""
        return self.names_of(self._now.against)

    @against.setter
    def against(self, value: Target | Sequence[Target] | None) -> None:
        self.change(against=value)

    def names_of(self, classes: Sequence[int]) -> tuple[str, ...]:
        """Their labels, with `next` for `NEXT`."""
        return tuple("next" if index == NEXT else self._labels[index] for index in classes)

    def change(self, /, **changes: object) -> SettingsSnapshot:
        """Changes some of them at once, or none if one is wrong; gives all as they are now.

        Args:
            changes: by name, one of `NAMES`; `target` is a label, a class index, several of
                these, or None; `against` likewise, or `next`.

        Raises:
            UsageError: an unknown name, value or class; the message lists the known ones.
        """
        with self._lock:
            now = self._now
            look: dict[str, Any] = {}
            own: dict[str, Any] = {}
            for name, value in changes.items():
                if name == "target":
                    own["targets"] = self._resolved(_listed(value, name))
                elif name == "against":
                    own["against"] = resolve_against(self._labels, _listed(value, name))
                else:
                    (look if name in _LOOK else own)[name] = _checked(name, value)
            try:
                own["look"] = replace(now.look, **look)
            except ValueError as error:
                raise UsageError(str(error).lstrip("-")) from error
            changed = replace(now, **own)
            if changed == now:
                return now
            self._now = changed
            listeners = list(self._listeners)
        for listener in listeners:
            listener(changed)
        return changed

    def subscribe(self, listener: Callable[[SettingsSnapshot], None]) -> Callable[[], None]:
        """Calls it after each change, on the changing thread; returns a function that ends that."""
        return self._add(self._listeners, listener)

    def announce(self, text: str) -> None:
        """Tells everyone who watches the run, such as the name of a file that was written.

        Args:
            text: one line, or two: the fact, and the place.
        """
        with self._lock:
            hearers = list(self._hearers)
        for hearer in hearers:
            hearer(text)

    def on_announcement(self, hearer: Callable[[str], None]) -> Callable[[], None]:
        """Calls it with each announcement, on any thread; returns a function that ends that."""
        return self._add(self._hearers, hearer)

    def _add(self, called: list[C], one: C) -> Callable[[], None]:
        with self._lock:
            called.append(one)

        def leave() -> None:
            with self._lock:
                called.remove(one)

        return leave

    def _resolved(self, targets: Sequence[Target]) -> tuple[int, ...]:
        return tuple(dict.fromkeys(resolve_target(self._labels, target) for target in targets))


def _listed(value: object, name: str) -> list[Target]:
    if value is None:
        return []
    listed: list[Any] = list(value) if isinstance(value, list | tuple) else [value]
    if len(listed) > _MOST_TARGETS:
        raise UsageError(f"at most {_MOST_TARGETS} classes have a map at once, got {len(listed)}")
    for one in listed:
        if isinstance(one, bool) or not isinstance(one, int | str):
            raise UsageError(f"{name} is a label or a class index, got {one!r}")
    return listed


def _checked(name: str, value: object) -> object:
    """The value, if it is of the setting's kind; its range is checked by `LookConfig`."""
    if name in CHOICES:
        if value not in CHOICES[name]:
            raise unknown_name(name, str(value), CHOICES[name])
    elif name in (*_NUMBERS, "divider"):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UsageError(f"{name} is a number, got {value!r}")
        if not abs(value) < _LARGEST:
            raise UsageError(f"{name} is a number below {_LARGEST:g}, got {value!r}")
        if name == "divider" and not 0.0 <= value <= 1.0:
            raise UsageError(f"divider is a share of the picture from 0 to 1, got {value!r}")
        return float(value)
    elif name in (*_SWITCHES, *_OWN_SWITCHES):
        if not isinstance(value, bool):
            raise UsageError(f"{name} is true or false, got {value!r}")
    else:
        raise unknown_name("setting", name, NAMES)
    return value
