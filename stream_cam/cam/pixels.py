"""Triton: uint8 BGR pixels as 32-bit numbers, read and written as vectors, words or bytes.

Four packed pixels are three words. `QUADS` says how many quadruples a thread takes: 4 (three
vectors of 128 bits), 1 (three words), or 0 for one pixel as three bytes with any strides.
"""

# Triton has no types, and no unpacking into tuples.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment"
# ruff: noqa: RUF005

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def load_pixels(row_ptr, group, column_stride, channel_stride, mask, QUADS: tl.constexpr):
    """The pixels of each group as 0x??RRGGBB, a tensor for each place in the group."""
    pixels = ()
    if QUADS == 0:
        ptr = row_ptr + group * column_stride
        blue = tl.load(ptr, mask=mask, other=0).to(tl.uint32)
        green = tl.load(ptr + channel_stride, mask=mask, other=0).to(tl.uint32)
        red = tl.load(ptr + 2 * channel_stride, mask=mask, other=0).to(tl.uint32)
        pixels = (blue | (green << 8) | (red << 16),)
    else:
        words = _load_words(row_ptr.to(tl.pointer_type(tl.uint32)), group, mask, QUADS)
        for quad in tl.static_range(QUADS):
            a, b, c = words[3 * quad], words[3 * quad + 1], words[3 * quad + 2]
            pixels = pixels + (a, (a >> 24) | (b << 8), (b >> 16) | (c << 16), c >> 8)
    return pixels


@triton.jit
def store_pixels(row_ptr, group, pixels, column_stride, channel_stride, mask, QUADS: tl.constexpr):
    """Writes pixels that are 0x00RRGGBB."""
    if QUADS == 0:
        ptr = row_ptr + group * column_stride
        tl.store(ptr, (pixels[0] & 0xFF).to(tl.uint8), mask=mask)
        tl.store(ptr + channel_stride, ((pixels[0] >> 8) & 0xFF).to(tl.uint8), mask=mask)
        tl.store(ptr + 2 * channel_stride, (pixels[0] >> 16).to(tl.uint8), mask=mask)
    else:
        words = ()
        for quad in tl.static_range(QUADS):
            p, q = pixels[4 * quad], pixels[4 * quad + 1]
            r, s = pixels[4 * quad + 2], pixels[4 * quad + 3]
            words = words + (p | (q << 24), (q >> 8) | (r << 16), (r >> 16) | (s << 8))
        _store_words(row_ptr.to(tl.pointer_type(tl.uint32)), group, words, mask, QUADS)


@triton.jit
def _load_words(row_ptr, group, mask, QUADS: tl.constexpr):
    """The 3·`QUADS` words of each group."""
    words = ()
    if QUADS == 4:
        for vector in tl.static_range(3):
            ptr = row_ptr + (group * 12 + vector * 4)[:, None] + tl.arange(0, 4)[None, :]
            even, odd = _halves(tl.load(ptr, mask=mask[:, None], other=0))
            a, c = tl.split(even)
            b, d = tl.split(odd)
            words = words + (a, b, c, d)
    else:
        for word in tl.static_range(3):
            one = tl.load(row_ptr + group * 3 + word, mask=mask, other=0)
            words = words + (one,)
    return words


@triton.jit
def _store_words(row_ptr, group, words, mask, QUADS: tl.constexpr):
    if QUADS == 4:
        for vector in tl.static_range(3):
            a, b = words[4 * vector], words[4 * vector + 1]
            c, d = words[4 * vector + 2], words[4 * vector + 3]
            four = tl.reshape(tl.join(tl.join(a, c), tl.join(b, d)), [a.shape[0], 4])
            ptr = row_ptr + (group * 12 + vector * 4)[:, None] + tl.arange(0, 4)[None, :]
            tl.store(ptr, four, mask=mask[:, None])
    else:
        for word in tl.static_range(3):
            tl.store(row_ptr + group * 3 + word, words[word], mask=mask)


@triton.jit
def _halves(vectors):
    """Words 0 and 2, and 1 and 3 of each; a thread holds whole vectors, so nothing moves."""
    return tl.split(tl.reshape(vectors, [vectors.shape[0], 2, 2]))
