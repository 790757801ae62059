"""FFmpeg's own options for demuxers and protocols, as `--ffmpeg-option` gives them."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from functools import cache
from typing import Final

import av.container.core

from stream_cam.errors import UsageError

_SEARCH_CHILDREN_OF_CLASSES: Final = 3
"""AV_OPT_SEARCH_CHILDREN | AV_OPT_SEARCH_FAKE_OBJ"""


def check_option_names(names: Iterable[str]) -> None:
    """FFmpeg itself takes no notice of an option that it does not know.

    Raises:
        UsageError: neither a demuxer nor a protocol nor a decoder has an option of that name.
    """
    for name in names:
        if not _is_known(name):
            raise UsageError(
                f"--ffmpeg-option {name}: this FFmpeg has no option of that name for reading; "
                f"`ffmpeg -h full` lists them"
            )


@cache
def _is_known(name: str) -> bool:
    """Asks FFmpeg's library, which PyAV's modules are linked to; PyAV does not."""
    library = ctypes.CDLL(av.container.core.__file__)
    try:
        find = library.av_opt_find
        classes = (library.avformat_get_class, library.avcodec_get_class)
    except AttributeError:  # Windows does not look into linked libraries
        return True
    find.restype = ctypes.c_void_p
    find.argtypes = [
        *(ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p),
        *(ctypes.c_int, ctypes.c_int),
    ]
    for get_class in classes:
        get_class.restype = ctypes.c_void_p
        fake = ctypes.c_void_p(get_class())
        if find(ctypes.byref(fake), name.encode(), None, 0, _SEARCH_CHILDREN_OF_CLASSES):
            return True
    return False
