"""The laws of a pass in one call: softmax, the check for NaN and the entropies together."""

from __future__ import annotations

import ctypes
import math
from typing import NamedTuple

import numpy as np
import torch

from workbench.core.sampling import Sampling
from workbench.models.native.build import Unavailable, attempt

# Below it a quotient of logits could overflow; torch's own way shifts them first.
_LEAST_TEMPERATURE = 1e-4
_FEW = 64  # each of the largest is put in its place one by one


def plain(sampling: Sampling) -> bool:
    """Whether its laws are a softmax or a one-hot row, which is what the kernel computes."""
    warm = sampling.greedy or _LEAST_TEMPERATURE <= sampling.temperature < math.inf
    return warm and not sampling.top_k and sampling.top_p == 1


class Laws(NamedTuple):
    """Laws ``[n v]``, the largest logit of each row (NaN where any was) and the entropies."""

    laws: torch.Tensor
    highest: list[float]
    bits: list[float]


class Chain(NamedTuple):
    """Tokens drawn one by one, the law ``[n v]`` of each and what it gave the token ``[n]``.

    At temperature 0 each token is the likeliest, and the laws are those of temperature 1.
    """

    tokens: list[int]
    laws: torch.Tensor
    chances: torch.Tensor


def compiled_laws(sampling: Sampling, logits: torch.Tensor) -> Laws | None:
    """The laws of logits ``[n v]``; None where only torch can say: a filter, a GPU, half precision.

    They are those of :meth:`Sampling.law` within rounding, and exactly those at temperature 0.
    """
    fits = logits.dtype == torch.float32 and logits.device.type == "cpu" and logits.is_contiguous()
    if not (fits and plain(sampling)):
        return None
    library = attempt()
    if isinstance(library, Unavailable):
        return None
    n, v = logits.shape
    laws, told = torch.empty_like(logits), (ctypes.c_float * (2 * n))()
    highest_at = ctypes.addressof(told)
    bits_at = highest_at + n * ctypes.sizeof(ctypes.c_float)
    library.wb_laws(
        logits.data_ptr(), n, v, sampling.temperature, laws.data_ptr(), highest_at, bits_at
    )
    return Laws(laws, told[:n], told[n:])


def entropies(laws: torch.Tensor) -> list[float]:
    """Entropy of each law ``[rows v]`` in bits: 0 where one token is certain."""
    fits = laws.dtype == torch.float32 and laws.device.type == "cpu" and laws.is_contiguous()
    library = attempt() if fits else None
    if library is None or isinstance(library, Unavailable):
        if (laws.amax(-1) == 1).all():  # as every greedy law is, and soon seen
            return [0.0] * len(laws)
        return (torch.special.entr(laws).sum(-1) / math.log(2)).tolist()
    n, v = laws.shape
    bits = (ctypes.c_float * n)()
    library.wb_entropies(laws.data_ptr(), n, v, ctypes.addressof(bits))
    return bits[:]


class Largest(NamedTuple):
    """Places and values ``[n k]`` of the largest numbers of each row, largest first."""

    places: np.ndarray
    values: np.ndarray


def largest(rows: torch.Tensor, k: int) -> Largest:
    """The ``k`` largest of each row of ``[n v]``, on the CPU; equal ones by their places.

    One call of the kernel, which takes less than ``topk`` for a few; torch's where it cannot, and
    then equal numbers come in any order.
    """
    k = min(k, rows.shape[-1])
    fits = rows.dtype == torch.float32 and rows.device.type == "cpu" and rows.is_contiguous()
    library = attempt() if fits and 0 < k <= _FEW else None
    if library is None or isinstance(library, Unavailable):
        values, places = rows.topk(k, -1)
        both = torch.stack((places.double(), values.double())).cpu().numpy()  # one read for both
        wide = np.float64 if rows.dtype == torch.float64 else np.float32
        return Largest(both[0].astype(np.int64), both[1].astype(wide))
    n, v = rows.shape
    places = torch.empty((n, k), dtype=torch.int64)
    values = torch.empty((n, k))
    library.wb_largest(rows.data_ptr(), n, v, k, places.data_ptr(), values.data_ptr())
    return Largest(places.numpy(), values.numpy())
