"""Triton: uint8 pixels as 32-bit numbers, read and written as vectors, words or bytes.

A pixel is 0x00RRGGBB (three channels), 0x00VV00UU (two: the chroma of NV12) or 0x000000YY (one).
`QUADS` says how many quadruples of pixels a thread takes, in vectors of 128 bits where they fill
such (`VECTORS`), else in words; 0 stands for one pixel as bytes with any strides.
"""

# Triton has no types, and no unpacking into tuples.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
# ruff: noqa: RUF005

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def load_pixels(
    row_ptr,
    group,
    column_stride,
    channel_stride,
    mask,
    CHANNELS: tl.constexpr,
    QUADS: tl.constexpr,
    VECTORS: tl.constexpr,
):
    """The pixels of each group, a tensor for each place in it; three channels as 0x??RRGGBB."""
    pixels = ()
    if QUADS == 0:
        ptr = row_ptr + group * column_stride
        pixel = tl.load(ptr, mask=mask, other=0).to(tl.uint32)
        for channel in tl.static_range(1, CHANNELS):
            byte = tl.load(ptr + channel * channel_stride, mask=mask, other=0).to(tl.uint32)
            pixel |= byte << (channel * 16 // (CHANNELS - 1))
        pixels = (pixel,)
    else:
        word_ptr = row_ptr.to(tl.pointer_type(tl.uint32))
        words = _load_words(word_ptr, group, mask, CHANNELS * QUADS, VECTORS)
        for quad in tl.static_range(QUADS):
            if CHANNELS == 3:
                a, b, c = words[3 * quad], words[3 * quad + 1], words[3 * quad + 2]
                pixels = pixels + (a, (a >> 24) | (b << 8), (b >> 16) | (c << 16), c >> 8)
            elif CHANNELS == 2:
                for place in tl.static_range(2):
                    word = words[2 * quad + place]
                    first = (word & 0xFF) | ((word & 0xFF00) << 8)
                    pixels = pixels + (first, ((word >> 16) & 0xFF) | ((word >> 8) & 0xFF0000))
            else:
                word = words[quad]
                pixels = pixels + (word & 0xFF, (word >> 8) & 0xFF, (word >> 16) & 0xFF, word >> 24)
    return pixels


@triton.jit
def store_pixels(
    row_ptr,
    group,
    pixels,
    column_stride,
    channel_stride,
    mask,
    CHANNELS: tl.constexpr,
    QUADS: tl.constexpr,
    VECTORS: tl.constexpr,
):
    """Writes pixels, of which no other bits are set."""
    if QUADS == 0:
        ptr = row_ptr + group * column_stride
        tl.store(ptr, (pixels[0] & 0xFF).to(tl.uint8), mask=mask)
        for channel in tl.static_range(1, CHANNELS):
            byte = (pixels[0] >> (channel * 16 // (CHANNELS - 1))) & 0xFF
            tl.store(ptr + channel * channel_stride, byte.to(tl.uint8), mask=mask)
    else:
        words = ()
        for quad in tl.static_range(QUADS):
            p, q = pixels[4 * quad], pixels[4 * quad + 1]
            r, s = pixels[4 * quad + 2], pixels[4 * quad + 3]
            if CHANNELS == 3:
                words = words + (p | (q << 24), (q >> 8) | (r << 16), (r >> 16) | (s << 8))
            elif CHANNELS == 2:
                words = words + (_pair(p, q), _pair(r, s))
            else:
                words = words + (p | (q << 8) | (r << 16) | (s << 24),)
        word_ptr = row_ptr.to(tl.pointer_type(tl.uint32))
        _store_words(word_ptr, group, words, mask, CHANNELS * QUADS, VECTORS)


@triton.jit
def _pair(p, q):
    """Two pixels of two channels in one word."""
    return (p & 0xFF) | (p >> 8) | ((q & 0xFF) << 16) | ((q >> 16) << 24)


@triton.jit
def _load_words(row_ptr, group, mask, WORDS: tl.constexpr, VECTORS: tl.constexpr):
    """The `WORDS` words of each group."""
    words = ()
    if VECTORS:
        for vector in tl.static_range(WORDS // 4):
            ptr = row_ptr + (group * WORDS + vector * 4)[:, None] + tl.arange(0, 4)[None, :]
            even, odd = _halves(tl.load(ptr, mask=mask[:, None], other=0))
            a, c = tl.split(even)
            b, d = tl.split(odd)
            words = words + (a, b, c, d)
    else:
        for word in tl.static_range(WORDS):
            one = tl.load(row_ptr + group * WORDS + word, mask=mask, other=0)
            words = words + (one,)
    return words


@triton.jit
def _store_words(row_ptr, group, words, mask, WORDS: tl.constexpr, VECTORS: tl.constexpr):
    if VECTORS:
        for vector in tl.static_range(WORDS // 4):
            a, b = words[4 * vector], words[4 * vector + 1]
            c, d = words[4 * vector + 2], words[4 * vector + 3]
            four = tl.reshape(tl.join(tl.join(a, c), tl.join(b, d)), [a.shape[0], 4])
            ptr = row_ptr + (group * WORDS + vector * 4)[:, None] + tl.arange(0, 4)[None, :]
            tl.store(ptr, four, mask=mask[:, None])
    else:
        for word in tl.static_range(WORDS):
            tl.store(row_ptr + group * WORDS + word, words[word], mask=mask)


@triton.jit
def _halves(vectors):
    """Words 0 and 2, and 1 and 3 of each; a thread holds whole vectors, so nothing moves."""
    return tl.split(tl.reshape(vectors, [vectors.shape[0], 2, 2]))
