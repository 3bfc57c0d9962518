"""Steer the routers of a loaded mixture: another rule, and interventions, until it is let go.

One forward hook on every gate, in front of all others, so that recorders hear what is really done.
Weights are never touched: letting go restores the model to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from workbench.core.errors import ModelError
from workbench.core.routing import Own, Routed, Router, heaviest, law
from workbench.core.steering import Intervention, check_interventions, steered
from workbench.models.places import positions_now
from workbench.models.routers import mixture_routers, own_of


class AsTrained:
    """The gate's own rule: its k likeliest experts, normalised or not."""

    def route(self, logits: torch.Tensor, own: Own) -> Routed:
        return heaviest(law(logits), own.k, own.normalised)

    def sums_to_one(self, own: Own) -> bool:
        return own.normalised

    def bounds(self, experts: int, own: Own) -> tuple[int, int]:
        return min(own.k, experts), min(own.k, experts)


def check_steering(
    network: nn.Module, router: Router | None, interventions: Sequence[Intervention]
) -> None:
    """Refuse interventions that cannot be done on this network under this rule.

    Raises:
        ModelError: no mixture.
        BadInput: see :func:`workbench.core.steering.check_interventions`.
    """
    gates, rule = mixture_routers(network), router or AsTrained()
    experts = {layer: gate.num_experts for layer, gate in gates.items()}
    slots = min(rule.bounds(gate.num_experts, own_of(gate))[0] for gate in gates.values())
    check_interventions(interventions, experts, slots)


class Steering:
    """A rule and interventions in force on a network; use it as a context, or call :meth:`remove`.

    Args:
        network: a mixture of transformers.
        router: the rule; None = the gates' own. With neither rule nor interventions in a layer its
            gate's answer passes unchanged.
        interventions: see :class:`workbench.core.steering.Intervention`.

    Raises:
        ModelError: no mixture.
        BadInput: interventions that cannot be done.
    """

    def __init__(
        self,
        network: nn.Module,
        router: Router | None = None,
        interventions: Iterable[Intervention] = (),
    ):
        self.router, self.interventions = router, tuple(interventions)
        check_steering(network, router, self.interventions)
        gates = mixture_routers(network)
        self._rows: torch.Tensor | None = None
        self._handles = [
            gate.register_forward_hook(self._hook(layer), prepend=True)
            for layer, gate in gates.items()
        ]
        if any(one.position is not None for one in self.interventions):
            self._handles += [
                network.register_forward_pre_hook(self._enter, with_kwargs=True),
                network.register_forward_hook(self._leave, always_call=True),
            ]

    def remove(self) -> None:
        """Let go; harmless when done twice."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def __enter__(self) -> Steering:
        return self

    def __exit__(self, *error) -> None:
        self.remove()

    # ---- hooks -----------------------------------------------------------------------------------

    def _enter(self, module, args, kwargs) -> None:
        ids = kwargs.get("input_ids", args[0] if args else kwargs.get("inputs_embeds"))
        batch, count = ids.shape[:2]
        places = kwargs.get("position_ids")
        if places is None:
            cache = kwargs.get("past_key_values")
            first = 0 if cache is None else cache.get_seq_length()
            places = torch.arange(first, first + count, device=ids.device)[None]
        self._rows = places.expand(batch, count).reshape(-1)

    def _leave(self, module, args, output) -> None:
        self._rows = None

    def _hook(self, layer: int):
        here = [one for one in self.interventions if one.at(layer)]
        if not here and self.router is None:
            return lambda module, args, output: None
        places = any(one.position is not None for one in here)
        rule = self.router or AsTrained()

        def hook(module, args, output):
            logits, weights, _ = output
            rows = self._positions(len(logits)) if places else None
            routed = steered(logits, rule, own_of(module), here, rows)
            return logits, routed.weights.to(weights.dtype), routed.indices

        return hook

    def _positions(self, count: int) -> torch.Tensor:
        rows = positions_now()
        rows = self._rows if rows is None else rows
        if rows is None or len(rows) != count:
            raise ModelError(
                "interventions: a token's position is known in sessions and in calls of the whole"
                " model only; for a call of single layers choose all tokens"
            )
        return rows
