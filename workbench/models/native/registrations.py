"""How often a module, a parameter or a hook was registered anywhere in this process.

Looking at every module of a model takes longer than a small model's pass takes to overlook; what
has not been registered cannot have changed there by torch's own interfaces.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.modules import module as registry
from torch.utils.hooks import RemovableHandle


class _Count:
    """Counts calls; torch calls it with every module and parameter that is put into a module."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, parent: torch.nn.Module, name: str, value: Any) -> None:
        self.calls += 1


_COUNT = _Count()
registry.register_module_module_registration_hook(_COUNT)
registry.register_module_parameter_registration_hook(_COUNT)


def registered() -> tuple[int, int]:
    """Two numbers that are the same as before only if nothing was registered since."""
    return _COUNT.calls, RemovableHandle.next_id
