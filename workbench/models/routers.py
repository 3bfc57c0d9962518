"""Where a mixture's routers are, and what they say during a pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from workbench.core.errors import ModelError
from workbench.core.inference import inference_mode
from workbench.core.routing import LayerRouting, Own, Routed, RoutingRecord


def routers_of(network: nn.Module) -> dict[int, Any]:
    """Layer number -> its router: the gate that returns (logits, weights, indices).

    Dense layers have none; a model without experts gives an empty dict. Recognised by what a gate
    has (``top_k``, ``num_experts`` and a ``weight``), so families share one rule.
    """
    found = {}
    for name, module in network.named_modules():
        if all(hasattr(module, part) for part in ("top_k", "num_experts", "weight")):
            numbers = [int(part) for part in name.split(".") if part.isdigit()]
            found[numbers[0] if numbers else len(found)] = module
    return found


def mixture_routers(network: nn.Module) -> dict[int, Any]:
    """The routers of a model that must have some.

    Raises:
        ModelError: it has none.
    """
    found = routers_of(network)
    if not found:
        kind = getattr(network.config, "model_type", type(network).__name__)
        raise ModelError(
            f"model: {kind} has no experts to route to; load a mixture (Qwen-MoE, Mixtral, OLMoE),"
            " for instance zoo:moe"
        )
    return found


def own_of(gate: Any) -> Own:
    """How a gate routes by itself; a family without the switch always normalises."""
    return Own(gate.top_k, bool(getattr(gate, "norm_topk_prob", True)))


def expert_bytes(network: nn.Module) -> int:
    """Bytes of one expert of one layer, as stored."""
    gate = next(iter(mixture_routers(network).values()))
    block: Any = next(m for m in network.modules() if gate in m.children())
    weights = [p for p in block.experts.parameters() if p.shape[0] == gate.num_experts]
    return sum(p.nbytes for p in weights) // gate.num_experts


@contextmanager
def router_outputs(network: nn.Module) -> Iterator[dict[int, tuple]]:
    """Collect what every router says inside: layer -> (logits, weights, indices) of its last call.

    The tensors carry their gradients, for losses on them.
    """
    heard: dict[int, tuple] = {}

    def listen(layer: int):
        def hook(module, args, output):
            heard[layer] = output

        return hook

    with _hooked({layer: (gate, listen(layer)) for layer, gate in routers_of(network).items()}):
        yield heard


@contextmanager
def router_logits(network: nn.Module) -> Iterator[Mapping[int, torch.Tensor]]:
    """Collect what every router computes inside: layer -> logits ``[t e]`` of its latest call."""
    with router_outputs(network) as heard:
        yield _First(heard)


class _First(Mapping[int, torch.Tensor]):
    """The first of each output, as it comes in."""

    def __init__(self, heard: dict[int, tuple]):
        self._heard = heard

    def __getitem__(self, layer: int) -> torch.Tensor:
        return self._heard[layer][0]

    def __iter__(self) -> Iterator[int]:
        return iter(self._heard)

    def __len__(self) -> int:
        return len(self._heard)


class RoutingTape:
    """What the routers said, pass by pass; a pass ends where a lower layer is heard again."""

    def __init__(self) -> None:
        self._passes: list[dict[int, LayerRouting]] = []

    def hear(self, layer: int, output: tuple) -> None:
        """Take down one gate's (logits, weights, indices)."""
        if not self._passes or layer <= max(self._passes[-1]):
            self._passes.append({})
        logits, weights, indices = output
        self._passes[-1][layer] = LayerRouting.of(logits.detach(), Routed(weights, indices))

    def __len__(self) -> int:
        return len(self._passes)

    def records(self) -> list[RoutingRecord]:
        """One record a pass."""
        return [RoutingRecord(layers) for layers in self._passes]


@contextmanager
def routing_tape(network: nn.Module) -> Iterator[RoutingTape]:
    """Record every pass inside, as the routers (and what steers them) decided.

    Raises:
        ModelError: a model without experts.
    """
    tape = RoutingTape()

    def listen(layer: int):
        return lambda module, args, output: tape.hear(layer, output)

    gates = mixture_routers(network)
    with _hooked({layer: (gate, listen(layer)) for layer, gate in gates.items()}):
        yield tape


@contextmanager
def _hooked(hooks: dict[int, tuple]) -> Iterator[None]:
    handles = [gate.register_forward_hook(hook) for gate, hook in hooks.values()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@inference_mode()
def record_routing(model, tokens: Sequence[int]) -> RoutingRecord:
    """The routing of one plain pass of a loaded model over ``tokens``."""
    ids = torch.tensor([list(tokens)], device=model.torch_device)
    with routing_tape(model.network) as tape:
        model.network(input_ids=ids, use_cache=False)
    return RoutingRecord(tape.records()[0].layers, tuple(tokens))
