"""Time marks that do not stall a GPU: events there, a monotonic clock on a CPU."""

from __future__ import annotations

import time

import torch


def now(device: torch.device):
    """A mark on the device's own timeline."""
    if device.type == "cuda":
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(device))  # not of the device that is current
        return event
    return time.perf_counter()


def elapsed_ms(began, ended) -> float:
    """Milliseconds between two marks of one device (waits for the later one)."""
    if isinstance(began, float):
        return (ended - began) * 1e3
    ended.synchronize()
    return began.elapsed_time(ended)
