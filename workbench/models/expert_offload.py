"""Keep the experts in slow memory and only a few of each layer in fast memory, for real.

On a GPU the weights wait in page-locked host memory and are copied into slots when a token needs
them; where there is no GPU the same code moves them between two places in host memory, which is
slower than doing nothing and good for checking only.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from workbench.core.errors import BadInput
from workbench.models.routers import mixture_routers

_WEIGHTS = ("gate_up_proj", "down_proj")


class _Slots:
    """The fast memory of one layer."""

    def __init__(self, experts: Any, capacity: int, device: torch.device):
        self.experts, self.capacity = experts, capacity
        self.home = {name: getattr(experts, name) for name in _WEIGHTS}
        self.slow, self.fast = {}, {}
        for name, weight in self.home.items():
            slow = weight.detach().to("cpu")
            self.slow[name] = slow.pin_memory() if device.type == "cuda" else slow
            self.fast[name] = torch.empty(
                capacity, *weight.shape[1:], dtype=weight.dtype, device=device
            )
        self.place: OrderedDict[int, int] = OrderedDict()
        self.hits = self.loads = 0

    def bring(self, expert: int, keep: set[int]) -> int:
        """The slot of an expert, loaded if need be in place of one that is not kept."""
        if expert in self.place:
            self.hits += 1
            self.place.move_to_end(expert)
            return self.place[expert]
        if len(self.place) < self.capacity:
            slot = len(self.place)
        else:
            gone = next(one for one in self.place if one not in keep)
            slot = self.place.pop(gone)
        for name in _WEIGHTS:
            self.fast[name][slot].copy_(self.slow[name][expert], non_blocking=True)
        self.place[expert] = slot
        self.loads += 1
        return slot

    def forward(self, x: torch.Tensor, indices: torch.Tensor, weights: torch.Tensor):
        """The layer's experts, as many at a time as fit, in the order of their numbers."""
        total = torch.zeros_like(x)
        used = torch.unique(indices[weights != 0]).tolist()
        for at in range(0, len(used), self.capacity):
            wave = used[at : at + self.capacity]
            slots = [self.bring(expert, set(wave)) for expert in wave]
            for expert, slot in zip(wave, slots, strict=True):
                token, column = torch.where((indices == expert) & (weights != 0))
                gate, up = F.linear(x[token], self.fast["gate_up_proj"][slot]).chunk(2, -1)
                inner = self.experts.act_fn(gate) * up
                y = F.linear(inner, self.fast["down_proj"][slot])
                total.index_add_(0, token, (y * weights[token, column, None]).to(total.dtype))
        return total


class ExpertOffload:
    """Experts live in slow memory until this is removed; the outputs are the eager kernel's.

    Args:
        network: a mixture, for inference; its experts' weights leave the device.
        capacity: experts per layer that fit in fast memory, 1 or more.

    Raises:
        BadInput: no room for an expert.
        ModelError: no mixture.
    """

    def __init__(self, network: nn.Module, capacity: int):
        if capacity < 1:
            raise BadInput(f"capacity={capacity}: a layer needs room for one expert or more")
        gates = mixture_routers(network)
        blocks = [m for m in network.modules() if any(g in m.children() for g in gates.values())]
        self.device = next(iter(gates.values())).weight.device
        self._slots: list[_Slots] = []
        for block in blocks:
            slots = _Slots(block.experts, capacity, self.device)
            for name in _WEIGHTS:  # the device's copy goes; the parameter stays, in slow memory
                setattr(block.experts, name, nn.Parameter(slots.slow[name], requires_grad=False))
            block.experts.forward = slots.forward
            self._slots.append(slots)

    @property
    def expert_bytes(self) -> int:
        return sum(weight[0].nbytes for weight in self._slots[0].slow.values())

    @property
    def hits(self) -> int:
        return sum(slots.hits for slots in self._slots)

    @property
    def bytes_moved(self) -> int:
        return sum(slots.loads for slots in self._slots) * self.expert_bytes

    def remove(self) -> None:
        """Give every layer its own weights and its own way of computing back."""
        for slots in self._slots:
            for name, weight in slots.home.items():
                setattr(slots.experts, name, weight)
            slots.experts.__dict__.pop("forward", None)
        self._slots = []

    def __enter__(self) -> ExpertOffload:
        return self

    def __exit__(self, *error) -> None:
        self.remove()
