"""Encoded pictures (JPEG, PNG, TIFF, WebP, AVIF, HEIC, GIF, …) become upright BGR arrays.

`decode_picture` is the one way from the bytes of a picture to a frame: from a file, over HTTP, or
out of a stream of JPEGs.

Pillow reads headers, orientations and pages, and decodes. OpenCV decodes two kinds: JPEG, with the
same pixels in half the time (1080p on a CPU: 6 against 13 ms), and samples of more than 8 bits,
which Pillow would cut.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageOps,
    Jpeg2KImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from stream_cam.errors import SourceError
from stream_cam.frame import BgrImage
from stream_cam.sources.mjpeg import JPEG_START, MARKERS_WITHOUT_LENGTH, PNG_START
from stream_cam.sources.orientation import upright

logger = logging.getLogger(__name__)

_PLUGINS: Final = (
    *(AvifImagePlugin, BmpImagePlugin, GifImagePlugin, Jpeg2KImagePlugin, MpoImagePlugin),
    *(PngImagePlugin, PpmImagePlugin, TiffImagePlugin, WebPImagePlugin),
)
"""Imported, they are registered: Pillow otherwise loads forty more, Ghostscript's among them."""
_FORMATS: Final = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
_PAGED: Final = frozenset({"AVIF", "GIF", "PNG", "TIFF", "WEBP"})
"""Not MPO and HEIF: beside a photo they hold previews, depths and the tiles it is made of."""
_HEIF_BRANDS: Final = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"))
_TIFF_STARTS: Final = (b"II*\0", b"MM\0*")
_JPEG2000_START: Final = b"\0\0\0\x0cjP  \r\n\x87\n"
_ORIENTATION: Final = 0x0112
_BITS_PER_SAMPLE: Final = 0x0102
_SUBFILE_TYPE: Final = 0x00FE
_REDUCED_OR_MASK: Final = 5
_WHOLE_SAMPLES: Final = frozenset({"1", "F", "I", "I;16", "I;16B", "I;16L"})
"""Pillow's modes that keep every bit of a sample."""
_WHITES: Final = (255, 1023, 4095, 16383, 65535)
"""White of samples of 8, 10, 12, 14 and 16 bits."""

# They warn of damaged EXIF, and of more than 90 megapixels, which telephones take.
warnings.filterwarnings("ignore", module=r"PIL\.")


@dataclass(frozen=True, slots=True)
class Page:
    """One picture of a file of one or more."""

    image_bgr: BgrImage
    """(H, W, 3) uint8, upright."""
    n_pages: int
    milliseconds: int = 0
    """How long it is shown, in an animation."""


def decode_picture(data: bytes, name: str) -> BgrImage:
    """An encoded picture as (H, W, 3) uint8 BGR: upright, alpha over white, the first page.

    Args:
        data: a whole file, or one JPEG of a stream.
        name: for the error; secrets redacted.

    Raises:
        SourceError: it is no picture, a damaged or a truncated one.
    """
    return next(decode_pages(data, name)).image_bgr


def decode_pages(data: bytes, name: str) -> Iterator[Page]:
    """Every page of an encoded picture, as `decode_picture` gives the first."""
    if _is_truncated(data):
        raise _truncated(data, name)
    try:
        yield from _pages(data, name)
        return
    except (SourceError, MemoryError):
        raise
    # Pillow's readers raise nearly anything on damaged bytes.
    except Exception as exc:
        logger.debug("%s: %s: %s", name, type(exc).__name__, exc)
        cut = "truncated" in str(exc).lower()
    if cut:
        raise _truncated(data, name)
    raise SourceError(
        f"{name} is not a picture that can be decoded, or it is damaged; "
        f"open it in a viewer and save it again as PNG or JPEG",
        kind="codec",
    )


def is_encoded_picture(path: str) -> bool:
    """Whether a file begins like a picture."""
    try:
        with open(path, "rb") as file:
            if _is_heif(file.read(12)):
                return True
            file.seek(0)
            with Image.open(file, formats=_FORMATS):
                return True
    except Image.DecompressionBombError:
        return True
    except Exception:  # Pillow's readers raise nearly anything on bytes that are no picture
        return False


def begins_like_picture(head: bytes) -> bool:
    """Whether a file of twelve bytes or more is a picture that is read whole, not JPEG or PNG."""
    if head[4:8] == b"ftyp":
        return head[8:12] in (*_HEIF_BRANDS, b"avif", b"avis")
    webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    return webp or head[:4] in (*_TIFF_STARTS, b"GIF8") or head[:12] == _JPEG2000_START


def to_bgr8(image: npt.NDArray[Any]) -> BgrImage:
    """Any picture as (H, W, 3) uint8 BGR.

    Alpha goes over white, the ground that transparent drawings are made for; a checkerboard
    would be a texture that the network sees.

    Args:
        image: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4); uint8 0..255, other integers from 0, or
            float from 0. White is the greatest value of the fewest bits that hold them all: 8,
            10, 12, 14 or 16; of float it is 1 unless most are above it.
    """
    if image.dtype != np.uint8:
        white = _white_of(image)
        scaled = np.nan_to_num(image.astype(np.float32), posinf=white) * np.float32(255 / white)
        image = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    if image.ndim == 2 or image.shape[2] == 1:
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR), dtype=np.uint8)
    if image.shape[2] == 4:
        return over_white(image)
    return np.ascontiguousarray(image[:, :, :3], dtype=np.uint8)


def over_white(image_bgra: npt.NDArray[Any]) -> BgrImage:
    """Composite (H, W, 4) uint8 BGRA (alpha not premultiplied) over white."""
    alpha = image_bgra[:, :, 3:]
    if alpha.min(initial=255) == 255:
        return np.ascontiguousarray(image_bgra[:, :, :3])
    weight = alpha.astype(np.uint16)
    mixed = image_bgra[:, :, :3] * weight + (255 - weight) * np.uint16(255)
    return ((mixed + 127) // 255).astype(np.uint8)


def _white_of(samples: npt.NDArray[Any]) -> float:
    """The value of white. A file does not say it, and 12-bit samples are nearly black as 16-bit."""
    if np.issubdtype(samples.dtype, np.floating):
        samples = samples[np.isfinite(samples) & (samples > 0)]
        if not samples.size or np.median(samples) <= 1:  # above it lie only highlights
            return 1.0
    greatest = float(samples.max(initial=0))
    white = next((white for white in _WHITES if greatest <= white), greatest)
    if white != np.iinfo(np.uint16).max:
        logger.info("samples of up to %g: %g is taken for white", greatest, white)
    return float(white)


def _pages(data: bytes, name: str) -> Iterator[Page]:
    image = _opened(data, name)
    if image is None or _pillow_reduces_depth(image, data):
        yield from _pages_by_opencv(data, image)
    elif image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB"):
        decoded = _decode_with_opencv(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        yield Page(upright(to_bgr8(decoded), _orientation_of(image)), 1)
    else:
        yield from _pages_by_pillow(image)


def _opened(data: bytes, name: str) -> Image.Image | None:
    """The picture with its header read; None if Pillow does not know it, but OpenCV may."""
    formats: tuple[str, ...] = _FORMATS
    if _is_heif(data):
        try:
            import pillow_heif
        except ImportError as exc:
            if data[8:12] != b"mif1":  # AVIF's as well
                raise SourceError(
                    f"{name} is a HEIC picture, which needs pillow-heif; "
                    f"pip install 'stream-cam[heif]'",
                    kind="codec",
                ) from exc
        else:
            pillow_heif.register_heif_opener()
            formats = (*_FORMATS, "HEIF")
    try:
        return Image.open(BytesIO(data), formats=formats)
    except (UnidentifiedImageError, Image.DecompressionBombError):
        return None


def _is_heif(data: bytes) -> bool:
    return data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS


def _pillow_reduces_depth(image: Image.Image, data: bytes) -> bool:
    """Whether Pillow would reduce the samples to fewer bits than the file has."""
    if image.mode in _WHOLE_SAMPLES:
        return False
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return image.mode == "LAB" or max(image.tag_v2.get(_BITS_PER_SAMPLE, (1,))) > 8
    return image.format == "PNG" and data[24] > 8


def _orientation_of(image: Image.Image) -> int:
    said = image.getexif().get(_ORIENTATION, 1)
    return said if said in range(1, 9) else 1


def _pages_by_pillow(image: Image.Image) -> Iterator[Page]:
    places = _page_indices(image)
    for place in places:
        if image.format in _PAGED:  # a HEIF is at its main picture already
            image.seek(place)
        image.load()  # TIFF is upright after that, and says so
        shown = ImageOps.exif_transpose(image)
        if shown.has_transparency_data:
            array = cv2.cvtColor(np.asarray(shown.convert("RGBA")), cv2.COLOR_RGBA2BGRA)
        elif shown.mode in _WHOLE_SAMPLES - {"1"}:
            array = np.asarray(shown)
        else:
            array = cv2.cvtColor(np.asarray(shown.convert("RGB")), cv2.COLOR_RGB2BGR)
        lasts = _milliseconds_of(image) if len(places) > 1 else 0
        yield Page(to_bgr8(array), len(places), lasts)


def _page_indices(image: Image.Image) -> list[int]:
    """The numbers of the pages that are shown."""
    if image.format not in _PAGED:
        return [0]
    places = list(range(getattr(image, "n_frames", 1)))
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return places
    wanted = []
    for place in places:
        image.seek(place)
        # The others are smaller copies of a page, or its mask.
        if not image.tag_v2.get(_SUBFILE_TYPE, 0) & _REDUCED_OR_MASK:
            wanted.append(place)
    image.seek(0)
    return wanted or [0]


def _milliseconds_of(image: Image.Image) -> int:
    if image.format == "TIFF":
        return 0
    said = round(image.info.get("duration", 0))
    return said if said > 10 else 100  # as browsers do


def _pages_by_opencv(data: bytes, image: Image.Image | None) -> Iterator[Page]:
    if data[:4] not in _TIFF_STARTS:
        turn = 1 if image is None else _orientation_of(image)
        # Without a header read by Pillow, OpenCV turns it.
        flags = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR if image is None else cv2.IMREAD_UNCHANGED
        yield Page(upright(to_bgr8(_decode_with_opencv(data, flags)), turn), 1)
        return
    # OpenCV turns a TIFF whatever it is told.
    buffer = np.frombuffer(data, np.uint8)
    places = [(0, 1 << 30)] if image is None else [(at, at + 1) for at in _page_indices(image)]
    for place in places:
        with _opencv_silenced():
            _, decoded = cv2.imdecodemulti(buffer, cv2.IMREAD_UNCHANGED, range=place)
        if not decoded:
            raise ValueError("OpenCV cannot decode it either")
        for array in decoded:
            yield Page(to_bgr8(array), max(len(places), len(decoded)))


def _decode_with_opencv(data: bytes, flags: int) -> npt.NDArray[Any]:
    with _opencv_silenced():
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if image is None:
        raise ValueError("OpenCV cannot decode it either")
    return image


@contextmanager
def _opencv_silenced() -> Iterator[None]:
    """Keeps OpenCV from writing to stderr the errors that are raised here."""
    said = cv2.utils.logging
    level = said.setLogLevel(said.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        said.setLogLevel(level)


def _truncated(data: bytes, name: str) -> SourceError:
    return SourceError(f"{name} is truncated ({len(data)} bytes); copy or download it again")


def _is_truncated(data: bytes) -> bool:
    # OpenCV gives half a picture for half a file, with a line on stderr.
    if data.startswith(JPEG_START):
        scan = _first_scan(data)
        return scan is not None and data.find(b"\xff\xd9", scan) < 0
    return data.startswith(PNG_START) and b"IEND" not in data[-64:] and b"IEND" not in data


def _first_scan(data: bytes) -> int | None:
    """Where a JPEG's coded data begins; len(data) if it ends before that, None if that is unknown.

    Segments before it are stepped over by their lengths: a thumbnail in one of them has an end of
    image too, as has a film behind the picture, so that neither may be looked into.
    """
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xDA:
            return at
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker in MARKERS_WITHOUT_LENGTH:
            at += 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return len(data)
