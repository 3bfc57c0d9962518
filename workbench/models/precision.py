"""Half precision on a processor: measured at load, and widened where that is sooner done.

A number in 16 bits is the same number in 32, so widening changes no weight; only the rounding in
between goes away. Few processors multiply 16-bit numbers faster than they widen them, and the
compiled pass keeps such weights in 16 bits anyway.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch.nn import functional as F

from workbench.core.inference import inference_mode
from workbench.models.native.build import Unavailable, kernel
from workbench.models.native.packed import address, free_bytes
from workbench.models.native.panels import packed_matrix

HALVES = (torch.bfloat16, torch.float16)
# Half precision has to be this much faster to stay: it also gives up the compiled pass.
_WORTH = 1.1
_REPEATS = 7
# Of a weight only so many rows are tried, which is enough to leave the caches of one core.
_MOST_NUMBERS = 1 << 22
# Free bytes for each number: what widening adds, and what the compiled pass wants to see free.
_ROOM_BYTES = 10


def widened(network: torch.nn.Module) -> str:
    """Widen a network in half precision to float32 where that is faster here.

    Returns:
        A sentence with the measured ratio; empty where nothing was changed.
    """
    dtype, weights = network.dtype, list(network.parameters())
    if dtype not in HALVES or not all(weight.is_floating_point() for weight in weights):
        return ""  # quantised weights are no numbers to widen
    if sum(map(torch.numel, weights)) * _ROOM_BYTES > free_bytes():
        return ""
    half_ms, wide_ms = product_times_ms(network)
    if half_ms * _WORTH < wide_ms:
        return ""
    network.float()
    name = str(dtype).removeprefix("torch.")
    return (
        f"stored in {name}, run in float32: the same weights, and a product of one row took"
        f" {wide_ms:.3g} ms against {half_ms:.3g} ms here; dtype={name!r} keeps it as stored"
    )


def product_times_ms(network: torch.nn.Module) -> tuple[float, float]:
    """Milliseconds of one row times the largest weight, in half precision and widened."""
    largest = max((p for p in network.parameters() if p.dim() == 2), key=torch.numel)
    some = largest.detach()[: max(1, _MOST_NUMBERS // largest.shape[1])].contiguous()
    row = torch.randn(1, some.shape[1])
    half_row, wide = row.to(some.dtype), some.float()
    calls: list[Callable[[], object]] = [lambda: F.linear(half_row, some), _wide_product(row, wide)]
    times: list[list[float]] = [[], []]
    with inference_mode():
        for _ in range(_REPEATS):
            for call, taken in zip(calls, times, strict=True):
                began = time.perf_counter()
                call()
                taken.append((time.perf_counter() - began) * 1e3)
    half, wide_times = (sorted(taken)[len(taken) // 2] for taken in times)
    return half, wide_times


def _wide_product(row: torch.Tensor, weight: torch.Tensor) -> Callable[[], object]:
    """The product as the compiled pass would do it, or as torch does."""
    try:
        library = kernel()
    except Unavailable:
        return lambda: F.linear(row, weight)
    matrix, held = packed_matrix(weight)
    found = torch.empty(1, len(weight))
    threads = torch.get_num_threads()
    keep = (row, held, found)
    return lambda: (
        library.wb_multiply(address(matrix), row.data_ptr(), 1, threads, found.data_ptr()),
        keep,
    )
