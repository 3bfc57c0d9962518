"""A mixture of LoRA experts beside each linear map, more of them in some layers than in others.

*Paper*: Higher Layers Need More LoRA Experts, 2024, arXiv 2402.08562, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from peft.utils import PeftType
from torch import nn

from workbench.core.errors import Mismatch
from workbench.core.losses import balance_loss
from workbench.models.targets import layer_of
from workbench.models.tuners.registering import (
    LinearConfig,
    LinearLayer,
    LinearTuner,
    register,
    uniform_,
)


@dataclass
class MolaConfig(LinearConfig):
    """Configuration of a mixture of LoRA experts."""

    r: int = field(default=8, metadata={"help": "Rank of each expert."})
    experts: list[int] = field(
        default_factory=lambda: [2], metadata={"help": "Experts of each layer, first layer first."}
    )
    top_k: int = field(default=2, metadata={"help": "Experts that a token uses."})
    dropout: float = field(default=0.0, metadata={"help": "Of the experts' input."})
    balance: float = field(default=0.01, metadata={"help": "Weight of the balance loss."})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType["MOLA"]


class MolaLayer(LinearLayer):
    """y = W x + alpha / r * sum over the chosen experts of g_i B_i A_i x.

    The gates g are the router's top-k probabilities, divided by their sum.
    """

    adapter_layer_names = ("mola_A", "mola_B", "mola_router")
    other_param_names = ("scaling", "top_k", "drop", "logits")

    def __init__(self, base_layer: nn.Module):
        super().__init__(base_layer)
        self.mola_A, self.mola_B = nn.ParameterDict(), nn.ParameterDict()
        self.mola_router = nn.ParameterDict()
        self.top_k: dict[str, int] = {}
        self.drop: dict[str, float] = {}
        self.logits: dict[str, torch.Tensor] = {}  # the router's, of the last pass

    def __getstate__(self) -> dict[str, Any]:
        """A copy has made no pass: logits of one that is trained hang in a graph, uncopyable."""
        return {**vars(self), "logits": {}}

    def update_layer(self, adapter_name: str, config: Any, path: str) -> None:
        # outside the layers (-1) is the output head, which counts as the last layer
        count = config.experts[min(layer_of(path), len(config.experts) - 1)]
        kind = {"dtype": self.get_base_layer().weight.dtype}
        first = uniform_(torch.empty(count, config.r, self.in_features, **kind))
        second = torch.zeros(count, self.out_features, config.r, **kind)
        self.mola_A[adapter_name] = nn.Parameter(first)
        self.mola_B[adapter_name] = nn.Parameter(second)
        self.mola_router[adapter_name] = nn.Parameter(
            uniform_(torch.empty(count, self.in_features, **kind))
        )
        self.scaling[adapter_name] = config.alpha / config.r
        self.top_k[adapter_name] = min(config.top_k, count)
        self.drop[adapter_name] = config.dropout
        self.settle(adapter_name)

    def gates(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """Weight of each expert, ``[... d_in]`` -> ``[... e]``; zero for those not chosen."""
        logits = nn.functional.linear(x, self.mola_router[name]).float()
        self.logits[name] = logits.flatten(0, -2)
        law = logits.softmax(-1)
        kept, where = law.topk(self.top_k[name], -1)
        return torch.zeros_like(law).scatter(-1, where, kept / kept.sum(-1, keepdim=True))

    def update(self, adapter_name: str, x: torch.Tensor) -> torch.Tensor:
        a, b = self.mola_A[adapter_name], self.mola_B[adapter_name]
        x = x.to(a.dtype)
        gates = self.gates(adapter_name, x).to(a.dtype)
        dropped = nn.functional.dropout(x, self.drop[adapter_name], self.training)
        inner = nn.functional.linear(dropped, a.flatten(0, 1)).unflatten(-1, a.shape[:2])
        inner = (inner * gates[..., None]).flatten(-2)
        outer = b.permute(1, 0, 2).flatten(1)
        return nn.functional.linear(inner, outer) * self.scaling[adapter_name]

    def get_delta_weight(self, adapter: str) -> Float[torch.Tensor, "o i"]:
        """The mean of the experts' updates, for pictures; no constant change does what they do."""
        mean = torch.einsum("eor,eri->oi", self.mola_B[adapter], self.mola_A[adapter])
        return mean * self.scaling[adapter] / len(self.mola_A[adapter])

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        raise Mismatch(
            "mola cannot be merged: which experts change a token depends on the token; keep it"
            " attached, or save it as it is"
        )


class MolaModel(LinearTuner):
    """peft's tuner of the mixture."""

    prefix = "mola_"
    tuner_layer_cls = MolaLayer


register("mola", MolaConfig, MolaModel)


def routers(network: nn.Module, name: str) -> dict[int, list[MolaLayer]]:
    """Layer -> its mixtures under this adapter's name."""
    found: dict[int, list[MolaLayer]] = {}
    for path, module in network.named_modules():
        if isinstance(module, MolaLayer) and name in module.mola_router:
            found.setdefault(layer_of(path), []).append(module)
    return found


def balance(network: nn.Module, name: str) -> torch.Tensor | None:
    """Sum over layers of E sum_e f_e P_e, all mixtures of a layer taken together; of the last pass.

    f_e is expert e's share of the assignments (so a perfect balance gives 1 a layer). None where
    no mixture has run.
    """
    terms = []
    for layers in routers(network, name).values():
        logits = [layer.logits[name] for layer in layers if name in layer.logits]
        if logits:
            k = layers[0].top_k[name]
            terms.append(balance_loss(torch.cat(logits), k) / k)
    return torch.stack(terms).sum() if terms else None


def loads(network: nn.Module, name: str) -> dict[int, list[float]]:
    """Layer -> share of the assignments that each expert took in the last pass."""
    found = {}
    for place, layers in routers(network, name).items():
        logits = [layer.logits[name] for layer in layers if name in layer.logits]
        if logits:
            chosen = torch.cat(logits).topk(layers[0].top_k[name], -1).indices
            counts = torch.bincount(chosen.flatten(), minlength=logits[0].shape[-1]).double()
            found[place] = (counts / counts.sum()).tolist()
    return found
