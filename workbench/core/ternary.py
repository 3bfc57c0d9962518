"""Vectors of -1, 0 and 1 in few bytes: positions as Golomb-Rice coded gaps, then one sign each."""

from __future__ import annotations

import math
import struct

import numpy as np

from workbench.core.errors import BadInput

_HEAD = struct.Struct("<QQBf")  # length, entries that are not zero, parameter, scale


def entropy_bits(length: int, kept: int) -> float:
    """What no code of random positions and signs can be below on average."""
    if not 0 < kept < length:
        return float(kept)
    k = kept / length
    return length * (-k * math.log2(k) - (1 - k) * math.log2(1 - k)) + kept


def encode(signs: np.ndarray, scale: float) -> bytes:
    """Code a vector ``[n]`` of -1, 0 and 1 and its scale.

    The parameter is the one with the fewest bits, found by trying.
    """
    places = np.flatnonzero(signs)
    gaps = np.diff(places, prepend=-1) - 1
    sizes = [int((gaps >> b).sum()) + len(gaps) * (1 + b) for b in range(24)]
    b = int(np.argmin(sizes))
    ends = np.cumsum((gaps >> b) + 1) - 1  # a gap's quotient is that many zeros, then a one
    quotients = np.zeros(int(ends[-1]) + 1 if len(ends) else 0, dtype=np.uint8)
    quotients[ends] = 1
    rests = (gaps[:, None] >> np.arange(b)) & 1
    bits = np.concatenate([quotients, rests.astype(np.uint8).ravel(), signs[places] > 0])
    return _HEAD.pack(len(signs), len(places), b, scale) + np.packbits(bits).tobytes()


def decode(data: bytes) -> tuple[np.ndarray, float]:
    """The vector and its scale.

    Raises:
        BadInput: bytes that :func:`encode` did not make.
    """
    try:
        length, kept, b, scale = _HEAD.unpack_from(data)
    except struct.error:
        raise BadInput(f"data: {len(data)} bytes are too few for a ternary vector") from None
    bits = np.unpackbits(np.frombuffer(data, np.uint8, offset=_HEAD.size))
    ends = np.flatnonzero(bits)[:kept]
    body = int(ends[-1]) + 1 if kept and len(ends) else 0
    if len(ends) < kept or len(bits) < body + kept * (b + 1):
        raise BadInput("data: ends before its last entry; it is damaged")
    quotients = np.diff(ends, prepend=-1) - 1
    rests = bits[body : body + kept * b].reshape(kept, b).astype(np.int64)
    gaps = (quotients << b) + (rests << np.arange(b)).sum(1)
    places = np.cumsum(gaps + 1) - 1
    if kept and places[-1] >= length:
        raise BadInput("data: an entry lies beyond the end; it is damaged")
    signs = np.zeros(length, dtype=np.int8)
    positive = bits[body + kept * b : body + kept * (b + 1)].astype(bool)
    signs[places] = np.where(positive, 1, -1)
    return signs, scale
