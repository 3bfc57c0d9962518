"""Gates that remember, from layer to layer, how the same token was routed below."""

from __future__ import annotations

from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.nn import functional as F

from workbench.core.errors import BadInput, ModelError
from workbench.core.inference import inference_mode
from workbench.core.routing import heaviest, law
from workbench.models.places import pass_now
from workbench.models.routers import mixture_routers, own_of
from workbench.models.rows import Rows


class _Call:
    """One call of the network itself; states of its rows are kept under it."""


class RoutingPath(nn.Module):
    """The recurrent cell that all layers share, and the newest state of each pass under way.

    A pass is known by what nobody else has: its rows in a session, else the network's own call.
    States are held no longer than that, so rows that were rolled back leave nothing to be read,
    and those that wait half-way up the layers find theirs again, whatever ran in between.

    Args:
        width: of the state.
        strength: factor on the state that comes from below; 0 = no recurrence.
        cut: layer at which the state starts anew, -1 = none.
    """

    def __init__(self, width: int, strength: float = 1.0, cut: int = -1):
        super().__init__()
        self.cell = nn.GRUCell(width, width)
        self.strength, self.cut = strength, cut
        self.states: WeakKeyDictionary[Rows | _Call, torch.Tensor] = WeakKeyDictionary()
        self._call: _Call | None = None

    def begin(self, *call: object) -> None:
        """A call of the network begins."""
        self._call = _Call()

    def end(self, *call: object) -> None:
        """It has ended, also where it failed."""
        self._call = None

    def step(self, layer: int, ends: tuple[int, int], u: torch.Tensor) -> torch.Tensor:
        """The state ``[t width]`` of this layer.

        Args:
            ends: the first and the last layer that have experts.

        Raises:
            ModelError: a layer that is run on its own, without the ones below it.
        """
        first, last = ends
        before = torch.zeros_like(u) if layer == first else self._from_below(layer, u)
        strength = 0.0 if layer == self.cut else self.strength
        state = self.cell(u, strength * before)
        key = self._key()
        if key is not None and layer != last:
            self.states[key] = state
        elif key is not None:  # in training it would hold the whole graph
            self.states.pop(key, None)
        return state

    def _key(self) -> Rows | _Call | None:
        now = pass_now()
        return now.rows if now else self._call

    def _from_below(self, layer: int, u: torch.Tensor) -> torch.Tensor:
        """The state of the same rows below; zero where this pass leaves all layers below out."""
        key, now = self._key(), pass_now()
        if key is None:
            raise ModelError(
                f"recurrent routing: layer {layer} is run outside a pass of the whole model, so"
                " nobody knows the state of its rows; call the model or a session, and turn"
                " gradient checkpointing off, which runs layers again on their own"
            )
        if key in self.states:
            return self.states[key]
        climbed = now.climbed if now else ()
        known = [self.states[rows] for rows in climbed if rows in self.states]
        if len(known) < len(climbed):
            raise ModelError(
                f"recurrent routing: the rows of this pass ran through the layers below {layer}"
                " before these gates were put in; crop the session first"
            )
        return torch.cat(known) if known else torch.zeros_like(u)


class _RecurrentGate(nn.Module):
    """A family's router whose logits also read the path; mixed into the family's own class."""

    weight: torch.Tensor
    path: RoutingPath
    down: nn.Linear
    up: nn.Linear
    layer: int
    ends: tuple[int, int]
    linear: bool

    def forward(self, hidden_states: torch.Tensor):
        """(logits ``[t e]``, weights ``[t k]``, indices ``[t k]``), as the family's gate gives."""
        x = hidden_states.reshape(-1, self.weight.shape[1])
        state = self.path.step(self.layer, self.ends, self.down(x))
        logits = self.up(state)
        if self.linear:
            logits = F.linear(x, self.weight) + logits
        own = own_of(self)
        weights, indices = heaviest(law(logits), own.k, own.normalised)
        return logits, weights.to(logits.dtype), indices


@cache
def _recurrent(family: type) -> type:
    """A subclass, since the library's recorders look for the family's class."""
    return type(f"Recurrent{family.__name__}", (_RecurrentGate, family), {})


class RecurrentGates:
    """Recurrent gates in place of a network's own, until removed; the old weights are kept.

    Args:
        network: a mixture whose layers have equally many experts.
        width: of the state.
        linear: keep the old linear router and add to it, starting from zero: the network begins
            exactly as it was. Else the path alone decides, from random weights.
        strength, cut: see :class:`RoutingPath`; both can be changed live on ``path``.

    Raises:
        ModelError: no mixture.
        BadInput: a width of less than one.
    """

    def __init__(
        self,
        network: nn.Module,
        width: int = 32,
        *,
        linear: bool = True,
        strength: float = 1.0,
        cut: int = -1,
        seed: int = 0,
    ):
        if width < 1:
            raise BadInput(f"width={width}: must be 1 or more")
        gates = mixture_routers(network)
        with torch.random.fork_rng(devices=[]), inference_mode(False):
            torch.manual_seed(seed)
            like = next(iter(gates.values())).weight
            self.path = RoutingPath(width, strength, cut).to(like.device, like.dtype)
            self._old = gates
            self.gates = {
                number: self._made(number, gate, linear) for number, gate in gates.items()
            }
        self._blocks: dict[int, Any] = {
            number: next(m for m in network.modules() if gate in m.children())
            for number, gate in gates.items()
        }
        for number, block in self._blocks.items():
            block.gate = self.gates[number]
        # methods of the path, so that a copy of the network tells its own; on the inner model,
        # which peft calls, too
        inner: Any = network.base_model
        self._handles = [
            inner.register_forward_pre_hook(self.path.begin),
            inner.register_forward_hook(self.path.end, always_call=True),
        ]

    def _made(self, number: int, gate: Any, linear: bool) -> Any:
        family: Any = type(gate)
        made: Any = _recurrent(family).__new__(_recurrent(family))
        nn.Module.__init__(made)
        plain = {k: v for k, v in vars(gate).items() if not k.startswith("_")}
        ends = min(self._old), max(self._old)
        made.__dict__.update(plain, layer=number, ends=ends, linear=linear)
        experts, width = gate.weight.shape
        inner = self.path.cell.input_size
        made.weight, made.path = gate.weight, self.path
        made.down, made.up = nn.Linear(width, inner, False), nn.Linear(inner, experts, False)
        nn.init.normal_(made.down.weight, std=0.02 if not linear else width**-0.5)
        nn.init.normal_(made.up.weight, std=0.02) if not linear else nn.init.zeros_(made.up.weight)
        return made.to(gate.weight.device, gate.weight.dtype).train(gate.training)

    def added(self) -> dict[str, nn.Parameter]:
        """The parameters that a plain router does not have, by name; the cell's once."""
        found = {f"cell.{name}": weight for name, weight in self.path.cell.named_parameters()}
        for number, gate in self.gates.items():
            found |= {f"{number}.down": gate.down.weight, f"{number}.up": gate.up.weight}
        return found

    def fill(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take weights that :meth:`added` gave.

        Raises:
            ModelError: weights of another network or width.
        """
        own = self.added()
        if {n: w.shape for n, w in own.items()} != {n: w.shape for n, w in tensors.items()}:
            raise ModelError("recurrent gates: these weights were made for other layers or widths")
        with torch.no_grad():
            for name, weight in own.items():
                weight.copy_(tensors[name])

    def remove(self) -> None:
        """Give every layer its own gate back; harmless when done twice."""
        for number, block in self._blocks.items():
            block.gate = self._old[number]
        for handle in self._handles:
            handle.remove()
        self._blocks, self._handles = {}, []

    def __enter__(self) -> RecurrentGates:
        return self

    def __exit__(self, *error) -> None:
        self.remove()
