"""How many threads a pass should use here: measured, because more of them can be much slower.

On a machine that others use too, a pass that waits for its second thread can take many times as
long as with one; on a free one, a second thread shortens it.
"""

from __future__ import annotations

import os
import statistics
import time

import torch

from workbench.core.errors import BadInput
from workbench.models.model import Model

_PREFIX_TOKENS = 64


def usable_cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not told on this system
        return os.cpu_count() or 1


def candidates(cores: int) -> list[int]:
    """1, 2, 4, ... up to ``cores``, which is always among them."""
    counts = [1 << k for k in range(cores.bit_length()) if 1 << k <= cores]
    return sorted({*counts, cores})


def pass_ms(
    model: Model, counts: list[int], rows: tuple[int, ...] = (1, 16), repeats: int = 7
) -> dict[int, float]:
    """Median milliseconds of one pass of each size together, by number of threads.

    The counts take turns, so that whatever else the machine does hits all alike. The number of
    threads is the same afterwards as before.
    """
    session = model.session()
    top = model.known_tokens
    session.sync([k % top for k in range(min(_PREFIX_TOKENS, model.context_tokens // 4))])
    before = torch.get_num_threads()
    spent: dict[int, list[float]] = {count: [] for count in counts}
    try:
        for repeat in range(repeats + 1):
            for count in counts:
                torch.set_num_threads(count)
                began = time.perf_counter()
                for n in rows:
                    session.forward([1 % top] * n)
                if repeat:  # the first round wakes the threads
                    spent[count].append((time.perf_counter() - began) * 1e3)
    finally:
        torch.set_num_threads(before)
    return {count: statistics.median(values) for count, values in spent.items()}


def set_threads(wanted: str | int, model: Model | None = None) -> int:
    """Set torch's threads to a number, or with ``"auto"`` to what is fastest for ``model`` here.

    Returns:
        The number of threads now in use.

    Raises:
        BadInput: neither "auto" nor a whole number from 1 to the usable cores.
    """
    cores = usable_cores()
    if wanted == "auto":
        if model is None or model.torch_device.type != "cpu":
            return torch.get_num_threads()
        spent = pass_ms(model, candidates(cores))
        count = min(spent, key=lambda c: spent[c])
    else:
        try:
            count = int(wanted)
        except (TypeError, ValueError):
            count = 0
        if not 1 <= count <= cores:
            raise BadInput(f"threads={wanted!r}: auto, or a whole number from 1 to {cores}")
    torch.set_num_threads(count)
    return count
