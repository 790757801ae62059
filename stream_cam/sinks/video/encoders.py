"""The encoders of each codec, their settings, and the containers that take them."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Final

import av
import av.error

from stream_cam.config import CodecName, RecordConfig
from stream_cam.errors import SinkError, UsageError, unknown_name
from stream_cam.host import scheduling_kept, usable_cores

logger = logging.getLogger(__name__)

CONTAINERS: Final = {".mp4": "mp4", ".mkv": "matroska", ".mov": "mov", ".webm": "webm"}
"""Suffix → FFmpeg's name of the container."""

_CODECS_IN: Final[Mapping[str, tuple[CodecName, ...]]] = {
    ".mp4": ("h264", "hevc", "av1", "vp9"),
    ".mov": ("h264", "hevc"),
    ".mkv": ("h264", "hevc", "av1", "vp9"),
    ".webm": ("vp9", "av1"),
    # For pipes only.
    ".ts": ("h264", "hevc"),
    ".nut": ("h264", "hevc", "vp9"),
}
"""Codecs that players expect in each container; the first one is the default."""

_X264_FAST: Final = {"preset": "ultrafast", "x264-params": "cabac=1:deblock=0,0"}
"""x264's fastest preset, with its entropy coder and its deblocking put back.

90 overlays of 1280×720 at crf 22 take 6.4 ms of one core each, where `veryfast` at crf 20 takes
17.2; the file is 17 % smaller and its PSNR 0.2 dB higher (768×432 of a street: 3.3 for 7.3 ms, 5 %
larger, 0.1 dB higher). `veryfast` spends its time on a search that finds nothing in noise.
"""


_MAX_THREADS_SECONDS: Final = Fraction(1, 2)
_MAX_LOOKAHEAD_SECONDS: Final = Fraction(1, 4)
"""Seconds of pictures that an encoder's threads, and its lookahead, may hold back."""
_X265_FRAME_THREADS: Final = 3
"""Frame threads; by itself x265 takes up to 6, by the number of cores."""

_MAX_CRF: Final[Mapping[CodecName, int]] = {"h264": 51, "hevc": 51, "av1": 63, "vp9": 63}

_X26X_PRESETS: Final = (
    *("ultrafast", "superfast", "veryfast", "faster", "fast"),
    *("medium", "slow", "slower", "veryslow", "placebo"),
)


@dataclass(frozen=True)
class _Encoder:
    """An encoder of FFmpeg and its options."""

    name: str
    crf: int
    """The default: about the same quality for every encoder."""
    quality_option: str
    speed: Mapping[str, str]
    """Options if no preset is given."""
    presets: tuple[str, ...] = _X26X_PRESETS
    preset_option: str = "preset"
    fixed: Mapping[str, str] | None = None
    """Options that are always given."""


def _nvenc(name: str, crf: int) -> _Encoder:
    presets, fixed = tuple(f"p{number}" for number in range(1, 8)), {"bf": "0", "rc": "vbr"}
    return _Encoder(name, crf, "cq", {"preset": "p4"}, presets, fixed=fixed)


_ENCODERS: Final[Mapping[CodecName, tuple[_Encoder, ...]]] = {
    "h264": (
        _nvenc("h264_nvenc", 23),
        _Encoder("libx264", 22, "crf", _X264_FAST, fixed={"bf": "0"}),
    ),
    "hevc": (
        _nvenc("hevc_nvenc", 26),
        _Encoder(
            "libx265",
            26,
            "crf",
            {"preset": "ultrafast"},
            fixed={"x265-params": "bframes=0:log-level=error"},
        ),
    ),
    "av1": (
        _nvenc("av1_nvenc", 30),
        _Encoder(
            "libsvtav1",
            35,
            "crf",
            {"preset": "10"},
            # 12 and 13 sometimes wait for ever, as it does without rtc: see below.
            tuple(map(str, range(12))),
            # Low delay, pictures in the order of their times: a file that is cut off still plays.
            # Without rtc it may wait for ever, most often on small pictures. FFmpeg asks for each
            # picture's packet at once, and SVT-AV1 (4.1) does not always give it.
            fixed={"svtav1-params": "pred-struct=1:rtc=1"},
        ),
    ),
    "vp9": (
        _Encoder(
            "libvpx-vp9",
            32,
            "crf",
            {"cpu-used": "8"},
            tuple(map(str, range(9))),
            preset_option="cpu-used",
            fixed={"deadline": "realtime", "row-mt": "1", "lag-in-frames": "0"},
        ),
    ),
}


@dataclass(frozen=True)
class Encoding:
    """An encoder that works here, and its options."""

    encoder: str
    options: Mapping[str, str]
    bit_rate: int | None
    threads: int
    """0: the encoder decides."""


def default_codec(suffix: str) -> CodecName:
    return _CODECS_IN[suffix][0]


def check_codec(suffix: str, codec: CodecName | None) -> CodecName:
    """The codec for a file, by its suffix (`.mp4`).

    Raises:
        UsageError: players do not expect the codec in such a file.
    """
    if codec is None:
        return default_codec(suffix)
    if codec not in _CODECS_IN[suffix]:
        homes = ", ".join(f"*{home}" for home in CONTAINERS if codec in _CODECS_IN[home])
        raise UsageError(f"--codec {codec} does not go into *{suffix}; it goes into {homes}")
    return codec


def check_settings(codec: CodecName, config: RecordConfig) -> None:
    """Find out whether an encoder that works here takes such a preset and quality.

    Raises:
        UsageError: none does.
    """
    if config.crf is not None and config.crf > _MAX_CRF[codec]:
        raise UsageError(f"--crf of {codec} is from 0 to {_MAX_CRF[codec]}, got {config.crf}")
    if config.preset is None:
        return
    known = [name for each in _ENCODERS[codec] if encoder_works(each.name) for name in each.presets]
    if known and config.preset not in known:
        raise unknown_name("--preset", config.preset, known)


def choose_encoder(
    codec: CodecName, config: RecordConfig, *, fps: Fraction | None = None, threads: int = 0
) -> Encoding:
    """The first encoder of a codec that works here: NVENC, then a library.

    Args:
        fps: of the recording. With it, x264 and x265 hold back at most about a second of pictures,
            since a kill loses these. None: as many as they do by themselves.
        threads: 0: the encoder decides.

    Raises:
        SinkError: none works.
    """
    for encoder in _ENCODERS[codec]:
        foreign = config.preset is not None and config.preset not in encoder.presets
        if not foreign and encoder_works(encoder.name):
            options = _options(encoder, config)
            if fps is not None:
                threads = _bound_delay(encoder.name, options, fps, threads)
            return Encoding(encoder.name, options, config.bits_a_second, threads)
    names = " or ".join(encoder.name for encoder in _ENCODERS[codec])
    raise SinkError(
        f"PyAV {av.__version__} has no encoder for {codec} that works here ({names}): "
        "pip install --force-reinstall --only-binary :all: av"
    )


def _bound_delay(name: str, options: dict[str, str], fps: Fraction, threads: int) -> int:
    """Limit an encoder to half a second held back in its threads and a quarter in its lookahead.

    Returns:
        Its number of threads.
    """
    ahead = int(fps * _MAX_LOOKAHEAD_SECONDS)
    if name == "libx264":
        if options["preset"] not in ("ultrafast", "superfast"):
            # The lookahead of those two is a picture at most.
            options["x264-params"] = f"rc-lookahead={ahead}:sync-lookahead=0"
        usual = threads or max(1, 3 * usable_cores() // 2)
        return max(1, min(usual, int(fps * _MAX_THREADS_SECONDS)))
    if name == "libx265":
        if ahead < 2:  # a lookahead of a single picture holds back three
            options["x265-params"] += ":rc-lookahead=0:cutree=0:scenecut=0:frame-threads=1"
        else:
            options["x265-params"] += f":rc-lookahead={ahead}:frame-threads={_X265_FRAME_THREADS}"
    return threads


def _options(encoder: _Encoder, config: RecordConfig) -> dict[str, str]:
    options = dict(encoder.fixed or {})
    if config.bitrate is None:
        quality = encoder.crf if config.crf is None else config.crf
        if encoder.name == "libx264":
            quality = max(1, quality)  # 0 is lossless, in a profile that most players do not show
        options[encoder.quality_option] = str(quality)
        if encoder.name == "libvpx-vp9":
            options["b"] = "0"  # constant quality, without a maximum bit rate
    elif encoder.name == "libsvtav1":
        options["svtav1-params"] += ":rc=2"  # the only rate control it has without delay
    preset = config.preset
    return options | (dict(encoder.speed) if preset is None else {encoder.preset_option: preset})


@cache
def encoder_works(name: str) -> bool:
    """Whether an encoder encodes a picture here; FFmpeg also lists encoders that cannot."""
    os.environ.setdefault("SVT_LOG", "1")  # errors only: it prints a banner to stderr, as x265 does
    try:
        codec = av.CodecContext.create(name, "w")
        assert isinstance(codec, av.VideoCodecContext)
        codec.width, codec.height, codec.pix_fmt = 256, 256, "yuv420p"
        codec.time_base = Fraction(1, 25)
        if name == "libx265":
            codec.options = {"x265-params": "log-level=error"}
        frame = av.VideoFrame(256, 256, "yuv420p")
        frame.pts = 0
        with scheduling_kept():
            packets = [*codec.encode(frame), *codec.encode(None)]
    except (av.error.FFmpegError, ValueError) as exc:
        logger.debug("the encoder %s does not work here: %s", name, exc)
        return False
    return bool(packets)
