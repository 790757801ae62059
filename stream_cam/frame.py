"""The data that travel through the pipeline: frames and their explanations. Numbers only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final, Literal, Protocol

import numpy as np
import numpy.typing as npt

from stream_cam.config import Activation

BgrImage = npt.NDArray[np.uint8]
"""`(H, W, 3)` uint8, 0..255, channels blue, green, red."""

FloatArray = npt.NDArray[np.float32]

Method = Literal["cam", "grad-cam (head)"]
"""How class weights come about: a linear head's own, or the derivative of another head."""

NANOSECOND = Fraction(1, 1_000_000_000)
"""The time base of frames that are timed by this machine's clock, in seconds."""

JUMP_SECONDS = 5
"""A time in a file, of a picture or of sound, that lies further ahead of the last one may be a
damaged header's: it is believed when those after it agree."""

LEAD_IN_SECONDS = Fraction(1, 4)
"""Sound that begins so little before the first picture may be an encoder's, and not to be heard."""


def softmax(logits: FloatArray) -> FloatArray:
    """Probabilities, float32, of logits (n_classes,)."""
    shifted = np.exp(logits - logits.max())
    return np.asarray(shifted / shifted.sum(), np.float32)


def probabilities_of(logits: FloatArray, activation: Activation = "softmax") -> FloatArray:
    """Probabilities, float32, of logits (n_classes,); with sigmoid they need not add up to 1."""
    if activation == "softmax":
        return softmax(logits)
    with np.errstate(over="ignore"):
        return np.asarray(1.0 / (1.0 + np.exp(-logits)), np.float32)


@dataclass(frozen=True, slots=True)
class Truth:
    """An object that is really in a frame, known only for synthetic sources."""

    label: str
    box_xyxy: tuple[float, float, float, float]
    """Left, top, right, bottom in frame pixels."""


@dataclass(frozen=True, slots=True)
class Colour:
    """How a video's YUV values mean colours: code points of ITU-T H.273."""

    matrix: int
    primaries: int
    transfer: int
    full_range: bool


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture and when it is from."""

    image_bgr: BgrImage
    index: int
    """Position in the source, from 0; counts frames read, not frames shown."""
    pts: int
    """Presentation time in units of `time_base`, exactly as the source gave it."""
    time_base: Fraction
    captured_ns: int
    """`time.monotonic_ns()` when the frame reached this process."""
    truth: tuple[Truth, ...] = ()
    name: str | None = None
    """The file that the picture is from, if it is from a file of its own: its path as seen from the
    folder, or from the fixed part of the pattern, that is read."""
    duration: int = 0
    """How long it is shown, in units of `time_base`, as the source says; 0: it does not."""

    @property
    def pts_seconds(self) -> float:
        return float(self.pts * self.time_base)

    @property
    def size_hw(self) -> tuple[int, int]:
        return self.image_bgr.shape[0], self.image_bgr.shape[1]


@dataclass(frozen=True, slots=True)
class Prediction:
    """One class and how likely the network finds it."""

    label: str
    index: int
    probability: float
    """Softmax over all classes, 0..1."""


@dataclass(frozen=True, slots=True)
class Region:
    """The rectangle, in frame pixels, on which the network's input lies.

    With `letterbox` it reaches beyond the frame; with `crop` it is smaller than the frame.
    """

    x0: float
    y0: float
    x1: float
    y1: float

    @classmethod
    def whole(cls, size_hw: tuple[int, int]) -> Region:
        return cls(0.0, 0.0, float(size_hw[1]), float(size_hw[0]))


class ClassRows(Protocol):
    """The class weights of one frame; an array of all classes' is one."""

    def __getitem__(self, classes: list[int], /) -> FloatArray:
        """(n, K) float32, of these classes."""
        ...


NEXT: Final = -1
"""In place of a class that a map is against: the best class that is left."""


@dataclass(frozen=True, slots=True)
class Contrast:
    """The classes that maps are shown against: why this class and not those."""

    classes: tuple[int, ...]
    """Indices; each `NEXT` stands for the best class that is left."""
    weight: float = 1.0
    """The share of the mean of their maps that is subtracted."""
    labels: Sequence[str] = field(default=(), compare=False, repr=False)
    """Of all classes."""

    def others(self, index: int, logits: FloatArray) -> tuple[int, ...]:
        """The classes that the map of class `index` is against, in a frame with these logits."""
        named = [one for one in dict.fromkeys(self.classes) if one not in (NEXT, index)]
        n_next = self.classes.count(NEXT)
        if n_next:
            best = np.argsort(-logits, kind="stable")[: n_next + len(named) + 1].tolist()
            named += [one for one in best if one not in (index, *named)][:n_next]
        return tuple(named)


@dataclass(frozen=True, slots=True)
class Features:
    """A network's features of one frame, of which the map of any class can be made."""

    values: FloatArray
    """(K, h, w) float32: the last convolution's output, on the CPU."""
    class_weight: ClassRows
    """With a linear head its weights, (n_classes, K) float32, one array for all frames; those of
    contrast maps if the explanation has such."""

    def cam(self, index: int) -> FloatArray:
        """The raw map of a class, (h, w) float32 (Zhou et al., CVPR 2016, eq. 2)."""
        flat = self.values.reshape(self.values.shape[0], -1)
        return np.asarray(self.class_weight[[index]][0] @ flat).reshape(self.values.shape[1:])


def image_of(frame: BgrImage | Frame) -> BgrImage:
    """The image of a frame, checked.

    Raises:
        ValueError: it is not (H, W, 3) uint8; the message says how to convert it.
    """
    image = frame.image_bgr if isinstance(frame, Frame) else frame
    if not isinstance(image, np.ndarray):
        got = f"a {type(image).__name__}"
        if image is None:
            got = "None, which cv2.imread gives for a file that it cannot read"
        raise ValueError(f"a frame is a NumPy array, (H, W, 3) uint8 BGR, got {got}")
    if image.dtype != np.uint8:
        advice = "scale its values to 0..255 and give image.astype(numpy.uint8)"
    elif image.ndim == 2 or image.shape[2:] == (1,):
        advice = "convert greyscale with cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)"
    elif image.shape[2:] == (4,):
        advice = "take away its alpha with cv2.cvtColor(image, cv2.COLOR_BGRA2BGR)"
    elif image.ndim != 3 or image.shape[2] != 3:
        advice = "give one frame, colours last"
    elif 0 in image.shape:
        advice = "it has no pixels"
    else:
        return image
    raise ValueError(f"a frame is (H, W, 3) uint8 BGR, got {image.shape} {image.dtype}: {advice}")


class Drawn:
    """Pictures that a GPU made together with an explanation; given away once.

    Args:
        image_bgr: the very frame that they show.
        style: how they are drawn; pictures of equal styles are drawn alike.
        pictures_bgr: (n, H, W, 3) uint8, one for each map that is drawn.
    """

    def __init__(self, image_bgr: BgrImage, style: object, pictures_bgr: BgrImage) -> None:
        self._style = style
        self._image: BgrImage | None = image_bgr
        self._pictures: BgrImage | None = pictures_bgr

    def take(self, image_bgr: BgrImage, style: object) -> Sequence[BgrImage] | None:
        """The pictures, to be written to, if frame and style are theirs; at the first call only."""
        fits = image_bgr is self._image and style == self._style
        pictures = self._pictures if fits else None
        self._image = self._pictures = None
        return None if pictures is None else list(pictures)


@dataclass(frozen=True, slots=True)
class Explanation:
    """The network's answer for one frame: predictions, maps, where and when."""

    logits: FloatArray
    """(n_classes,) float32."""
    predictions: tuple[Prediction, ...]
    """The five best classes (fewer if the network has fewer), best first."""
    targets: tuple[Prediction, ...]
    """The classes whose maps are in `cams`, in that order."""
    cams: FloatArray
    """(n_targets, h, w) float32: the raw maps M_c, before any scaling."""
    region: Region
    """Where the maps lie on the frame."""
    frame_size_hw: tuple[int, int]
    frame_index: int = 0
    pts_seconds: float = 0.0
    captured_ns: int = 0
    """Monotonic time at which the explained frame was captured."""
    explained_ns: int = 0
    """Monotonic time at which this explanation was ready."""
    method: Method = "cam"
    """`cam`: M_c is the class activation map. `grad-cam (head)`: the head is not linear, and M_c is
    Grad-CAM's map before its ReLU."""
    contrast: Contrast | None = None
    """The maps are contrast maps, against the `others`; None: they are plain maps."""
    several: bool = False
    """True if a list of targets was asked for: then `cam` is a stack."""
    n_locked: int = 0
    """How many of the targets, the first ones, were asked for; the others are the best classes."""
    ranges: FloatArray | None = None
    """(n_targets, 2) float32: the values of each map that are drawn as cold and as hot; None: the
    map's own minimum and maximum."""
    between_frames: tuple[int, int] | None = None
    """Live: the maps are interpolated between those of these two frames; None: `frame_index`'s."""
    features: Features | None = None
    """Kept only if that was asked for."""
    drawn: Drawn | None = field(default=None, repr=False, compare=False)
    """The pictures that a GPU drew in the same pass; maps are then filtered, the class is held."""
    activation: Activation = "softmax"
    """The function that makes probabilities of the logits."""

    @property
    def cam(self) -> FloatArray:
        """The raw map, (h, w) float32; (n_targets, h, w) if a list of targets was asked for."""
        return self.cams if self.several else self.cams[0]

    def others(self, target: int = 0) -> tuple[int, ...]:
        """The classes that the map `cams[target]` is against; none for a plain map."""
        if self.contrast is None:
            return ()
        return self.contrast.others(self.targets[target].index, self.logits)

    def other_labels(self, target: int = 0) -> list[str]:
        """The labels of those classes."""
        labels = () if self.contrast is None else self.contrast.labels
        return [labels[index] for index in self.others(target)]

    def shown(self, target: int = 0) -> Prediction:
        """The class of the map `cams[target]`; its label says what a contrast map is against.

        `cat`, or `cat, not dog`.
        """
        prediction, others = self.targets[target], self.other_labels(target)
        if not others:
            return prediction
        label = f"{prediction.label}, not {', '.join(others)}"
        return Prediction(label, prediction.index, prediction.probability)

    def probability(self, index: int) -> float:
        """0..1, of class `index`: softmax over all classes, or the sigmoid of its own logit."""
        return float(probabilities_of(self.logits, self.activation)[index])

    def peak_xy(self, target: int = 0) -> tuple[float, float]:
        """Frame pixel (x, y) under the centre of the map's highest cell, for `cams[target]`."""
        cam = self.cams[target]
        row, column = np.unravel_index(int(np.argmax(cam)), cam.shape)
        region = self.region
        x = region.x0 + (float(column) + 0.5) / cam.shape[1] * (region.x1 - region.x0)
        y = region.y0 + (float(row) + 0.5) / cam.shape[0] * (region.y1 - region.y0)
        height, width = self.frame_size_hw
        return min(max(x, 0.0), width - 1.0), min(max(y, 0.0), height - 1.0)
