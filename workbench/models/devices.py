"""The devices of this machine, by the names that models are placed with."""

from __future__ import annotations

import torch

from workbench.core.errors import BadInput


def device_names() -> tuple[str, ...]:
    """``cpu`` and every CUDA device: where a model can stand here."""
    return ("cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count())))


def device_of(name: str | None, parameter: str = "device") -> torch.device:
    """The device of a name, with its number; CUDA where there is one, where no name is given.

    Args:
        parameter: what the name was given as.

    Raises:
        BadInput: no device, or none of this machine.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        place = torch.device(name)
    except RuntimeError:
        place = None
    if place is None or place.type not in ("cpu", "cuda"):
        raise BadInput(f"{parameter}={name!r}: use 'cpu', 'cuda' or 'cuda:0'")
    here = device_names()
    if place.type == "cuda" and (place.index or 0) >= len(here) - 1:
        names = " or ".join(map(repr, here))
        raise BadInput(
            f"{parameter}={name!r}: this machine has {len(here) - 1} CUDA devices; use {names}"
        )
    if place.type == "cuda" and place.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return place
