"""An SVD-form LoRA whose rank grows in place: gains E between A and B, and a reserve ahead.

*Paper*: IncreLoRA, 2023, arXiv 2308.12043, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from peft.utils import PeftType
from torch import nn

from workbench.models.tuners.registering import LinearConfig, LinearLayer, LinearTuner, register

RESERVE_GAIN = 1e-5
_START_STD = 0.02


@dataclass
class GrowingConfig(LinearConfig):
    """Configuration of a LoRA that grows."""

    r: int = field(default=1, metadata={"help": "Rank at the start."})
    most: int = field(default=16, metadata={"help": "Rank that room is made for."})
    reserve: int = field(default=1, metadata={"help": "Ranks that are trained ahead; 0 = none."})
    rescale: bool = field(
        default=False, metadata={"help": "Scale by alpha / live rank, so that growing shrinks."}
    )
    rank_pattern: dict[str, int] = field(
        default_factory=dict, metadata={"help": "Final rank by module name."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType["GROWING"]


class GrowingLayer(LinearLayer):
    """dW = scale * B diag(g) A: g is E for live ranks, 0 beyond; in training 1e-5 for the reserve.

    All ranks that may ever live have their tensors from the start. What does not live has gain 0
    and so no gradient: growing is moving a number, and no optimiser has to be told. ``scaling`` is
    that of the start and never moves, since whoever sets a strength multiplies it.
    """

    adapter_layer_names = ("growing_A", "growing_B", "growing_E")
    other_param_names = ("scaling", "live", "reserve", "start")

    def __init__(self, base_layer: nn.Module):
        super().__init__(base_layer)
        self.growing_A, self.growing_B = nn.ParameterDict(), nn.ParameterDict()
        self.growing_E = nn.ParameterDict()
        self.live: dict[str, int] = {}
        self.reserve: dict[str, int] = {}
        self.start: dict[str, int | None] = {}  # rank of ``scaling``; None = it holds for any rank
        self.path = ""

    def update_layer(self, adapter_name: str, config: Any, path: str) -> None:
        self.path = path
        settled = config.rank_pattern.get(path)
        live = config.r if settled is None else settled
        room = max(live, config.most) if settled is None else live
        kind = {"dtype": self.get_base_layer().weight.dtype}
        first = torch.randn(room, self.in_features, **kind) * _START_STD
        second = torch.randn(self.out_features, room, **kind) * _START_STD
        self.growing_A[adapter_name] = nn.Parameter(first)
        self.growing_B[adapter_name] = nn.Parameter(second)
        self.growing_E[adapter_name] = nn.Parameter(torch.zeros(room, **kind))
        self.live[adapter_name] = live
        self.reserve[adapter_name] = 0 if settled is not None else config.reserve
        self.start[adapter_name] = config.r if config.rescale else None
        self.scaling[adapter_name] = config.alpha / config.r
        self.settle(adapter_name)

    def scale(self, name: str) -> float:
        """alpha / r of the start, or alpha / live rank, as in the published code."""
        start = self.start[name]
        return self.scaling[name] * (1.0 if start is None else start / self.live[name])

    def room(self, name: str) -> int:
        """How many more ranks may live."""
        return len(self.growing_E[name]) - self.live[name]

    def gain(self, name: str) -> Float[torch.Tensor, "r"]:
        """E of the live ranks, in training a constant for the reserve, 0 for what sleeps."""
        e, live = self.growing_E[name], self.live[name]
        ahead = min(self.reserve[name], self.room(name)) if self.training else 0
        rest = e.new_zeros(len(e) - live)
        rest[:ahead] = RESERVE_GAIN
        return torch.cat((e[:live], rest))

    def grow(self, name: str, ranks: int) -> int:
        """Let ``ranks`` more live, starting from the gain that the reserve had; how many did."""
        e, live = self.growing_E[name], self.live[name]
        added = min(ranks, self.room(name))
        with torch.no_grad():
            e[live : live + added] = 0.0
            e[live : live + min(added, self.reserve[name])] = RESERVE_GAIN
        self.live[name] = live + added
        return added

    def cut(self, name: str) -> int:
        """Drop the reserve and what sleeps; the live rank. What was frozen stays frozen."""
        live = self.live[name]
        for part in (self.growing_A, self.growing_B, self.growing_E):
            old = part[name]
            kept = old.data[:, :live] if part is self.growing_B else old.data[:live]
            part[name] = nn.Parameter(kept.clone(), old.requires_grad)
        self.reserve[name] = 0
        return live

    def update(self, adapter_name: str, x: torch.Tensor) -> torch.Tensor:
        a = self.growing_A[adapter_name]
        inner = nn.functional.linear(x.to(a.dtype), a) * self.gain(adapter_name)
        outer = nn.functional.linear(inner, self.growing_B[adapter_name])
        return outer * self.scale(adapter_name)

    def get_delta_weight(self, adapter: str) -> Float[torch.Tensor, "o i"]:
        """The constant update of the weight."""
        left = self.growing_B[adapter] * self.gain(adapter)
        return left @ self.growing_A[adapter] * self.scale(adapter)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        for name in adapter_names or self.active_adapters:
            if name in self.live and name not in self.merged_adapters:
                self.get_base_layer().weight.data += self.get_delta_weight(name)
                self.merged_adapters.append(name)

    def unmerge(self) -> None:
        while self.merged_adapters:
            self.get_base_layer().weight.data -= self.get_delta_weight(self.merged_adapters.pop())

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        return True


class GrowingModel(LinearTuner):
    """peft's tuner of it."""

    prefix = "growing_"
    tuner_layer_cls = GrowingLayer


register("growing", GrowingConfig, GrowingModel)


def growing_layers(network: nn.Module, name: str) -> list[GrowingLayer]:
    """Every layer that holds this adapter, in order."""
    return [m for m in network.modules() if isinstance(m, GrowingLayer) and name in m.live]
