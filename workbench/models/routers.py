"""Where a mixture's routers are, and what they say during a pass."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from workbench.core.errors import ModelError
from workbench.core.inference import inference_mode
from workbench.core.routing import LayerRouting, Own, Routed, RoutingRecord
from workbench.models.places import pass_now
from workbench.models.rows import Rows


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


def _joined(parts: Sequence[LayerRouting]) -> LayerRouting:
    """One layer's routing of the rows of several passes, one after the other."""
    first = [0, *itertools.accumulate(len(part.logits) for part in parts)]
    return LayerRouting(
        torch.cat([part.logits for part in parts]),
        torch.cat([part.token + at for part, at in zip(parts, first, strict=False)]),
        torch.cat([part.expert for part in parts]),
        torch.cat([part.weight for part in parts]),
    )


class RoutingTape:
    """What the routers said, pass by pass.

    A session says which pass is under way; outside of one a pass ends where a lower layer is heard
    again. A pass that goes on half-way up the layers is recorded whole: what the lower layers said
    of its rows was heard when they climbed there. Where that was before the tape began, it has the
    upper layers only; where no gate is above, nothing is heard of it.
    """

    def __init__(self) -> None:
        self._passes: list[dict[int, LayerRouting]] = []
        self._of: WeakKeyDictionary[Rows, dict[int, LayerRouting]] = WeakKeyDictionary()
        self._outside = False  # whether the newest pass is one outside a session

    def hear(self, layer: int, output: tuple) -> None:
        """Take down one gate's (logits, weights, indices)."""
        logits, weights, indices = output
        heard = LayerRouting.of(logits.detach(), Routed(weights, indices))
        self._under_way(layer)[layer] = heard

    def _under_way(self, layer: int) -> dict[int, LayerRouting]:
        """The record that this layer belongs to, which may begin with it."""
        now = pass_now()
        if now is None:
            if not self._outside or layer <= max(self._passes[-1]):
                self._passes.append({})
        elif now.rows not in self._of:
            self._of[now.rows] = self._below(now.climbed)
            self._passes.append(self._of[now.rows])
        self._outside = now is None
        return self._passes[-1] if now is None else self._of[now.rows]

    def _below(self, climbed: Sequence[Rows]) -> dict[int, LayerRouting]:
        """What the lower layers said of the rows of a pass that begins above them."""
        known = [self._of[rows] for rows in climbed if rows in self._of]
        if not known or len(known) < len(climbed):
            return {}
        return {layer: _joined([part[layer] for part in known]) for layer in known[0]}

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
