"""How strong each adapter is, at each layer, and which are on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from workbench.core.errors import Mismatch
from workbench.models.targets import layer_of

MOST_STRENGTH = 1.5


@dataclass
class Attached:
    """One adapter: its peft model, how strong it is, and the tensors it began with."""

    config: Any
    holder: Any  # the peft model that keeps it
    strength: float = 1.0
    layers: Mapping[int, float] = field(default_factory=dict)
    active: bool = True
    start: dict[str, torch.Tensor] = field(default_factory=dict)
    scaling: dict[str, float] = field(default_factory=dict)  # path -> at strength 1

    def at(self, path: str) -> float:
        """Its strength at one module."""
        return self.strength * self.layers.get(layer_of(path), 1.0)


class Strengths:
    """Brings a network's tuner layers in line with what is set.

    *Idea*: strength s means base + s (adapted - base). Where an adapter adds a scaled term, its
    scale is multiplied; anywhere else a hook computes the base's output once more and blends.
    """

    def __init__(self) -> None:
        self._blends: list[Any] = []

    def apply(self, network: nn.Module, attached: Mapping[str, Attached]) -> None:
        """Switch and scale every tuner layer; nothing is trainable afterwards.

        Raises:
            Mismatch: two adapters of different strength in one layer that cannot tell them apart.
        """
        self.clear()
        for path, module in network.named_modules():
            if isinstance(module, BaseTunerLayer):
                self._set(path, module, attached)

    def _set(self, path: str, layer: Any, attached: Mapping[str, Attached]) -> None:
        known = {n: a for n, a in attached.items() if n in layer._all_available_adapter_names()}
        here = [name for name, entry in known.items() if entry.active]
        layer.enable_adapters(bool(here))
        layer.set_adapter(here, inference_mode=True)
        for name, entry in known.items():
            if path in entry.scaling:
                layer.scaling[name] = entry.scaling[path] * entry.at(path)
        blended = {known[name].at(path) for name in here if path not in known[name].scaling}
        if blended - {1.0}:
            self._blend(path, layer, here, blended)

    def _blend(self, path: str, layer: nn.Module, here: list[str], strengths: set[float]) -> None:
        if len(strengths) > 1:
            raise Mismatch(
                f"{path}: {', '.join(here)} multiply the same outputs, so they have one strength"
                " together; set the same for all of them"
            )
        (strength,) = strengths

        def between(module: Any, args: tuple, kwargs: dict, output: torch.Tensor) -> torch.Tensor:
            base = module.base_layer(*args, **kwargs)
            return base + strength * (output - base)

        self._blends.append(layer.register_forward_hook(between, with_kwargs=True))

    def clear(self) -> None:
        """Take the hooks off."""
        for handle in self._blends:
            handle.remove()
        self._blends = []
