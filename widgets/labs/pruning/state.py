"""What a pruning lab knows between two changes: masks, strokes, sweeps, recoveries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

from widgets.labs.pruning.form import ACROSS
from workbench.bench.sparsity import Point
from workbench.core.masks import MaskSet
from workbench.core.pruning import Stats
from workbench.models.model import Model
from workbench.models.units import layers_of, matrices, parts_of, shapes_of
from workbench.training.perp import Recovery


class Stroke(NamedTuple):
    """One stroke of the brush: blocks ``(row, row end, column, column end)`` of a matrix."""

    name: str
    blocks: tuple[tuple[int, int, int, int], ...]
    keep: bool


class Retrained(NamedTuple):
    """What retraining gave, and the masks that it belongs to."""

    masks: MaskSet
    recovery: Recovery
    loss_before: float
    loss_after: float


@dataclass
class Sweeps:
    """Measured on demand; kept while the model is the same."""

    curves: dict[str, list[Point]] = field(default_factory=dict)
    dense: Point | None = None
    harm: list[Point] = field(default_factory=list)
    here: Point | None = None  # the present setting
    retrained: list[Retrained] = field(default_factory=list)


class Sheet(NamedTuple):
    """A matrix of the canvas: sizes, the norms of its inputs, and what its axes are."""

    title: str
    values: np.ndarray
    norms: np.ndarray | None
    labels: tuple[str, str]


def with_strokes(model: Model, masks: MaskSet, strokes: Sequence[Stroke]) -> MaskSet:
    """The mask after the hand went over it."""
    shapes = shapes_of(model)
    weights, parts = dict(masks.weights), dict(masks.parts)
    for stroke in strokes:
        if stroke.name in ACROSS:
            _across(stroke, parts, shapes)
            continue
        old = weights.get(stroke.name)
        mask = torch.ones(shapes[stroke.name], dtype=torch.bool) if old is None else old.clone()
        for top, bottom, left, right in stroke.blocks:
            mask[top:bottom, left:right] = stroke.keep
        weights[stroke.name] = mask
    note = ", ".join(filter(None, (masks.note, "painted by hand" if strokes else "")))
    return MaskSet(weights, parts, masks.fingerprint, note)


def _across(stroke: Stroke, parts: dict, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Rows are layers, columns their neurons or groups."""
    for top, bottom, left, right in stroke.blocks:
        for layer in range(top, bottom):
            name = "layers" if stroke.name == "layers" else f"{stroke.name}.{layer}"
            if name not in shapes:
                continue
            mask = parts.get(name)
            mask = torch.ones(shapes[name], dtype=torch.bool) if mask is None else mask.clone()
            if stroke.name == "layers":
                mask[layer] = stroke.keep
            else:
                mask[left:right] = stroke.keep
            parts[name] = mask


def sheet(model: Model, name: str, layer: int, stats: Mapping[str, Stats], first: Mapping) -> Sheet:
    """The matrix that the canvas shows.

    Args:
        name: role of a matrix, or a key of :data:`ACROSS`.
        first: original weights by name.
    """
    if name in ACROSS:
        return _parts_sheet(model, name, stats)
    found = matrix_name(model, name, layer)
    weight = first[found].detach().float().cpu().numpy()
    return Sheet(
        f"layer {layer} {name} · {weight.shape[0]} × {weight.shape[1]}",
        weight,
        stats[found].norms.cpu().numpy(),
        ("output", "input"),
    )


def _parts_sheet(model: Model, name: str, stats: Mapping[str, Stats]) -> Sheet:
    """How loud each neuron, group or layer is: rows are layers."""
    rows = []
    for one in parts_of(model):
        if name == "layers":
            rows.append(np.array([1 - stats[f"layers.{one.layer}"].cosine]))
        elif name == "neurons" and one.mlp:
            rows.append(stats[one.mlp["down"].name].norms.cpu().numpy())
        elif name == "groups" and one.attention:
            norms = stats[one.attention["o"].name].square.view(one.groups, -1).sum(1).sqrt()
            rows.append(norms.cpu().numpy())
    what = {"neurons": "neuron", "groups": "KV group", "layers": "layer"}[name]
    if not rows or len({len(row) for row in rows}) > 1:
        return Sheet(f"this family has no {what}s to cut", np.zeros((0, 0)), None, ("layer", what))
    title = {"layers": "1 − cosine of each layer"}.get(name, f"how loud each {what} is")
    return Sheet(title, np.stack(rows), None, ("layer", what))


def told(found: Sheet, kept: np.ndarray, rows: slice, columns: slice) -> tuple[str, str]:
    """What stands at a place of the canvas: where it is, and its size and fate."""
    values, share = found.values[rows, columns], kept[rows, columns].mean()
    spans = zip(found.labels, (rows, columns), strict=True)
    where = ", ".join(f"{label} {_span(part)}" for label, part in spans)
    size = f"{values.item():.3g}" if values.size == 1 else f"mean |w| {np.abs(values).mean():.3g}"
    heard = "" if found.norms is None else f", input ‖x‖ {np.mean(found.norms[columns]):.3g}"
    fate = {0.0: "pruned", 1.0: "kept"}.get(float(share), f"{share:.0%} kept")
    return where, f"{size}{heard}, {fate}"


def _span(part: slice) -> str:
    return f"{part.start}" if part.stop - part.start == 1 else f"{part.start}–{part.stop - 1}"


def kept_of(model: Model, masks: MaskSet, full: MaskSet, name: str, layer: int) -> np.ndarray:
    """The mask of that matrix; ``full`` has the parts written out."""
    if name not in ACROSS:
        found = matrix_name(model, name, layer)
        mask = full.weights.get(found)
        shape = shapes_of(model)[found]
        return np.ones(shape, bool) if mask is None else mask.numpy()
    shapes, count = shapes_of(model), len(layers_of(model))
    if name == "layers":
        flags = masks.parts.get("layers")
        return np.ones((count, 1), bool) if flags is None else flags.numpy()[:, None]
    rows = []
    for index in range(count):
        mask = masks.parts.get(f"{name}.{index}")
        size = shapes.get(f"{name}.{index}", (0,))
        rows.append(np.ones(size, bool) if mask is None else mask.numpy())
    return np.stack(rows)


def matrix_name(model: Model, role: str, layer: int) -> str:
    """Full name of a layer's matrix; the first one where the layer has none of this role."""
    own = [one.name for one in matrices(model).values() if one.layer == layer]
    return next((name for name in own if short(name) == role), own[0])


def short(name: str) -> str:
    """``down_proj`` or ``down_proj[3]``: a matrix without its layer."""
    return name.rsplit(".", 1)[-1]


def across_of(model: Model) -> tuple[str, ...]:
    """Keys of ACROSS that every layer of the model has."""
    every = parts_of(model)
    lacks = {
        "neurons": not all(p.mlp for p in every),
        "groups": not all(p.attention for p in every),
    }
    return tuple(name for name in ACROSS if not lacks.get(name, False))


def roles_of(model: Model) -> tuple[str, ...]:
    """The matrices of a layer, in the order of the network."""
    return tuple(dict.fromkeys(short(name) for name in matrices(model)))
