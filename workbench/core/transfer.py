"""Numbers on their way to a device, and what crosses between the devices of two models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from workbench.core.clock import elapsed_ms, now


def sent(numbers: Sequence[int], device: torch.device) -> torch.Tensor:
    """Whole numbers as a tensor ``[n]`` there.

    ``torch.tensor(..., device=...)`` waits until a GPU has done all its work so far. So few numbers
    are taken over by the driver at once, so that nothing has to stay where it is meanwhile.
    """
    here = torch.tensor(numbers, dtype=torch.long)
    return here if device.type == "cpu" else here.to(device, non_blocking=True)


def brought(*tensors: torch.Tensor) -> list[np.ndarray]:
    """The numbers of tensors of one device, each in its shape, in a single read.

    Every read waits for all work so far. They come as float64, which holds float32 and whole
    numbers below 2^53 exactly.
    """
    flat = torch.cat([tensor.reshape(-1).double() for tensor in tensors]).cpu().numpy()
    ends = np.cumsum([tensor.numel() for tensor in tensors])[:-1]
    parts = np.split(flat, ends)
    return [part.reshape(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


class Crossings:
    """Carries tensors between the devices of draft and target, and counts what that took.

    *What is measured*: bytes, as the shapes and dtypes say, and the milliseconds of each copy. On a
    GPU (the one that is left, else the one that is reached) they lie between two marks of its own
    timeline, so passes that were queued before are not in them, but the host's part of a copy from
    or to pageable memory is. Without a GPU they are the wall's. A copy to a CPU waits for the
    numbers, as whoever needs them there has to; one to a GPU waits for nothing, and its marks are
    read when the round is recorded, after its outcome was. Token ids that a session is given as
    plain numbers are no crossing: they are sent the same way where there is only one device.
    """

    def __init__(self) -> None:
        self._bytes = 0
        self._marks: list[tuple] = []

    def carried(self, tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
        """The tensor on that device: itself, uncounted, where it is there already."""
        source = tensor.device
        if source == device:
            return tensor
        timeline = source if source.type == "cuda" else device
        began = now(timeline)
        there = tensor.to(device, non_blocking=source.type == "cpu")
        self._marks.append((began, now(timeline)))
        self._bytes += tensor.numel() * tensor.element_size()
        return there

    def take(self) -> dict[str, float]:
        """``transfer_ms`` and ``transfer_bytes`` since the last call; empty if nothing crossed."""
        if not self._marks:
            return {}
        spent_ms = sum(elapsed_ms(*marks) for marks in self._marks)
        told = {"transfer_ms": spent_ms, "transfer_bytes": self._bytes}
        self._bytes, self._marks = 0, []
        return told
