"""A criterion, a pattern and a ratio turned into masks: the loop that all pruners share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Int

from workbench.core.errors import BadInput
from workbench.core.masks import MaskSet, keep_mask, keep_masks, lowest, opened
from workbench.core.pruning import Plan, Pruner, Stats, Unit, check_pattern
from workbench.models.calibrate import Walk
from workbench.models.masking import Edit, apply_masks, check_weights
from workbench.models.model import Model
from workbench.models.units import parts_of, shapes_of, units_of

Progress = Callable[[float], None]


@dataclass(frozen=True, eq=False)
class Pruned:
    """The outcome; the network itself is as it was.

    Args:
        masks: what stays.
        weights: what was changed where it stays: matrices by name, other parameters likewise.
    """

    masks: MaskSet
    weights: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def apply(self, model: Model, edit: Edit | None = None) -> Edit:
        """Put it on the network; the edit takes it off again."""
        return apply_masks(model, self.masks, self.weights, edit)

    def to_bytes(self) -> bytes:
        """A safetensors file with the mask and what was changed where it stays."""
        return self.masks.to_bytes(self.weights)

    @staticmethod
    def from_bytes(data: bytes, name: str = "mask") -> Pruned:
        """Read what :meth:`to_bytes`, or that of a mask alone, wrote.

        Raises:
            BadInput: another kind of file, or a damaged one.
        """
        return Pruned(*opened(data, name))

    def check(self, model: Model) -> Pruned:
        """Itself, if it was made for this model.

        Raises:
            BadInput: a mask or a weight that the network does not have.
            Mismatch: made for another model.
        """
        self.masks.check(shapes_of(model), model.fingerprint)
        check_weights(model, self.weights)
        return self


def prune(
    model: Model,
    pruner: Pruner,
    plan: Plan,
    rows: Int[torch.Tensor, "b t"] | None = None,
    progress: Progress = lambda fraction: None,
) -> Pruned:
    """Decide what goes.

    Calibrated pruners hear each block behind the already pruned ones, unless they are one-shot or
    the pattern is global (what goes from the first block then depends on the last).

    Args:
        rows: calibration tokens, for pruners that hear something.
        progress: share of the layers done; whatever it raises leaves the network as it was.

    Raises:
        BadInput: no calibration rows where some are needed.
        Mismatch: a pattern that the pruner's units cannot follow.
        ModelError: a family without such units.
    """
    check_pattern(pruner, plan.pattern)
    if pruner.hears and (rows is None or not rows.numel()):
        raise BadInput(
            f"calibration text: {getattr(pruner, 'name', 'this pruner')} needs some; pass rows of"
            " a few thousand tokens"
        )
    units = units_of(model, pruner.acts_on)
    changes = hasattr(pruner, "prune")
    if not changes and (not pruner.hears or pruner.one_shot or plan.pattern.kind == "global"):
        made = Pruned(_decide(pruner, plan, units, _scores(model, pruner, units, rows, progress)))
    else:
        fixed = None
        if plan.pattern.kind == "global":
            half = lambda fraction: progress(fraction / 2)  # noqa: E731 - a shorter name
            scores = _scores(model, pruner, units, rows, half)
            fixed = _decide(pruner, plan, units, scores).weights
        made = _block_by_block(model, pruner, plan, units, rows, fixed, progress)
    note = f"{getattr(pruner, 'name', 'pruner')}, {plan.pattern}, ratio {plan.ratio:g}"
    masks = MaskSet(made.masks.weights, made.masks.parts, model.fingerprint, note)
    return Pruned(masks, made.weights)


def _scores(
    model: Model, pruner: Pruner, units: list[Unit], rows: Any, progress: Progress
) -> dict[str, tuple[torch.Tensor, Stats | None]]:
    """Scores from the dense network; a layer's statistics are dropped once they are used."""
    if not pruner.hears:
        return {unit.name: (pruner.score(unit, None), None) for unit in units}
    walk, judged = Walk(model, rows), _judged_by(model, pruner.acts_on)
    found: dict[str, tuple[torch.Tensor, Stats | None]] = {}
    for index in range(len(walk.layers)):
        stats, walk.hidden = walk.listen(index, pruner.hears == "gram")
        for unit in (u for u in units if u.layer == index):
            own = _joined(stats[judged.get(unit.name, unit.name)], stats[f"layers.{index}"])
            slim = Stats(own.tokens, own.square, None, own.turn, own.cosine)
            found[unit.name] = (pruner.score(unit, own), slim)
        progress((index + 1) / len(walk.layers))
    return found


def _judged_by(model: Model, acts_on: str) -> dict[str, str]:
    """Unit of parts -> the matrix whose inputs it is judged by."""
    if acts_on not in ("neurons", "groups"):
        return {}
    pick = {"neurons": ("mlp", "down"), "groups": ("attention", "o")}[acts_on]
    return {f"{acts_on}.{p.layer}": getattr(p, pick[0])[pick[1]].name for p in parts_of(model)}


def _joined(own: Stats, block: Stats) -> Stats:
    return Stats(own.tokens, own.square, own.gram, block.turn, block.cosine)


def _decide(pruner: Pruner, plan: Plan, units: list[Unit], heard: dict) -> MaskSet:
    """Masks from scores that are all known."""
    scores = {unit.name: heard[unit.name][0].cpu() for unit in units}
    allocate = getattr(pruner, "allocate", None)
    if pruner.acts_on == "layers":
        kept = _whole_layers(plan, units, torch.cat(list(scores.values())))
        return MaskSet(parts={"layers": kept})
    if allocate is not None and plan.pattern.kind == "layer":
        free = [unit for unit in units if unit.layer not in plan.layers]
        counts = allocate(free, [heard[unit.name][1] for unit in free], plan.ratio)
        given = {u.name: n for u, n in zip(free, counts, strict=True)}
        made = {
            unit.name: ~lowest(scores[unit.name], given[unit.name])
            if unit.name in given
            else keep_mask(scores[unit.name], plan.pattern, plan.of(unit))
            for unit in units
        }
    else:
        made = keep_masks(scores, plan.pattern, {unit.name: plan.of(unit) for unit in units})
    return MaskSet(made) if pruner.acts_on == "weights" else MaskSet(parts=made)


def _whole_layers(plan: Plan, units: list[Unit], scores: torch.Tensor) -> torch.Tensor:
    """Layers that stay; a layer's own ratio of 0 protects it, any other one lets it compete."""
    safe = torch.tensor([plan.layers.get(unit.layer) == 0 for unit in units])
    order = scores.double().masked_fill(safe, float(scores.abs().max()) + 1)
    kept = keep_mask(order, plan.pattern, plan.ratio)
    return kept | safe


def _block_by_block(
    model: Model,
    pruner: Any,
    plan: Plan,
    units: list[Unit],
    rows: Any,
    fixed: Mapping[str, torch.Tensor] | None,
    progress: Progress,
) -> Pruned:
    walk = Walk(model, rows)
    masks: dict[str, torch.Tensor] = {}
    weights: dict[str, torch.Tensor] = {}
    with Edit() as edit:
        for index in range(len(walk.layers)):
            stats, _ = walk.listen(index, pruner.hears == "gram")
            for unit in (u for u in units if u.layer == index):
                ratio, own = plan.of(unit), stats[unit.name]
                known = None if fixed is None else fixed[unit.name]
                if ratio == 0:
                    mask, weight = torch.ones(unit.shape, dtype=torch.bool), None
                elif hasattr(pruner, "prune"):
                    mask, weight = pruner.prune(unit, own, plan.pattern, ratio, known)
                else:
                    mask, weight = keep_mask(pruner.score(unit, own), plan.pattern, ratio), None
                masks[unit.name] = mask.cpu()
                if weight is not None:
                    weights[unit.name] = weight
                kept = unit.weight if weight is None else weight
                edit.put(unit.weight, torch.where(mask.to(kept.device), kept, 0))
            walk.hidden = walk.output(index)
            progress((index + 1) / len(walk.layers))
    return Pruned(MaskSet(masks), weights)
