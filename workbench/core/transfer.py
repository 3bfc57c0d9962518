"""Numbers on their way to a device, without a wait for what it is doing."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def sent(numbers: Sequence[int], device: torch.device) -> torch.Tensor:
    """Whole numbers as a tensor ``[n]`` there.

    ``torch.tensor(..., device=...)`` waits until a GPU has done all its work so far. So few numbers
    are taken over by the driver at once, so that nothing has to stay where it is meanwhile.
    """
    here = torch.tensor(numbers, dtype=torch.long)
    return here if device.type == "cpu" else here.to(device, non_blocking=True)
