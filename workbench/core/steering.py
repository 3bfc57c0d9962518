"""Interventions in routing, as values: ban, silence, force or re-weight an expert.

*Idea*: an intervention is a pure change of what a router says about some rows. Rows that it does
not name keep their weights and experts to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float

from workbench.core.errors import BadInput
from workbench.core.routing import Own, Routed, Router, law

Action = Literal["ban", "silence", "force", "weigh"]
ACTIONS: tuple[Action, ...] = ("ban", "silence", "force", "weigh")


@dataclass(frozen=True, order=True)
class Intervention:
    """One change of one expert.

    Args:
        action: ``ban`` = as if it were not there (its logit is minus infinity);
            ``silence`` = the same choice of experts, but with raw weights the others do not grow:
            its probability is taken away after the softmax;
            ``force`` = it takes the place and the weight of the lightest choice where it is not
            chosen already; ``weigh`` = its weight is multiplied where it is chosen, the others'
            stay.
        expert: its number.
        layer: of the network; None = every layer.
        position: of the token in the text, 0 = the first; None = every token. Rows of a draft tree
            count from the stored text on, so siblings share a position.
        factor: of ``weigh``, 0 to 10.

    Raises:
        BadInput: an unknown action, a negative number, a factor out of range.
    """

    action: Action
    expert: int
    layer: int | None = None
    position: int | None = None
    factor: float = 1.0

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise BadInput(f"action={self.action!r}: choose one of {list(ACTIONS)}")
        for name in ("expert", "layer", "position"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise BadInput(f"{name}={value}: must not be negative")
        if not 0 <= self.factor <= 10:
            raise BadInput(f"factor={self.factor}: must lie in [0, 10]")

    def at(self, layer: int) -> bool:
        """Whether it concerns this layer."""
        return self.layer in (None, layer)

    def __str__(self) -> str:
        where = "all layers" if self.layer is None else f"layer {self.layer}"
        when = "all tokens" if self.position is None else f"token {self.position}"
        by = f" by {self.factor:g}" if self.action == "weigh" else ""
        return f"{self.action} expert {self.expert}{by} · {where} · {when}"


def check_interventions(
    interventions: Sequence[Intervention], experts: dict[int, int], slots: int
) -> None:
    """Refuse what cannot be done.

    Args:
        experts: layer -> how many experts it has.
        slots: experts that every token has at least, so many can be forced.

    Raises:
        BadInput: an expert or a layer that is not there, every expert banned for some token, more
            experts forced than a token has places, or one both banned and forced.
    """
    for one in interventions:
        if one.layer is not None and one.layer not in experts:
            raise BadInput(f"layer={one.layer}: has no experts; layers that have: {list(experts)}")
        most = max(experts[number] for number in experts if one.at(number))
        if one.expert >= most:
            raise BadInput(f"expert={one.expert}: there are {most}, numbered from 0")
    positions = {one.position for one in interventions} | {None}
    for number, count in experts.items():
        for position in positions:
            here = [
                one for one in interventions if one.at(number) and one.position in (None, position)
            ]
            _check_place(here, number, position, count, slots)


def _check_place(here, number: int, position: int | None, count: int, slots: int) -> None:
    gone = {one.expert for one in here if one.action in ("ban", "silence")}
    slots = min(slots, count - len(gone))
    forced = {one.expert for one in here if one.action == "force"}
    where = f"layer {number}" + ("" if position is None else f", token {position}")
    if len(gone) >= count:
        raise BadInput(
            f"interventions: all {count} experts of {where} are banned; leave one or more"
        )
    if gone & forced:
        raise BadInput(
            f"interventions: expert {min(gone & forced)} is banned and forced at {where}"
        )
    if len(forced) > slots:
        raise BadInput(
            f"interventions: {len(forced)} experts forced at {where}, but a token has {slots}"
            " places; force fewer or raise k"
        )


def rows_of(one: Intervention, positions: torch.Tensor | None, count: int) -> torch.Tensor:
    """Which of ``count`` rows an intervention names, bool ``[t]``."""
    if one.position is None:
        return torch.ones(count, dtype=torch.bool)
    assert positions is not None  # the caller made sure
    return positions.cpu() == one.position


def steered(
    logits: Float[torch.Tensor, "t e"],
    router: Router,
    own: Own,
    interventions: Iterable[Intervention],
    positions: torch.Tensor | None = None,
) -> Routed:
    """What the router says once the interventions of this layer are made.

    Shapes: positions ``[t]``, needed where an intervention names one.
    """
    given = list(interventions)
    rows = {one: rows_of(one, positions, len(logits)).to(logits.device) for one in given}
    gone = torch.zeros_like(logits, dtype=torch.bool)
    quiet = gone.clone()
    for one in given:
        if one.action in ("ban", "silence"):
            (gone if one.action == "ban" else quiet)[rows[one], one.expert] = True
    left = logits.masked_fill(gone, float("-inf"))  # what is banned was never there to be silenced
    routed = router.route(left.masked_fill(quiet, float("-inf")), own)
    weights, indices = routed.weights.clone(), routed.indices
    # fewer experts left than places: a banned one of weight 0 would still be computed
    indices = torch.where(weights == 0, indices[:, :1], indices)
    if not router.sums_to_one(own) and bool(quiet.any()):
        # dividing by the mass that is left is what the softmax over the others did: taken back
        weights *= 1 - (law(left) * quiet).sum(-1, keepdim=True)
    for one in given:
        if one.action == "force":
            _force(weights, indices, rows[one], one.expert, _held(given, rows, one, indices))
    for one in given:
        if one.action == "weigh":
            chosen = (indices == one.expert) & rows[one][:, None]
            weights = torch.where(chosen, weights * one.factor, weights)
    return Routed(weights, indices)


def _held(given, rows, one: Intervention, indices: torch.Tensor) -> torch.Tensor:
    """Slots ``[t k]`` that hold another forced expert and must not be taken from it."""
    held = torch.zeros_like(indices, dtype=torch.bool)
    for other in given:
        if other.action == "force" and other.expert != one.expert:
            held |= (indices == other.expert) & rows[other][:, None]
    return held


def _force(
    weights: torch.Tensor,
    indices: torch.Tensor,
    rows: Bool[torch.Tensor, " t"],
    expert: int,
    held: torch.Tensor,
) -> None:
    """Put ``expert`` in the lightest free slot of the rows that do not have it, in place.

    Padding is no slot: its weight 0 would make the expert run for nothing.
    """
    padding = weights == 0
    missing = rows & ~((indices == expert) & ~padding).any(-1)
    lightest = weights.masked_fill(held | padding, float("inf")).argmin(-1)
    at = missing.nonzero().flatten()
    replaced = indices[at, lightest[at]]
    indices[at, lightest[at]] = expert
    # padding repeats the first choice: it must follow where that was replaced
    stale = padding[at] & (indices[at] == replaced[:, None])
    indices[at] = torch.where(stale, expert, indices[at])
